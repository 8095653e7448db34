// Writeback: the one way from "stored" to "durable" for data and for metadata homes.
//
// The device comes from the superblock's table for the inode, never from a mapping, an address or a global. An inode
// with nothing dirty, or a walk that is not for data integrity, succeeds before anything else is looked at. A walk
// works on a snapshot of the dirty ranges, so a steady writer cannot keep it going. In the non-error case it goes on to
// the log: data ranges of every device first, then the metadata that refers to them.
#pragma once

#include <atomic>
#include <cstdint>

#include "fs/core/superblock.h"
#include "pmem/device.h"
#include "pmem/dirty_ranges.h"
#include "pmem/result.h"

namespace plumb {

/// What writeback did on one device; for `plumb stat`.
struct WritebackCounters {
  std::atomic<std::uint64_t> ranges{0}, bytes{0}, drains{0};
};

struct DeviceStatistics;  // volume.h

/// What a device and its writeback have counted; the rest of the structure is the caller's to fill.
[[nodiscard]] DeviceStatistics statistics_of(const pmem::Device& device, const WritebackCounters& writeback);

/// Flushes a snapshot of `dirty` on `device` and drains once. After an error the ranges are dirty again, but for EIO of
/// what cannot be read any more: that is lost, and the rest is durable. Ranges that are close (same page) go as one.
/// Callers serialise walks of the same set.
[[nodiscard]] Status write_back_ranges(pmem::Device& device, pmem::DirtyRanges& dirty,
                                       WritebackCounters* counters = nullptr);

}  // namespace plumb
