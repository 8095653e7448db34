#include "pmem/crash_image.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>
#include <utility>

namespace plumb::pmem {

namespace {

void require(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::abort();
}

}  // namespace

ImageBase::ImageBase(std::uint64_t size_bytes) : size_bytes_(size_bytes) {
  fd_ = memfd_create("plumb-crash-image", MFD_CLOEXEC);
  require(fd_ >= 0, "memfd_create");
  require(ftruncate(fd_, static_cast<off_t>(size_bytes)) == 0, "ftruncate");
  void* address = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
  require(address != MAP_FAILED, "mmap");
  data_ = static_cast<std::byte*>(address);
}

ImageBase::~ImageBase() {
  munmap(data_, size_bytes_);
  close(fd_);
}

std::shared_ptr<ImageBase> ImageBase::clone() const {
  auto copy = std::make_shared<ImageBase>(size_bytes_);
  off_t at = 0;
  while ((at = lseek(fd_, at, SEEK_DATA)) >= 0) {
    const off_t end = lseek(fd_, at, SEEK_HOLE);
    require(end > at, "lseek");
    std::memcpy(copy->data_ + at, data_ + at, static_cast<std::size_t>(end - at));
    at = end;
  }
  return copy;
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

void PatchList::apply_to(std::byte* image) const {
  for (const Patch& patch : patches_) {
    std::memcpy(image + patch.offset_bytes, bytes_.data() + patch.position, patch.length_bytes);
  }
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
  std::copy(bytes.begin(), bytes.end(), base->data());
  base_ = std::move(base);
}

bool CrashImage::has_patches() const {
  return !own_.empty() || (common_ != nullptr && !common_->empty());
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

std::byte* CrashImage::map_copy() const {
  void* address = mmap(nullptr, size_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE, base_->fd(), 0);
  require(address != MAP_FAILED, "mmap");
  auto* image = static_cast<std::byte*>(address);
  if (common_ != nullptr) common_->apply_to(image);
  own_.apply_to(image);
  return image;
}

}  // namespace plumb::pmem
