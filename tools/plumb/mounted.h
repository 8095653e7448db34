// A file or directory on a mounted plumbfs, to send the ioctls of fs/client/protocol.h to.
//
// Thread safety: as a file descriptor.
#pragma once

#include <string>

#include "pmem/result.h"

struct fsxattr;

namespace plumb::tools {

class MountedPath {
 public:
  /// Opens for reading; a fifo, socket or device node is refused (the ioctl would go to its driver, not to plumbfs).
  [[nodiscard]] static Result<MountedPath> open(const std::string& path);

  MountedPath(MountedPath&& other) noexcept;
  MountedPath& operator=(MountedPath&&) = delete;
  ~MountedPath();

  /// Errors that mean "this is no plumbfs" say so.
  [[nodiscard]] Status ioctl(unsigned long request, void* argument) const;
  /// Refuses what is on another file system, for ioctls that others answer too.
  [[nodiscard]] Status require_plumbfs() const;
  /// FS_IOC_FSSETXATTR, whose EINVAL says something about the flags.
  [[nodiscard]] Status set_flags(const struct fsxattr& attributes) const;

 private:
  MountedPath(std::string path, int fd);
  std::string path_;
  int fd_ = -1;
};

}  // namespace plumb::tools
