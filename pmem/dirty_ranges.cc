#include "pmem/dirty_ranges.h"

#include <algorithm>
#include <cassert>
#include <iterator>
#include <limits>
#include <utility>

namespace plumb::pmem {

namespace {

constexpr std::uint64_t kMaxOffset = std::numeric_limits<std::uint64_t>::max();

std::uint64_t saturating_end(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  return length_bytes > kMaxOffset - offset_bytes ? kMaxOffset : offset_bytes + length_bytes;
}

}  // namespace

DirtyRanges::DirtyRanges(std::uint64_t granularity_bytes) : granularity_bytes_(granularity_bytes) {
  assert(granularity_bytes != 0 && (granularity_bytes & (granularity_bytes - 1)) == 0);
}

ByteRange DirtyRanges::round_outwards(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  const std::uint64_t mask = granularity_bytes_ - 1;
  const std::uint64_t end = saturating_end(offset_bytes, length_bytes);
  const std::uint64_t rounded_end = end > kMaxOffset - mask ? kMaxOffset : (end + mask) & ~mask;
  return {offset_bytes & ~mask, rounded_end};
}

ByteRange DirtyRanges::round_inwards(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  const std::uint64_t mask = granularity_bytes_ - 1;
  const std::uint64_t end = saturating_end(offset_bytes, length_bytes);
  if (offset_bytes > kMaxOffset - mask) return {};
  const std::uint64_t begin = (offset_bytes + mask) & ~mask;
  // The end of everything stays the end of everything.
  const std::uint64_t rounded_end = end == kMaxOffset ? end : end & ~mask;
  return begin < rounded_end ? ByteRange{begin, rounded_end} : ByteRange{};
}

void DirtyRanges::set_bytes_locked(std::uint64_t bytes) {
  bytes_.store(bytes, std::memory_order_release);
}

// The first range that ends at or after the offset: the first that may touch or overlap something that begins there.
DirtyRanges::Map::iterator DirtyRanges::first_reaching(std::uint64_t offset_bytes) {
  auto it = ranges_.upper_bound(offset_bytes);
  if (it != ranges_.begin()) {
    auto before = std::prev(it);
    if (before->second >= offset_bytes) return before;
  }
  return it;
}

void DirtyRanges::add(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  if (length_bytes == 0) return;
  const ByteRange range = round_outwards(offset_bytes, length_bytes);
  MutexLock lock(mutex_);
  if (range.offset_bytes >= last_.offset_bytes && range.end_bytes <= last_.end_bytes) return;
  add_locked(range);
}

void DirtyRanges::add_locked(ByteRange range) {
  std::uint64_t dirty_bytes = bytes_.load(std::memory_order_relaxed);
  auto first = first_reaching(range.offset_bytes);
  if (first != ranges_.end() && first->first <= range.offset_bytes) {
    // Grows a range in place: what an appending writer does all the time.
    auto next = std::next(first);
    if (next == ranges_.end() || next->first > range.end_bytes) {
      const std::uint64_t end = std::max(first->second, range.end_bytes);
      set_bytes_locked(dirty_bytes + (end - first->second));
      first->second = end;
      last_ = {first->first, end};
      return;
    }
  }
  auto last = first;
  for (; last != ranges_.end() && last->first <= range.end_bytes; ++last) {
    range.offset_bytes = std::min(range.offset_bytes, last->first);
    range.end_bytes = std::max(range.end_bytes, last->second);
    dirty_bytes -= last->second - last->first;
  }
  auto hint = ranges_.erase(first, last);
  ranges_.emplace_hint(hint, range.offset_bytes, range.end_bytes);
  last_ = range;
  set_bytes_locked(dirty_bytes + range.length_bytes());
}

void DirtyRanges::cut_locked(ByteRange range, std::vector<ByteRange>* taken) {
  last_ = {};
  std::uint64_t dirty_bytes = bytes_.load(std::memory_order_relaxed);
  ByteRange rest_before;
  ByteRange rest_after;
  auto first = first_reaching(range.offset_bytes);
  if (first != ranges_.end() && first->second == range.offset_bytes) ++first;  // touches only
  auto last = first;
  for (; last != ranges_.end() && last->first < range.end_bytes; ++last) {
    const ByteRange whole{last->first, last->second};
    const ByteRange cut{std::max(whole.offset_bytes, range.offset_bytes), std::min(whole.end_bytes, range.end_bytes)};
    if (whole.offset_bytes < cut.offset_bytes) rest_before = {whole.offset_bytes, cut.offset_bytes};
    if (whole.end_bytes > cut.end_bytes) rest_after = {cut.end_bytes, whole.end_bytes};
    dirty_bytes -= cut.length_bytes();
    if (taken != nullptr) taken->push_back(cut);
  }
  ranges_.erase(first, last);
  if (rest_before.length_bytes() != 0) ranges_[rest_before.offset_bytes] = rest_before.end_bytes;
  if (rest_after.length_bytes() != 0) ranges_[rest_after.offset_bytes] = rest_after.end_bytes;
  set_bytes_locked(dirty_bytes);
}

void DirtyRanges::remove(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  const ByteRange range = round_inwards(offset_bytes, length_bytes);
  if (range.length_bytes() == 0) return;
  MutexLock lock(mutex_);
  cut_locked(range, nullptr);
}

std::size_t DirtyRanges::count() const {
  MutexLock lock(mutex_);
  return ranges_.size();
}

bool DirtyRanges::intersects(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  const std::uint64_t end = saturating_end(offset_bytes, length_bytes);
  if (offset_bytes >= end) return false;
  MutexLock lock(mutex_);
  auto it = ranges_.lower_bound(end);  // the one before is the last that begins before the end
  return it != ranges_.begin() && std::prev(it)->second > offset_bytes;
}

std::vector<ByteRange> DirtyRanges::take_snapshot() {
  Map taken;
  {
    MutexLock lock(mutex_);
    taken.swap(ranges_);
    last_ = {};
    set_bytes_locked(0);
  }
  std::vector<ByteRange> ranges;
  ranges.reserve(taken.size());
  for (const auto& [offset, end] : taken) ranges.push_back({offset, end});
  return ranges;
}

std::vector<ByteRange> DirtyRanges::take_snapshot(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  std::vector<ByteRange> taken;
  if (length_bytes == 0) return taken;
  const ByteRange range = round_outwards(offset_bytes, length_bytes);
  MutexLock lock(mutex_);
  cut_locked(range, &taken);
  return taken;
}

void DirtyRanges::put_back(std::span<const ByteRange> ranges) {
  MutexLock lock(mutex_);
  for (const ByteRange& range : ranges) {
    if (range.length_bytes() != 0) add_locked(range);
  }
}

}  // namespace plumb::pmem
