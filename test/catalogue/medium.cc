#include "test/catalogue/medium.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <stdexcept>

namespace plumb::catalogue {
namespace {

constexpr std::size_t kPieceBytes = 16384;

void store_file(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  for (std::size_t at = 0; at < bytes.size(); at += kPieceBytes) {
    const std::size_t length = std::min(kPieceBytes, bytes.size() - at);
    const auto piece = std::span(bytes).subspan(at, length);
    // The last byte is written always: it gives the file its length.
    const bool zeros = std::all_of(piece.begin(), piece.end(), [](std::byte b) { return b == std::byte{0}; });
    if (zeros && at + length < bytes.size()) continue;
    file.seekp(static_cast<std::streamoff>(at));
    file.write(reinterpret_cast<const char*>(piece.data()), static_cast<std::streamsize>(length));
  }
  file.close();
  if (!file) throw std::runtime_error("cannot write " + path);
}

Bytes load_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  Bytes bytes(static_cast<std::size_t>(std::max<std::streamoff>(file.tellg(), 0)));
  file.seekg(0);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  if (!file) throw std::runtime_error("cannot read " + path);
  return bytes;
}

std::string difference(const std::string& path, const Bytes& bytes, const char* device) {
  std::ifstream file(path, std::ios::binary);
  std::array<std::byte, kPieceBytes> piece;
  for (std::size_t at = 0; at < bytes.size(); at += piece.size()) {
    const std::size_t length = std::min(piece.size(), bytes.size() - at);
    file.read(reinterpret_cast<char*>(piece.data()), static_cast<std::streamsize>(length));
    if (!file) return std::string("the length of the ") + device + " device";
    if (std::memcmp(piece.data(), bytes.data() + at, length) == 0) continue;
    const auto where = std::mismatch(piece.begin(), piece.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at)).first;
    return "byte " + std::to_string(at + static_cast<std::size_t>(where - piece.begin())) + " of the " + device +
           " device";
  }
  if (file.peek() != std::ifstream::traits_type::eof()) return std::string("the length of the ") + device + " device";
  return {};
}

}  // namespace

std::span<std::byte> Medium::bytes(std::size_t index, std::uint64_t offset_bytes, std::uint64_t length) {
  Bytes& all = device(index);
  if (offset_bytes > all.size() || length > all.size() - offset_bytes)
    throw std::runtime_error("bytes " + std::to_string(offset_bytes) + "+" + std::to_string(length) +
                             " are not on the device");
  return std::span(all).subspan(offset_bytes, length);
}

std::span<const std::byte> Medium::bytes(std::size_t index, std::uint64_t offset_bytes, std::uint64_t length) const {
  return const_cast<Medium*>(this)->bytes(index, offset_bytes, length);
}

void MediumFiles::store(const Medium& medium) const {
  store_file(main, medium.main);
  if (!realtime.empty()) store_file(realtime, medium.realtime);
}

Medium MediumFiles::load() const {
  return {load_file(main), realtime.empty() ? Bytes() : load_file(realtime)};
}

std::string MediumFiles::first_difference(const Medium& medium) const {
  const std::string on_main = difference(main, medium.main, "main");
  if (!on_main.empty() || realtime.empty()) return on_main;
  return difference(realtime, medium.realtime, "realtime");
}

}  // namespace plumb::catalogue
