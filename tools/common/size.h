// Sizes as people write them: "4096", "64k", "1G", "2TiB"; and back.
//
// Suffixes are powers of 1024 in either case (k, M, G, T), with or without "iB" or "B". Thread safety: no state.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <string_view>

#include "pmem/result.h"

namespace plumb::tools {

namespace size_internal {

/// The power of two that a suffix stands for; -1 if it is none.
inline int suffix_shift(std::string_view suffix) {
  if (suffix.empty() || suffix == "B" || suffix == "b") return 0;
  int shift = 0;
  switch (suffix.front()) {
    case 'k':
    case 'K':
      shift = 10;
      break;
    case 'm':
    case 'M':
      shift = 20;
      break;
    case 'g':
    case 'G':
      shift = 30;
      break;
    case 't':
    case 'T':
      shift = 40;
      break;
    default:
      return -1;
  }
  suffix.remove_prefix(1);
  return suffix.empty() || suffix == "B" || suffix == "iB" ? shift : -1;
}

}  // namespace size_internal

/// EINVAL: not a size. ERANGE: more than 2^64 - 1 bytes.
[[nodiscard]] inline Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  const std::string quoted = "'" + std::string(text) + "'";
  if (error == std::errc::result_out_of_range) return fail(ERANGE, quoted + " is too large for a size");
  const int shift = size_internal::suffix_shift(std::string_view(rest, static_cast<std::size_t>(end - rest)));
  if (error != std::errc{} || shift < 0)
    return fail(EINVAL, quoted + " is not a size; write bytes, or a number with k, M, G or T");
  if (number > std::numeric_limits<std::uint64_t>::max() >> shift)
    return fail(ERANGE, quoted + " is too large for a size");
  return number << shift;
}

/// "512 bytes", "64 KiB", "1.5 GiB": exact if there is no decimal point, else rounded down to a tenth.
[[nodiscard]] inline std::string size_text(std::uint64_t bytes) {
  static constexpr std::array<const char*, 7> kUnits{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  while (unit + 1 < kUnits.size() && (bytes >> (10 * (unit + 1))) != 0) ++unit;
  const unsigned shift = static_cast<unsigned>(10 * unit);
  const std::uint64_t whole = bytes >> shift;
  const std::uint64_t rest = bytes - (whole << shift);
  std::string text = std::to_string(whole);
  if (rest != 0) text += "." + std::to_string((rest >> (shift - 10)) * 10 / 1024);
  return text + " " + kUnits[unit];
}

}  // namespace plumb::tools
