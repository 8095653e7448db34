// Every structure on the medium, byte for byte. fs/FORMAT.md explains them; a change here is a new format version.
//
// All integers are little-endian with alignment 1, so no structure has padding; sizes and offsets are asserted below.
// "Block" is a block of the block size in the superblock; block numbers count from the start of their device.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "fs/media/le.h"

namespace plumb::media {

inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::array<char, 8> kSuperblockMagic{'P', 'L', 'U', 'M', 'B', 'F', 'S', '\0'};
inline constexpr std::uint64_t kSuperblockBytes = 4096;
inline constexpr std::array<std::uint64_t, 2> kSuperblockOffsets{0, 65536};
inline constexpr std::uint64_t kReservedHeadBytes = 131072;  // superblocks and room for boot code; lease slots follow
inline constexpr std::uint32_t kMinBlockSize = 1024;
inline constexpr std::uint32_t kMaxBlockSize = 65536;
inline constexpr std::uint64_t kMinDeviceBytes = 8ull << 20;
inline constexpr std::uint64_t kPageBytes = 4096;       // alignment of areas that are flushed apart from each other
inline constexpr std::uint64_t kChunkBytes = 2u << 20;  // alignment of big files, unit of windows and of zeroed_upto
inline constexpr std::size_t kMaxDevices = 2;
inline constexpr std::uint64_t kLeaseSlotBytes = 64;

constexpr bool valid_block_size(std::uint64_t size) {
  return size == 1024 || size == 2048 || size == 4096 || size == 16384 || size == 65536;
}

using Uuid = std::array<std::uint8_t, 16>;

// Feature bits. compat: unknown ones may be ignored; ro_compat: unknown ones allow reading only; incompat: unknown ones
// refuse the mount.
inline constexpr std::uint64_t kCompatKnown = 0;
inline constexpr std::uint64_t kRoCompatBadBlocks = 1;  // the tree of bad blocks may have entries
inline constexpr std::uint64_t kRoCompatKnown = kRoCompatBadBlocks;
inline constexpr std::uint64_t kIncompatRealtime = 1;  // a realtime device is a member
inline constexpr std::uint64_t kIncompatKnown = kIncompatRealtime;

// Realtime extents: the allocation unit of the realtime device, a power of two of at least a page and a block.
inline constexpr std::uint32_t kMinRealtimeExtent = 4096;
inline constexpr std::uint32_t kMaxRealtimeExtent = 1u << 30;
constexpr bool valid_realtime_extent(std::uint64_t bytes, std::uint64_t block_size) {
  return bytes >= kMinRealtimeExtent && bytes <= kMaxRealtimeExtent && (bytes & (bytes - 1)) == 0 &&
         bytes >= block_size;
}

struct Time {
  Le64 seconds;  // two's complement, since 1970
  Le32 nanoseconds;
};
static_assert(sizeof(Time) == 12);

struct DeviceEntry {
  Uuid uuid;          // of the member
  Le64 size_bytes;    // used part
  Le64 bitmap_start;  // block on the main device
  Le64 bitmap_blocks;
  Le64 data_start;    // first block that may be allocated, on this device
  Le32 extent_bytes;  // allocation unit: the block size, or the realtime extent size
  std::uint8_t role;  // DeviceRole: 0 main, 1 realtime
  std::uint8_t kind;  // what mkfs saw: 0 memory, 1 page-cached
  std::uint8_t is_volatile;
  std::uint8_t reserved[9];
};
static_assert(sizeof(DeviceEntry) == 64);
static_assert(offsetof(DeviceEntry, extent_bytes) == 48);

struct Superblock {
  std::array<char, 8> magic;
  Le32 crc;  // crc32c of the 4096 bytes with this field 0
  Le32 version;
  Le64 compat, ro_compat, incompat;
  Uuid uuid;
  std::array<char, 32> label;  // NUL-padded
  Le32 block_size_bytes;
  Le32 inode_size_bytes;
  Le64 update;  // grows with each rewrite; the valid copy with the higher one counts
  Time created;
  Le32 device_count;
  Le64 journal_start;  // bytes on the main device, page-aligned: two headers, then the ring
  Le64 journal_bytes;
  Le64 lease_start;  // bytes; slots of the direct path, not interpreted by this version
  Le64 lease_bytes;
  Le64 state_block;  // block of State
  std::array<std::uint8_t, 16> hash_seed;
  Le64 unsafe_shutdowns;  // mounts that found the file system not unmounted
  std::uint8_t reserved0[72];
  std::array<DeviceEntry, kMaxDevices> devices;
  // Where the realtime device was when the file system was made, an absolute path padded with NULs: a place to look
  // first.
  std::array<char, 1024> realtime_path_hint;
  std::uint8_t reserved[4096 - 256 - 2 * 64 - 1024];
};
static_assert(sizeof(Superblock) == kSuperblockBytes);
static_assert(offsetof(Superblock, realtime_path_hint) == 384);
static_assert(offsetof(Superblock, block_size_bytes) == 88);
static_assert(offsetof(Superblock, journal_start) == 120);
static_assert(offsetof(Superblock, devices) == 256);

/// What a member that is not the main device begins with, twice, at kSuperblockOffsets: whose it is. Written by mkfs
/// only.
inline constexpr std::array<char, 8> kMemberMagic{'P', 'L', 'U', 'M', 'B', 'R', 'T', '\0'};
struct MemberLabel {
  std::array<char, 8> magic;
  Le32 crc;  // crc32c of the 4096 bytes with this field 0
  Le32 version;
  Uuid filesystem_uuid;
  Uuid uuid;        // of this member, as in the device table
  Le64 size_bytes;  // as in the device table
  Le32 extent_bytes;
  Le32 block_size_bytes;
  std::uint8_t role;  // DeviceRole
  std::uint8_t reserved0[7];
  Time created;
  std::array<char, 32> label;  // of the file system, for people
  std::uint8_t reserved[4096 - 116];
};
static_assert(sizeof(MemberLabel) == kSuperblockBytes);
static_assert(offsetof(MemberLabel, size_bytes) == 48);
static_assert(offsetof(MemberLabel, label) == 84);

/// Key of a block of a member in the reclaim tree and the bad-block tree; owner of a block of its bitmap.
inline constexpr unsigned kDeviceShift = 56;
constexpr std::uint64_t device_key(std::size_t device, std::uint64_t number) {
  return std::uint64_t{device} << kDeviceShift | number;
}
constexpr std::size_t device_of_key(std::uint64_t key) {
  return key >> kDeviceShift;
}
constexpr std::uint64_t number_of_key(std::uint64_t key) {
  return key & ((std::uint64_t{1} << kDeviceShift) - 1);
}

// ---- metadata blocks: every one but inode blocks begins with this header ----

enum class BlockMagic : std::uint32_t {
  kState = 0x54415453,   // "STAT"
  kBitmap = 0x504d5442,  // "BTMP"
  kNode = 0x45444f4e,    // "NODE"
  kValue = 0x45554c56,   // "VLUE"
};

struct BlockHeader {
  Le32 magic;
  Le32 crc;       // crc32c of the whole block with this field 0
  Le64 block;     // its own number
  Le64 owner;     // inode number of trees and values; tree kind for those of the file system; else 0
  Le64 sequence;  // of the transaction that changed it last
};
static_assert(sizeof(BlockHeader) == 32);

struct TreeRoot {
  Le64 block;  // 0: the tree is empty and has no node
  Le32 nodes;  // number of its nodes (values: of blocks of the chain)
  Le32 reserved;
};
static_assert(sizeof(TreeRoot) == 16);

/// Blocks that may hold data no committed extent owns: recovery zeroes those of them that the bitmap says are free.
struct WindowSlot {
  Le64 start_block;
  Le32 length_blocks;  // 0: slot not in use
  std::uint8_t device;
  std::uint8_t reserved[3];
};
static_assert(sizeof(WindowSlot) == 16);
inline constexpr std::size_t kWindowSlots = 32;

struct State {
  BlockHeader header;
  TreeRoot inode_table;  // key: index of an inode block; value: Le64 block
  TreeRoot reclaim;      // key: device << 56 | block; value: ReclaimRecord
  TreeRoot bad_blocks;   // key: device << 56 | block; value: BadBlockRecord
  Le64 orphan_head;      // inode number; linked through Inode::next_orphan; 0: none
  Le64 inodes_used;
  std::array<Le64, kMaxDevices> zeroed_upto;  // blocks from here on were never written by plumbfs and hold anything
  std::uint8_t reserved[64];
  std::array<WindowSlot, kWindowSlots> windows;
};
static_assert(offsetof(State, windows) == 176);
static_assert(sizeof(State) <= kMinBlockSize);

struct BitmapHeader {
  BlockHeader header;  // bits follow: bit i of byte j is block (index * bits per block + 8 j + i); 1 = allocated
};

enum class TreeKind : std::uint8_t {
  kInodeTable = 1,
  kReclaim = 2,
  kBadBlocks = 3,
  kExtents = 4,
  kDirectory = 5,
  kXattrs = 6,
};

struct NodeHeader {
  BlockHeader header;
  std::uint8_t level;  // 0: leaf
  std::uint8_t kind;   // TreeKind
  Le16 count;          // slots
  Le32 heap_begin;     // offset in the block of the lowest record; records lie between here and the end of the block
  Le32 dead_bytes;     // of removed records in the heap
  Le32 reserved;
};
static_assert(sizeof(NodeHeader) == 48);

/// Slots follow the header in key order. Interior records are a Le64 child block; the key is the lowest of the subtree
/// (of the first child: anything not above).
struct NodeSlot {
  Le64 key;
  Le16 offset;  // of the record, from the start of the block
  Le16 length;  // of the record
};
static_assert(sizeof(NodeSlot) == 12);

/// Values too long for a record (xattrs, symlinks): a chain of these, `bytes` of payload in each.
struct ValueHeader {
  BlockHeader header;
  Le64 next;  // block, 0: last
  Le32 bytes;
  Le32 index;  // position in the chain, from 0
};
static_assert(sizeof(ValueHeader) == 48);

// ---- records ----

struct ExtentRecord {
  Le64 device_block;
  Le32 length_blocks;
  Le32 flags;  // 0
};
static_assert(sizeof(ExtentRecord) == 16);

struct DirectoryRecord {
  Le64 inode;
  std::uint8_t type;  // DT_*
  std::uint8_t name_length;
  // name
};
static_assert(sizeof(DirectoryRecord) == 10);

inline constexpr std::uint8_t kXattrInChain = 1;
struct XattrRecord {
  std::uint8_t name_length;
  std::uint8_t flags;
  Le16 reserved;
  Le32 value_length;
  Le64 chain;  // first ValueHeader block with kXattrInChain, else 0
  // name, then the value if it is not in a chain
};
static_assert(sizeof(XattrRecord) == 16);

enum class ReclaimKind : std::uint8_t { kData = 0, kMetadata = 1 };
struct ReclaimRecord {
  Le32 length_blocks;
  std::uint8_t kind;  // ReclaimKind
  std::uint8_t reserved[3];
};
static_assert(sizeof(ReclaimRecord) == 8);

/// Who owns the unit of allocation that a bad block lies in.
enum class BadBlockOwner : std::uint8_t {
  kOther = 0,  // a file, metadata, the reclaim tree, or it lies below the data area
  kList = 1,   // nobody else: in use in the bitmap because of this entry
};
struct BadBlockRecord {
  Le32 length_blocks;  // 1
  std::uint8_t owner;  // BadBlockOwner
  std::uint8_t reserved[3];
};
static_assert(sizeof(BadBlockRecord) == 8);

// ---- inodes ----

inline constexpr std::uint32_t kInodeBytes = 256;
inline constexpr std::uint32_t kInodeMagic = 0x31444e49;  // "IND1"
inline constexpr std::size_t kInlineBytes = 80;
inline constexpr std::size_t kInlineExtents = 3;

struct InlineExtent {
  Le64 file_block;
  ExtentRecord extent;
};
static_assert(sizeof(InlineExtent) == 24);

/// An inode block has no header: it is an array of (block size / 256) inodes, each with its own checksum and number.
/// Inode n is slot n % per-block of the inode block with index n / per-block. A free inode is 256 zero bytes; number 0
/// is never used.
struct Inode {
  Le32 magic;
  Le32 crc;  // crc32c of the 256 bytes with this field 0
  Le64 number;
  Le64 generation;
  Le32 mode;
  Le32 flags;
  Le32 uid, gid;
  Le32 links;
  std::uint8_t inline_extents;  // used entries of inline_data, when data.block is 0
  std::uint8_t inline_target;   // 1: a symlink target of size_bytes lies in inline_data
  std::uint8_t on_orphan_list;
  std::uint8_t reserved0;
  Le64 size_bytes;  // directories: number of entries without . and ..
  Le64 rdev;
  Le64 blocks;  // data blocks owned
  Le64 atime, mtime, ctime, btime;
  Le32 atime_ns, mtime_ns, ctime_ns, btime_ns;
  Le64 parent;       // directories
  Le64 next_orphan;  // next on the orphan list
  TreeRoot data;     // extents, directory, or the chain of a symlink target
  TreeRoot xattrs;
  std::array<std::uint8_t, kInlineBytes> inline_data;
  Le32 chain_blocks;  // blocks in chains of xattr values
  Le32 reserved1;
};
static_assert(sizeof(Inode) == kInodeBytes);
static_assert(offsetof(Inode, inline_data) == 168);

// ---- journal ----

inline constexpr std::uint32_t kJournalMagic = 0x4c4e524a;  // "JRNL"
inline constexpr std::uint32_t kRecordMagic = 0x44434552;   // "RECD"
inline constexpr std::uint64_t kJournalHeaderStride = 512;  // two headers, each in a sector and cache lines of its own
inline constexpr std::uint64_t kJournalRingOffset = 4096;   // from journal_start
inline constexpr std::uint64_t kRecordAlign = 64;

struct JournalHeader {
  Le32 magic;
  Le32 crc;            // crc32c of the 64 bytes with this field 0
  Le64 update;         // the valid header with the higher one counts
  Le64 epoch;          // mount epoch: records carry it
  Le64 tail_offset;    // bytes from the start of the ring: where the first live record would be
  Le64 tail_sequence;  // its sequence number
  Le32 tail_seed;      // crc seed of that record (crc of the one before it)
  Le32 clean;          // 1: unmounted; the ring holds no live record
  Le32 deferred;       // 1: data is written back later (writeback=deferred): flush it all after an unclean end
  Le32 reserved0;
  Le64 reserved1;
};
static_assert(sizeof(JournalHeader) == 64);

inline constexpr std::uint32_t kRecordTransaction = 1;
inline constexpr std::uint32_t kRecordPad = 2;  // nothing; the ring continues at offset 0

struct RecordHeader {
  Le32 magic;
  Le32
      crc;  // crc32c, seeded with the previous record's crc, of the whole record (pad: of the header) with this field 0
  Le64 epoch;
  Le64 sequence;
  Le32 length_bytes;  // of the record with header, a multiple of 64 (pad: of the header and what it skips)
  Le32 kind;
  Le32 ranges;
  Le32 reserved0;
  Le64 reserved[3];
};
static_assert(sizeof(RecordHeader) == 64);

struct RangeHeader {
  Le64 home_offset;  // bytes on the main device; within one metadata block
  Le32 length_bytes;
  Le32 reserved;
  // bytes, padded to a multiple of 8
};
static_assert(sizeof(RangeHeader) == 16);

}  // namespace plumb::media
