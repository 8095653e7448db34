// The device of a mount as a client opens it: the right one, of the right size, at an address that suits it.
//
// No descriptor outlives a call: a mapping keeps the open file description, and its lock, for as long as it is needed,
// follows fork(2) and is gone after exec(2), whatever the program does with descriptors that it does not know.
//
// Thread safety: no state.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "fs/client/protocol.h"

namespace plumb::client {

/// Where a line for the user goes; nothing is written where `text` is nullptr.
struct Why {
  char* text = nullptr;
  std::size_t bytes = 0;

  [[gnu::format(printf, 2, 3)]] void tell(const char* format, ...) const noexcept;
};

struct NodeIdentity {
  dev_t device;  // st_dev, st_ino and st_rdev of the node
  ino_t inode;
  dev_t number;

  bool operator==(const NodeIdentity&) const = default;
};

/// Opens the node of a member, close-on-exec. -1 with errno: of open(2), ENODEV if it is no regular file, block device
/// or dax device, or too small, or EXDEV if it is not the daemon's.
int open_node(const protocol::DeviceMember& member, bool writable, NodeIdentity* identity, Why why) noexcept;

/// Takes the lock of a client on an open node: it belongs to the description. 0, or -1 with errno: EBUSY: a program
/// holds the device for itself.
int lock_node(int fd, std::uint64_t lock_offset, Why why) noexcept;

/// Maps the whole member, shared, with MAP_SYNC where it can be had, aligned for huge pages. MAP_FAILED with errno.
/// `mapped_bytes` for munmap.
void* map_node(int fd, const protocol::DeviceMember& member, bool writable, bool* map_sync, std::size_t* mapped_bytes,
               Why why) noexcept;

/// True if a copy of the superblock (member 0) or of the label (member 1) has the uuids that the daemon named.
[[nodiscard]] bool has_uuid(const void* base, const protocol::Devices& devices, std::uint32_t member) noexcept;

/// True if the file system at `device` (st_dev) was mounted by root or by this user: any other's daemon could lead us
/// to store into devices that it may not open itself.
[[nodiscard]] bool is_mount_trusted(dev_t device) noexcept;

}  // namespace plumb::client
