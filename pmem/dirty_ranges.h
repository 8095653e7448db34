// The ranges of a device or file that were stored and are not durable yet.
//
// A set of half-open byte ranges [offset, end), disjoint and not adjacent: add() merges. With a granularity ranges are
// rounded outwards to multiples of it when they are added, and inwards when they are removed, so that the set never
// says less than the truth.
//
// Writeback takes the set out as a snapshot (the kernel's TOWRITE tags): what is stored from then on waits for the next
// walk, so a steady writer cannot keep a walker going for ever. Between take_snapshot() and the end of the flushes the
// ranges are in no set: whoever must not overtake that walk (a second fsync of the same inode) has to wait for it, so
// walkers of one DirtyRanges are serialised by its owner. What could not be flushed is put back.
//
// Order for a writer: store first, add() after it and before the reply. A walker that takes the range has the store.
//
// Cost: add and remove O(log n) plus the ranges they swallow; O(1) for a range next to or inside the last one touched.
//
// Thread safety: all functions from any thread. Lock rank: leaf; nothing is called with the lock held.
#pragma once

#include <absl/container/btree_map.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pmem/mutex.h"

namespace plumb::pmem {

struct ByteRange {
  std::uint64_t offset_bytes = 0;
  std::uint64_t end_bytes = 0;  // one past the last

  [[nodiscard]] std::uint64_t length_bytes() const { return end_bytes - offset_bytes; }
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

class DirtyRanges {
 public:
  /// `granularity_bytes` is a power of two; 1 keeps ranges as they are.
  explicit DirtyRanges(std::uint64_t granularity_bytes = 1);
  DirtyRanges(const DirtyRanges&) = delete;
  DirtyRanges& operator=(const DirtyRanges&) = delete;

  void add(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  /// Forgets a range, dirty or not: truncated, freed or made durable by other means.
  void remove(std::uint64_t offset_bytes, std::uint64_t length_bytes);

  /// Lock-free; a concurrent add() may not show yet.
  [[nodiscard]] bool empty() const { return bytes() == 0; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_.load(std::memory_order_acquire); }
  [[nodiscard]] std::size_t count() const;
  [[nodiscard]] bool intersects(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;

  /// Takes everything out, atomically; in ascending order.
  [[nodiscard]] std::vector<ByteRange> take_snapshot();
  /// Takes out what lies in the range only, cut to it (rounded outwards to the granularity).
  [[nodiscard]] std::vector<ByteRange> take_snapshot(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  /// After an error: what was taken and is not durable.
  void put_back(std::span<const ByteRange> ranges);

 private:
  using Map = absl::btree_map<std::uint64_t, std::uint64_t>;  // offset -> end

  [[nodiscard]] ByteRange round_outwards(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
  [[nodiscard]] ByteRange round_inwards(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
  void add_locked(ByteRange range) PLUMB_REQUIRES(mutex_);
  // Cuts `range` out of the set; what was cut goes to `taken` if given.
  void cut_locked(ByteRange range, std::vector<ByteRange>* taken) PLUMB_REQUIRES(mutex_);
  [[nodiscard]] Map::iterator first_reaching(std::uint64_t offset_bytes) PLUMB_REQUIRES(mutex_);
  void set_bytes_locked(std::uint64_t bytes) PLUMB_REQUIRES(mutex_);

  const std::uint64_t granularity_bytes_;
  mutable Mutex mutex_;
  Map ranges_ PLUMB_GUARDED_BY(mutex_);
  // A copy of the range that was added to last, still in ranges_ as it is; empty if unknown. Answers repeated stores.
  ByteRange last_ PLUMB_GUARDED_BY(mutex_);
  std::atomic<std::uint64_t> bytes_{0};  // written under the mutex
};

}  // namespace plumb::pmem
