#include "fs/fuse/direct_path.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "pmem/client_lock.h"
#include "pmem/device.h"

namespace plumb::fuse {

protocol::Devices describe_devices(Volume& volume, bool immediate) {
  protocol::Devices reply{};
  const Superblock& superblock = volume.superblock();
  reply.version = protocol::kVersion;
  reply.member_count = static_cast<std::uint32_t>(superblock.device_count());
  reply.epoch = volume.epoch();
  reply.lock_offset = pmem::client_lock_offset(reply.epoch);
  reply.slots_offset = superblock.media().lease_start;
  reply.slot_count = volume.lease_slots();
  reply.block_size_bytes = superblock.block_size();
  bool memory = true;
  for (std::size_t i = 0; i < superblock.device_count(); ++i) {
    const auto role = static_cast<DeviceRole>(i);
    const pmem::DeviceInfo& info = superblock.device(role).info();
    protocol::DeviceMember& member = reply.members[i];
    const auto& uuid = superblock.entry(role).uuid;
    std::copy(uuid.begin(), uuid.end(), member.uuid);
    member.size_bytes = superblock.entry(role).size_bytes;
    member.kind = info.kind == pmem::DeviceKind::kMemory ? protocol::kDeviceMemory : protocol::kDevicePageCached;
    memory = memory && info.kind == pmem::DeviceKind::kMemory;
    member.align_bytes = static_cast<std::uint32_t>(info.align_bytes);
    member.node_device = info.file_device;
    member.node_inode = info.file_inode;
    const std::string path = std::filesystem::absolute(info.path).lexically_normal().string();
    // A path that does not fit is left out: the client finds that it cannot be opened.
    if (path.size() < protocol::kDevicePathMax) path.copy(member.path, path.size());
  }
  if (immediate && memory) reply.flags |= protocol::kDevicesImmediate;
  if (volume.read_only()) reply.flags |= protocol::kDevicesReadOnly;
  return reply;
}

Result<LeaseRequest> parse_lease(const void* input, std::size_t input_bytes, std::uint32_t uid) {
  constexpr std::size_t kQuestionBytes = offsetof(protocol::Lease, size_bytes);
  if (input_bytes < kQuestionBytes) return fail(EINVAL);
  std::uint32_t version = 0, flags = 0;
  LeaseRequest request;
  const auto* bytes = static_cast<const std::byte*>(input);
  std::memcpy(&version, bytes + offsetof(protocol::Lease, version), sizeof version);
  std::memcpy(&flags, bytes + offsetof(protocol::Lease, flags), sizeof flags);
  std::memcpy(&request.offset_bytes, bytes + offsetof(protocol::Lease, offset_bytes), sizeof request.offset_bytes);
  std::memcpy(&request.length_bytes, bytes + offsetof(protocol::Lease, length_bytes), sizeof request.length_bytes);
  constexpr std::uint32_t kKnown = protocol::kLeaseWrite | protocol::kLeaseAllocate | protocol::kLeaseMap;
  if (version != protocol::kVersion || (flags & ~kKnown) != 0) return fail(EINVAL);
  request.write = (flags & protocol::kLeaseWrite) != 0;
  request.allocate = (flags & protocol::kLeaseAllocate) != 0;
  request.map = (flags & protocol::kLeaseMap) != 0;
  request.uid = uid;
  return request;
}

std::unique_ptr<protocol::Lease> to_wire(const LeaseAnswer& answer, std::uint64_t epoch, InodeNumber inode) {
  auto reply = std::make_unique<protocol::Lease>();
  std::memset(reply.get(), 0, sizeof *reply);
  reply->version = protocol::kVersion;
  reply->offset_bytes = answer.offset_bytes;
  reply->length_bytes = answer.length_bytes;
  reply->size_bytes = answer.size_bytes;
  reply->epoch = epoch;
  reply->inode = inode.value;
  reply->slot = answer.slot;
  reply->member = static_cast<std::uint32_t>(answer.member);
  reply->extent_count = static_cast<std::uint32_t>(answer.extents.size());
  for (std::size_t i = 0; i < answer.extents.size(); ++i) {
    const LeaseAnswer::Piece& piece = answer.extents[i];
    reply->extents[i] = {piece.file_offset, piece.device_offset, piece.length};
  }
  return reply;
}

}  // namespace plumb::fuse
