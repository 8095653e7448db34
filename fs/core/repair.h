// Repair of a damaged volume: the second half of fsck.
//
// The check engine (check.h) says what is wrong; repair does not work off its list. It makes, in DRAM, the sound volume
// that is nearest to what is on the medium, and stores the difference. So whoever wants to know whether it worked asks
// the check engine again, which shares with it the format and nothing else.
//
// What it goes by (fs/DESIGN.md, "Repair"): a structure that is found beats a reference that is lost; what says in two
// places whose it is (a node by its header, a name by its hash, an inode by its number) is believed although its
// checksum is wrong; a count gives way to what is counted; what has no name goes to /lost+found; what nobody owns is
// freed.
//
// Crash safety. A volume is repaired in this order, each step durable before the next:
//   1. bits of the bitmap that are missing, and those of blocks about to be taken, are set (a crash leaves blocks that
//      nobody owns);
//   2. new nodes, and copies of data that had two owners, are stored into blocks that nobody refers to;
//   3. free blocks that must be zero are zeroed;
//   4. inodes and the state block change: journal records, one if it can hold them all;
//   5. the log is emptied: nothing replays into what is zeroed now;
//   6. blocks that lost their owner are zeroed;
//   7. their bits are cleared.
// After a crash at any point the volume is damaged as before, or repaired in part, and repair does the rest. No step
// overwrites anything that a later step, or a repair from the start, needs to read.
//
// Thread safety: none; nobody else may have the devices open.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/core/check.h"
#include "fs/core/superblock.h"
#include "pmem/result.h"

namespace plumb {

struct RepairOptions {
  /// Only what loses nothing and needs no judgement: counts, the bitmap, copies of what is there twice, lists. If more
  /// than that is needed, nothing but the superblock, the labels and the journal is touched.
  bool preen = false;
  /// Also: free blocks that are not zero are zeroed. Reads the free part of the devices.
  bool zeros = false;
  /// Called now and then: how much of a phase is done, in units of its own.
  std::function<void(std::uint64_t done, std::uint64_t total, std::string_view phase)> progress;
};

struct Repair {
  std::string object;  // as in Problem: "inode 17", "bitmap"
  std::string what;    // what was done, one clause
  bool harmless = true;
};

struct RepairReport {
  static constexpr std::size_t kMaxRepairs = 1000;
  std::vector<Repair> repairs;  // the first kMaxRepairs; with `needs_more` also those that were not done
  std::uint64_t repairs_total = 0;
  bool needs_more = false;  // preen only: the volume needs a full repair and got none
  CheckReport left;         // what the check engine says afterwards; empty when the journal itself was left alone
};

/// Repairs the volume on its members. If the check engine finds nothing afterwards, the volume is marked clean.
/// EUCLEAN, EBADMSG: no superblock to go by; ENXIO: a member is missing; ENOSPC: not enough free blocks for what must
/// be made anew (nothing was changed but steps 1 to 3); EIO: the devices.
[[nodiscard]] Result<RepairReport> repair_volume(const Members& members, const RepairOptions& options);

}  // namespace plumb
