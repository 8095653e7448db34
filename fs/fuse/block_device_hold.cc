#include "fs/fuse/block_device_hold.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace plumb::fuse {

Status BlockDeviceHold::take(const std::string& device) {
  struct stat attributes {};
  if (stat(device.c_str(), &attributes) != 0) return fail(errno, device);
  if (!S_ISBLK(attributes.st_mode)) return fail(ENOTBLK, device + " cannot be mounted with fuseblk");
  release();
  fd_ = open(device.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) {
    const int error = errno;
    return fail(error, error == EBUSY ? device + " is in use (mounted, swap, md, dm or claimed)" : device);
  }
  int block_bytes = 0;
  if (ioctl(fd_, BLKBSZGET, &block_bytes) != 0) return fail(errno, "block size of " + device);
  block_bytes_ = static_cast<unsigned>(block_bytes);
  return {};
}

void BlockDeviceHold::release() {
  const int fd = std::exchange(fd_, -1);
  if (fd >= 0) close(fd);
}

}  // namespace plumb::fuse
