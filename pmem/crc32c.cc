#include "pmem/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace plumb::pmem {

std::uint32_t crc32c(std::uint32_t seed, std::span<const std::byte> bytes) {
  // ISA-L takes an int, and neither inverts the register before nor after.
  constexpr std::size_t kMaxStep = std::size_t{1} << 30;
  std::uint32_t state = ~seed;
  while (!bytes.empty()) {
    const std::size_t step = std::min(bytes.size(), kMaxStep);
    // The parameter lacks a const that it deserves: the bytes are only read.
    auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(step), state);
    bytes = bytes.subspan(step);
  }
  return ~state;
}

}  // namespace plumb::pmem
