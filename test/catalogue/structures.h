// The structures of fs/media/layout.h and their fields, by name: so that a file can say which one to change.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace plumb::catalogue {

struct Field {
  std::size_t offset = 0;
  std::size_t bytes = 0;  // 1, 2, 4 or 8: a number; else the field cannot be given a number
};

enum class Structure : std::uint8_t {
  kBytes,  // has no field but "byte N"
  kSuperblock,
  kDeviceEntry,
  kMemberLabel,
  kState,
  kWindowSlot,
  kBlockHeader,  // of a bitmap block
  kNode,
  kNodeSlot,
  kValue,
  kChild,  // record of an interior node, or of the inode table
  kExtentRecord,
  kInlineExtent,
  kDirectoryRecord,
  kXattrRecord,
  kReclaimRecord,
  kInode,
  kJournalHeader,
  kRecordHeader,
  kRangeHeader,
};

/// The field of a structure, named as in layout.h ("data.block", "header.owner"), or "byte N" for any structure.
/// Throws std::runtime_error if there is none.
[[nodiscard]] Field field_of(Structure structure, std::string_view name);

}  // namespace plumb::catalogue
