// open_device(): find out what a path is, claim it, map it.
//
// Order: the node is opened and claimed before a byte of it is read or mapped. The claim is taken on the description
// that is mapped, and lives as long as the mapping; the descriptor itself is closed.

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "pmem/cached_device.h"
#include "pmem/device.h"
#include "pmem/mapping.h"
#include "pmem/memory_device.h"
#include "pmem/sysfs.h"

namespace plumb::pmem {

namespace {

constexpr const char* kSysfs = "/sys";

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

// What open_device works on; the functions below fill it in, one after the other.
struct Opening {
  const std::string& path;
  const OpenOptions& options;
  struct stat status {};
  DeviceInfo info;
  MemoryPlatform platform;

  [[nodiscard]] sysfs::DeviceNumber node() const { return {major(status.st_rdev), minor(status.st_rdev)}; }
  [[nodiscard]] sysfs::DeviceNumber holder() const { return {major(status.st_dev), minor(status.st_dev)}; }
};

using OpenResult = Result<std::unique_ptr<Device>>;

Status check_environment() {
  const char* no_flush = std::getenv("PMEM_NO_FLUSH");
  if (no_flush == nullptr || std::strcmp(no_flush, "1") != 0) return {};
  return fail(EINVAL, "PMEM_NO_FLUSH=1 in the environment would turn flushing off: unset it");
}

// A name that is not there, of a device that is: said better than "no such file".
tl::unexpected<Error> missing(const std::string& path, int error) {
  const std::string name = std::filesystem::path(path).filename().string();
  if (sysfs::is_system_ram(kSysfs, name)) {
    return fail(ENODEV, name + " is in system-ram mode (daxctl reconfigure-device --mode=devdax)");
  }
  return fail(error, path);
}

tl::unexpected<Error> open_error(const Opening& opening, int error) {
  const std::string& path = opening.path;
  if (S_ISBLK(opening.status.st_mode)) {
    if (error == EBUSY) return fail(EBUSY, path + " is in use (mounted, swap, md, dm or claimed)");
    if (error == EACCES && sysfs::is_block_read_only(kSysfs, opening.node())) {
      return fail(EROFS, path + " is write-protected");
    }
  }
  if (error == ETXTBSY) return fail(EBUSY, path + " is being executed or is a swap file");
  if (error == ENXIO) {
    // The node of a dax device stays in system-ram mode, where there is nothing that could open it.
    const auto facts = sysfs::read_devdax(kSysfs, opening.node());
    if (S_ISCHR(opening.status.st_mode) && !facts) return fail(ENODEV, path + ": " + facts.error().detail);
    return fail(ENODEV, path + " has no driver");
  }
  return fail(error, path);
}

Status check_type(const Opening& opening) {
  const mode_t mode = opening.status.st_mode;
  if (S_ISREG(mode) || S_ISBLK(mode) || S_ISCHR(mode)) return {};
  return fail(EINVAL, opening.path + " is neither a file nor a block device nor a dax device");
}

int open_flags(const Opening& opening) {
  const OpenOptions& options = opening.options;
  int flags = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  flags |= options.read_only ? O_RDONLY : O_RDWR;
  // Readers do not exclude each other, and O_EXCL would.
  const bool hold = options.exclusive && options.hold_block_device && !options.read_only;
  if (S_ISBLK(opening.status.st_mode) && hold) flags |= O_EXCL;
  return flags;
}

Status claim(const Opening& opening, int fd) {
  if (!opening.options.exclusive) return {};
  const int mode = opening.options.read_only ? LOCK_SH : LOCK_EX;
  if (flock(fd, mode | LOCK_NB) == 0) return {};
  if (errno == EWOULDBLOCK) return fail(EBUSY, opening.path + " is in use by another plumbfs");
  return fail(errno, "locking " + opening.path);
}

tl::unexpected<Error> map_error(const Opening& opening, int error) {
  if (error == ETXTBSY) return fail(EBUSY, opening.path + " is a swap file");
  return fail(error, "mapping " + opening.path);
}

OpenResult map_devdax(Opening& opening, int fd) {
  auto facts = sysfs::read_devdax(kSysfs, opening.node());
  if (!facts) {
    Error error = std::move(facts).error();
    return fail(error.code, opening.path + ": " + error.detail);
  }
  opening.info.type = "devdax";
  opening.info.size_bytes = facts->size_bytes;
  opening.info.align_bytes = facts->align_bytes;
  opening.info.is_volatile = !facts->is_persistent && !opening.options.assert_persistent;
  // By hand and not with pmem_map_file(): that fails on dax devices without a namespace (pmem/pmdk#6160).
  auto mapping = Mapping::map(fd, facts->size_bytes, !opening.options.read_only, MAP_SHARED);
  if (!mapping) return map_error(opening, mapping.error().code);
  return std::make_unique<MemoryDevice>(std::move(opening.info), std::move(*mapping), std::move(facts->platform));
}

OpenResult map_block_device(Opening& opening, int fd) {
  std::uint64_t size_bytes = 0;
  if (ioctl(fd, BLKGETSIZE64, &size_bytes) != 0) return fail(errno, "size of " + opening.path);
  if (size_bytes == 0) return fail(EINVAL, opening.path + " is empty");
  int is_protected = 0;
  if (!opening.options.read_only && ioctl(fd, BLKROGET, &is_protected) == 0 && is_protected != 0) {
    return fail(EROFS, opening.path + " is write-protected");
  }
  opening.info.type = "block device";
  opening.info.size_bytes = size_bytes;
  auto mapping = Mapping::map(fd, size_bytes, !opening.options.read_only, MAP_SHARED);
  if (!mapping) return map_error(opening, mapping.error().code);
  if (!opening.options.assume_pmem) {
    return std::make_unique<CachedDevice>(std::move(opening.info), std::move(*mapping));
  }
  opening.info.assumed_pmem = true;
  return std::make_unique<MemoryDevice>(std::move(opening.info), std::move(*mapping), MemoryPlatform{});
}

// tmpfs, ramfs and hugetlbfs: the file is the memory. Empty for file systems with storage behind them.
std::string memory_file_type(const struct statfs& file_system) {
  switch (static_cast<std::uint64_t>(file_system.f_type)) {
    case TMPFS_MAGIC:
      return "tmpfs file";
    case RAMFS_MAGIC:
      return "ramfs file";
    case HUGETLBFS_MAGIC:
      return "hugetlbfs file";
    default:
      return {};
  }
}

OpenResult map_volatile_file(Opening& opening, int fd, std::uint64_t align_bytes) {
  opening.info.is_volatile = true;
  opening.info.align_bytes = align_bytes;
  auto mapping = Mapping::map(fd, opening.info.size_bytes, !opening.options.read_only, MAP_SHARED);
  if (!mapping) return map_error(opening, mapping.error().code);
  return std::make_unique<MemoryDevice>(std::move(opening.info), std::move(*mapping), MemoryPlatform{});
}

OpenResult map_file(Opening& opening, int fd) {
  if (opening.status.st_size == 0) return fail(EINVAL, opening.path + " is empty");
  opening.info.size_bytes = static_cast<std::uint64_t>(opening.status.st_size);
  struct statfs file_system {};
  if (fstatfs(fd, &file_system) != 0) return fail(errno, "file system of " + opening.path);
  opening.info.type = memory_file_type(file_system);
  if (!opening.info.type.empty()) {
    const bool is_huge = opening.info.type == "hugetlbfs file";
    return map_volatile_file(opening, fd, is_huge ? static_cast<std::uint64_t>(file_system.f_bsize) : 4096);
  }
  const bool writable = !opening.options.read_only;
  // Only a file system that maps the medium itself accepts MAP_SYNC.
  auto mapping = Mapping::map(fd, opening.info.size_bytes, writable, MAP_SHARED_VALIDATE | MAP_SYNC);
  if (mapping) {
    opening.info.type = "fsdax file";
    return std::make_unique<MemoryDevice>(std::move(opening.info), std::move(*mapping),
                                          sysfs::read_block_platform(kSysfs, opening.holder()));
  }
  opening.info.type = "file";
  mapping = Mapping::map(fd, opening.info.size_bytes, writable, MAP_SHARED);
  if (!mapping) return map_error(opening, mapping.error().code);
  if (!opening.options.assume_pmem) {
    return std::make_unique<CachedDevice>(std::move(opening.info), std::move(*mapping));
  }
  opening.info.assumed_pmem = true;
  return std::make_unique<MemoryDevice>(std::move(opening.info), std::move(*mapping), MemoryPlatform{});
}

// The node may have been replaced between stat and open: what was opened counts.
Status restat(Opening& opening, int fd) {
  const mode_t expected_type = opening.status.st_mode & S_IFMT;
  if (fstat(fd, &opening.status) != 0) return fail(errno, opening.path);
  if ((opening.status.st_mode & S_IFMT) != expected_type) {
    return fail(EBUSY, opening.path + " changed while it was opened");
  }
  opening.info.path = opening.path;
  opening.info.read_only = opening.options.read_only;
  opening.info.file_device = opening.status.st_dev;
  opening.info.file_inode = opening.status.st_ino;
  if (!S_ISREG(opening.status.st_mode)) opening.info.device_number = opening.status.st_rdev;
  return {};
}

}  // namespace

Result<std::unique_ptr<Device>> open_device(const std::string& path, const OpenOptions& options) {
  PLUMB_TRY(check_environment());
  Opening opening{path, options, {}, {}, {}};
  if (stat(path.c_str(), &opening.status) != 0) return missing(path, errno);
  // Before the open: opening a fifo or a tape drive does things.
  PLUMB_TRY(check_type(opening));
  const Descriptor descriptor(open(path.c_str(), open_flags(opening)));
  if (descriptor.get() < 0) return open_error(opening, errno);
  PLUMB_TRY(claim(opening, descriptor.get()));
  PLUMB_TRY(restat(opening, descriptor.get()));
  if (S_ISCHR(opening.status.st_mode)) return map_devdax(opening, descriptor.get());
  if (S_ISBLK(opening.status.st_mode)) return map_block_device(opening, descriptor.get());
  return map_file(opening, descriptor.get());
}

}  // namespace plumb::pmem
