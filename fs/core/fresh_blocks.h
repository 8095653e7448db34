// Blocks taken for an operation and not yet part of a file.
//
// Thread safety: none; of one operation, which holds the exclusive lock of the inode.
#pragma once

#include <cstdint>

#include "fs/core/extents.h"
#include "fs/core/store.h"

namespace plumb {

/// What is left when it goes is zeroed and given back.
class FreshBlocks {
 public:
  FreshBlocks(Store& store, DeviceRole role) : store_(store), role_(role) {}
  FreshBlocks(const FreshBlocks&) = delete;
  FreshBlocks& operator=(const FreshBlocks&) = delete;
  ~FreshBlocks();

  /// Fills [first, end) of the file, whole units, where `extents` has holes, as far as there is space and as one record
  /// can hold; returns where it stopped. `file_bytes` is the size that the file comes to. ENOSPC, EAGAIN: not one
  /// block.
  Result<std::uint64_t> fill(const ExtentMap& extents, std::uint64_t first, std::uint64_t end,
                             std::uint64_t file_bytes);

  [[nodiscard]] const ExtentMap& map() const { return map_; }
  [[nodiscard]] bool empty() const { return map_.empty(); }

  /// Puts them into the file: the bitmap, the extents and their form on the medium.
  [[nodiscard]] Status add_to(Transaction& t, media::Inode& next, ExtentMap& extents) const;
  /// They belong to the file: the transaction that says so is committed.
  void commit();

 private:
  // The block behind the one before, so that extents grow.
  [[nodiscard]] std::uint64_t goal(const ExtentMap& extents, std::uint64_t block) const;

  Store& store_;
  const DeviceRole role_;
  ExtentMap map_;
};

}  // namespace plumb
