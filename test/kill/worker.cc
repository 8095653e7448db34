#include "test/kill/worker.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace kill_test {
namespace {

constexpr std::size_t kMaxDeleted = 8;
constexpr int kStatusFailed = 1;
const Control* signal_control = nullptr;

// A mapping of a dead mount faults. With the daemon alive that is a failure.
void on_bus_error(int /*signal*/) {
  ::_exit(signal_control->killed.load() ? 0 : 3);
}

/// A descriptor for one operation.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool failed() const { return fd_ < 0; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

int code(long result) {
  return result < 0 ? errno : 0;
}

int write_all(int fd, const Bytes& data, std::uint64_t offset) {
  const ssize_t done = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
  if (done < 0) return errno;
  return static_cast<std::size_t>(done) == data.size() ? 0 : EIO;  // short writes: only when space runs out
}

int tell_inode(const char* path, Operation& operation) {
  struct stat status {};
  if (::lstat(path, &status) != 0) return errno;
  operation.inode = status.st_ino;
  return 0;
}

}  // namespace

Worker::Worker(std::string directory, Tree& tree, Log& log, const Control& control, std::uint64_t seed,
               std::uint64_t first_number, bool use_mmap)
    : directory_(std::move(directory)),
      tree_(tree),
      log_(log),
      control_(control),
      random_(seed),
      number_(first_number),
      use_mmap_(use_mmap) {}

Worker::~Worker() {
  for (const int fd : deleted_) ::close(fd);
}

int Worker::run() {
  signal_control = &control_;
  std::signal(SIGBUS, on_bus_error);
  ::umask(0);
  if (::chdir(directory_.c_str()) != 0) {
    if (control_.killed) return 0;
    log_.error = errno;
    return kStatusFailed;
  }
  const Fd probe(::open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  has_unnamed_ = !probe.failed() || (errno != EOPNOTSUPP && errno != EISDIR);
  for (std::size_t i = 0; i < Log::kCapacity; ++i) {
    Operation& operation = log_.operations[i];
    operation = choose();
    ++number_;
    log_.issued.store(i + 1, std::memory_order_release);
    const int error = execute(operation);
    if (error != 0) {
      if (control_.killed) return 0;
      ::usleep(100'000);  // the supervisor may be about to notice that the daemon died by itself
      log_.error = error;
      return kStatusFailed;
    }
    log_.acknowledged.store(i + 1, std::memory_order_release);
    tree_.apply(operation);
  }
  return 0;
}

void Worker::keep_deleted(int fd) {
  deleted_.push_back(fd);
  if (deleted_.size() > kMaxDeleted) {
    ::close(deleted_.front());
    deleted_.erase(deleted_.begin());
  }
}

int Worker::execute(Operation& operation) {
  const char* path = operation.path.data();
  const char* other = operation.other.data();
  if (changes_content(operation.kind)) return execute_content(operation);
  switch (operation.kind) {
    case Kind::kCreate: {
      const Fd fd(::open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, operation.mode));
      return fd.failed() ? errno : tell_inode(path, operation);
    }
    case Kind::kCreateUnnamed:
      return execute_unnamed(operation);
    case Kind::kMkdir:
      return ::mkdir(path, operation.mode) != 0 ? errno : tell_inode(path, operation);
    case Kind::kSymlink:
      return ::symlink(other, path) != 0 ? errno : tell_inode(path, operation);
    case Kind::kMknod:
      return ::mkfifo(path, operation.mode) != 0 ? errno : tell_inode(path, operation);
    case Kind::kLink:
      return code(::link(path, other));
    case Kind::kUnlink: {
      // Only of a file that loses its last name: what is written there must not be seen again.
      const bool last = tree_.find(path)->names == 1 && chance(3);
      Fd fd(last ? ::open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1);
      if (::unlink(path) != 0) return errno;
      if (!fd.failed()) {
        const Bytes data(5000, 'd');
        if (chance(2)) (void)write_all(fd.get(), data, below(100'000));
        keep_deleted(fd.release());
      }
      return 0;
    }
    case Kind::kRmdir:
      return code(::rmdir(path));
    case Kind::kRename:
      return code(::rename(path, other));
    case Kind::kExchange:
      return code(::renameat2(AT_FDCWD, path, AT_FDCWD, other, RENAME_EXCHANGE));
    case Kind::kChmod:
      return code(::chmod(path, operation.mode));
    case Kind::kSetXattr: {
      const Bytes value = xattr_value_of(operation);
      return code(::setxattr(path, other, value.data(), value.size(), 0));
    }
    case Kind::kRemoveXattr:
      return code(::removexattr(path, other));
    case Kind::kFsync: {
      const Fd fd(::open(path, O_RDONLY | O_CLOEXEC));
      return fd.failed() ? errno : code(chance(2) ? ::fsync(fd.get()) : ::fdatasync(fd.get()));
    }
    default:
      return EINVAL;
  }
}

int Worker::execute_unnamed(Operation& operation) {
  const std::string path = operation.path.data();
  const std::size_t slash = path.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : path.substr(0, slash);
  const Fd fd(::open(parent.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, operation.mode));
  if (fd.failed()) return errno;
  if (const int error = write_all(fd.get(), data_of(operation), operation.offset); error != 0) return error;
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0) return errno;
  return tell_inode(path.c_str(), operation);
}

int Worker::execute_map(const Operation& operation) {
  constexpr std::size_t kPage = 4096;
  const Fd fd(::open(operation.path.data(), O_RDWR | O_CLOEXEC));
  if (fd.failed()) return errno;
  const std::size_t skip = operation.offset % kPage;
  const std::size_t length = operation.length + skip;
  void* mapping = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(),
                         static_cast<off_t>(operation.offset - skip));
  if (mapping == MAP_FAILED) return errno;
  const Bytes data = data_of(operation);
  std::memcpy(static_cast<std::uint8_t*>(mapping) + skip, data.data(), data.size());
  const int error = code(::msync(mapping, length, MS_SYNC));
  ::munmap(mapping, length);
  return error;
}

int Worker::execute_content(const Operation& operation) {
  const char* path = operation.path.data();
  if (operation.kind == Kind::kMapWrite) return execute_map(operation);
  if (operation.kind == Kind::kTruncate && chance(2))
    return code(::truncate(path, static_cast<off_t>(operation.offset)));
  int flags = O_RDWR | O_CLOEXEC;
  if (operation.kind == Kind::kAppend) flags |= O_APPEND;
  if (operation.kind == Kind::kOpenTruncate) flags |= O_TRUNC;
  if (operation.kind == Kind::kWrite && chance(8)) flags |= O_SYNC;
  const Fd fd(::open(path, flags));
  if (fd.failed()) return errno;
  const off_t offset = static_cast<off_t>(operation.offset);
  const off_t length = static_cast<off_t>(operation.length);
  switch (operation.kind) {
    case Kind::kWrite:
    case Kind::kAppend:
      return write_all(fd.get(), data_of(operation), operation.offset);
    case Kind::kTruncate:
      return code(::ftruncate(fd.get(), offset));
    case Kind::kAllocate:
      return code(::fallocate(fd.get(), 0, offset, length));
    case Kind::kPunch:
      return code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));
    case Kind::kZeroRange:
      return code(::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, offset, length));
    case Kind::kCopyRange: {
      const Fd source(::open(operation.other.data(), O_RDONLY | O_CLOEXEC));
      if (source.failed()) return errno;
      off_t from = static_cast<off_t>(operation.source_offset);
      off_t to = offset;
      const off_t end = offset + length;
      while (to < end) {
        const ssize_t copied =
            ::copy_file_range(source.get(), &from, fd.get(), &to, static_cast<std::size_t>(end - to), 0);
        if (copied < 0) return errno;
        if (copied == 0) return EIO;
      }
      return 0;
    }
    default:
      return 0;
  }
}

}  // namespace kill_test
