#include "fs/core/writeback.h"

#include <vector>

#include "fs/core/volume.h"
#include "pmem/unreadable.h"

namespace plumb {
namespace {

std::vector<pmem::ByteRange> coalesced(const std::vector<pmem::ByteRange>& ranges, std::uint64_t gap_bytes) {
  std::vector<pmem::ByteRange> out;
  for (const pmem::ByteRange& range : ranges) {
    if (!out.empty() && range.offset_bytes <= out.back().end_bytes + gap_bytes)
      out.back().end_bytes = range.end_bytes;
    else
      out.push_back(range);
  }
  return out;
}

}  // namespace

DeviceStatistics statistics_of(const pmem::Device& device, const WritebackCounters& writeback) {
  DeviceStatistics result;
  result.path = device.info().path;
  result.type = device.info().type;
  result.kind = device.is_memory() ? "memory" : "page-cached";
  result.writeback_ranges = writeback.ranges;
  result.writeback_bytes = writeback.bytes;
  result.writeback_drains = writeback.drains;
  result.device_flushes = device.counters().flush_calls;
  result.device_flushed_bytes = device.counters().flushed_bytes;
  result.device_drains = device.counters().drains;
  result.errors = device.counters().errors;
  return result;
}

Status write_back_ranges(pmem::Device& device, pmem::DirtyRanges& dirty, WritebackCounters* counters) {
  const std::vector<pmem::ByteRange> taken = dirty.take_snapshot();
  if (taken.empty()) return {};  // nothing dirty is success, before any other check
  // Memory is flushed by the cache line; on a page-cached device ranges of one page would be msynced twice.
  const std::uint64_t gap = device.is_memory() ? 0 : 4096;
  Status status;
  Status lost;
  for (const pmem::ByteRange& range : coalesced(taken, gap)) {
    const Result<bool> flushed = pmem::flush_readable(device, range.offset_bytes, range.length_bytes());
    if (!flushed) {
      status = tl::unexpected(flushed.error());
      break;
    }
    if (!*flushed && lost)
      lost =
          fail(EIO, device.info().path + ": what was to be made durable cannot be read any more", range.offset_bytes);
    if (counters != nullptr) {
      counters->ranges.fetch_add(1, std::memory_order_relaxed);
      counters->bytes.fetch_add(range.length_bytes(), std::memory_order_relaxed);
    }
  }
  // Separates what the caller is about to call durable from everything stored later.
  if (status) status = device.drain();
  if (counters != nullptr) counters->drains.fetch_add(1, std::memory_order_relaxed);
  if (!status) {
    dirty.put_back(taken);
    return status;
  }
  return lost;  // told once: no later walk can do better
}

}  // namespace plumb
