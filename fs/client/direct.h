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

#include "fs/client/device_node.h"
#include "fs/client/extent_table.h"
#include "fs/client/persist.h"
#include "fs/client/protocol.h"

namespace plumb::client {

/// The devices of one mount, mapped whole. One for each mount and way of access in a process; never freed, as any
/// thread may be copying from it.
///
/// The lock of a client is held while there are DirectFiles of it, and by each map that DirectFile::map() has made of
/// the main device, until that is unmapped: a process that is done with a mount does not keep the next one waiting.
/// After a map of the realtime device it is held until the process ends. Lock and mappings follow fork(2), are gone
/// after exec(2), and need no descriptor that the program could close.
class Mount {
 public:
  /// Of the mount that `fd`, any open file or directory of it, is on. Opens the devices and maps them; close-on-exec,
  /// and closed when it returns. nullptr: `*error` is ENOTTY (no plumbfs), EACCES (no permission on a device), EPERM
  /// (the mount is another user's), ENOTSUP (version), EPROTO (an answer that cannot be), ENODEV (the path leads to
  /// another device), EXDEV (to another node than the daemon's), or of open, fcntl, mmap; `why` gets a line for the
  /// user (may be nullptr).
  static const Mount* of(int fd, bool writable, int* error, char* why, std::size_t why_bytes) noexcept;

  [[nodiscard]] const protocol::Devices& devices() const { return devices_; }
  [[nodiscard]] bool is_writable() const { return writable_; }
  /// Every store is durable with a flush of its lines and a fence (memory device); else it takes an msync.
  [[nodiscard]] bool is_memory(std::uint32_t member) const {
    return devices_.members[member].kind == protocol::kDeviceMemory;
  }
  [[nodiscard]] bool is_map_sync(std::uint32_t member) const { return map_sync_[member]; }
  [[nodiscard]] std::byte* base(std::uint32_t member) const { return base_[member]; }
  [[nodiscard]] protocol::LeaseSlot* slot(std::uint32_t number) const {
    return reinterpret_cast<protocol::LeaseSlot*>(base_[0] + devices_.slots_offset) + number;
  }

  /// Opens the node of a member again, which must be the same; of the main device with the lock of a client on the new
  /// description. Within with_own_descriptors(); the caller closes it. -1 with errno.
  int open_again(std::uint32_t member, char* why, std::size_t why_bytes) const noexcept;

  /// From the first hold() to the last release() the lock of a client is held. 0 or errno. DirectFile does it.
  int hold(char* why, std::size_t why_bytes) const noexcept;
  void release() const noexcept;
  /// A hold that is never released: for maps of the realtime device, which have no lock of their own. 0 or errno.
  int hold_for_good() const noexcept;

 private:
  friend class MountRegistry;

  protocol::Devices devices_{};
  bool writable_ = false;
  bool map_sync_[2] = {};
  std::byte* base_[2] = {};
  NodeIdentity identity_[2] = {};
  dev_t device_ = 0;              // st_dev of its files
  const Mount* next_ = nullptr;   // of all
  mutable void* lock_ = nullptr;  // a mapping that nobody can touch; it keeps the description with the lock
  mutable std::size_t holds_ = 0;
  mutable std::atomic<bool> is_held_for_good_{false};
};

/// What a direct operation answers when it has done nothing and the kernel is to be asked.
inline constexpr ssize_t kNotHere = -4096;

/// Bytes of a file beside those that were asked for: the rest of the device pages that a map begins and ends in.
struct Padding {
  std::uint64_t before = 0;
  std::uint64_t after = 0;
};

/// The leased extents of one open file description. The owner keeps the description open, and calls no function while
/// or after it closes it (the blocks may be anybody's then). A map that outlives the description needs an anchor: a map
/// of one page of the file itself, PROT_NONE and MAP_PRIVATE.
///
/// Thread safety: every function from any thread, but destroy(). read(), write(), size(), is_synced() and note_stores()
/// also from signal handlers.
class DirectFile {
 public:
  /// nullptr with `*error` if the file cannot be used directly; as kIocLease, and as Mount::of().
  static DirectFile* open(int fd, bool writable, int* error, char* why, std::size_t why_bytes) noexcept;
  static void destroy(DirectFile* file) noexcept;

  /// Before the first lease of a file that is going to be mapped with shared pages, open for writing: has the daemon
  /// move it where otherwise no map could be made, as it does not lie in whole device pages or in too many pieces.
  /// What cannot be moved stays: the map will say why not.
  static void prepare_map(int fd) noexcept;

  /// pread(2) of bytes that are allocated; as pread(2) at the end of the file. kNotHere: holes, no lease.
  ssize_t read(void* to, std::size_t length, std::uint64_t offset) noexcept;
  /// pwrite(2) within the size and the allocated blocks; on a memory device durable when it returns. kNotHere
  /// otherwise.
  ssize_t write(const void* from, std::size_t length, std::uint64_t offset) noexcept;

  /// Tries to lease [offset, offset + length) as far as it is not leased yet: after a kNotHere, by the caller's choice.
  /// 0 or -1 with errno: as kIocLease, EPROTO, ENOMEM. What stays unknown afterwards is holes, or behind the last
  /// block. Takes a lock: not in a signal handler. learn() and map() ask by the descriptor that open() got;
  /// use_descriptor() names another one of the description when that is to be closed.
  void use_descriptor(int fd) noexcept { fd_.store(fd, std::memory_order_relaxed); }
  int learn(std::uint64_t offset, std::uint64_t length, std::uint32_t flags) noexcept;

  /// Maps the file's device pages [offset, offset + length) at `address` (MAP_FIXED, the caller owns the range) in as
  /// many pieces as it takes; `length` is rounded up to the page. Bytes behind the last block of the file are not
  /// mapped: ENXIO then, and nothing is changed (the caller maps by the kernel). `protection` as mmap(2); with
  /// PROT_WRITE, or `may_write`, the holes are filled and fsync will cover it. `flags`: MAP_SYNC is honoured
  /// (EOPNOTSUPP where the device cannot), MAP_PRIVATE (then nothing is filled or flushed), MAP_POPULATE and MAP_LOCKED
  /// passed on. 0 or -1 with errno: ENXIO: holes that may not be filled; EINVAL: alignment (device align, blocks below
  /// the page); EACCES: not open for writing; ENOMEM: too many maps; what opening the device says. After an error in
  /// the middle the range is PROT_NONE memory of nobody's. With `padding` (of find_padding()) that much is mapped
  /// before and behind it as well, where the addresses are the caller's, too.
  int map(void* address, std::size_t length, std::uint64_t offset, int protection, bool may_write, int flags,
          const Padding& padding = {}) noexcept;
  /// What a map of [offset, offset + length) needs around it because its device maps pages of align_bytes() only. All
  /// of it is this file's, allocated and within its size, or it is EINVAL. Other errors as map(); holes of the range
  /// itself are filled for a map that `stores`.
  int find_padding(std::size_t length, std::uint64_t offset, bool stores, Padding* padding) noexcept;
  /// Of the file's device: maps begin and end at multiples of it, on the device and in memory.
  [[nodiscard]] std::uint64_t align_bytes() const { return mount_->devices().members[member_].align_bytes; }

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
  DirectFile() = default;
  ~DirectFile() = default;

  int ask(protocol::Lease* lease, std::uint64_t offset, std::uint64_t length, std::uint32_t flags) const noexcept;
  int start(bool writable) noexcept;
  int add(const protocol::Lease& lease) noexcept;
  int learn_for_map(std::uint64_t bytes, std::uint64_t offset, bool stores, std::uint32_t flags) noexcept;
  [[nodiscard]] bool is_alive() const noexcept;
  std::size_t find_settled(std::uint64_t offset, std::uint64_t length, ExtentTable::Piece* pieces,
                           std::size_t max) const noexcept;
  int map_pieces(char* address, std::uint64_t length, std::uint64_t offset, int protection, int flags) noexcept;
  int map_opened(int fd, char* address, std::uint64_t length, std::uint64_t offset, int protection, int flags) noexcept;

  const Mount* mount_ = nullptr;
  std::uint32_t member_ = 0;
  bool writable_ = false;
  bool is_memory_ = false;
  std::byte* base_ = nullptr;
  protocol::LeaseSlot* slot_ = nullptr;
  std::uint64_t epoch_ = 0;
  std::uint64_t inode_ = 0;
  std::uint32_t slot_number_ = 0;
  std::atomic<int> fd_{-1};
  ExtentTable extents_;
};

}  // namespace plumb::client
