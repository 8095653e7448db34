// What a file must contain, in memory.
//
// Bytes at and after size_bytes() are always zero, as a file that grows reads there. Every byte
// remembers the operation that gave it its value, so that a difference can be explained. Not thread
// safe: each tester has its own.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "test/lib/pattern.h"

namespace fsx {

using Bytes = std::span<std::uint8_t>;
using ConstBytes = std::span<const std::uint8_t>;

using plumb_test::fill_pattern;

class FileModel {
 public:
  explicit FileModel(std::size_t capacity_bytes) : bytes_(capacity_bytes), writers_(capacity_bytes) {}

  [[nodiscard]] std::size_t size_bytes() const { return size_; }
  [[nodiscard]] std::size_t capacity_bytes() const { return bytes_.size(); }
  [[nodiscard]] ConstBytes content() const { return ConstBytes(bytes_).first(size_); }
  [[nodiscard]] ConstBytes range(std::size_t offset, std::size_t length) const {
    return ConstBytes(bytes_).subspan(offset, length);
  }
  /// The operation that gave the byte its value, 0 if none did.
  [[nodiscard]] std::uint32_t writer(std::size_t offset) const { return writers_[offset]; }

  void write(std::size_t offset, ConstBytes data, std::uint32_t number) {
    assert(offset + data.size() <= bytes_.size());
    if (data.empty()) return;
    std::memcpy(bytes_.data() + offset, data.data(), data.size());
    mark(offset, data.size(), number);
    size_ = std::max(size_, offset + data.size());
  }

  /// Zeroes the part of the range that is inside the file; the size stays.
  void zero(std::size_t offset, std::size_t length, std::uint32_t number) {
    if (offset >= size_) return;
    length = std::min(length, size_ - offset);
    std::memset(bytes_.data() + offset, 0, length);
    mark(offset, length, number);
  }

  void resize(std::size_t size, std::uint32_t number) {
    assert(size <= bytes_.size());
    if (size < size_) {
      std::memset(bytes_.data() + size, 0, size_ - size);
      mark(size, size_ - size, number);
    }
    size_ = size;
  }

  void grow_to(std::size_t size) { size_ = std::max(size_, size); }

 private:
  void mark(std::size_t offset, std::size_t length, std::uint32_t number) {
    std::fill_n(writers_.begin() + static_cast<std::ptrdiff_t>(offset), length, number);
  }

  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint32_t> writers_;
  std::size_t size_ = 0;
};

}  // namespace fsx
