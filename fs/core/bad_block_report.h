// What the entries of the list of bad blocks are part of; for people.
//
// Goes through inodes and, for names, through directories, a few at a time: the transaction lock is held for moments.
// What changes meanwhile may be shown as it was or as it is.
//
// Thread safety: any thread, without locks.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/core/bad_blocks.h"
#include "fs/core/store.h"
#include "fs/core/types.h"

namespace plumb {

enum class BadBlockUse : std::uint8_t {
  kFree,      // nobody's: the list keeps it out of use
  kFile,      // data of an inode
  kDeleted,   // of a deleted file, on its way out: reclaim has not come to it
  kMetadata,  // of the file system
  kUnknown,   // in use, by somebody whose metadata cannot be read
};
[[nodiscard]] std::string_view name_of(BadBlockUse use);

struct BadBlockReport {
  DeviceRole role = DeviceRole::kMain;
  std::uint64_t offset_bytes = 0;  // on the device
  std::uint64_t length_bytes = 0;
  BadBlockUse use = BadBlockUse::kUnknown;
  InodeNumber inode;              // of kFile
  std::uint64_t file_offset = 0;  // of kFile: where in the file
  std::uint64_t cursor = 0;       // names its first entry, see Volume::report_bad_blocks
  std::string path;               // one of its names, from the root of the file system; empty: it has none
};

/// The entries in order, neighbours of one owner as one. An error only when not even the tables can be read.
[[nodiscard]] Result<std::vector<BadBlockReport>> report_bad_blocks(Store& store, std::span<const BadBlock> entries);

}  // namespace plumb
