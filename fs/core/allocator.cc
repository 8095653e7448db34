#include "fs/core/allocator.h"

#include <algorithm>
#include <bit>
#include <cassert>

namespace plumb {

Allocator::Allocator(const Geometry& geometry)
    : blocks_(geometry.blocks),
      chunk_blocks_(geometry.chunk_blocks),
      data_start_(geometry.data_start),
      reserve_(geometry.reserve_blocks),
      window_chunks_(geometry.window_chunks),
      first_slot_(geometry.first_slot),
      slots_(geometry.slots) {
  const std::uint64_t chunks = (blocks_ + chunk_blocks_ - 1) / chunk_blocks_;
  used_.assign((blocks_ + 63) / 64, 0);
  chunk_free_.resize(chunks);
  chunk_window_.assign(chunks, 0);
  for (std::uint64_t chunk = 0; chunk < chunks; ++chunk)
    chunk_free_[chunk] = static_cast<std::uint32_t>(chunk_size(chunk));
  free_ = blocks_;
  zeroed_upto_ = blocks_;
  metadata_cursor_ = data_start_;
}

std::uint64_t Allocator::chunk_end(std::uint64_t chunk) const {
  return std::min(blocks_, (chunk + 1) * chunk_blocks_);
}
std::uint64_t Allocator::chunk_size(std::uint64_t chunk) const {
  return chunk_end(chunk) - chunk * chunk_blocks_;
}

void Allocator::mark(std::uint64_t start, std::uint64_t length, bool value) {
  for (std::uint64_t block = start; block < start + length;) {
    const std::uint64_t chunk = block / chunk_blocks_;
    const std::uint64_t end = std::min(start + length, chunk_end(chunk));
    std::uint64_t changed = 0;
    for (std::uint64_t b = block; b < end;) {
      const std::uint64_t word = b / 64;
      const std::uint64_t count = std::min<std::uint64_t>(64 - b % 64, end - b);
      const std::uint64_t mask = (count == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << count) - 1)) << (b % 64);
      const std::uint64_t before = used_[word];
      used_[word] = value ? before | mask : before & ~mask;
      changed += static_cast<std::uint64_t>(std::popcount(before ^ used_[word]));
      b += count;
    }
    const auto delta = static_cast<std::uint32_t>(changed);
    chunk_free_[chunk] = value ? chunk_free_[chunk] - delta : chunk_free_[chunk] + delta;
    free_ = value ? free_ - changed : free_ + changed;
    block = end;
  }
}

void Allocator::load_used(BlockNumber start, std::uint64_t length) {
  MutexLock lock(mutex_);
  mark(start.value, length, true);
}

void Allocator::load_zeroed_upto(std::uint64_t blocks) {
  MutexLock lock(mutex_);
  zeroed_upto_ = std::min(blocks, blocks_);
  free_above_mark_ = free_between(zeroed_upto_, blocks_);
}

void Allocator::advance_zeroed(std::uint64_t blocks) {
  MutexLock lock(mutex_);
  const std::uint64_t mark = std::min(blocks, blocks_);
  free_above_mark_ -= free_between(zeroed_upto_, mark);
  zeroed_upto_ = mark;
}

std::uint64_t Allocator::free_between(std::uint64_t from, std::uint64_t to) const {
  std::uint64_t count = 0;
  for (std::uint64_t b = from; b < to;) {
    if (b % 64 == 0 && b + 64 <= to) {
      count += 64 - static_cast<std::uint64_t>(std::popcount(used_[b / 64]));
      b += 64;
    } else {
      count += used(b) ? 0 : 1;
      ++b;
    }
  }
  return count;
}

std::uint64_t Allocator::run_length(std::uint64_t start, std::uint64_t limit) const {
  std::uint64_t b = start;
  while (b < limit) {
    const std::uint64_t rest = used_[b / 64] >> (b % 64);
    if (rest == 0) {
      b = (b / 64 + 1) * 64;
      continue;
    }
    b += static_cast<std::uint64_t>(std::countr_zero(rest));
    break;
  }
  return std::min(b, limit) - start;
}

BlockRange Allocator::take_at(std::uint64_t block, std::uint64_t wanted) {
  // Goes on through following chunks as long as the same window covers them.
  const std::uint8_t window = chunk_window_[block / chunk_blocks_];
  std::uint64_t limit = std::min(block + wanted, zeroed_upto_);
  std::uint64_t end = chunk_end(block / chunk_blocks_);
  while (end < limit && chunk_window_[end / chunk_blocks_] == window) end = chunk_end(end / chunk_blocks_);
  limit = std::min(limit, end);
  const std::uint64_t length = run_length(block, limit);
  mark(block, length, true);
  Window& w = windows_[window - 1u];
  w.in_flight += length;
  w.last_use = ++clock_;
  return {BlockNumber(block), length};
}

std::optional<std::uint64_t> Allocator::find_run(std::uint64_t chunk, std::uint64_t wanted) const {
  const std::uint64_t end = std::min(chunk_end(chunk), zeroed_upto_);
  for (std::uint64_t b = std::max(chunk * chunk_blocks_, data_start_); b < end;) {
    const std::uint64_t rest = ~used_[b / 64] >> (b % 64);
    if (rest == 0) {
      b = (b / 64 + 1) * 64;
      continue;
    }
    b += static_cast<std::uint64_t>(std::countr_zero(rest));
    if (b >= end) break;
    const std::uint64_t length = run_length(b, end);
    if (length >= wanted) return b;
    b += length;
  }
  return std::nullopt;
}

BlockRange Allocator::take_in_window(Window& window, const DataRequest& request) {
  const std::uint64_t last = window.first_chunk + window.chunks;
  if (request.size_class == Class::kBig && window.size_class == Class::kBig) {
    const std::uint64_t position = request.file_block % chunk_blocks_;
    for (std::uint64_t chunk = window.first_chunk; chunk < last; ++chunk) {
      if (!wholly_free(chunk) || chunk_size(chunk) != chunk_blocks_ || chunk_end(chunk) > zeroed_upto_) continue;
      return take_at(chunk * chunk_blocks_ + position, request.blocks);
    }
    return {};
  }
  // Packed: first a run that holds all of it, then the first free block.
  for (const std::uint64_t wanted : {std::min(request.blocks, chunk_blocks_ / 4 + 1), std::uint64_t{1}}) {
    for (std::uint64_t i = 0; i < window.chunks; ++i) {
      const std::uint64_t chunk = window.first_chunk + (window.cursor + i) % window.chunks;
      if (chunk_free_[chunk] < wanted) continue;
      if (const auto block = find_run(chunk, wanted)) {
        window.cursor = chunk - window.first_chunk;
        return take_at(*block, request.blocks);
      }
    }
  }
  return {};
}

Allocator::DataResult Allocator::take_data(const DataRequest& request) {
  MutexLock lock(mutex_);
  DataRequest bounded = request;
  const std::uint64_t keep = request.privileged ? 0 : reserve_;
  if (free_ <= keep || !may_take()) return {{}, Shortage::kNoSpace};
  // Below the mark the reserve is kept too: metadata can be nowhere else, and moving the mark may need some.
  if (free_above_mark_ != 0 && free_ - free_above_mark_ <= keep) return {{}, Shortage::kNeedZeroed};
  bounded.blocks = std::min(request.blocks, free_ - free_above_mark_ - keep);
  const std::uint64_t goal = request.goal.value;
  if (goal != 0 && goal < zeroed_upto_ && !used(goal) && chunk_window_[goal / chunk_blocks_] != 0)
    return {take_at(goal, bounded.blocks), Shortage::kNone};
  for (Window& window : windows_) {
    if (window.chunks == 0 || (window.size_class != request.size_class && !request.any_window)) continue;
    const BlockRange range = take_in_window(window, bounded);
    if (range.length != 0) return {range, Shortage::kNone};
  }
  return {{}, Shortage::kNeedWindow};
}

std::optional<BlockRange> Allocator::choose_window(const DataRequest& request) {
  MutexLock lock(mutex_);
  const std::uint64_t chunks = chunk_free_.size();
  const std::uint64_t first_data_chunk = data_start_ / chunk_blocks_;
  const std::uint64_t zeroed_chunks = (zeroed_upto_ + chunk_blocks_ - 1) / chunk_blocks_;
  const bool big = request.size_class == Class::kBig;
  auto fits = [&](std::uint64_t chunk) {
    if (chunk < first_data_chunk || chunk >= std::min(chunks, zeroed_chunks) || chunk_window_[chunk] != 0) return false;
    if (!big) return find_run(chunk, 1).has_value();
    return wholly_free(chunk) && chunk_size(chunk) == chunk_blocks_ && chunk_end(chunk) <= zeroed_upto_;
  };
  auto window_from = [&](std::uint64_t chunk) {
    std::uint64_t end = chunk + 1;
    while (end < chunk + window_chunks_ && end < std::min(chunks, zeroed_chunks) && chunk_window_[end] == 0 &&
           (!big || fits(end)))
      ++end;
    return BlockRange{BlockNumber(chunk * chunk_blocks_),
                      std::min(end * chunk_blocks_, blocks_) - chunk * chunk_blocks_};
  };
  const std::uint64_t goal = request.goal.value;
  if (goal != 0 && goal < zeroed_upto_ && !used(goal) && chunk_window_[goal / chunk_blocks_] == 0)
    return window_from(goal / chunk_blocks_);
  // Big files start in the middle of what is zeroed and wander on; small ones fill from the front, in used chunks
  // first.
  const std::uint64_t start = big ? std::max(big_cursor_, first_data_chunk + 8) : first_data_chunk;
  std::optional<std::uint64_t> best;
  for (std::uint64_t i = 0; i < chunks; ++i) {
    const std::uint64_t chunk = (start + i) % chunks;
    if (!fits(chunk)) continue;
    best = chunk;
    break;
  }
  if (!best) return std::nullopt;
  if (big) big_cursor_ = *best + window_chunks_ < chunks ? *best + window_chunks_ : 0;
  return window_from(*best);
}

std::optional<std::size_t> Allocator::retire_slot() {
  MutexLock lock(mutex_);
  std::optional<std::size_t> best;
  for (std::size_t i = first_slot_; i < first_slot_ + slots_; ++i) {
    if (windows_[i].chunks == 0) return i;
    if (windows_[i].in_flight != 0) continue;
    if (!best || windows_[i].last_use < windows_[*best].last_use) best = i;
  }
  if (!best) return std::nullopt;
  Window& window = windows_[*best];
  for (std::uint64_t i = 0; i < window.chunks; ++i) chunk_window_[window.first_chunk + i] = 0;
  window = Window{};
  return best;
}

void Allocator::open_window(std::size_t slot, BlockRange range, Class size_class) {
  MutexLock lock(mutex_);
  Window& window = windows_[slot];
  window = Window{};
  window.first_chunk = range.start.value / chunk_blocks_;
  window.chunks = (range.length + chunk_blocks_ - 1) / chunk_blocks_;
  window.size_class = size_class;
  window.last_use = ++clock_;
  for (std::uint64_t i = 0; i < window.chunks; ++i)
    chunk_window_[window.first_chunk + i] = static_cast<std::uint8_t>(slot + 1);
}

void Allocator::close_windows() {
  MutexLock lock(mutex_);
  windows_.fill(Window{});
  std::fill(chunk_window_.begin(), chunk_window_.end(), std::uint8_t{0});
}

void Allocator::settle(BlockRange range) {
  MutexLock lock(mutex_);
  Window& window = windows_[chunk_window_[range.start.value / chunk_blocks_] - 1u];
  assert(window.in_flight >= range.length);
  window.in_flight -= range.length;
}

void Allocator::give_back(BlockRange range) {
  settle(range);
  release(range);
}

std::optional<BlockNumber> Allocator::take_metadata(bool privileged) {
  MutexLock lock(mutex_);
  if (free_ <= (privileged ? 0 : reserve_) || free_ <= free_above_mark_ || !may_take()) return std::nullopt;
  // From the cursor to the mark, then from the start: chunks that are not meant for big files first.
  for (const bool any : {false, true}) {
    const std::uint64_t first = metadata_cursor_ / chunk_blocks_;
    const std::uint64_t end = (zeroed_upto_ + chunk_blocks_ - 1) / chunk_blocks_;
    for (std::uint64_t i = 0; i < end; ++i) {
      const std::uint64_t chunk = (first + i) % end;
      if (chunk_free_[chunk] == 0) continue;
      const std::uint8_t slot = chunk_window_[chunk];
      if (!any && slot != 0 && windows_[slot - 1u].size_class == Class::kBig) continue;
      const auto block = find_run(chunk, 1);
      if (!block) continue;
      metadata_cursor_ = *block;
      mark(*block, 1, true);
      return BlockNumber(*block);
    }
  }
  return std::nullopt;
}

bool Allocator::withdraw(BlockNumber block) {
  MutexLock lock(mutex_);
  if (used(block.value)) return false;
  mark(block.value, 1, true);
  if (block.value >= zeroed_upto_) --free_above_mark_;
  return true;
}

void Allocator::release(BlockRange range) {
  MutexLock lock(mutex_);
  mark(range.start.value, range.length, false);
  // Only what withdraw() took lies above the mark.
  if (range.start.value >= zeroed_upto_) free_above_mark_ += range.length;
  metadata_cursor_ = std::min(metadata_cursor_, range.start.value);
}

std::uint64_t Allocator::free_blocks() const {
  MutexLock lock(mutex_);
  return free_;
}

std::uint64_t Allocator::zeroed_upto() const {
  MutexLock lock(mutex_);
  return zeroed_upto_;
}

std::uint64_t Allocator::available_now() const {
  MutexLock lock(mutex_);
  return free_ - free_above_mark_;
}

}  // namespace plumb
