// The list of bad blocks: what the medium cannot read any more (fs/FORMAT.md, section 14).
//
// The tree on the medium is the truth; the index of it in DRAM follows each commit, and is what reads, writes, reclaim
// and statistics ask. Nearly always it is empty, and a question about it then costs one load.
//
// An entry is one block of a member. The unit of allocation around it is in use in the bitmap; if no file, metadata or
// reclaim entry owns that unit, the list does, and all entries in the unit say so.
//
// Thread safety: questions from any thread (rank: leaf). Changes inside a transaction; load() at mount.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "fs/core/allocator.h"
#include "fs/core/mutex.h"
#include "fs/core/types.h"
#include "fs/media/layout.h"
#include "pmem/result.h"

namespace plumb {

class Store;
class Transaction;

struct BadBlock {
  DeviceRole role = DeviceRole::kMain;
  BlockNumber block;
  media::BadBlockOwner owner = media::BadBlockOwner::kOther;
};

class BadBlocks {
 public:
  /// What one transaction changes at most: a record of so many stays below a quarter of the smallest usual ring.
  static constexpr std::size_t kMaxPerTransaction = 32;
  /// Entries in one unit of allocation, so that one transaction can change its owner. What else is bad in it is met
  /// again by whoever reads it.
  static constexpr std::size_t kMaxPerUnit = kMaxPerTransaction;

  /// Reads the tree. EUCLEAN: an entry of a device or block that is not there.
  [[nodiscard]] Status load(Store& store);

  [[nodiscard]] std::uint64_t count(DeviceRole role) const {
    return counts_[index_of(role)].load(std::memory_order_acquire);
  }
  /// The entries in a range of blocks of a device, ascending.
  [[nodiscard]] std::vector<BadBlock> in(DeviceRole role, BlockRange range) const;
  [[nodiscard]] bool any_in(DeviceRole role, BlockRange range) const;
  [[nodiscard]] std::vector<BadBlock> all() const;

  /// Adds the entry, or changes its owner. The feature bit is set (Store::allow_bad_blocks).
  [[nodiscard]] Status put(Transaction& t, const BadBlock& entry);
  /// Removes the entry, if there is one.
  [[nodiscard]] Status erase(Transaction& t, DeviceRole role, BlockNumber block);

 private:
  void remember(std::uint64_t key, media::BadBlockOwner owner);
  void forget(std::uint64_t key);

  std::array<std::atomic<std::uint64_t>, media::kMaxDevices> counts_{};
  mutable Mutex mutex_;
  absl::btree_map<std::uint64_t, media::BadBlockOwner> entries_ PLUMB_GUARDED_BY(mutex_);  // key of the tree -> owner
};

}  // namespace plumb
