// What recovery sees of an image: everything but the part of the log that it does not read.
//
// Recovery walks the records from the tail to the first that is not whole, and reads of that one its header, and the
// rest only if the header could be that of the next record. What lies behind is never read again: the records that
// will be stored there carry the next epoch. Images that differ only there are one to recovery, and one of them is
// enough.
//
// The walk is written down here once more, from fs/FORMAT.md, so that it does not err where the journal does.
//
// Thread safety: const functions.
#pragma once

#include <cstdint>
#include <vector>

#include "pmem/dirty_ranges.h"
#include "test/crash/machine.h"

namespace plumb::test {

class RecoveryView {
 public:
  /// Of images that the log of this machine leads to. Keeps a reference.
  explicit RecoveryView(const Machine& recorded);

  /// Images that recovery can tell apart have different hashes.
  [[nodiscard]] std::uint64_t hash(const MachineImage& image) const;

  /// What recovery does not read of the main device. Empty if no journal header is valid.
  [[nodiscard]] std::vector<pmem::ByteRange> unread(const MachineImage& image) const;

 private:
  const Machine& recorded_;
  std::uint64_t journal_start_ = 0;
  std::uint64_t ring_start_ = 0;
  std::uint64_t ring_bytes_ = 0;
  std::vector<pmem::ByteRange> stored_;  // of the ring, whole words: elsewhere all images are the same
};

}  // namespace plumb::test
