#include "fs/media/verify.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "pmem/crc32c.h"

namespace plumb::media {
namespace {

template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span<const T, 1>(&object, 1));
}

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

std::string block_name(std::uint64_t number) {
  return "block " + std::to_string(number);
}

std::size_t least_record(TreeKind kind, std::uint8_t level) {
  if (level > 0) return sizeof(Le64);
  switch (kind) {
    case TreeKind::kInodeTable:
      return sizeof(Le64);
    case TreeKind::kReclaim:
      return sizeof(ReclaimRecord);
    case TreeKind::kBadBlocks:
      return sizeof(BadBlockRecord);
    case TreeKind::kExtents:
      return sizeof(ExtentRecord);
    case TreeKind::kDirectory:
      return sizeof(DirectoryRecord) + 1;
    case TreeKind::kXattrs:
      return sizeof(XattrRecord) + 1;
  }
  return 1;
}

Status verify_record(TreeKind kind, std::span<const std::byte> record, const std::string& where) {
  if (kind == TreeKind::kDirectory) {
    DirectoryRecord entry;
    std::memcpy(&entry, record.data(), sizeof entry);
    if (entry.name_length == 0 || record.size() != sizeof entry + entry.name_length)
      return fail(EUCLEAN, where + ": directory record: name_length does not fit the record");
  } else if (kind == TreeKind::kXattrs) {
    XattrRecord entry;
    std::memcpy(&entry, record.data(), sizeof entry);
    const bool chained = (entry.flags & kXattrInChain) != 0;
    const std::size_t expected = sizeof entry + entry.name_length + (chained ? 0 : entry.value_length.get());
    if (entry.name_length == 0 || record.size() != expected)
      return fail(EUCLEAN, where + ": xattr record: lengths do not fit the record");
    if (entry.value_length > 65536) return fail(EUCLEAN, where + ": xattr record: value_length above 65536");
  }
  return {};
}

}  // namespace

std::uint32_t checksum(std::span<const std::byte> bytes, std::size_t crc_offset, std::uint32_t seed) {
  static constexpr std::array<std::byte, 4> kZeros{};
  std::uint32_t crc = pmem::crc32c(seed, bytes.first(crc_offset));
  crc = pmem::crc32c(crc, kZeros);
  return pmem::crc32c(crc, bytes.subspan(crc_offset + 4));
}

void seal_block(std::span<std::byte> block) {
  const Le32 crc = checksum(block, offsetof(BlockHeader, crc));
  std::memcpy(block.data() + offsetof(BlockHeader, crc), &crc, sizeof crc);
}

void seal_inode(Inode& inode) {
  inode.crc = checksum(bytes_of(inode), offsetof(Inode, crc));
}

void seal_superblock(Superblock& superblock) {
  superblock.crc = checksum(bytes_of(superblock), offsetof(Superblock, crc));
}

void seal_member_label(MemberLabel& label) {
  label.crc = checksum(bytes_of(label), offsetof(MemberLabel, crc));
}

Status verify_member_label(const MemberLabel& label) {
  if (label.magic != kMemberMagic) return fail(EUCLEAN, "member label: magic: not a member of a plumbfs");
  if (label.crc != checksum(bytes_of(label), offsetof(MemberLabel, crc)))
    return fail(EBADMSG, "member label: checksum is wrong");
  if (label.version != kFormatVersion)
    return fail(ENOTSUP, "member label: format version " + std::to_string(label.version) + ", this program knows " +
                             std::to_string(kFormatVersion));
  if (label.role != 1) return fail(EUCLEAN, "member label: role");
  return {};
}

namespace {

// The second entry of the device table; its bitmap begins at block `bitmap_from` or later.
Status verify_realtime_entry(const Superblock& superblock, std::uint64_t bitmap_from) {
  const DeviceEntry& entry = superblock.devices[1];
  const std::uint64_t block_size = superblock.block_size_bytes;
  if (entry.role != 1) return fail(EUCLEAN, "superblock: devices[1].role");
  const std::uint64_t unit = entry.extent_bytes;
  if (!valid_realtime_extent(unit, block_size)) return fail(EUCLEAN, "superblock: devices[1].extent_bytes");
  if (entry.size_bytes == 0 || entry.size_bytes % unit != 0 || entry.size_bytes > (std::uint64_t{1} << 63))
    return fail(EUCLEAN, "superblock: devices[1].size_bytes");
  const std::uint64_t units = entry.size_bytes / unit;
  const std::uint64_t bits = (block_size - sizeof(BitmapHeader)) * 8;
  const std::uint64_t blocks = superblock.devices[0].size_bytes / block_size;
  if (entry.bitmap_blocks != (units + bits - 1) / bits || entry.bitmap_start < bitmap_from ||
      entry.bitmap_start >= blocks || entry.bitmap_blocks > blocks - entry.bitmap_start)
    return fail(EUCLEAN, "superblock: devices[1].bitmap_start or bitmap_blocks");
  if (entry.data_start * block_size % unit != 0 || entry.data_start * block_size < kReservedHeadBytes ||
      entry.data_start >= entry.size_bytes / block_size)
    return fail(EUCLEAN, "superblock: devices[1].data_start");
  return {};
}

}  // namespace

Status verify_superblock(const Superblock& superblock, std::uint64_t device_bytes) {
  if (superblock.magic == kMemberMagic)
    return fail(EUCLEAN, "superblock: this is the realtime device of a plumbfs; its main device is the one to name");
  if (superblock.magic != kSuperblockMagic) return fail(EUCLEAN, "superblock: magic: not a plumbfs");
  if (superblock.crc != checksum(bytes_of(superblock), offsetof(Superblock, crc)))
    return fail(EBADMSG, "superblock: checksum is wrong");
  if (superblock.version != kFormatVersion)
    return fail(ENOTSUP, "superblock: format version " + std::to_string(superblock.version) + ", this program knows " +
                             std::to_string(kFormatVersion));
  if ((superblock.incompat & ~kIncompatKnown) != 0)
    return fail(ENOTSUP, "superblock: features this program does not know (incompat bits " +
                             std::to_string(superblock.incompat & ~kIncompatKnown) + "); use a newer plumbfs");
  const std::uint64_t block_size = superblock.block_size_bytes;
  if (!valid_block_size(block_size)) return fail(EUCLEAN, "superblock: block_size_bytes");
  if (superblock.inode_size_bytes != kInodeBytes) return fail(EUCLEAN, "superblock: inode_size_bytes");
  if (superblock.device_count < 1 || superblock.device_count > kMaxDevices)
    return fail(EUCLEAN, "superblock: device_count");
  if ((superblock.device_count > 1) != ((superblock.incompat & kIncompatRealtime) != 0))
    return fail(EUCLEAN, "superblock: device_count and incompat do not agree");
  const DeviceEntry& main = superblock.devices[0];
  if (main.role != 0) return fail(EUCLEAN, "superblock: devices[0].role");
  if (main.size_bytes > device_bytes)
    return fail(EUCLEAN, "superblock: the file system has " + std::to_string(main.size_bytes) +
                             " bytes, the device only " + std::to_string(device_bytes) + "; is it cut off?");
  if (main.size_bytes < kMinDeviceBytes || main.size_bytes % block_size != 0)
    return fail(EUCLEAN, "superblock: devices[0].size_bytes");
  const std::uint64_t blocks = main.size_bytes / block_size;
  const std::uint64_t bits = (block_size - sizeof(BitmapHeader)) * 8;
  if (main.bitmap_blocks != (blocks + bits - 1) / bits || main.bitmap_start >= blocks ||
      main.bitmap_blocks > blocks - main.bitmap_start)
    return fail(EUCLEAN, "superblock: devices[0].bitmap_start or bitmap_blocks");
  if (main.data_start >= blocks || main.data_start < main.bitmap_start + main.bitmap_blocks)
    return fail(EUCLEAN, "superblock: devices[0].data_start");
  std::uint64_t bitmaps_end = main.bitmap_start + main.bitmap_blocks;
  if (superblock.device_count > 1) {
    PLUMB_TRY(verify_realtime_entry(superblock, bitmaps_end));
    bitmaps_end = superblock.devices[1].bitmap_start + superblock.devices[1].bitmap_blocks;
  }
  const std::uint64_t head = kReservedHeadBytes;
  if (superblock.state_block * block_size < head || superblock.state_block >= main.bitmap_start)
    return fail(EUCLEAN, "superblock: state_block");
  const std::uint64_t journal = superblock.journal_start;
  if (journal % kPageBytes != 0 || superblock.journal_bytes % kPageBytes != 0 || journal < head ||
      journal / block_size < bitmaps_end || superblock.journal_bytes < kJournalRingOffset + (64u << 10) ||
      journal > main.data_start * block_size || superblock.journal_bytes > main.data_start * block_size - journal)
    return fail(EUCLEAN, "superblock: journal_start or journal_bytes");
  if (superblock.lease_start % kPageBytes != 0 || superblock.lease_start < head ||
      superblock.lease_bytes > superblock.state_block * block_size - superblock.lease_start ||
      superblock.lease_start > superblock.state_block * block_size)
    return fail(EUCLEAN, "superblock: lease_start or lease_bytes");
  return {};
}

Status verify_block(std::span<const std::byte> block, BlockMagic magic, std::uint64_t number) {
  BlockHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  if (header.magic != static_cast<std::uint32_t>(magic)) return fail(EUCLEAN, block_name(number) + ": magic");
  if (header.crc != checksum(block, offsetof(BlockHeader, crc)))
    return fail(EBADMSG, block_name(number) + ": checksum is wrong");
  if (header.block != number) return fail(EUCLEAN, block_name(number) + ": own block number");
  return {};
}

Status verify_node(std::span<const std::byte> block, std::uint64_t number, TreeKind kind) {
  PLUMB_TRY(verify_block(block, BlockMagic::kNode, number));
  const std::string where = block_name(number);
  NodeHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  if (header.kind != static_cast<std::uint8_t>(kind)) return fail(EUCLEAN, where + ": node kind");
  if (header.level > 15) return fail(EUCLEAN, where + ": node level");
  const std::size_t slots_end = sizeof header + std::size_t{header.count} * sizeof(NodeSlot);
  if (header.heap_begin > block.size() || slots_end > header.heap_begin)
    return fail(EUCLEAN, where + ": node heap_begin or count");
  if (header.level > 0 && header.count == 0) return fail(EUCLEAN, where + ": interior node without children");
  const std::size_t least = least_record(kind, header.level);
  const std::size_t most = (block.size() - sizeof header) / 3 - sizeof(NodeSlot);
  std::uint64_t previous = 0;
  std::size_t live = 0;
  std::vector<std::pair<std::size_t, std::size_t>> places;  // of the records: begin, end
  places.reserve(header.count);
  for (std::size_t i = 0; i < header.count; ++i) {
    NodeSlot slot;
    std::memcpy(&slot, block.data() + sizeof header + i * sizeof slot, sizeof slot);
    const std::size_t offset = slot.offset;
    const std::size_t length = slot.length;
    if (i > 0 && slot.key <= previous) return fail(EUCLEAN, where + ": node keys are not in order");
    previous = slot.key;
    if (offset < header.heap_begin || offset > block.size() || length < least || length > block.size() - offset)
      return fail(EUCLEAN, where + ": node record outside the heap");
    if (length > most) return fail(EUCLEAN, where + ": node record longer than a third of a node");
    live += length;
    places.emplace_back(offset, offset + length);
    if (header.level == 0) PLUMB_TRY(verify_record(kind, block.subspan(offset, length), where));
  }
  if (live + header.dead_bytes != block.size() - header.heap_begin) return fail(EUCLEAN, where + ": node dead_bytes");
  // A store into one of two that overlap would change the other, which nobody would verify again.
  std::sort(places.begin(), places.end());
  for (std::size_t i = 1; i < places.size(); ++i)
    if (places[i].first < places[i - 1].second) return fail(EUCLEAN, where + ": node records overlap");
  return {};
}

Status verify_state(std::span<const std::byte> block, std::uint64_t number) {
  return verify_block(block, BlockMagic::kState, number);
}

Status verify_inode(const Inode& inode, std::uint64_t number) {
  const std::string where = "inode " + std::to_string(number);
  if (inode.magic == 0 && is_zero(bytes_of(inode))) return fail(ESTALE);
  if (inode.magic != kInodeMagic) return fail(EUCLEAN, where + ": magic");
  if (inode.crc != checksum(bytes_of(inode), offsetof(Inode, crc))) return fail(EBADMSG, where + ": checksum is wrong");
  if (inode.number != number) return fail(EUCLEAN, where + ": own number");
  const std::uint32_t type = inode.mode & S_IFMT;
  if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO &&
      type != S_IFSOCK)
    return fail(EUCLEAN, where + ": mode");
  if (inode.inline_extents > kInlineExtents) return fail(EUCLEAN, where + ": inline_extents");
  if (type == S_IFREG && inode.size_bytes > 0x7fff'ffff'ffff'ffffULL) return fail(EUCLEAN, where + ": size_bytes");
  if (type == S_IFLNK && (inode.size_bytes == 0 || inode.size_bytes > 4095 ||
                          (inode.inline_target != 0 && inode.size_bytes > kInlineBytes)))
    return fail(EUCLEAN, where + ": size_bytes of a symlink");
  return {};
}

JournalGeometry journal_geometry(const Superblock& superblock) {
  JournalGeometry geometry;
  geometry.start_bytes = superblock.journal_start;
  geometry.length_bytes = superblock.journal_bytes;
  geometry.block_size_bytes = superblock.block_size_bytes;
  geometry.first_home_bytes = superblock.state_block * std::uint64_t{superblock.block_size_bytes};
  geometry.end_bytes = superblock.devices[0].size_bytes;
  return geometry;
}

Status verify_redo_range(const JournalGeometry& journal, std::uint64_t home_offset_bytes, std::uint64_t length_bytes) {
  const std::uint64_t block = home_offset_bytes / journal.block_size_bytes * journal.block_size_bytes;
  if (length_bytes == 0 || length_bytes > journal.block_size_bytes - (home_offset_bytes - block))
    return fail(EUCLEAN, "journal record: length_bytes: a range that is not within one block");
  const bool in_journal =
      block + journal.block_size_bytes > journal.start_bytes && block < journal.start_bytes + journal.length_bytes;
  if (block < journal.first_home_bytes || block >= journal.end_bytes || in_journal)
    return fail(EUCLEAN, "journal record: home_offset: not in a metadata block");
  return {};
}

Status verify_journal_header(const JournalHeader& header, std::uint64_t ring_bytes) {
  if (header.magic != kJournalMagic) return fail(EUCLEAN, "journal header: magic");
  if (header.crc != checksum(bytes_of(header), offsetof(JournalHeader, crc)))
    return fail(EBADMSG, "journal header: checksum is wrong");
  if (header.tail_offset >= ring_bytes || header.tail_offset % kRecordAlign != 0)
    return fail(EUCLEAN, "journal header: tail_offset");
  // Numbers grow by one; those that no file system gets to would wrap around.
  constexpr std::uint64_t kMost = std::uint64_t{1} << 63;
  if (header.tail_sequence == 0 || header.tail_sequence >= kMost) return fail(EUCLEAN, "journal header: tail_sequence");
  if (header.update == 0 || header.update >= kMost) return fail(EUCLEAN, "journal header: update");
  if (header.epoch >= kMost) return fail(EUCLEAN, "journal header: epoch");
  return {};
}

}  // namespace plumb::media
