// SipHash-2-4 (Aumasson, Bernstein 2012): keyed, so that nobody can choose names that collide.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace plumb {

inline std::uint64_t siphash24(const std::array<std::uint8_t, 16>& seed, std::string_view text) {
  auto load = [](const void* at) {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    if constexpr (std::endian::native == std::endian::big) value = __builtin_bswap64(value);
    return value;
  };
  const std::uint64_t k0 = load(seed.data());
  const std::uint64_t k1 = load(seed.data() + 8);
  std::uint64_t v0 = k0 ^ 0x736f6d6570736575ULL;
  std::uint64_t v1 = k1 ^ 0x646f72616e646f6dULL;
  std::uint64_t v2 = k0 ^ 0x6c7967656e657261ULL;
  std::uint64_t v3 = k1 ^ 0x7465646279746573ULL;
  auto round = [&] {
    v0 += v1, v1 = std::rotl(v1, 13), v1 ^= v0, v0 = std::rotl(v0, 32);
    v2 += v3, v3 = std::rotl(v3, 16), v3 ^= v2;
    v0 += v3, v3 = std::rotl(v3, 21), v3 ^= v0;
    v2 += v1, v1 = std::rotl(v1, 17), v1 ^= v2, v2 = std::rotl(v2, 32);
  };
  std::size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    const std::uint64_t m = load(text.data() + at);
    v3 ^= m;
    round();
    round();
    v0 ^= m;
  }
  std::array<char, 8> last{};
  std::memcpy(last.data(), text.data() + at, text.size() - at);
  const std::uint64_t m = load(last.data()) | (static_cast<std::uint64_t>(text.size()) << 56);
  v3 ^= m;
  round();
  round();
  v0 ^= m;
  v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) round();
  return v0 ^ v1 ^ v2 ^ v3;
}

/// First of the 256 keys of a name in a directory or xattr tree: below 2^63, and never below 256.
inline std::uint64_t name_key(const std::array<std::uint8_t, 16>& seed, std::string_view name) {
  const std::uint64_t key = (siphash24(seed, name) >> 1) & ~std::uint64_t{0xff};
  return key == 0 ? 0x100 : key;
}
inline constexpr std::uint64_t kKeysPerName = 256;

}  // namespace plumb
