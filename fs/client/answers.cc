#include "fs/client/answers.h"

#include <algorithm>
#include <cstring>

namespace plumb::client {
namespace {

constexpr std::uint64_t kSmallestPage = 4096;
// The reserved head of every device: fs/FORMAT.md, section 2.
constexpr std::uint64_t kHeadBytes = 128 * 1024;

bool is_power_of_two(std::uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

bool is_sound(const protocol::DeviceMember& member) {
  return member.size_bytes >= kHeadBytes && member.size_bytes <= std::uint64_t{INT64_MAX} &&
         member.kind <= protocol::kDevicePageCached && member.align_bytes >= kSmallestPage &&
         is_power_of_two(member.align_bytes) && member.path[0] == '/' &&
         memchr(member.path, 0, sizeof member.path) != nullptr;
}

std::uint64_t slots_end(const protocol::Devices& devices) {
  return devices.slots_offset + devices.slot_count * std::uint64_t{protocol::kLeaseSlotBytes};
}

}  // namespace

bool is_sound(const protocol::Devices& devices) noexcept {
  if (devices.version != protocol::kVersion || devices.member_count < 1 || devices.member_count > 2) return false;
  for (std::uint32_t i = 0; i < devices.member_count; ++i) {
    if (!is_sound(devices.members[i])) return false;
  }
  const std::uint64_t size = devices.members[0].size_bytes;
  return devices.epoch != 0 && devices.lock_offset <= std::uint64_t{INT64_MAX} - 1 &&
         devices.slots_offset % protocol::kLeaseSlotBytes == 0 && devices.slots_offset < size &&
         slots_end(devices) <= size && devices.block_size_bytes >= 1024 && devices.block_size_bytes <= 65536 &&
         is_power_of_two(devices.block_size_bytes);
}

bool is_sound(const protocol::Lease& answer, std::uint64_t offset, std::uint64_t length,
              const protocol::Devices& devices) noexcept {
  const std::uint64_t block = devices.block_size_bytes;
  if (answer.version != protocol::kVersion || answer.epoch != devices.epoch || answer.slot >= devices.slot_count ||
      answer.member >= devices.member_count || answer.extent_count > protocol::kLeaseExtentsMax ||
      answer.offset_bytes != offset / block * block) {
    return false;
  }
  // Up to the end of the block that the question ends in.
  const std::uint64_t most = (offset - answer.offset_bytes + length + block - 1) / block * block;
  if (answer.length_bytes > most) return false;
  const std::uint64_t end = (answer.offset_bytes + answer.length_bytes + block - 1) / block * block;
  const std::uint64_t device_begin = answer.member == 0 ? std::max(kHeadBytes, slots_end(devices)) : kHeadBytes;
  const std::uint64_t device_end = devices.members[answer.member].size_bytes;
  std::uint64_t from = answer.offset_bytes;
  for (std::uint32_t i = 0; i < answer.extent_count; ++i) {
    const protocol::LeaseExtent& extent = answer.extents[i];
    if (extent.length == 0 || extent.length % block != 0 || extent.file_offset % block != 0 ||
        extent.device_offset % block != 0) {
      return false;
    }
    if (extent.file_offset < from || extent.file_offset > end || extent.length > end - extent.file_offset) return false;
    if (extent.device_offset < device_begin || extent.device_offset > device_end ||
        extent.length > device_end - extent.device_offset) {
      return false;
    }
    from = extent.file_offset + extent.length;
  }
  return true;
}

}  // namespace plumb::client
