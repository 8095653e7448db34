// Data that tells where it belongs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace plumb_test {

/// Fills `out`, which lies at `offset_bytes` of a file, with data of operation `number`. No byte is zero, and bytes of
/// different operations or offsets differ as a rule: old data, data at the wrong place and holes can be told apart.
inline void fill_pattern(std::span<std::uint8_t> out, std::uint64_t number, std::uint64_t offset_bytes) {
  const auto word_at = [number](std::uint64_t index) {
    std::uint64_t x = (number << 40) ^ index;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return (x ^ (x >> 31)) | 0x0101010101010101ULL;
  };
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t at = offset_bytes + done;
    const std::uint64_t word = word_at(at / 8);
    const std::size_t skip = at % 8;
    const std::size_t take = std::min<std::size_t>(8 - skip, out.size() - done);
    std::memcpy(out.data() + done, reinterpret_cast<const char*>(&word) + skip, take);
    done += take;
  }
}

}  // namespace plumb_test
