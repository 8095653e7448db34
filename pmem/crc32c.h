// CRC-32C (Castagnoli), as RFC 3720 and the x86 crc32 instruction have it, over ISA-L.
//
// Convention: the seed of a fresh checksum is 0, and results chain:
//   crc32c(0, "123456789") == 0xE3069283
//   crc32c(crc32c(0, a), b) == crc32c(0, a + b)
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace plumb::pmem {

[[nodiscard]] std::uint32_t crc32c(std::uint32_t seed, std::span<const std::byte> bytes);

}  // namespace plumb::pmem
