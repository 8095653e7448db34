#include "tools/mkfs/image_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <utility>

#include "tools/common/claim.h"
#include "tools/common/command_line.h"
#include "tools/common/size.h"

namespace plumb::tools {
namespace {

// What a signal handler may look at: the path to delete, empty if there is nothing to delete.
std::array<char, PATH_MAX> g_delete_on_signal{};

void on_signal(int signal) {
  if (g_delete_on_signal[0] != '\0') ::unlink(g_delete_on_signal.data());
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  ::sigaction(signal, &action, nullptr);
  ::raise(signal);
}

void delete_on_signal(const std::string& path) {
  if (path.size() >= g_delete_on_signal.size()) return;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    action.sa_handler = on_signal;
    ::sigaction(signal, &action, nullptr);
  }
  // From the end: the handler sees an empty path until the whole of it is there.
  g_delete_on_signal[path.size()] = '\0';
  for (std::size_t i = path.size(); i-- > 0;) g_delete_on_signal[i] = path[i];
}

// Between creating the file and knowing that it has to be deleted no signal comes through.
class SignalsHeld {
 public:
  SignalsHeld() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
    ::sigprocmask(SIG_BLOCK, &signals, &before_);
  }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;
  ~SignalsHeld() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};

// -1 with errno if it cannot be created.
int create_file(const std::string& path) {
  const SignalsHeld held;
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd >= 0) delete_on_signal(path);
  return fd;
}

void forget_signal() {
  g_delete_on_signal[0] = '\0';
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

std::string room_text(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct statvfs host {};
  if (::statvfs(directory.c_str(), &host) != 0) return {};
  return " (" + size_text(std::uint64_t{host.f_bavail} * host.f_frsize) + " free)";
}

Status allocate(int fd, const std::string& path, std::uint64_t size_bytes) {
  if (size_bytes > static_cast<std::uint64_t>(INT64_MAX))
    return fail(EFBIG, path + ": no file can have " + size_text(size_bytes));
  // A limit on the file size is an error to report, not a signal to die of.
  std::signal(SIGXFSZ, SIG_IGN);
  const std::string room = room_text(path);  // before what is allocated in vain is taken from it
  int error = EINTR;
  while (error == EINTR) error = ::posix_fallocate(fd, 0, static_cast<off_t>(size_bytes));
  if (error == 0) return {};
  if (error == ENOSPC || error == EDQUOT)
    return fail(error, path + ": the file system that holds it has no room for " + size_text(size_bytes) + room);
  if (error == EFBIG)
    return fail(error, path + ": " + size_text(size_bytes) +
                           " is more than its file system or the limit of this process (ulimit -f) allows");
  return fail(error, path + ": cannot allocate " + size_text(size_bytes));
}

// Makes the file `size_bytes` long and allocated, or leaves it as it was.
Status resize(int fd, const std::string& path, std::uint64_t former_bytes, std::uint64_t size_bytes) {
  Status status = allocate(fd, path, size_bytes);
  if (!status) {
    // What was allocated beyond the old end, and between its blocks, is given back as far as the host can.
    if (::ftruncate(fd, static_cast<off_t>(former_bytes)) != 0)
      status.error().detail += "; it could not be cut back to its former size";
    return status;
  }
  if (former_bytes > size_bytes && ::ftruncate(fd, static_cast<off_t>(size_bytes)) != 0)
    return fail(errno, path + ": cannot cut the file to " + size_text(size_bytes));
  return {};
}

// The name of a new file must survive a power cut as its contents do.
Status sync_directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const Descriptor fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Some file systems cannot sync a directory: no reason to fail.
  if (fd.get() >= 0 && ::fsync(fd.get()) != 0 && errno == EIO) return fail(EIO, directory + ": cannot be synced");
  return {};
}

}  // namespace

ImageFile::ImageFile(std::string path, bool created, std::uint64_t former_bytes)
    : path_(std::move(path)), created_(created), former_bytes_(former_bytes) {}

ImageFile::ImageFile(ImageFile&& other) noexcept
    : path_(std::move(other.path_)),
      armed_(std::exchange(other.armed_, false)),
      created_(other.created_),
      former_bytes_(other.former_bytes_) {}

ImageFile::~ImageFile() {
  if (!armed_) return;
  forget_signal();
  if (created_) {
    ::unlink(path_.c_str());
  } else {
    // Best effort on the way out of an error that has been reported.
    [[maybe_unused]] const int ignored = ::truncate(path_.c_str(), static_cast<off_t>(former_bytes_));
  }
}

void ImageFile::keep() {
  armed_ = false;
  forget_signal();
}

Result<ImageFile> ImageFile::make(const std::string& path, std::uint64_t size_bytes, bool replace) {
  const int created = create_file(path);
  if (created >= 0) {
    const Descriptor fd(created);
    ImageFile file(path, true, 0);
    PLUMB_TRY(allocate(fd.get(), path, size_bytes));
    PLUMB_TRY(sync_directory_of(path));
    return file;
  }
  if (errno != EEXIST) return fail(errno, path + ": cannot be created");

  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail(errno, path);
  if (!S_ISREG(status.st_mode))
    return refuse(path + " is not a regular file: leave out --size, a device has a size of its own");
  if (!replace)
    return refuse(path + " is there already (" + size_text(static_cast<std::uint64_t>(status.st_size)) +
                  "); -f makes the file system in it and loses its contents");
  const Descriptor fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (fd.get() < 0 && errno != ETXTBSY) return fail(errno, path);
  // Held while the size changes; the device layer takes its own when it maps the file.
  if (fd.get() < 0 || ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    const DeviceUser user = lasting_user_of_device(path);
    if (!user.what.empty() || fd.get() < 0) return fail(EBUSY, path + " " + user.what);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) return fail(EBUSY, path + " is in use");
  }
  if (const std::string user = user_despite_claim(path); !user.empty()) return fail(EBUSY, path + " " + user);
  const auto former = static_cast<std::uint64_t>(status.st_size);
  PLUMB_TRY(resize(fd.get(), path, former, size_bytes));
  return ImageFile(path, false, former);
}

}  // namespace plumb::tools
