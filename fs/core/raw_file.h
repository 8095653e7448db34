// An unformatted device as one file of fixed size, as a block device node shows one: what `plumb raw` serves.
//
// No file system, nothing on the medium but the bytes themselves. What it shares with a volume is the writeback: stores
// go through the Device, and what is not durable yet waits in DirtyRanges for write_back_ranges(). On a memory device
// with writeback=immediate nothing is left when a write returns; on a page-cached device, or with writeback=deferred,
// ranges wait for fsync, sync, the interval, or close().
//
// The size never changes. A write across the end is short, one at the end or after it is ENOSPC.
//
// Nothing on the device says whether whoever stored to it before has made it durable. So open() does that, where it
// means something: for a page-cached device, whose kernel knows what is dirty, and for persistent memory with
// writeback=deferred, whose earlier server may have died with ranges in its head. It stores nothing.
//
// Errors of writeback are counted and reported once to each handle (errseq), whoever's walk it was that failed.
//
// Thread safety: all functions from any thread. Overlapping writes mix as stores to memory do; write() takes no lock.
// Lock rank: writeback mutex -> leaf of DirtyRanges; the mutex of the timer is a leaf.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>

#include "fs/core/types.h"
#include "fs/core/volume.h"
#include "fs/core/writeback.h"
#include "pmem/device.h"
#include "pmem/dirty_ranges.h"
#include "pmem/mutex.h"
#include "pmem/result.h"

namespace plumb {

struct RawFileOptions {
  bool read_only = false;
  Writeback writeback = Writeback::kImmediate;  // only memory devices know the difference
  bool sync = false;                            // every write as if followed by fsync
  unsigned interval_seconds = 5;                // as MountOptions::interval_seconds
  bool background_thread = true;                // tests: false
};

/// An open file description: remembers which writeback errors it has been told of.
struct RawHandle {
  std::atomic<std::uint64_t> seen_error{0};
};

class RawFile {
 public:
  /// `device` outlives the file. Makes durable what may not be (above).
  [[nodiscard]] static Result<std::unique_ptr<RawFile>> open(pmem::Device& device, const RawFileOptions& options);
  /// Ends the interval and writes everything back. Without it the destructor writes back nothing.
  [[nodiscard]] Status close();
  ~RawFile();
  RawFile(const RawFile&) = delete;
  RawFile& operator=(const RawFile&) = delete;

  [[nodiscard]] std::uint64_t size_bytes() const { return device_.size_bytes(); }
  [[nodiscard]] bool read_only() const { return options_.read_only; }
  /// When bytes were stored last; the time of open() before that.
  [[nodiscard]] Timestamp modified() const;

  [[nodiscard]] std::unique_ptr<RawHandle> open_handle() const;

  /// The bytes as they are mapped; shorter than asked at the end, empty behind it. Touching them may fault.
  [[nodiscard]] ReadPin read(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
  /// Bytes stored: less than asked at the end of the device. ENOSPC if none fits, EROFS.
  [[nodiscard]] Result<std::uint64_t> write(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  /// fallocate(2) as block devices have it: PUNCH_HOLE and ZERO_RANGE store zeros; without them everything is allocated
  /// already. ENOSPC for what would need a larger device, EOPNOTSUPP for other modes.
  [[nodiscard]] Status allocate(int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes);
  /// SEEK_DATA, SEEK_HOLE: all of it is data, with a hole at the end. ENXIO as in lseek(2).
  [[nodiscard]] Result<std::uint64_t> seek(std::uint64_t offset_bytes, int whence) const;

  [[nodiscard]] Status fsync(RawHandle& handle);
  [[nodiscard]] Status sync();

  [[nodiscard]] DeviceStatistics statistics() const;

 private:
  RawFile(pmem::Device& device, const RawFileOptions& options);
  [[nodiscard]] bool is_immediate() const;
  [[nodiscard]] Status make_earlier_stores_durable();
  // After a store of the range, whether or not all of it was stored.
  [[nodiscard]] Status stored(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  void timer_loop();

  pmem::Device& device_;
  const RawFileOptions options_;
  std::atomic<std::int64_t> modified_nanoseconds_{0};  // since 1970
  pmem::DirtyRanges dirty_;
  WritebackCounters writeback_counters_;
  std::atomic<std::uint64_t> error_count_{0};
  Mutex writeback_mutex_;  // one walk at a time
  Mutex timer_mutex_;
  std::condition_variable timer_condition_;
  bool stop_ PLUMB_GUARDED_BY(timer_mutex_) = false;
  std::thread timer_;
};

}  // namespace plumb
