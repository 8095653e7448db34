// ioctl: inode flags as ext4 and XFS show them, and plumbfs' own (fs/client/protocol.h).
//
// The kernel itself turns FS_IOC_{GET,SET}FLAGS and FS_IOC_FS{GET,SET}XATTR of whatever word size into one form, checks
// who may change what, and sends them with an int or a struct fsxattr. Others arrive as called, with the size that
// their number encodes.

#include <linux/fs.h>
#include <sys/stat.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "fs/client/protocol.h"
#include "fs/fuse/bad_blocks.h"
#include "fs/fuse/direct_path.h"
#include "fs/fuse/handlers.h"
#include "fs/fuse/statistics.h"

#ifndef FS_DAX_FL
#define FS_DAX_FL 0x02000000
#endif

namespace plumb::fuse::handlers {
namespace {

struct FlagName {
  std::uint32_t stored;    // kInode*
  std::uint32_t of_flags;  // FS_*_FL, 0 if it has none
  std::uint32_t of_xattr;  // FS_XFLAG_*, 0 if it has none
};

constexpr FlagName kFlagNames[] = {
    {kInodeImmutable, FS_IMMUTABLE_FL, FS_XFLAG_IMMUTABLE},
    {kInodeAppend, FS_APPEND_FL, FS_XFLAG_APPEND},
    {kInodeNoatime, FS_NOATIME_FL, FS_XFLAG_NOATIME},
    {kInodeNodump, FS_NODUMP_FL, FS_XFLAG_NODUMP},
    {kInodeDax, FS_DAX_FL, FS_XFLAG_DAX},
    {kInodeSync, FS_SYNC_FL, FS_XFLAG_SYNC},
    {kInodeDirsync, FS_DIRSYNC_FL, 0},
    {kInodeRealtime, 0, FS_XFLAG_REALTIME},
    {kInodeRtInherit, 0, FS_XFLAG_RTINHERIT},
};

std::uint32_t shown(std::uint32_t stored, std::uint32_t FlagName::*form) {
  std::uint32_t result = 0;
  for (const FlagName& name : kFlagNames) {
    if ((stored & name.stored) != 0) result |= name.*form;
  }
  return result;
}

// The stored flags after setting `wanted`; flags that the form cannot express stay. Nothing if it names an unknown one.
std::optional<std::uint32_t> changed(std::uint32_t stored, std::uint32_t wanted, std::uint32_t FlagName::*form) {
  std::uint32_t known = 0;
  for (const FlagName& name : kFlagNames) {
    if (name.*form == 0) continue;
    known |= name.*form;
    stored = (wanted & name.*form) != 0 ? stored | name.stored : stored & ~name.stored;
  }
  if ((wanted & ~known) != 0) return std::nullopt;
  return stored;
}

void set_flags(Server& server, Request& request, Inode& inode, std::uint32_t wanted, std::uint32_t FlagName::*form) {
  const Attributes attributes = server.volume.attributes(inode);
  const auto flags = changed(attributes.flags & kInodeUserFlags, wanted, form);
  if (!flags) return request.error(EOPNOTSUPP);
  const Status status = server.volume.set_flags(inode, *flags);
  if (!status) return request.error(status.error());
  request.ioctl(nullptr, 0);
  // The ctime is another now, and this is no request after which the kernel would ask for it. A negative offset: only
  // attributes, no page is touched.
  fuse_lowlevel_notify_inval_inode(server.session, attributes.inode.value, -1, 0);
}

template <typename T>
void reply_value(Request& request, const T& value, std::size_t output_bytes) {
  if (output_bytes < sizeof value) return request.error(EINVAL);
  request.ioctl(&value, sizeof value);
}

void get_xattr_flags(Server& server, Request& request, Inode& inode, std::size_t output_bytes) {
  struct fsxattr reply {};
  reply.fsx_xflags = shown(server.volume.attributes(inode).flags, &FlagName::of_xattr);
  reply_value(request, reply, output_bytes);
}

void set_xattr_flags(Server& server, Request& request, Inode& inode, const void* input, std::size_t input_bytes) {
  struct fsxattr wanted {};
  if (input_bytes < sizeof wanted) return request.error(EINVAL);
  std::memcpy(&wanted, input, sizeof wanted);
  // No extent size hints and no project quotas here.
  if (wanted.fsx_extsize != 0 || wanted.fsx_cowextsize != 0 || wanted.fsx_projid != 0) return request.error(EOPNOTSUPP);
  set_flags(server, request, inode, wanted.fsx_xflags, &FlagName::of_xattr);
}

void set_ext_flags(Server& server, Request& request, Inode& inode, const void* input, std::size_t input_bytes) {
  std::uint32_t wanted = 0;
  if (input_bytes < sizeof wanted) return request.error(EINVAL);
  std::memcpy(&wanted, input, sizeof wanted);
  set_flags(server, request, inode, wanted, &FlagName::of_flags);
}

void reply_statistics(Server& server, Request& request, std::size_t output_bytes) {
  const auto reply = to_reply(to_json(server.volume.counters(), server.syncfs_requests));
  if (!reply) return request.error(reply.error());
  reply_value(request, **reply, output_bytes);
}

void reply_bad_blocks(Server& server, Request& request, const void* input, std::size_t input_bytes,
                      std::size_t output_bytes) {
  if (request.context().uid != 0) return request.error(EPERM);
  if (input_bytes < sizeof(protocol::BadBlocks)) return request.error(EINVAL);
  std::uint64_t cursor = 0;
  std::memcpy(&cursor, static_cast<const std::byte*>(input) + offsetof(protocol::BadBlocks, cursor), sizeof cursor);
  const auto reply = bad_blocks_reply(server.volume, cursor);
  if (!reply) return request.error(reply.error());
  reply_value(request, **reply, output_bytes);
}

void clear_bad_blocks(Server& server, Request& request, std::size_t output_bytes) {
  if (request.context().uid != 0) return request.error(EPERM);
  const auto cleared = server.volume.clear_bad_blocks();
  if (!cleared) return request.error(cleared.error());
  protocol::ClearedBadBlocks reply{.version = protocol::kVersion, .reserved = 0, .cleared = *cleared, .left = 0};
  for (const DeviceStatistics& device : server.volume.counters().devices) reply.left += device.bad_blocks;
  reply_value(request, reply, output_bytes);
}

void reply_devices(Server& server, Request& request, std::size_t output_bytes) {
  const bool immediate = server.options.volume.writeback == Writeback::kImmediate;
  const auto reply = std::make_unique<protocol::Devices>(describe_devices(server.volume, immediate));
  reply_value(request, *reply, output_bytes);
}

// The open file behind a lease; none for a directory, which has no handle.
OpenFile* open_file(Server& server, Inode& inode, const fuse_file_info* file) {
  const bool is_file = file != nullptr && file->fh != 0 && S_ISREG(server.volume.attributes(inode).mode);
  return is_file ? &OpenFiles::from(file->fh) : nullptr;
}

void reply_lease(Server& server, Request& request, Inode& inode, const fuse_file_info* file, const void* input,
                 std::size_t input_bytes, std::size_t output_bytes) {
  if (output_bytes < sizeof(protocol::Lease)) return request.error(EINVAL);
  OpenFile* const open = open_file(server, inode, file);
  if (open == nullptr) return request.error(S_ISDIR(server.volume.attributes(inode).mode) ? EISDIR : ENODEV);
  const auto wanted = parse_lease(input, input_bytes, request.context().uid);
  if (!wanted) return request.error(wanted.error());
  // Pages that the kernel keeps would hide direct stores from who reads through it.
  if (!is_direct(server, server.volume.attributes(inode))) return request.error(EOPNOTSUPP);
  const auto answer = server.volume.lease(open->handle(), *wanted, protocol::kLeaseExtentsMax);
  if (!answer) return request.error(answer.error());
  const InodeNumber number = open->handle().inode.number();
  // Before the client can store: the kernel asks for the times anew from now on. Attributes only, no page is touched.
  if (answer->first_writer) fuse_lowlevel_notify_inval_inode(server.session, number.value, -1, 0);
  const auto reply = to_wire(*answer, server.volume.epoch(), number);
  request.ioctl(reply.get(), sizeof *reply);
}

void reply_align(Server& server, Request& request, Inode& inode, const fuse_file_info* file, const void* input,
                 std::size_t input_bytes, std::size_t output_bytes) {
  protocol::Align reply{};
  if (input_bytes < sizeof reply || output_bytes < sizeof reply) return request.error(EINVAL);
  std::memcpy(&reply, input, sizeof reply);
  if (reply.version != protocol::kVersion || (reply.flags & ~protocol::kAlignKeepHoles) != 0) {
    return request.error(EINVAL);
  }
  OpenFile* const open = open_file(server, inode, file);
  if (open == nullptr) return request.error(S_ISDIR(server.volume.attributes(inode).mode) ? EISDIR : ENODEV);
  const AlignRequest wanted{reply.most_pieces, (reply.flags & protocol::kAlignKeepHoles) != 0};
  const auto aligned = server.volume.align(open->handle(), wanted);
  if (!aligned) return request.error(aligned.error());
  reply.aligned_bytes = *aligned;
  request.ioctl(&reply, sizeof reply);
}

}  // namespace

void ioctl(Server& server, Request& request, fuse_ino_t id, unsigned command, void*, fuse_file_info* file, unsigned,
           const void* input, std::size_t input_bytes, std::size_t output_bytes) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  switch (command) {
    case static_cast<unsigned>(FS_IOC_GETFLAGS):
    case static_cast<unsigned>(FS_IOC32_GETFLAGS):
      return reply_value(request, shown(server.volume.attributes(**inode).flags, &FlagName::of_flags), output_bytes);
    case static_cast<unsigned>(FS_IOC_SETFLAGS):
    case static_cast<unsigned>(FS_IOC32_SETFLAGS):
      return set_ext_flags(server, request, **inode, input, input_bytes);
    case static_cast<unsigned>(FS_IOC_FSGETXATTR):
      return get_xattr_flags(server, request, **inode, output_bytes);
    case static_cast<unsigned>(FS_IOC_FSSETXATTR):
      return set_xattr_flags(server, request, **inode, input, input_bytes);
    // The number says long, but everybody reads and writes an int: more would go past the caller's variable.
    case static_cast<unsigned>(FS_IOC_GETVERSION):
    case static_cast<unsigned>(FS_IOC32_GETVERSION):
      return reply_value(request, static_cast<std::uint32_t>(inode->generation()), output_bytes);
    case protocol::kIocStatistics:
      return reply_statistics(server, request, output_bytes);
    case protocol::kIocSync: {
      const Status status = server.volume.sync();
      return status ? request.ioctl(nullptr, 0) : request.error(status.error());
    }
    case protocol::kIocReclaim: {
      if (request.context().uid != 0) return request.error(EPERM);
      const Status status = server.volume.run_reclaim();
      return status ? request.ioctl(nullptr, 0) : request.error(status.error());
    }
    case protocol::kIocBadBlocks:
      return reply_bad_blocks(server, request, input, input_bytes, output_bytes);
    case protocol::kIocClearBadBlocks:
      return clear_bad_blocks(server, request, output_bytes);
    case protocol::kIocDevices:
      return reply_devices(server, request, output_bytes);
    case protocol::kIocLease:
      return reply_lease(server, request, **inode, file, input, input_bytes, output_bytes);
    case protocol::kIocAlign:
      return reply_align(server, request, **inode, file, input, input_bytes, output_bytes);
    default:
      return request.error(ENOTTY);
  }
}

}  // namespace plumb::fuse::handlers
