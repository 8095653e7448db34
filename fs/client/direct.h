// The direct path of a client: files of a plumbfs that this process reads, writes and maps itself, on the devices of
// the mount. What libplumbfs and the preload library are made of.
//
// A client never changes metadata and never trusts more than its lease (fs/client/protocol.h): the blocks of a lease
// stay the file's until the open file description ends, and its size is in the slot at every moment. Whatever the
// direct path cannot do returns "not here" and the caller takes the kernel's way, which is always right.
//
// No exceptions leave these functions, and none is thrown on the paths that a signal handler may meet: read() and
// write() take no lock and allocate nothing.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fs/client/protocol.h"

namespace plumb::client {

/// The devices of one mount, mapped whole. One for each mount and way of access in a process; never freed, as any
/// thread may be copying from it.
class Mount {
 public:
  /// Of the mount that `fd`, any open file or directory of it, is on. Opens the devices, takes the lock of a client,
  /// maps. nullptr: `*error` is ENOTTY (no plumbfs), EACCES (no permission on a device), ENOTSUP (version), ENODEV (the
  /// path leads to another device), or of open, fcntl, mmap; `why` gets a line for the user (may be nullptr).
  static const Mount* of(int fd, bool writable, int* error, char* why, std::size_t why_bytes) noexcept;

  [[nodiscard]] const protocol::Devices& devices() const { return devices_; }
  [[nodiscard]] bool is_writable() const { return writable_; }
  /// Every store is durable with a flush of its lines and a fence (memory device); else it takes an msync.
  [[nodiscard]] bool is_memory(std::uint32_t member) const {
    return devices_.members[member].kind == protocol::kDeviceMemory;
  }
  [[nodiscard]] bool is_map_sync(std::uint32_t member) const { return map_sync_[member]; }
  [[nodiscard]] std::byte* base(std::uint32_t member) const { return base_[member]; }
  [[nodiscard]] int device_fd(std::uint32_t member) const { return device_fd_[member]; }
  [[nodiscard]] protocol::LeaseSlot* slot(std::uint32_t number) const;

 private:
  protocol::Devices devices_{};
  bool writable_ = false;
  bool map_sync_[2] = {};
  std::byte* base_[2] = {};
  int device_fd_[2] = {-1, -1};
};

/// What a direct operation answers when it has done nothing and the kernel is to be asked.
inline constexpr ssize_t kNotHere = -4096;

/// The leased extents of one open file description. The owner keeps the description open, and calls no function while
/// or after it closes it (the blocks may be anybody's then).
class DirectFile {
 public:
  /// nullptr with `*error` if the file cannot be used directly; as kIocLease, and as Mount::of().
  static DirectFile* open(int fd, bool writable, int* error, char* why, std::size_t why_bytes) noexcept;
  static void destroy(DirectFile* file) noexcept;

  /// pread(2) of bytes that are allocated; as pread(2) at the end of the file. kNotHere: holes, no lease.
  ssize_t read(void* to, std::size_t length, std::uint64_t offset) noexcept;
  /// pwrite(2) within the size and the allocated blocks; on a memory device durable when it returns. kNotHere
  /// otherwise.
  ssize_t write(const void* from, std::size_t length, std::uint64_t offset) noexcept;

  /// Tries to lease [offset, offset + length) as far as it is not leased yet: after a kNotHere, by the caller's choice.
  /// 0 or -1 with errno. Takes a lock: not in a signal handler.
  int learn(std::uint64_t offset, std::uint64_t length, std::uint32_t flags) noexcept;

  /// Maps the file's device pages [offset, offset + length) at `address` (MAP_FIXED, the caller owns the range) in as
  /// many pieces as it takes. Bytes behind the last block of the file are not mapped: ENXIO then, and nothing is
  /// changed (the caller maps by the kernel). `protection` as mmap(2); with PROT_WRITE, or `may_write`, the holes are
  /// filled and fsync will cover it. `flags`: MAP_SYNC is honoured (EOPNOTSUPP where the device cannot). 0 or -1 with
  /// errno: ENXIO: holes that may not be filled; EINVAL: alignment (device align, blocks below the page); ENOMEM: too
  /// many maps. After an error in the middle the range is PROT_NONE memory of nobody's.
  int map(void* address, std::size_t length, std::uint64_t offset, int protection, bool may_write, int flags) noexcept;

  /// Size now. False: the daemon of the lease is gone.
  bool size(std::uint64_t* bytes) const noexcept;
  /// True if fsync (or fdatasync) has nothing to do: all is durable, and the times are known or not asked for.
  bool is_synced(bool data_only) const noexcept;
  /// Stores through a map of this file were or may have been made: for mtime.
  void note_stores() noexcept;

  [[nodiscard]] const Mount& mount() const { return *mount_; }
  [[nodiscard]] std::uint32_t member() const { return member_; }
  [[nodiscard]] bool is_writable() const { return writable_; }

 private:
  const Mount* mount_ = nullptr;
  std::uint32_t member_ = 0;
  bool writable_ = false;
  // The rest is the implementation's.
};

/// Flushes the cache lines of [address, address + length) and fences: memory devices.
void persist(const void* address, std::size_t length) noexcept;
/// Copies with streaming stores and fences: durable on a memory device.
void copy_persist(void* to, const void* from, std::size_t length) noexcept;

}  // namespace plumb::client
