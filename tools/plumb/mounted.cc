#include "tools/plumb/mounted.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "fs/client/protocol.h"
#include "tools/common/command_line.h"

namespace plumb::tools {

MountedPath::MountedPath(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

MountedPath::MountedPath(MountedPath&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

MountedPath::~MountedPath() {
  if (fd_ >= 0) ::close(fd_);
}

namespace {

tl::unexpected<Error> open_error(const std::string& path, int error) {
  if (error == ENOTCONN || error == ECONNABORTED)
    return refuse(path + ": its daemon has ended; mount it again, that replaces the dead mount");
  return fail(error, path + ": cannot be opened");
}

}  // namespace

Result<MountedPath> MountedPath::open(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return open_error(path, errno);
  if (S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode))
    return refuse(path +
                  " is a device; name the directory that it is mounted on "
                  "(plumb info looks at a device that is not mounted)");
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) return refuse(path + " is neither a directory nor a file");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return open_error(path, errno);
  return MountedPath(path, fd);
}

Status MountedPath::ioctl(unsigned long request, void* argument) const {
  if (::ioctl(fd_, request, argument) == 0) return {};
  if (errno == ENOTTY || errno == ENOSYS || errno == EINVAL || errno == EOPNOTSUPP)
    return refuse(path_ + " is not on a mounted plumbfs");
  return fail(errno, path_);
}

Status MountedPath::require_plumbfs() const {
  const auto answer = std::make_unique<protocol::Statistics>();
  return ioctl(protocol::kIocStatistics, answer.get());
}

Status MountedPath::set_flags(const struct fsxattr& attributes) const {
  struct fsxattr copy = attributes;
  if (::ioctl(fd_, FS_IOC_FSSETXATTR, &copy) == 0) return {};
  return fail(errno, path_);
}

}  // namespace plumb::tools
