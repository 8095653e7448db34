// The check engine: looks at a whole volume without changing it, and says what is wrong.
//
// What is checked is the state that recovery would make: the journal is replayed into DRAM, nothing is stored on the
// device. Every rule of fs/FORMAT.md that can be seen on the medium is checked: checksums and structure of each
// metadata block, trees, inodes, names and links, extents, xattrs, the orphan list, the reclaim tree, and the owner of
// every block against the bitmap.
//
// What a legal crash leaves is no problem. On a memory device that is also a torn superblock copy or journal header of
// which the other one is whole: the next mount rewrites it.
//
// Safe on any image: never a crash, a hang or an access outside the device. The memory it needs is two bits for each
// block, 24 bytes for each slot of the inode table, and the blocks the journal changes.
//
// Thread safety: none needed; nobody may write to the device meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/core/superblock.h"
#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb {

struct CheckOptions {
  /// Also: every free block below zeroed_upto reads as zeros. Reads the free part of the device. On a volume that was
  /// not unmounted free blocks in recorded windows are left out, as recovery zeroes them.
  bool zeros = false;
  /// Called now and then: how much of a phase is done, in units of its own.
  std::function<void(std::uint64_t done, std::uint64_t total, std::string_view phase)> progress;
};

struct Problem {
  std::string object;  // "inode 17", "bitmap block 0", "realtime extents 3..5", "superblock copy 2"
  std::string what;    // one clause
  std::uint64_t offset_bytes = Error::kNoOffset;  // on the main device, where there is one place to look at
  bool checksum = false;                          // the checksum is wrong, rather than what it covers
};

struct CheckReport {
  static constexpr std::size_t kMaxProblems = 1000;
  std::vector<Problem> problems;  // the first kMaxProblems
  std::uint64_t problems_total = 0;
  std::uint64_t inodes = 0, directories = 0, files = 0;  // in use; files: regular ones
  std::uint64_t blocks_used = 0, blocks_total = 0;       // of the main device, by its bitmap
  std::uint64_t realtime_extents_used = 0, realtime_extents_total = 0;
  std::uint64_t journal_records = 0;  // replayed
  bool was_clean = true;              // unmounted, nothing to replay
};

/// Checks the volume on its members; never writes to them. An error only when nothing can be checked: no valid
/// superblock, features of a later version, a member that is missing, or a device that cannot be read at all.
/// Everything else is a Problem.
[[nodiscard]] Result<CheckReport> check_volume(const Members& members, const CheckOptions& options);

}  // namespace plumb
