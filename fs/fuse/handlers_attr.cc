// Attributes: getattr, setattr, statx, statfs.

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs/fuse/handlers.h"

namespace plumb::fuse::handlers {
namespace {

Timestamp to_timestamp(const timespec& time) {
  return {.seconds = time.tv_sec, .nanoseconds = static_cast<std::uint32_t>(time.tv_nsec)};
}

SetAttributes to_change(const struct stat& values, int which) {
  SetAttributes change;
  if ((which & FUSE_SET_ATTR_MODE) != 0) change.mode = values.st_mode & 07777;
  if ((which & FUSE_SET_ATTR_UID) != 0) change.uid = values.st_uid;
  if ((which & FUSE_SET_ATTR_GID) != 0) change.gid = values.st_gid;
  if ((which & FUSE_SET_ATTR_SIZE) != 0) change.size_bytes = static_cast<std::uint64_t>(values.st_size);
  // "now" comes together with the kernel's idea of it.
  if ((which & FUSE_SET_ATTR_ATIME_NOW) != 0) {
    change.atime_now = true;
  } else if ((which & FUSE_SET_ATTR_ATIME) != 0) {
    change.atime = to_timestamp(values.st_atim);
  }
  if ((which & FUSE_SET_ATTR_MTIME_NOW) != 0) {
    change.mtime_now = true;
  } else if ((which & FUSE_SET_ATTR_MTIME) != 0) {
    change.mtime = to_timestamp(values.st_mtim);
  }
  if ((which & FUSE_SET_ATTR_CTIME) != 0) change.ctime = to_timestamp(values.st_ctim);
  // One bit of the protocol (FATTR_KILL_SUIDGID) stands for both.
  change.kill_setid = (which & (FUSE_SET_ATTR_KILL_SUID | FUSE_SET_ATTR_KILL_SGID)) != 0;
  return change;
}

}  // namespace

void getattr(Server& server, Request& request, fuse_ino_t id, fuse_file_info*) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  request.attributes(server.volume.attributes(**inode));
}

void setattr(Server& server, Request& request, fuse_ino_t id, struct stat* values, int which, fuse_file_info*) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  const SetAttributes change = to_change(*values, which);
  // A kernel that was not asked to say so leaves it to us who may truncate and keep the bits.
  const bool may_keep_setid = server.features.kill_setid ? !change.kill_setid : request.context().uid == 0;
  const auto after = server.volume.set_attributes(
      **inode, change, request.caller(change.size_bytes.has_value() ? may_keep_setid : true));
  if (!after) return request.error(after.error());
  request.attributes(*after);
}

#if PLUMB_FUSE_HAS_STATX
void statx(Server& server, Request& request, fuse_ino_t id, int, int, fuse_file_info*) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  request.statx(server.volume.attributes(**inode));
}
#endif

void statfs(Server& server, Request& request, fuse_ino_t id) {
  const auto inode = server.inode(id);
  const FsStatistics now = server.volume.statistics(inode ? inode->get() : nullptr);
  struct statvfs reply {};
  reply.f_bsize = now.block_size_bytes;
  reply.f_frsize = now.block_size_bytes;
  reply.f_blocks = now.blocks;
  reply.f_bfree = now.blocks_free;
  reply.f_bavail = now.blocks_available;
  reply.f_files = now.inodes;
  reply.f_ffree = now.inodes_free;
  reply.f_favail = now.inodes_free;
  reply.f_fsid = now.fsid;
  reply.f_namemax = kNameMax;
  request.statistics(reply);
}

}  // namespace plumb::fuse::handlers
