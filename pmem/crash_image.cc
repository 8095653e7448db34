#include "pmem/crash_image.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>
#include <utility>

#include "pmem/mutex.h"

namespace plumb::pmem {

namespace {

void require(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::abort();
}

std::byte* map_zeros(std::uint64_t size_bytes) {
  void* address = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(address != MAP_FAILED, "mmap");
  return static_cast<std::byte*>(address);
}

std::uint64_t word_hash(std::uint64_t offset_bytes, std::uint64_t value) {
  std::uint64_t hash = (offset_bytes + 1) * 0x9E3779B97F4A7C15U ^ value;
  hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93U;
  hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93U;
  return hash ^ hash >> 32;
}

}  // namespace

// Each word counts by exclusive or, so that it can be taken out again.
std::uint64_t content_hash_change(std::uint64_t offset_bytes, std::span<const std::byte> before,
                                  std::span<const std::byte> after) {
  std::uint64_t change = 0;
  for (std::size_t i = 0; i < after.size(); i += sizeof(std::uint64_t)) {
    std::uint64_t now = 0;
    std::uint64_t old = 0;
    std::memcpy(&now, after.data() + i, sizeof now);
    std::memcpy(&old, before.data() + i, sizeof old);
    if (now != old) change ^= word_hash(offset_bytes + i, now) ^ word_hash(offset_bytes + i, old);
  }
  return change;
}

ImageBase::ImageBase(std::uint64_t size_bytes)
    : data_(map_zeros(size_bytes)), size_bytes_(size_bytes), page_numbers_(size_bytes / kPageBytes) {}

ImageBase::~ImageBase() {
  munmap(data_, size_bytes_);
}

std::shared_ptr<ImageBase> ImageBase::clone() const {
  auto copy = std::make_shared<ImageBase>(size_bytes_);
  copy->page_numbers_ = page_numbers_;
  for (std::size_t page = 0; page < page_numbers_.size(); ++page)
    if (page_numbers_[page] != 0) std::memcpy(copy->data_ + page * kPageBytes, data_ + page * kPageBytes, kPageBytes);
  return copy;
}

void ImageBase::write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  static std::atomic<std::uint64_t> next{1};
  std::memcpy(data_ + offset_bytes, bytes.data(), bytes.size());
  for (std::uint64_t page = offset_bytes / kPageBytes; page * kPageBytes < offset_bytes + bytes.size(); ++page)
    page_numbers_[page] = next.fetch_add(1, std::memory_order_relaxed);
}

void PatchList::add(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const bool continues =
      !patches_.empty() && patches_.back().offset_bytes + patches_.back().length_bytes == offset_bytes;
  if (continues) {
    patches_.back().length_bytes += bytes.size();
  } else {
    patches_.push_back({offset_bytes, bytes.size(), bytes_.size()});
  }
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

void PatchList::apply_to(std::uint64_t offset_bytes, std::span<std::byte> out) const {
  const std::uint64_t end_bytes = offset_bytes + out.size();
  for (const Patch& patch : patches_) {
    const std::uint64_t from = std::max(patch.offset_bytes, offset_bytes);
    const std::uint64_t to = std::min(patch.offset_bytes + patch.length_bytes, end_bytes);
    if (from >= to) continue;
    std::memcpy(out.data() + (from - offset_bytes), bytes_.data() + patch.position + (from - patch.offset_bytes),
                to - from);
  }
}

std::size_t PatchList::hash() const {
  const std::hash<std::string_view> hash_bytes;
  std::size_t result = hash_bytes({reinterpret_cast<const char*>(bytes_.data()), bytes_.size()});
  for (const Patch& patch : patches_) {
    result = result * 0x9E3779B97F4A7C15U + patch.offset_bytes;
    result = result * 0x9E3779B97F4A7C15U + patch.length_bytes;
  }
  return result;
}

CrashImage::CrashImage(std::shared_ptr<const ImageBase> base, std::shared_ptr<const PatchList> common, PatchList own,
                       std::string description, std::uint64_t content_hash)
    : base_(std::move(base)),
      common_(std::move(common)),
      own_(std::move(own)),
      description_(std::move(description)),
      content_hash_(content_hash) {}

CrashImage::CrashImage(std::span<const std::byte> bytes) : description_("given bytes") {
  auto base = std::make_shared<ImageBase>(bytes.size());
  base->write(0, bytes);
  base_ = std::move(base);
}

void CrashImage::apply_patches(std::uint64_t offset_bytes, std::span<std::byte> out) const {
  if (common_ != nullptr) common_->apply_to(offset_bytes, out);
  own_.apply_to(offset_bytes, out);
}

std::vector<std::byte> CrashImage::read(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  const std::byte* source = base_->data() + offset_bytes;
  std::vector<std::byte> bytes(source, source + length_bytes);
  apply_patches(offset_bytes, bytes);
  return bytes;
}

std::uint64_t CrashImage::read_u64(std::uint64_t offset_bytes) const {
  const std::vector<std::byte> bytes = read(offset_bytes, sizeof(std::uint64_t));
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

Status CrashImage::write_file(const std::string& path) const {
  const std::vector<std::byte> bytes = read(0, size_bytes());
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return fail(errno, path);
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  const int error = errno;
  if (std::fclose(file) != 0 || !written) return fail(written ? errno : error, path);
  return {};
}

// --- copies -------------------------------------------------------------------------------------

// Where page_numbers of a base has a number, the page holds what it stands for.
struct ImageCopy::Memory {
  static constexpr std::uint64_t kUnknown = ~std::uint64_t{0};

  explicit Memory(std::uint64_t size)
      : data(map_zeros(size)), size_bytes(size), page_numbers(size / ImageBase::kPageBytes) {
    static_cast<void>(madvise(data, size, MADV_HUGEPAGE));  // without it, only slower
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { munmap(data, size_bytes); }

  void become(const ImageBase& base) {
    constexpr std::uint64_t kPage = ImageBase::kPageBytes;
    const std::span<const std::uint64_t> wanted = base.page_numbers();
    for (std::size_t page = 0; page < wanted.size(); ++page) {
      if (page_numbers[page] == wanted[page]) continue;
      page_numbers[page] = wanted[page];
      if (wanted[page] == 0)
        std::memset(data + page * kPage, 0, kPage);
      else
        std::memcpy(data + page * kPage, base.data() + page * kPage, kPage);
    }
  }

  void note_change(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    for (std::uint64_t page = offset_bytes / ImageBase::kPageBytes;
         page * ImageBase::kPageBytes < offset_bytes + length_bytes; ++page)
      page_numbers[page] = kUnknown;
  }

  std::byte* data;
  std::uint64_t size_bytes;
  std::vector<std::uint64_t> page_numbers;
};

// What was used last comes first: most of it is right already.
class MemoryPool {
 public:
  static MemoryPool& instance() {
    static MemoryPool pool;
    return pool;
  }
  std::unique_ptr<ImageCopy::Memory> take(std::uint64_t size_bytes) {
    {
      MutexLock lock(mutex_);
      for (auto it = free_.rbegin(); it != free_.rend(); ++it) {
        if ((*it)->size_bytes != size_bytes) continue;
        std::unique_ptr<ImageCopy::Memory> memory = std::move(*it);
        free_.erase(std::next(it).base());
        return memory;
      }
    }
    return std::make_unique<ImageCopy::Memory>(size_bytes);
  }
  void give_back(std::unique_ptr<ImageCopy::Memory> memory) {
    MutexLock lock(mutex_);
    free_.push_back(std::move(memory));
    if (free_.size() > kMost) free_.erase(free_.begin());
  }

 private:
  static constexpr std::size_t kMost = 8;

  Mutex mutex_;
  std::vector<std::unique_ptr<ImageCopy::Memory>> free_ PLUMB_GUARDED_BY(mutex_);
};

ImageCopy::ImageCopy(const CrashImage& image) : memory_(MemoryPool::instance().take(image.size_bytes())) {
  memory_->become(*image.base());
  image.for_each_patch([this](std::uint64_t offset, std::span<const std::byte> bytes) {
    std::memcpy(memory_->data + offset, bytes.data(), bytes.size());
    memory_->note_change(offset, bytes.size());
  });
}

ImageCopy::~ImageCopy() {
  if (is_reusable_) MemoryPool::instance().give_back(std::move(memory_));
}

std::byte* ImageCopy::data() const {
  return memory_->data;
}

void ImageCopy::note_change(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  memory_->note_change(offset_bytes, length_bytes);
}

}  // namespace plumb::pmem
