#include "test/catalogue/structures.h"

#include <charconv>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "fs/media/layout.h"

namespace plumb::catalogue {
namespace {

using Fields = std::map<std::string, Field, std::less<>>;

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): offsetof is one, too
#define PLUMB_FIELD(type, member)                                                \
  {                                                                              \
#member, {                                                                   \
      offsetof(media::type, member), sizeof(std::declval<media::type&>().member) \
    }                                                                            \
  }

const std::map<Structure, Fields>& all_fields() {
  static const std::map<Structure, Fields> all = {
      {Structure::kBytes, {}},
      {Structure::kSuperblock,
       {PLUMB_FIELD(Superblock, magic), PLUMB_FIELD(Superblock, crc), PLUMB_FIELD(Superblock, version),
        PLUMB_FIELD(Superblock, compat), PLUMB_FIELD(Superblock, ro_compat), PLUMB_FIELD(Superblock, incompat),
        PLUMB_FIELD(Superblock, uuid), PLUMB_FIELD(Superblock, label), PLUMB_FIELD(Superblock, block_size_bytes),
        PLUMB_FIELD(Superblock, inode_size_bytes), PLUMB_FIELD(Superblock, update), PLUMB_FIELD(Superblock, created),
        PLUMB_FIELD(Superblock, device_count), PLUMB_FIELD(Superblock, journal_start),
        PLUMB_FIELD(Superblock, journal_bytes), PLUMB_FIELD(Superblock, lease_start),
        PLUMB_FIELD(Superblock, lease_bytes), PLUMB_FIELD(Superblock, state_block),
        PLUMB_FIELD(Superblock, unsafe_shutdowns)}},
      {Structure::kDeviceEntry,
       {PLUMB_FIELD(DeviceEntry, uuid), PLUMB_FIELD(DeviceEntry, size_bytes), PLUMB_FIELD(DeviceEntry, bitmap_start),
        PLUMB_FIELD(DeviceEntry, bitmap_blocks), PLUMB_FIELD(DeviceEntry, data_start),
        PLUMB_FIELD(DeviceEntry, extent_bytes), PLUMB_FIELD(DeviceEntry, role), PLUMB_FIELD(DeviceEntry, kind)}},
      {Structure::kMemberLabel,
       {PLUMB_FIELD(MemberLabel, magic), PLUMB_FIELD(MemberLabel, crc), PLUMB_FIELD(MemberLabel, version),
        PLUMB_FIELD(MemberLabel, filesystem_uuid), PLUMB_FIELD(MemberLabel, uuid), PLUMB_FIELD(MemberLabel, size_bytes),
        PLUMB_FIELD(MemberLabel, extent_bytes), PLUMB_FIELD(MemberLabel, block_size_bytes),
        PLUMB_FIELD(MemberLabel, role)}},
      {Structure::kState,
       {PLUMB_FIELD(State, header.magic),
        PLUMB_FIELD(State, header.block),
        PLUMB_FIELD(State, header.owner),
        PLUMB_FIELD(State, inode_table.block),
        PLUMB_FIELD(State, inode_table.nodes),
        PLUMB_FIELD(State, reclaim.block),
        PLUMB_FIELD(State, reclaim.nodes),
        PLUMB_FIELD(State, bad_blocks.block),
        PLUMB_FIELD(State, bad_blocks.nodes),
        PLUMB_FIELD(State, orphan_head),
        {"zeroed_upto", {offsetof(media::State, zeroed_upto), sizeof(media::Le64)}},
        {"realtime_zeroed_upto", {offsetof(media::State, zeroed_upto) + sizeof(media::Le64), sizeof(media::Le64)}}}},
      {Structure::kWindowSlot,
       {PLUMB_FIELD(WindowSlot, start_block), PLUMB_FIELD(WindowSlot, length_blocks), PLUMB_FIELD(WindowSlot, device)}},
      {Structure::kBlockHeader,
       {PLUMB_FIELD(BitmapHeader, header.magic), PLUMB_FIELD(BitmapHeader, header.block),
        PLUMB_FIELD(BitmapHeader, header.owner)}},
      {Structure::kNode,
       {PLUMB_FIELD(NodeHeader, header.magic), PLUMB_FIELD(NodeHeader, header.block),
        PLUMB_FIELD(NodeHeader, header.owner), PLUMB_FIELD(NodeHeader, level), PLUMB_FIELD(NodeHeader, kind),
        PLUMB_FIELD(NodeHeader, count), PLUMB_FIELD(NodeHeader, heap_begin), PLUMB_FIELD(NodeHeader, dead_bytes)}},
      {Structure::kNodeSlot,
       {PLUMB_FIELD(NodeSlot, key), PLUMB_FIELD(NodeSlot, offset), PLUMB_FIELD(NodeSlot, length)}},
      {Structure::kValue,
       {PLUMB_FIELD(ValueHeader, header.magic), PLUMB_FIELD(ValueHeader, header.block),
        PLUMB_FIELD(ValueHeader, header.owner), PLUMB_FIELD(ValueHeader, next), PLUMB_FIELD(ValueHeader, bytes),
        PLUMB_FIELD(ValueHeader, index)}},
      {Structure::kChild, {{"child", {0, sizeof(media::Le64)}}}},
      {Structure::kExtentRecord,
       {PLUMB_FIELD(ExtentRecord, device_block), PLUMB_FIELD(ExtentRecord, length_blocks),
        PLUMB_FIELD(ExtentRecord, flags)}},
      {Structure::kInlineExtent,
       {PLUMB_FIELD(InlineExtent, file_block), PLUMB_FIELD(InlineExtent, extent.device_block),
        PLUMB_FIELD(InlineExtent, extent.length_blocks), PLUMB_FIELD(InlineExtent, extent.flags)}},
      {Structure::kDirectoryRecord,
       {PLUMB_FIELD(DirectoryRecord, inode), PLUMB_FIELD(DirectoryRecord, type),
        PLUMB_FIELD(DirectoryRecord, name_length)}},
      {Structure::kXattrRecord,
       {PLUMB_FIELD(XattrRecord, name_length), PLUMB_FIELD(XattrRecord, flags), PLUMB_FIELD(XattrRecord, value_length),
        PLUMB_FIELD(XattrRecord, chain)}},
      {Structure::kReclaimRecord, {PLUMB_FIELD(ReclaimRecord, length_blocks), PLUMB_FIELD(ReclaimRecord, kind)}},
      {Structure::kInode, {PLUMB_FIELD(Inode, magic),         PLUMB_FIELD(Inode, crc),
                           PLUMB_FIELD(Inode, number),        PLUMB_FIELD(Inode, generation),
                           PLUMB_FIELD(Inode, mode),          PLUMB_FIELD(Inode, flags),
                           PLUMB_FIELD(Inode, uid),           PLUMB_FIELD(Inode, gid),
                           PLUMB_FIELD(Inode, links),         PLUMB_FIELD(Inode, inline_extents),
                           PLUMB_FIELD(Inode, inline_target), PLUMB_FIELD(Inode, on_orphan_list),
                           PLUMB_FIELD(Inode, size_bytes),    PLUMB_FIELD(Inode, rdev),
                           PLUMB_FIELD(Inode, blocks),        PLUMB_FIELD(Inode, atime),
                           PLUMB_FIELD(Inode, mtime),         PLUMB_FIELD(Inode, ctime),
                           PLUMB_FIELD(Inode, btime),         PLUMB_FIELD(Inode, atime_ns),
                           PLUMB_FIELD(Inode, mtime_ns),      PLUMB_FIELD(Inode, ctime_ns),
                           PLUMB_FIELD(Inode, btime_ns),      PLUMB_FIELD(Inode, parent),
                           PLUMB_FIELD(Inode, next_orphan),   PLUMB_FIELD(Inode, data.block),
                           PLUMB_FIELD(Inode, data.nodes),    PLUMB_FIELD(Inode, xattrs.block),
                           PLUMB_FIELD(Inode, xattrs.nodes),  PLUMB_FIELD(Inode, inline_data),
                           PLUMB_FIELD(Inode, chain_blocks)}},
      {Structure::kJournalHeader,
       {PLUMB_FIELD(JournalHeader, magic), PLUMB_FIELD(JournalHeader, crc), PLUMB_FIELD(JournalHeader, update),
        PLUMB_FIELD(JournalHeader, epoch), PLUMB_FIELD(JournalHeader, tail_offset),
        PLUMB_FIELD(JournalHeader, tail_sequence), PLUMB_FIELD(JournalHeader, tail_seed),
        PLUMB_FIELD(JournalHeader, clean), PLUMB_FIELD(JournalHeader, deferred),
        PLUMB_FIELD(JournalHeader, reserved1)}},
      {Structure::kRecordHeader,
       {PLUMB_FIELD(RecordHeader, magic), PLUMB_FIELD(RecordHeader, crc), PLUMB_FIELD(RecordHeader, epoch),
        PLUMB_FIELD(RecordHeader, sequence), PLUMB_FIELD(RecordHeader, length_bytes), PLUMB_FIELD(RecordHeader, kind),
        PLUMB_FIELD(RecordHeader, ranges)}},
      {Structure::kRangeHeader, {PLUMB_FIELD(RangeHeader, home_offset), PLUMB_FIELD(RangeHeader, length_bytes)}},
  };
  return all;
}

#undef PLUMB_FIELD

}  // namespace

Field field_of(Structure structure, std::string_view name) {
  if (name.starts_with("byte ")) {
    Field field{0, 1};
    const char* end = name.data() + name.size();
    if (std::from_chars(name.data() + 5, end, field.offset).ptr != end)
      throw std::runtime_error("\"" + std::string(name) + "\": not a number");
    return field;
  }
  const Fields& fields = all_fields().at(structure);
  const auto it = fields.find(name);
  if (it == fields.end()) throw std::runtime_error("there is no field \"" + std::string(name) + "\" in this structure");
  return it->second;
}

}  // namespace plumb::catalogue
