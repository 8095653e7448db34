// The bytes of a file system: those of its main device, and of the realtime device if it has one.
//
// Thread safety: that of a value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace plumb::catalogue {

using Bytes = std::vector<std::byte>;

struct Medium {
  Bytes main, realtime;  // realtime is empty without such a device

  bool operator==(const Medium&) const = default;
  [[nodiscard]] Bytes& device(std::size_t index) { return index == 0 ? main : realtime; }
  [[nodiscard]] const Bytes& device(std::size_t index) const { return index == 0 ? main : realtime; }
  /// A part of a device. Throws std::runtime_error if it lies outside.
  [[nodiscard]] std::span<std::byte> bytes(std::size_t device, std::uint64_t offset_bytes, std::uint64_t length);
  [[nodiscard]] std::span<const std::byte> bytes(std::size_t device, std::uint64_t offset_bytes,
                                                 std::uint64_t length) const;
  template <typename T>
  [[nodiscard]] T read(std::uint64_t offset_bytes) const {
    T object;
    std::memcpy(&object, bytes(0, offset_bytes, sizeof object).data(), sizeof object);
    return object;
  }
};

/// The files of a medium, in a directory of their own. Zeros are not written.
struct MediumFiles {
  explicit MediumFiles(std::string directory, bool with_realtime)
      : main(directory + "/main.image"), realtime(with_realtime ? directory + "/realtime.image" : std::string()) {}
  std::string main, realtime;  // paths; realtime is empty without such a device

  /// Throw std::runtime_error if that is not possible.
  void store(const Medium& medium) const;
  [[nodiscard]] Medium load() const;
  /// The first byte that differs from the medium, as "byte N of the main device"; empty if there is none.
  [[nodiscard]] std::string first_difference(const Medium& medium) const;
};

}  // namespace plumb::catalogue
