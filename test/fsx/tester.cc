#include "test/fsx/tester.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "test/fsx/file.h"

namespace fsx {
namespace {

constexpr std::size_t kPage = 4096;

struct Weight {
  Kind kind;
  unsigned weight;
};
constexpr std::array<Weight, kKinds> kWeights = {{
    {Kind::kRead, 10},          {Kind::kReadVector, 4},   {Kind::kDirectRead, 4},    {Kind::kWrite, 14},
    {Kind::kWriteVector, 4},    {Kind::kDirectWrite, 5},  {Kind::kAppend, 3},        {Kind::kMapRead, 8},
    {Kind::kMapPrivateRead, 2}, {Kind::kMapWrite, 8},     {Kind::kMsync, 2},         {Kind::kTruncateDown, 3},
    {Kind::kTruncateUp, 3},     {Kind::kOpenTruncate, 1}, {Kind::kAllocate, 3},      {Kind::kAllocateKeep, 2},
    {Kind::kPunch, 4},          {Kind::kZeroRange, 3},    {Kind::kZeroRangeKeep, 2}, {Kind::kCopyRange, 5},
    {Kind::kSeek, 2},           {Kind::kFsync, 1},        {Kind::kFdatasync, 1},     {Kind::kReopen, 1},
    {Kind::kPolluteEof, 3},
}};

}  // namespace

Tester::Tester(const Options& options, unsigned job)
    : options_(options),
      job_(job),
      random_(options.seed + job),
      buffer_{{static_cast<std::uint8_t*>(std::aligned_alloc(kPage, options.file_size_bytes)), std::free},
              options.file_size_bytes} {
  for (std::uint8_t i = 0; i < files_.size(); ++i) {
    const std::string path = options_.directory + "/fsx." + std::to_string(job) + "." + static_cast<char>('a' + i);
    files_[i] = std::make_unique<File>(path, i, options_.file_size_bytes);
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) fail_errno(*files_[i], "open O_CREAT");
    ::close(fd);
  }
  find_features();
  for (const auto& file : files_) open_file(*file);
}

Tester::~Tester() {
  for (const auto& file : files_) {
    if (!file) continue;
    close_file(*file);
    if (options_.save_directory.empty()) ::unlink(file->path.c_str());
  }
}

void Tester::find_features() {
  enabled_.fill(true);
  const auto without = [this](Kind kind, const char* why) {
    enabled_[static_cast<std::size_t>(kind)] = false;
    left_out_ += std::string(left_out_.empty() ? "" : ", ") + kKindNames[static_cast<std::size_t>(kind)];
    if (why != nullptr) left_out_ += std::string(" (") + why + ")";
  };
  File& file = *files_[0];
  const int fd = ::open(file.path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) fail_errno(file, "open");
  const auto try_allocate = [&](Kind kind, int mode) {
    if (::fallocate(fd, mode, 0, kPage) != 0) {
      if (errno != EOPNOTSUPP) fail_errno(file, "fallocate");
      without(kind, std::strerror(EOPNOTSUPP));
    }
  };
  try_allocate(Kind::kAllocate, 0);
  try_allocate(Kind::kAllocateKeep, FALLOC_FL_KEEP_SIZE);
  try_allocate(Kind::kPunch, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  try_allocate(Kind::kZeroRange, FALLOC_FL_ZERO_RANGE);
  try_allocate(Kind::kZeroRangeKeep, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE);
  if (::ftruncate(fd, 0) != 0) fail_errno(file, "ftruncate");
  ::close(fd);

  if (options_.use_direct) {
    const int direct = ::open(file.path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    if (direct >= 0) {
      ::close(direct);
    } else if (errno == EINVAL) {
      options_.use_direct = false;
      without(Kind::kDirectRead, "no O_DIRECT here");
      without(Kind::kDirectWrite, nullptr);
    } else {
      fail_errno(file, "open O_DIRECT");
    }
  } else {
    enabled_[static_cast<std::size_t>(Kind::kDirectRead)] = false;
    enabled_[static_cast<std::size_t>(Kind::kDirectWrite)] = false;
  }
  if (!options_.use_mmap) {
    for (const Kind kind : {Kind::kMapRead, Kind::kMapPrivateRead, Kind::kMapWrite, Kind::kMsync}) {
      enabled_[static_cast<std::size_t>(kind)] = false;
    }
  }
  if (!options_.use_mmap || !options_.pollute_eof) enabled_[static_cast<std::size_t>(Kind::kPolluteEof)] = false;
  for (const Weight& entry : kWeights) {
    if (enabled_[static_cast<std::size_t>(entry.kind)]) menu_.insert(menu_.end(), entry.weight, entry.kind);
  }
}

void Tester::open_file(File& file) {
  file.plain = ::open(file.path.c_str(), O_RDWR | O_CLOEXEC);
  if (file.plain < 0) fail_errno(file, "open");
  file.append = ::open(file.path.c_str(), O_RDWR | O_APPEND | O_CLOEXEC);
  if (file.append < 0) fail_errno(file, "open O_APPEND");
  if (options_.use_direct) {
    file.direct = ::open(file.path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    if (file.direct < 0) fail_errno(file, "open O_DIRECT");
  }
  if (options_.use_mmap) {
    void* mapping = ::mmap(nullptr, options_.file_size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.plain, 0);
    if (mapping == MAP_FAILED) fail_errno(file, "mmap MAP_SHARED");
    file.mapping = static_cast<std::uint8_t*>(mapping);
  }
}

void Tester::close_file(File& file) {
  if (file.mapping != nullptr) ::munmap(file.mapping, options_.file_size_bytes);
  file.mapping = nullptr;
  for (int* fd : {&file.plain, &file.append, &file.direct}) {
    if (*fd >= 0) ::close(*fd);
    *fd = -1;
  }
}

std::size_t Tester::choose_length(std::size_t limit) {
  if (limit == 0) return 0;
  std::size_t bound = 0;
  switch (below(8)) {
    case 0:
      bound = 16;
      break;
    case 1:
      bound = 600;
      break;
    case 2:
    case 3:
      bound = 2 * kPage;
      break;
    case 4:
    case 5:
      bound = 8 * kPage;
      break;
    case 6:
      bound = 32 * kPage;
      break;
    default:
      bound = 64 * kPage;
      break;
  }
  return 1 + below(std::min({bound, limit, options_.file_size_bytes / 2}));
}

// A range within [0, limit), often with round ends.
void Tester::choose_range(Operation& operation, std::size_t limit, std::size_t alignment) {
  std::size_t offset = below(limit);
  if (chance(3)) offset -= offset % (chance(2) ? kPage : 1024);
  offset -= offset % alignment;
  std::size_t length = choose_length(limit - offset);
  if (chance(4) && length > kPage) length -= length % kPage;
  if (length < alignment && limit - offset >= alignment) length = alignment;
  length -= length % alignment;
  operation.offset = offset;
  operation.length = length;
}

Operation Tester::choose() {
  Operation operation;
  operation.number = ++number_;
  operation.kind = menu_[below(menu_.size())];
  operation.file = static_cast<std::uint8_t>(below(files_.size()));
  const std::size_t size = files_[operation.file]->model.size_bytes();
  const std::size_t capacity = options_.file_size_bytes;
  switch (operation.kind) {
    case Kind::kRead:
    case Kind::kReadVector:
      choose_range(operation, capacity, 1);
      break;
    case Kind::kDirectRead:
    case Kind::kDirectWrite:
      choose_range(operation, capacity, options_.direct_alignment_bytes);
      break;
    case Kind::kMapRead:
    case Kind::kMapPrivateRead:
    case Kind::kMapWrite:
    case Kind::kMsync:
      if (size != 0) choose_range(operation, size, 1);
      break;
    case Kind::kAppend:
      operation.offset = size;
      operation.length = choose_length(capacity - size);
      break;
    case Kind::kTruncateDown:
      operation.offset = below(size + 1);
      break;
    case Kind::kTruncateUp:
      operation.offset = size + below(capacity - size + 1);
      break;
    case Kind::kCopyRange: {
      operation.source = static_cast<std::uint8_t>(below(files_.size()));
      choose_range(operation, capacity, 1);
      const std::size_t source_size = files_[operation.source]->model.size_bytes();
      operation.source_offset = below(source_size + 1);
      if (chance(4)) operation.source_offset -= operation.source_offset % kPage;
      operation.length = std::min<std::uint64_t>(operation.length, source_size - operation.source_offset);
      if (operation.source == operation.file) {  // overlap is EINVAL by the man page
        const std::uint64_t from = operation.source_offset;
        if (from < operation.offset + operation.length && operation.offset < from + operation.length) {
          operation.length = from > operation.offset ? from - operation.offset : operation.offset - from;
        }
      }
      break;
    }
    case Kind::kSeek:
      operation.offset = below(size + 1);
      break;
    case Kind::kFsync:
    case Kind::kFdatasync:
    case Kind::kReopen:
    case Kind::kOpenTruncate:
    case Kind::kPolluteEof:
    case Kind::kCount:
      break;
    default:
      choose_range(operation, capacity, 1);
      break;
  }
  operation.size_before = operation.size_after = size;
  return operation;
}

void Tester::execute(Operation& operation) {
  switch (operation.kind) {
    case Kind::kRead:
    case Kind::kReadVector:
    case Kind::kDirectRead:
      return do_read(operation);
    case Kind::kWrite:
    case Kind::kWriteVector:
    case Kind::kDirectWrite:
    case Kind::kAppend:
      return do_write(operation);
    case Kind::kMapRead:
    case Kind::kMapPrivateRead:
    case Kind::kMapWrite:
    case Kind::kMsync:
    case Kind::kPolluteEof:
      return do_mapping(operation);
    case Kind::kTruncateDown:
    case Kind::kTruncateUp:
    case Kind::kOpenTruncate:
      return do_size(operation);
    case Kind::kAllocate:
    case Kind::kAllocateKeep:
    case Kind::kPunch:
    case Kind::kZeroRange:
    case Kind::kZeroRangeKeep:
      return do_allocate(operation);
    case Kind::kCopyRange:
      return do_copy(operation);
    case Kind::kSeek:
      return do_seek(operation);
    case Kind::kFsync:
    case Kind::kFdatasync:
    case Kind::kReopen:
      return do_sync(operation);
    case Kind::kCount:
      break;
  }
}

void Tester::run() {
  for (std::uint64_t i = 0; i < options_.operations; ++i) {
    Operation operation = choose();
    log_.add(operation);
    if (options_.verbose) std::printf("%u: %s\n", job_, operation.text().c_str());
    execute(operation);
    File& file = *files_[operation.file];
    log_.last().size_after = file.model.size_bytes();
    ++counts_[static_cast<std::size_t>(operation.kind)];
    check_size(file, chance(16));
    if (chance(512)) check_all(file, "full check");
  }
  for (const auto& file : files_) {
    check_all(*file, "last check");
    close_file(*file);
    open_file(*file);
    check_all(*file, "after the last close and open");
    if (!options_.save_directory.empty()) {
      const std::string path = options_.save_directory + file->path.substr(file->path.rfind('/'));
      FILE* out = std::fopen(path.c_str(), "wb");
      const ConstBytes content = file->model.content();
      if (out == nullptr || std::fwrite(content.data(), 1, content.size(), out) != content.size() ||
          std::fclose(out) != 0) {
        fail_errno(*file, "saving the expected content");
      }
    }
  }
}

}  // namespace fsx
