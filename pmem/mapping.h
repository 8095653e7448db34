// Owner of one shared mapping of a device or file.
//
// Invariants: the mapping is known to the SIGBUS handler as long as it lives. The open file description stays alive
// with the mapping, and with it the claim (flock, O_EXCL) that was taken on it: the claim ends with the unmapping, not
// before.
//
// Thread safety: none; a Mapping belongs to one Device.
#pragma once

#include <cstddef>
#include <utility>

#include "pmem/result.h"

namespace plumb::pmem {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept : base_(std::exchange(other.base_, nullptr)), length_bytes_(other.length_bytes_) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(length_bytes_, other.length_bytes_);
    return *this;
  }
  ~Mapping();

  /// mmap(2) from offset 0, with `flags` as there; the errno of a failed mmap without a detail.
  [[nodiscard]] static Result<Mapping> map(int fd, std::size_t length_bytes, bool writable, int flags);

  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::size_t length_bytes() const { return length_bytes_; }

 private:
  std::byte* base_ = nullptr;
  std::size_t length_bytes_ = 0;
};

}  // namespace plumb::pmem
