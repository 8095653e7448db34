// Runs of bits: what the check engine and repair share about bitmaps in DRAM.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

namespace plumb {

/// Calls f(start, end) for each run of ones in [start, end) of what word(i) gives: 64 bits, from bit 64 i on.
template <typename Word, typename F>
void for_bit_runs(std::uint64_t start, std::uint64_t end, const Word& word, const F& f) {
  constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t run = kNone;
  for (std::uint64_t b = start; b < end;) {
    const std::uint64_t bits = word(b / 64) >> (b % 64);
    const std::uint64_t room = std::min<std::uint64_t>(64 - b % 64, end - b);
    const int same = run == kNone ? std::countr_zero(bits) : std::countr_one(bits);
    const std::uint64_t step = std::min<std::uint64_t>(static_cast<std::uint64_t>(same), room);
    b += step;
    if (step == room) continue;
    if (run == kNone) {
      run = b;
    } else {
      f(run, b);
      run = kNone;
    }
  }
  if (run != kNone) f(run, end);
}

/// A set of numbers below a limit, one bit each.
class BitSet {
 public:
  explicit BitSet(std::uint64_t size) : words_((size + 63) / 64) {}

  [[nodiscard]] bool test(std::uint64_t i) const { return (words_[i / 64] >> (i % 64) & 1) != 0; }
  [[nodiscard]] std::uint64_t word(std::uint64_t i) const { return words_[i]; }
  void set(std::uint64_t start, std::uint64_t end) {
    for_masks(start, end, [this](std::uint64_t i, std::uint64_t mask) { words_[i] |= mask; });
  }
  void clear(std::uint64_t start, std::uint64_t end) {
    for_masks(start, end, [this](std::uint64_t i, std::uint64_t mask) { words_[i] &= ~mask; });
  }
  [[nodiscard]] bool any(std::uint64_t start, std::uint64_t end) const {
    bool found = false;
    for_masks(start, end, [&](std::uint64_t i, std::uint64_t mask) { found = found || (words_[i] & mask) != 0; });
    return found;
  }

 private:
  template <typename F>
  static void for_masks(std::uint64_t start, std::uint64_t end, const F& f) {
    for (std::uint64_t b = start; b < end;) {
      const std::uint64_t count = std::min<std::uint64_t>(64 - b % 64, end - b);
      f(b / 64, (~std::uint64_t{0} >> (64 - count)) << (b % 64));
      b += count;
    }
  }
  std::vector<std::uint64_t> words_;
};

}  // namespace plumb
