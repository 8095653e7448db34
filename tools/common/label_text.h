// The label of a file system: up to 31 bytes, NUL-padded on the medium, any bytes to us; escaped for a terminal.
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>

namespace plumb::tools {

inline constexpr std::size_t kLabelMax = 31;

template <std::size_t N>
[[nodiscard]] std::string label_of(const std::array<char, N>& field) {
  return std::string(field.begin(), std::find(field.begin(), field.end(), '\0'));
}

/// Control characters become \xNN, so that what lies on a device cannot drive the terminal. Bytes above 127 stay
/// (UTF-8).
[[nodiscard]] inline std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += c;
      continue;
    }
    std::array<char, 5> escaped{};
    std::snprintf(escaped.data(), escaped.size(), "\\x%02x", static_cast<unsigned>(byte));
    out += escaped.data();
  }
  return out;
}

}  // namespace plumb::tools
