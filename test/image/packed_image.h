// Images as files of the repository: only what is not zero.
//
// A packed image is the text line "plumbfs packed image 1 SIZE\n", then pieces of 64 bytes or a multiple: offset and
// length as little-endian 64-bit numbers, then the bytes. What no piece covers is zero.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "fs/media/le.h"

namespace plumb::test {

inline constexpr char kPackedMagic[] = "plumbfs packed image 1 ";
inline constexpr std::size_t kPiece = 64;

inline std::string pack_image(std::span<const std::byte> bytes) {
  std::string packed = kPackedMagic + std::to_string(bytes.size()) + "\n";
  auto is_zero = [&](std::size_t at) {
    for (std::size_t i = at; i < at + kPiece; ++i)
      if (bytes[i] != std::byte{0}) return false;
    return true;
  };
  for (std::size_t at = 0; at < bytes.size();) {
    if (is_zero(at)) {
      at += kPiece;
      continue;
    }
    std::size_t end = at;
    while (end < bytes.size() && !is_zero(end)) end += kPiece;
    const media::Le64 header[2] = {at, end - at};
    packed.append(reinterpret_cast<const char*>(header), sizeof header);
    packed.append(reinterpret_cast<const char*>(bytes.data()) + at, end - at);
    at = end;
  }
  return packed;
}

inline std::vector<std::byte> unpack_image(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string packed((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::size_t line = packed.find('\n');
  const std::size_t magic = sizeof kPackedMagic - 1;
  if (packed.compare(0, magic, kPackedMagic) != 0 || line == std::string::npos)
    throw std::runtime_error(path + ": not a packed image");
  std::vector<std::byte> bytes(std::stoull(packed.substr(magic, line - magic)));
  for (std::size_t at = line + 1; at < packed.size();) {
    media::Le64 header[2];
    if (packed.size() - at < sizeof header) throw std::runtime_error(path + ": cut off");
    std::memcpy(header, packed.data() + at, sizeof header);
    at += sizeof header;
    const std::uint64_t offset = header[0];
    const std::uint64_t length = header[1];
    if (length > packed.size() - at || offset > bytes.size() || length > bytes.size() - offset)
      throw std::runtime_error(path + ": cut off");
    std::memcpy(bytes.data() + offset, packed.data() + at, length);
    at += length;
  }
  return bytes;
}

}  // namespace plumb::test
