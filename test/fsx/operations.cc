// What each operation does to the file and to its model.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "test/fsx/file.h"
#include "test/fsx/tester.h"

namespace fsx {
namespace {

constexpr std::size_t kPage = 4096;

std::array<iovec, 3> three_parts(Bytes buffer) {
  const std::size_t a = buffer.size() / 5;
  const std::size_t b = buffer.size() / 2;
  return {{{buffer.data(), a}, {buffer.data() + a, b - a}, {buffer.data() + b, buffer.size() - b}}};
}

/// A mapping of some pages of a file for a moment.
class ShortMapping {
 public:
  ShortMapping(int fd, std::size_t offset, std::size_t length, int protection, int flags)
      : skip_(offset % kPage),
        length_(length + skip_),
        address_(::mmap(nullptr, length_, protection, flags, fd, static_cast<off_t>(offset - skip_))) {}
  ~ShortMapping() {
    if (valid()) ::munmap(address_, length_);
  }
  ShortMapping(const ShortMapping&) = delete;
  ShortMapping& operator=(const ShortMapping&) = delete;
  [[nodiscard]] bool valid() const { return address_ != MAP_FAILED; }
  [[nodiscard]] std::uint8_t* data() const { return static_cast<std::uint8_t*>(address_) + skip_; }

 private:
  std::size_t skip_;
  std::size_t length_;
  void* address_;
};

}  // namespace

void Tester::do_read(Operation& operation) {
  File& file = *files_[operation.file];
  const Bytes buffer = buffer_.first(operation.length);
  std::memset(buffer.data(), 0xee, buffer.size());
  const off_t offset = static_cast<off_t>(operation.offset);
  ssize_t got = 0;
  if (operation.kind == Kind::kReadVector) {
    const auto parts = three_parts(buffer);
    got = ::preadv(file.append, parts.data(), static_cast<int>(parts.size()), offset);
  } else {
    const int fd = operation.kind == Kind::kDirectRead ? file.direct : file.plain;
    got = ::pread(fd, buffer.data(), buffer.size(), offset);
  }
  if (got < 0) fail_errno(file, "read");
  const std::size_t size = file.model.size_bytes();
  const std::size_t expected =
      operation.offset >= size ? 0 : std::min<std::size_t>(operation.length, size - operation.offset);
  if (static_cast<std::size_t>(got) != expected) {
    fail(file, "read returned " + std::to_string(got) + " bytes, expected " + std::to_string(expected));
  }
  compare(file, operation.offset, buffer.first(expected), kKindNames[static_cast<std::size_t>(operation.kind)]);
}

void Tester::do_write(Operation& operation) {
  File& file = *files_[operation.file];
  const Bytes buffer = buffer_.first(operation.length);
  fill_pattern(buffer, operation.number, operation.offset);
  const off_t offset = static_cast<off_t>(operation.offset);
  ssize_t done = 0;
  if (operation.kind == Kind::kAppend) {
    done = ::write(file.append, buffer.data(), buffer.size());
  } else if (operation.kind == Kind::kWriteVector) {
    const auto parts = three_parts(buffer);
    done = ::pwritev(file.plain, parts.data(), static_cast<int>(parts.size()), offset);
  } else {
    const int fd = operation.kind == Kind::kDirectWrite ? file.direct : file.plain;
    done = ::pwrite(fd, buffer.data(), buffer.size(), offset);
  }
  if (done < 0) fail_errno(file, "write");
  if (static_cast<std::size_t>(done) != buffer.size()) fail(file, "short write of " + std::to_string(done));
  file.model.write(operation.offset, buffer, operation.number);
}

void Tester::do_mapping(Operation& operation) {
  File& file = *files_[operation.file];
  const std::size_t size = file.model.size_bytes();
  if (operation.kind == Kind::kPolluteEof) {
    // The rest of the last page belongs to nobody; whatever is stored there must never become part
    // of the file.
    if (size % kPage == 0) return;
    std::memset(file.mapping + size, 0xdd, kPage - size % kPage);
    return;
  }
  if (operation.length == 0) return;
  std::uint8_t* const kept = file.mapping + operation.offset;
  switch (operation.kind) {
    case Kind::kMapRead:
      if (chance(2)) {
        compare(file, operation.offset, {kept, operation.length}, "mapped read");
      } else {
        const ShortMapping mapping(file.plain, operation.offset, operation.length, PROT_READ, MAP_SHARED);
        if (!mapping.valid()) fail_errno(file, "mmap");
        compare(file, operation.offset, {mapping.data(), operation.length}, "mapped read, new mapping");
      }
      return;
    case Kind::kMapPrivateRead: {
      const ShortMapping mapping(file.plain, operation.offset, operation.length, PROT_READ | PROT_WRITE, MAP_PRIVATE);
      if (!mapping.valid()) fail_errno(file, "mmap MAP_PRIVATE");
      compare(file, operation.offset, {mapping.data(), operation.length}, "private mapped read");
      std::memset(mapping.data(), 0xcc, operation.length);  // must not reach the file
      return;
    }
    case Kind::kMapWrite: {
      const Bytes buffer = buffer_.first(operation.length);
      fill_pattern(buffer, operation.number, operation.offset);
      if (chance(2)) {
        std::memcpy(kept, buffer.data(), buffer.size());
      } else {
        const ShortMapping mapping(file.plain, operation.offset, operation.length, PROT_READ | PROT_WRITE, MAP_SHARED);
        if (!mapping.valid()) fail_errno(file, "mmap");
        std::memcpy(mapping.data(), buffer.data(), buffer.size());
      }
      file.model.write(operation.offset, buffer, operation.number);
      return;
    }
    case Kind::kMsync: {
      const std::size_t start = operation.offset - operation.offset % kPage;
      const std::size_t length = operation.offset + operation.length - start;
      if (::msync(file.mapping + start, length, chance(4) ? MS_ASYNC : MS_SYNC) != 0) fail_errno(file, "msync");
      return;
    }
    default:
      return;
  }
}

void Tester::do_size(Operation& operation) {
  File& file = *files_[operation.file];
  if (operation.kind == Kind::kOpenTruncate) {
    const int fd = ::open(file.path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0) fail_errno(file, "open O_TRUNC");
    ::close(fd);
  } else if (chance(2)) {
    if (::ftruncate(file.plain, static_cast<off_t>(operation.offset)) != 0) fail_errno(file, "ftruncate");
  } else {
    if (::truncate(file.path.c_str(), static_cast<off_t>(operation.offset)) != 0) fail_errno(file, "truncate");
  }
  file.model.resize(operation.offset, operation.number);
}

void Tester::do_allocate(Operation& operation) {
  File& file = *files_[operation.file];
  if (operation.length == 0) return;
  int mode = 0;
  if (operation.kind == Kind::kAllocateKeep || operation.kind == Kind::kZeroRangeKeep) mode |= FALLOC_FL_KEEP_SIZE;
  if (operation.kind == Kind::kPunch) mode |= FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  if (operation.kind == Kind::kZeroRange || operation.kind == Kind::kZeroRangeKeep) mode |= FALLOC_FL_ZERO_RANGE;
  if (::fallocate(file.plain, mode, static_cast<off_t>(operation.offset), static_cast<off_t>(operation.length)) != 0) {
    fail_errno(file, "fallocate");
  }
  if (operation.kind != Kind::kAllocate && operation.kind != Kind::kAllocateKeep) {
    file.model.zero(operation.offset, operation.length, operation.number);
  }
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0) file.model.grow_to(operation.offset + operation.length);
}

void Tester::do_copy(Operation& operation) {
  File& file = *files_[operation.file];
  File& source = *files_[operation.source];
  std::size_t done = 0;
  while (done < operation.length) {
    off_t from = static_cast<off_t>(operation.source_offset + done);
    off_t to = static_cast<off_t>(operation.offset + done);
    const ssize_t copied = ::copy_file_range(source.plain, &from, file.plain, &to, operation.length - done, 0);
    if (copied < 0) fail_errno(file, "copy_file_range");
    if (copied == 0) fail(file, "copy_file_range copied nothing before the end of its source");
    done += static_cast<std::size_t>(copied);
  }
  if (done == 0) return;
  const ConstBytes data = source.model.range(operation.source_offset, done);
  const std::vector<std::uint8_t> copy(data.begin(), data.end());
  file.model.write(operation.offset, copy, operation.number);
}

// Holes must read as zeros; data and holes alternate and end at the end of the file.
void Tester::do_seek(Operation& operation) {
  File& file = *files_[operation.file];
  const std::size_t size = file.model.size_bytes();
  const auto all_zero = [&](std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      if (file.model.content()[i] != 0) {
        fail(file, "a hole is reported from " + std::to_string(begin) + " to " + std::to_string(end) +
                       ", but there is data at " + std::to_string(i) + " (operation " +
                       std::to_string(file.model.writer(i)) + ")");
      }
    }
  };
  // FUSE asks the daemon without writing back mappings first: what was stored there and not yet synced may look like a
  // hole.
  if (file.mapping != nullptr && ::msync(file.mapping, options_.file_size_bytes, MS_SYNC) != 0)
    fail_errno(file, "msync");
  std::size_t at = operation.offset;
  while (at < size) {
    const off_t data = ::lseek(file.plain, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0) {
      if (errno != ENXIO) fail_errno(file, "lseek SEEK_DATA");
      all_zero(at, size);
      return;
    }
    const std::size_t data_at = static_cast<std::size_t>(data);
    if (data_at < at || data_at >= size)
      fail(file, "SEEK_DATA from " + std::to_string(at) + " gave " + std::to_string(data));
    all_zero(at, data_at);
    const off_t hole = ::lseek(file.plain, data, SEEK_HOLE);
    if (hole < 0) fail_errno(file, "lseek SEEK_HOLE");
    const std::size_t hole_at = static_cast<std::size_t>(hole);
    if (hole_at <= data_at || hole_at > size) {
      fail(file, "SEEK_HOLE from " + std::to_string(data) + " gave " + std::to_string(hole));
    }
    at = hole_at;
  }
  for (const int whence : {SEEK_DATA, SEEK_HOLE}) {
    if (::lseek(file.plain, static_cast<off_t>(size), whence) != -1 || errno != ENXIO) {
      fail(file, "lseek SEEK_DATA or SEEK_HOLE at the end of the file is not ENXIO");
    }
  }
}

void Tester::do_sync(Operation& operation) {
  File& file = *files_[operation.file];
  if (operation.kind == Kind::kFsync) {
    if (::fsync(chance(2) ? file.plain : file.append) != 0) fail_errno(file, "fsync");
  } else if (operation.kind == Kind::kFdatasync) {
    if (::fdatasync(file.plain) != 0) fail_errno(file, "fdatasync");
  } else {
    close_file(file);
    open_file(file);
    check_all(file, "after close and open");
  }
}

}  // namespace fsx
