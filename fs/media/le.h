// Little-endian integers as they lie on the medium: alignment 1, no padding, explicit conversion.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace plumb::media {

template <typename T>
class Le {
  static_assert(std::is_unsigned_v<T>);

 public:
  constexpr Le() = default;
  constexpr Le(T value) { set(value); }  // NOLINT(google-explicit-constructor): assignment from numbers is the point
  constexpr operator T() const { return get(); }  // NOLINT(google-explicit-constructor)

  [[nodiscard]] constexpr T get() const {
    T value = std::bit_cast<T>(bytes_);
    if constexpr (std::endian::native == std::endian::big) value = swap(value);
    return value;
  }
  constexpr void set(T value) {
    if constexpr (std::endian::native == std::endian::big) value = swap(value);
    bytes_ = std::bit_cast<std::array<std::uint8_t, sizeof(T)>>(value);
  }

 private:
  static constexpr T swap(T value) {
    T out = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) out = static_cast<T>((out << 8) | ((value >> (8 * i)) & 0xff));
    return out;
  }
  std::array<std::uint8_t, sizeof(T)> bytes_{};
};

using Le16 = Le<std::uint16_t>;
using Le32 = Le<std::uint32_t>;
using Le64 = Le<std::uint64_t>;
static_assert(sizeof(Le64) == 8 && alignof(Le64) == 1);

}  // namespace plumb::media
