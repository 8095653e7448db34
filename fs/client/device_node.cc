#include "fs/client/device_node.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fs/client/kernel.h"

namespace plumb::client {
namespace {

constexpr std::uint64_t kHugePageBytes = 2 * 1024 * 1024;
// fs/FORMAT.md, section 3.
constexpr std::size_t kCopyOffsets[] = {0, 65536};
constexpr std::size_t kSuperblockUuidOffset = 40;
constexpr std::size_t kLabelFilesystemUuidOffset = 16;
constexpr std::size_t kLabelUuidOffset = 32;
constexpr std::size_t kUuidBytes = 16;

// A small text file of sysfs as a number; 0 if there is none.
std::uint64_t read_number(const char* path) {
  const int fd = kernel::open_file(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char text[32] = {};
  const ssize_t length = kernel::read_file(fd, text, sizeof text - 1);
  kernel::close_file(fd);
  return length > 0 ? std::strtoull(text, nullptr, 10) : 0;
}

// 0 if it is no dax device. Nothing but sysfs tells the size, and nothing checks it at mmap.
std::uint64_t dax_size(dev_t number) {
  char path[96];
  char target[256];
  std::snprintf(path, sizeof path, "/sys/dev/char/%u:%u/subsystem", major(number), minor(number));
  const ssize_t length = readlink(path, target, sizeof target - 1);
  if (length <= 0) return 0;
  target[length] = 0;
  const char* name = std::strrchr(target, '/');
  if (name == nullptr || std::strcmp(name, "/dax") != 0) return 0;
  std::snprintf(path, sizeof path, "/sys/dev/char/%u:%u/size", major(number), minor(number));
  return read_number(path);
}

std::uint64_t node_size(int fd, const struct stat& status) {
  if (S_ISREG(status.st_mode)) return static_cast<std::uint64_t>(status.st_size);
  if (S_ISCHR(status.st_mode)) return dax_size(status.st_rdev);
  std::uint64_t size = 0;
  if (S_ISBLK(status.st_mode) && kernel::control(fd, BLKGETSIZE64, &size) == 0) return size;
  return 0;
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Looks for the mount with this device number in a line of mountinfo (proc(5)): "36 35 98:0 / /mnt rw - fuse src opts".
// Returns its user_id=, or -1.
long mount_user(const char* line, dev_t device) {
  unsigned major_number = 0;
  unsigned minor_number = 0;
  if (std::sscanf(line, "%*u %*u %u:%u", &major_number, &minor_number) != 2) return -1;
  if (makedev(major_number, minor_number) != device) return -1;
  const char* options = std::strstr(line, " - ");
  const char* user = options == nullptr ? nullptr : std::strstr(options, "user_id=");
  return user == nullptr ? -1 : std::strtol(user + std::strlen("user_id="), nullptr, 10);
}

}  // namespace

void Why::tell(const char* format, ...) const noexcept {
  if (text == nullptr || bytes == 0) return;
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, bytes, format, arguments);
  va_end(arguments);
}

int open_node(const protocol::DeviceMember& member, bool writable, NodeIdentity* identity, Why why) noexcept {
  // O_NONBLOCK: whatever the path leads to, opening it does not wait.
  const int fd = kernel::open_file(member.path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    why.tell("no direct access: %s cannot be opened for %s: %s", member.path, writable ? "writing" : "reading",
             std::strerror(error));
    errno = error;
    return -1;
  }
  struct stat status = {};
  const bool has_status = kernel::stat_file(fd, &status) == 0;
  if (!has_status || node_size(fd, status) < member.size_bytes) {
    why.tell("no direct access: %s is not the device of this mount", member.path);
    kernel::close_file(fd);
    errno = ENODEV;
    return -1;
  }
  *identity = {status.st_dev, status.st_ino, status.st_rdev};
  if (identity->device != member.node_device || identity->inode != member.node_inode) {
    why.tell(
        "no direct access: %s is another node than the daemon's, whose locks nobody would see (bind mount that one)",
        member.path);
    kernel::close_file(fd);
    errno = EXDEV;
    return -1;
  }
  return fd;
}

int lock_node(int fd, std::uint64_t lock_offset, Why why) noexcept {
  struct flock lock = {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(lock_offset);
  lock.l_len = 1;
  // A mount that looks for clients holds it for a moment.
  constexpr int kTries = 200;
  for (int i = 0; i < kTries; ++i) {
    if (kernel::file_control(fd, F_OFD_SETLK, &lock) == 0) return 0;
    if (errno != EAGAIN && errno != EACCES) break;
    kernel::sleep_us(1000);
  }
  if (errno == EAGAIN || errno == EACCES) errno = EBUSY;
  const int error = errno;
  why.tell("no direct access: the device cannot be locked: %s", std::strerror(error));
  errno = error;
  return -1;
}

void* map_node(int fd, const protocol::DeviceMember& member, bool writable, bool* map_sync, std::size_t* mapped_bytes,
               Why why) noexcept {
  const std::uint64_t align = std::max<std::uint64_t>(member.align_bytes, kHugePageBytes);
  const std::uint64_t length = round_up(member.size_bytes, member.align_bytes);
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  const auto fail = [&](int error) {
    why.tell("no direct access: %s cannot be mapped: %s", member.path, std::strerror(error));
    errno = error;
    return MAP_FAILED;
  };

  void* reserved = kernel::map(nullptr, length + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return fail(errno);
  auto* const begin = static_cast<char*>(reserved);
  char* const base =
      begin + (round_up(reinterpret_cast<std::uintptr_t>(begin), align) - reinterpret_cast<std::uintptr_t>(begin));
  *map_sync = false;
  void* mapped = MAP_FAILED;
  if (member.kind == protocol::kDeviceMemory) {
    mapped = kernel::map(base, length, protection, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, fd, 0);
    *map_sync = mapped != MAP_FAILED;
  }
  if (mapped == MAP_FAILED) mapped = kernel::map(base, length, protection, MAP_SHARED | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    const int error = errno;
    kernel::unmap(begin, length + align);
    return fail(error);
  }
  if (base > begin) kernel::unmap(begin, static_cast<std::size_t>(base - begin));
  char* const end = base + length;
  kernel::unmap(end, static_cast<std::size_t>(begin + length + align - end));
  kernel::advise(base, length, MADV_DONTDUMP);
  *mapped_bytes = length;
  return base;
}

bool has_uuid(const void* base, const protocol::Devices& devices, std::uint32_t member) noexcept {
  const std::uint8_t* filesystem = devices.members[0].uuid;
  for (const std::size_t offset : kCopyOffsets) {
    const char* copy = static_cast<const char*>(base) + offset;
    if (member == 0) {
      if (std::memcmp(copy, "PLUMBFS", 8) == 0 &&
          std::memcmp(copy + kSuperblockUuidOffset, filesystem, kUuidBytes) == 0) {
        return true;
      }
    } else if (std::memcmp(copy, "PLUMBRT", 8) == 0 &&
               std::memcmp(copy + kLabelFilesystemUuidOffset, filesystem, kUuidBytes) == 0 &&
               std::memcmp(copy + kLabelUuidOffset, devices.members[member].uuid, kUuidBytes) == 0) {
      return true;
    }
  }
  return false;
}

bool is_mount_trusted(dev_t device) noexcept {
  const int fd = kernel::open_file("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  // Longer lines (overlays with many layers) are cut, and are none of ours.
  char line[4096];
  char chunk[4096];
  std::size_t length = 0;
  long user = -1;
  ssize_t got = 0;
  while (user < 0 && (got = kernel::read_file(fd, chunk, sizeof chunk)) > 0) {
    for (ssize_t i = 0; i < got && user < 0; ++i) {
      if (chunk[i] != '\n') {
        if (length < sizeof line - 1) line[length++] = chunk[i];
        continue;
      }
      line[length] = 0;
      length = 0;
      user = mount_user(line, device);
    }
  }
  kernel::close_file(fd);
  return user == 0 || (user > 0 && static_cast<uid_t>(user) == geteuid());
}

}  // namespace plumb::client
