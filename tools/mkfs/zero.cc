#include "tools/mkfs/zero.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <string>

namespace plumb::tools {
namespace {

// fallocate(2) on a block device zeroes by writing if the device has no command for it; that would take hours.
bool zeroes_by_command(dev_t number) {
  const std::string node = "/sys/dev/block/" + std::to_string(major(number)) + ":" + std::to_string(minor(number));
  for (const char* queue : {"/queue", "/../queue"}) {  // a partition has the queue of its disk
    std::ifstream in(node + queue + "/write_zeroes_max_bytes");
    std::uint64_t bytes = 0;
    if (in >> bytes) return bytes > 0;
  }
  return false;
}

bool zero_range(int fd, off_t offset, off_t length) {
  if (::fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length) == 0) return true;
  // tmpfs cannot zero a range, but give it back and take it again.
  return errno == EOPNOTSUPP && ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) == 0 &&
         ::fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length) == 0;
}

bool zero_file(int fd, off_t size) {
  off_t at = 0;
  while (at < size) {
    const off_t data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0) return errno == ENXIO;  // holes only from here on
    const off_t hole = ::lseek(fd, data, SEEK_HOLE);
    if (hole < 0 || !zero_range(fd, data, hole - data)) return false;
    at = hole;
  }
  return true;
}

}  // namespace

bool zero_contents(const pmem::Device& device) {
  const pmem::DeviceInfo& info = device.info();
  if (info.type == "fsdax file") return false;
  struct stat status {};
  const int fd = ::open(info.path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  bool zeroed = false;
  if (::fstat(fd, &status) == 0) {
    if (S_ISREG(status.st_mode)) zeroed = zero_file(fd, status.st_size);
    if (S_ISBLK(status.st_mode) && zeroes_by_command(status.st_rdev))
      zeroed =
          ::fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(device.size_bytes())) == 0;
  }
  ::close(fd);
  return zeroed;
}

bool is_sparse(const pmem::Device& device) {
  struct stat status {};
  if (::stat(device.info().path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return false;
  return static_cast<std::uint64_t>(status.st_blocks) * 512 < static_cast<std::uint64_t>(status.st_size);
}

}  // namespace plumb::tools
