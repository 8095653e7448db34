// Strong types of the core: numbers of different meaning do not mix.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace plumb {

/// A number with a meaning. Explicit in, .value out; ordered, hashable.
template <typename Tag>
struct StrongNumber {
  std::uint64_t value = 0;
  constexpr StrongNumber() = default;
  constexpr explicit StrongNumber(std::uint64_t v) : value(v) {}
  friend constexpr auto operator<=>(StrongNumber, StrongNumber) = default;
  template <typename H>
  friend H AbslHashValue(H h, StrongNumber n) {
    return H::combine(std::move(h), n.value);
  }
};

using InodeNumber = StrongNumber<struct InodeNumberTag>;  // 0 is "none", kRootInode is the root directory
using BlockNumber = StrongNumber<struct BlockNumberTag>;  // block of a device, in units of the block size
using FileBlock = StrongNumber<struct FileBlockTag>;      // block of a file, in units of the block size
using Sequence = StrongNumber<struct SequenceTag>;        // of a journal record; grows for the life of the file system

inline constexpr InodeNumber kNoInode{0};
inline constexpr InodeNumber kRootInode{1};
inline constexpr std::uint64_t kMaxFileSize = 0x7fff'ffff'ffff'ffffULL;  // off_t
inline constexpr std::size_t kNameMax = 255;
inline constexpr std::size_t kSymlinkMax = 4095;
inline constexpr std::size_t kXattrValueMax = 65536;
inline constexpr std::uint32_t kLinkMax = 65000;

/// Which member of the device table.
enum class DeviceRole : std::uint8_t { kMain = 0, kRealtime = 1 };
constexpr std::size_t index_of(DeviceRole role) {
  return static_cast<std::size_t>(role);
}

/// Seconds since 1970 (negative before) and nanoseconds in [0, 1e9).
struct Timestamp {
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  friend constexpr auto operator<=>(const Timestamp&, const Timestamp&) = default;
};

}  // namespace plumb
