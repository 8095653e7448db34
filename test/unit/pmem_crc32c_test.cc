#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#include "pmem/crc32c.h"

namespace {

using plumb::pmem::crc32c;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Bit by bit, from the definition: polynomial 0x1EDC6F41 reflected, register inverted before and after.
std::uint32_t slow_crc32c(std::span<const std::byte> bytes) {
  std::uint32_t state = ~std::uint32_t{0};
  for (const std::byte byte : bytes) {
    state ^= static_cast<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ ((state & 1) != 0 ? 0x82F63B78U : 0U);
  }
  return ~state;
}

}  // namespace

TEST_CASE("crc32c: known vectors", "[pmem][crc32c]") {
  CHECK(crc32c(0, {}) == 0);
  CHECK(crc32c(0, bytes_of("123456789")) == 0xE3069283);
  // RFC 3720, B.4.
  std::vector<std::byte> block(32, std::byte{0});
  CHECK(crc32c(0, block) == 0x8A9136AA);
  std::fill(block.begin(), block.end(), std::byte{0xFF});
  CHECK(crc32c(0, block) == 0x62A8AB43);
  for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::byte>(i);
  CHECK(crc32c(0, block) == 0x46DD794E);
}

TEST_CASE("crc32c: checksums of parts chain to the checksum of the whole", "[pmem][crc32c]") {
  const std::uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(5000);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (int round = 0; round < 200; ++round) {
    const std::size_t length = random() % bytes.size();
    const std::size_t cut = length == 0 ? 0 : random() % length;
    const auto whole = std::span(bytes).subspan(random() % (bytes.size() - length), length);
    const std::uint32_t expected = slow_crc32c(whole);
    REQUIRE(crc32c(0, whole) == expected);
    REQUIRE(crc32c(crc32c(0, whole.first(cut)), whole.subspan(cut)) == expected);
  }
}
