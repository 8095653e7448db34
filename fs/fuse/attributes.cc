#include "fs/fuse/attributes.h"

#include <sys/sysmacros.h>

namespace plumb::fuse {
namespace {

// st_blksize. The kernel takes it as the block size of its page cache too, which is the page size on this mount
// whatever the block size of the volume.
constexpr std::uint32_t kPreferredIoBytes = 4096;

timespec to_timespec(const Timestamp& time) {
  return {.tv_sec = static_cast<time_t>(time.seconds),
          .tv_nsec = static_cast<decltype(timespec::tv_nsec)>(time.nanoseconds)};
}

#if PLUMB_FUSE_HAS_STATX
statx_timestamp to_statx_time(const Timestamp& time) {
  statx_timestamp result{};
  result.tv_sec = time.seconds;
  result.tv_nsec = time.nanoseconds;
  return result;
}
#endif

}  // namespace

struct stat to_stat(const Attributes& attributes) {
  struct stat result {};
  result.st_ino = attributes.inode.value;
  result.st_mode = attributes.mode;
  result.st_nlink = attributes.links;
  result.st_uid = attributes.uid;
  result.st_gid = attributes.gid;
  result.st_rdev = attributes.rdev;
  result.st_size = static_cast<off_t>(attributes.size_bytes);
  result.st_blksize = kPreferredIoBytes;
  result.st_blocks = static_cast<blkcnt_t>(attributes.sectors);
  result.st_atim = to_timespec(attributes.atime);
  result.st_mtim = to_timespec(attributes.mtime);
  result.st_ctim = to_timespec(attributes.ctime);
  return result;
}

fuse_entry_param to_entry(const Attributes& attributes) {
  fuse_entry_param entry{};
  entry.ino = attributes.inode.value;
  entry.generation = attributes.generation;
  entry.attr = to_stat(attributes);
  entry.attr_timeout = attribute_timeout(attributes);
  entry.entry_timeout = kEntryTimeoutSeconds;
  return entry;
}

fuse_entry_param negative_entry() {
  fuse_entry_param entry{};
  entry.entry_timeout = kEntryTimeoutSeconds;
  return entry;
}

#if PLUMB_FUSE_HAS_STATX
struct statx to_statx(const Attributes& attributes) {
  struct statx result {};
  result.stx_mask = STATX_BASIC_STATS | STATX_BTIME;
  result.stx_blksize = kPreferredIoBytes;
  result.stx_nlink = attributes.links;
  result.stx_uid = attributes.uid;
  result.stx_gid = attributes.gid;
  result.stx_mode = static_cast<decltype(result.stx_mode)>(attributes.mode);
  result.stx_ino = attributes.inode.value;
  result.stx_size = attributes.size_bytes;
  result.stx_blocks = attributes.sectors;
  result.stx_atime = to_statx_time(attributes.atime);
  result.stx_btime = to_statx_time(attributes.btime);
  result.stx_ctime = to_statx_time(attributes.ctime);
  result.stx_mtime = to_statx_time(attributes.mtime);
  result.stx_rdev_major = major(attributes.rdev);
  result.stx_rdev_minor = minor(attributes.rdev);
  result.stx_attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
  if ((attributes.flags & kInodeImmutable) != 0) result.stx_attributes |= STATX_ATTR_IMMUTABLE;
  if ((attributes.flags & kInodeAppend) != 0) result.stx_attributes |= STATX_ATTR_APPEND;
  if ((attributes.flags & kInodeNodump) != 0) result.stx_attributes |= STATX_ATTR_NODUMP;
  return result;
}
#endif

}  // namespace plumb::fuse
