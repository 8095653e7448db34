// Records of the journal without a header that leads to them.
//
// A record carries the checksum of the record before it as the seed of its own, so any two that follow each other prove
// themselves. Only the first one that is left in the ring cannot be proved, unless it is the first of the file system.
// What a user writes into metadata cannot pass for a record: append() keeps the magic of records away from the places
// where one could begin.
//
// Thread safety: no state; reads the device.
#pragma once

#include <cstdint>
#include <vector>

#include "fs/media/layout.h"
#include "pmem/device.h"

namespace plumb {

struct FoundRecord {
  std::uint64_t offset = 0, length = 0;  // in the ring, bytes
  media::RecordHeader header;
  std::uint32_t seed = 0;  // of its checksum
};

/// Epochs that a file system may have: mkfs starts at the first, which it makes from the uuid, so that the records of
/// an earlier file system on the device, which stay in the ring, are of none of these.
struct EpochRange {
  std::uint64_t first = 0, last = 0;
  static constexpr std::uint64_t kMounts = std::uint64_t{1} << 32;
  [[nodiscard]] static EpochRange of(const media::Uuid& uuid);
};

/// The newest row of records of these epochs that prove each other, oldest first: those of its last epoch, pads among
/// them. Reads the whole ring.
[[nodiscard]] std::vector<FoundRecord> newest_records(const pmem::Device& device, std::uint64_t ring_start,
                                                      std::uint64_t ring_bytes, EpochRange epochs);

}  // namespace plumb
