// The wire between programs and the daemon of a mounted plumbfs: ioctls on any open file or directory of the mount.
//
// Rules: structures have fixed sizes, no padding, no pointers, native byte order (both ends are one machine). The first
// member is the version of the structure; a daemon answers with the version it speaks, which a client checks. An ioctl
// number encodes direction and size, because FUSE copies exactly what the number says; its size field has 14 bits, so
// that no structure exceeds 16383 bytes.
//
// Errors beside those of ioctl(2): ENOTTY from anything that is not a plumbfs; EPERM where root is needed.
//
// Thread safety: no state.
#pragma once

#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>

namespace plumb::protocol {

inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::size_t kStatisticsTextMax = 15 * 1024;

/// Answer of kIocStatistics: counters as one JSON object, see `plumb stat`.
struct Statistics {
  std::uint32_t version;          // kVersion
  std::uint32_t length_bytes;     // of the text, without a terminating NUL; at most kStatisticsTextMax
  char text[kStatisticsTextMax];  // UTF-8 JSON, the rest is zeros
};
static_assert(sizeof(Statistics) == 8 + kStatisticsTextMax);
static_assert(offsetof(Statistics, text) == 8);
static_assert(sizeof(Statistics) < (1U << _IOC_SIZEBITS));

/// Question and answer of kIocBadBlocks: the list of bad blocks, a part at a time.
struct BadBlocks {
  std::uint32_t version;       // kVersion
  std::uint32_t length_bytes;  // of the text, without a terminating NUL
  // Question: 0, or what the last answer had here. Answer: kBadBlocksEnd when there is no more.
  std::uint64_t cursor;
  char text[kStatisticsTextMax];  // UTF-8 JSON: an array, see `plumb badblocks --json`; the rest is zeros
};
inline constexpr std::uint64_t kBadBlocksEnd = ~std::uint64_t{0};
static_assert(sizeof(BadBlocks) == 16 + kStatisticsTextMax);
static_assert(offsetof(BadBlocks, text) == 16);
static_assert(sizeof(BadBlocks) < (1U << _IOC_SIZEBITS));

/// Answer of kIocClearBadBlocks.
struct ClearedBadBlocks {
  std::uint32_t version;  // kVersion
  std::uint32_t reserved;
  std::uint64_t cleared;  // blocks that left the list
  std::uint64_t left;     // blocks on the list
};
static_assert(sizeof(ClearedBadBlocks) == 24);

// ---- The direct path: fs/DESIGN.md, "Direct path" ----

inline constexpr std::size_t kDevicePathMax = 1024;  // with the terminating NUL

/// A member device, as the daemon opened it.
struct DeviceMember {
  std::uint8_t uuid[16];      // of the superblock's device table
  std::uint64_t size_bytes;   // the part in use
  std::uint32_t kind;         // kDeviceMemory or kDevicePageCached
  std::uint32_t align_bytes;  // maps begin and end at multiples of it; at least the page
  // Of the node or file, st_dev and st_ino. Locks belong to it: those of a client on another node of the same device
  // would be seen by nobody.
  std::uint64_t node_device;
  std::uint64_t node_inode;
  char path[kDevicePathMax];  // absolute, in the daemon's mount namespace
};
inline constexpr std::uint32_t kDeviceMemory = 0;
inline constexpr std::uint32_t kDevicePageCached = 1;
static_assert(sizeof(DeviceMember) == 48 + kDevicePathMax);

/// Answer of kIocDevices: what a client has to know to map the devices of the mount itself.
struct Devices {
  std::uint32_t version;           // kVersion
  std::uint32_t member_count;      // 1, or 2 with a realtime device
  std::uint64_t epoch;             // of this mount; never 0, another one after every mount
  std::uint64_t lock_offset;       // the byte of the main device that clients hold an OFD read lock on, see kIocLease
  std::uint64_t slots_offset;      // of the lease slots on the main device, bytes
  std::uint32_t slot_count;        // slots of kLeaseSlotBytes
  std::uint32_t block_size_bytes;  // file system block
  std::uint32_t flags;             // kDevices*
  std::uint32_t reserved;          // 0
  DeviceMember members[2];         // [0] main, [1] realtime
};
/// Whatever was replied to, data included, is durable: fsync has only to flush what was stored through maps.
inline constexpr std::uint32_t kDevicesImmediate = 1u << 0;
inline constexpr std::uint32_t kDevicesReadOnly = 1u << 1;  // no write leases
static_assert(sizeof(Devices) == 48 + 2 * sizeof(DeviceMember));
static_assert(offsetof(Devices, members) == 48);
static_assert(sizeof(Devices) < (1U << _IOC_SIZEBITS));

inline constexpr std::size_t kLeaseSlotBytes = 64;

/// One for each inode with leases, in the reserved area of the main device. Words are read and written whole
/// (atomically). The slot of a lease stays that inode's until the lease ends. Nothing in it outlives the mount.
struct LeaseSlot {
  /// Of the mount. Another value than the lease's: the daemon of the lease is gone; no more direct I/O, and no more
  /// belief in the other words. Read it after them.
  std::uint64_t epoch;
  std::uint64_t inode;
  std::uint64_t size_bytes;  // of the file, at any time; by the daemon
  std::uint64_t state;       // kSlot*; by the daemon
  /// CLOCK_REALTIME_COARSE of the last direct store, nanoseconds; by clients, after the store and before its operation
  /// returns. The daemon takes it for mtime and ctime, at most its own clock.
  std::uint64_t write_time_ns;
  std::uint64_t seen_time_ns;  // the write_time_ns that mtime has; by the daemon
  std::uint64_t reserved[2];
};
static_assert(sizeof(LeaseSlot) == kLeaseSlotBytes);
/// Writes go through the kernel: set-id bits or capabilities to clear, immutable, append-only or sync flag, -o sync.
inline constexpr std::uint64_t kSlotWritesByKernel = 1u << 0;
/// Somebody has a writable map: fsync goes to the daemon, which flushes what is leased so.
inline constexpr std::uint64_t kSlotMapped = 1u << 1;

struct LeaseExtent {
  std::uint64_t file_offset;    // bytes; multiple of the block size
  std::uint64_t device_offset;  // bytes, on the member that Lease::member names; multiple of the block size
  std::uint64_t length;         // bytes; multiple of the block size
};
static_assert(sizeof(LeaseExtent) == 24);
inline constexpr std::size_t kLeaseExtentsMax = 640;

/// Question and answer of kIocLease.
struct Lease {
  std::uint32_t version;       // kVersion
  std::uint32_t flags;         // question: kLease*
  std::uint64_t offset_bytes;  // question: first byte; answer: rounded down to a block
  /// Question: how many, at least 1. Answer: how much, from the answered offset on, the extents tell all about; what
  /// they do not cover in it is a hole. Less than asked when the extents are too many for one answer, or the file (its
  /// last block included) ends; 0 if it ends before the offset.
  std::uint64_t length_bytes;
  std::uint64_t size_bytes;  // answer: of the file
  std::uint64_t epoch;       // answer: of the mount
  std::uint64_t inode;       // answer
  std::uint32_t slot;        // answer: its number
  std::uint32_t member;      // answer: device of the extents, index in Devices::members
  std::uint32_t extent_count;
  std::uint32_t reserved;                 // 0
  LeaseExtent extents[kLeaseExtentsMax];  // answer: by file offset, without overlap
};
/// For stores too; the file must be open for writing.
inline constexpr std::uint32_t kLeaseWrite = 1u << 0;
/// Holes are filled with zeroed blocks; with kLeaseWrite only. The answer has none then.
inline constexpr std::uint32_t kLeaseAllocate = 1u << 1;
/// For a map that stores: every fsync of the file flushes the range from now on. With kLeaseWrite only.
inline constexpr std::uint32_t kLeaseMap = 1u << 2;
static_assert(offsetof(Lease, extents) == 64);
static_assert(sizeof(Lease) == 64 + 24 * kLeaseExtentsMax);
static_assert(sizeof(Lease) < (1U << _IOC_SIZEBITS));

/// Question and answer of kIocAlign.
struct Align {
  std::uint32_t version;        // kVersion
  std::uint32_t flags;          // question: kAlign*
  std::uint64_t most_pieces;    // question: the moving ends when the file is in no more pieces; 0: moves all
  std::uint64_t aligned_bytes;  // answer: bytes in whole, aligned chunks of 2 MiB afterwards, as far as it has looked
};
/// Chunks that have holes stay as they are. Without it a chunk that is moved has none afterwards.
inline constexpr std::uint32_t kAlignKeepHoles = 1u << 0;
static_assert(sizeof(Align) == 24);

inline constexpr unsigned kIocType = 0xf5;

/// Counters of the volume. Anybody may ask.
inline constexpr std::uint32_t kIocStatistics = _IOR(kIocType, 1, Statistics);
/// Makes everything durable that was replied to: all dirty ranges, then the journal. Returns when it is done. Anybody
/// may.
inline constexpr std::uint32_t kIocSync = _IO(kIocType, 2);
/// Works off deletion and reclaim until nothing is pending that could go. Root only.
inline constexpr std::uint32_t kIocReclaim = _IO(kIocType, 3);
/// The list of bad blocks, with what they are part of. Root only: it has the names of files.
inline constexpr std::uint32_t kIocBadBlocks = _IOWR(kIocType, 4, BadBlocks);
/// Tries to make bad blocks usable that no file owns. Root only.
inline constexpr std::uint32_t kIocClearBadBlocks = _IOR(kIocType, 5, ClearedBadBlocks);
/// The devices of the mount. Anybody may ask; who may open them is the kernel's to say.
inline constexpr std::uint32_t kIocDevices = _IOR(kIocType, 6, Devices);
/// Where a range of this open file lies. The blocks stay the file's and where they are until the open file description
/// ends, whatever happens to the file; a map of the file anchors it. Before asking, the client holds an OFD read lock
/// (F_OFD_SETLK) on byte Devices::lock_offset of a description of the main device, and keeps it as long as it uses the
/// answer: a later mount sees by it that somebody may still store. Leases of a description add up.
/// Errors: EINVAL: version, flags, range; EBADF: write lease of a file not open for writing; EISDIR, ENODEV: no regular
/// file; EOPNOTSUPP: the file goes through the page cache (dax=never, dax=inode, kernel before 6.6); EROFS; EIO: a bad
/// block in the range; ENOSPC: no room for the holes; EMFILE: this user has as many leases as one may; ENFILE: all
/// slots are taken; EPERM: as kSlotWritesByKernel.
inline constexpr std::uint32_t kIocLease = _IOWR(kIocType, 7, Lease);
/// Moves the data of this open file, which must be open for writing, into aligned chunks of 2 MiB, as far as there is
/// space, so that huge pages can map it. EINVAL: version, flags; EBUSY: the file has leases, and a chunk would have to
/// be moved. EBADF, EISDIR, ENODEV, EROFS, ENOSPC as above.
inline constexpr std::uint32_t kIocAlign = _IOWR(kIocType, 8, Align);

}  // namespace plumb::protocol
