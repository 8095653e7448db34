// Bytes of a file on their way into its blocks.
//
// Thread safety: a FileStores is of one operation, which holds the lock of the inode: shared for bytes of blocks that
// are the file's already, else exclusive.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "fs/core/volume_impl.h"

namespace plumb {

/// Walks the bytes of an iovec.
class Source {
 public:
  Source(std::span<const iovec> data, std::uint64_t skip_bytes) : data_(data) {
    while (skip_bytes != 0) skip_bytes -= take(skip_bytes).size();
  }
  /// The next piece, at most `most` bytes, of which there are as many; advances past it.
  std::span<const std::byte> take(std::uint64_t most);

 private:
  std::span<const iovec> data_;
  std::size_t index_ = 0, within_ = 0;
};

/// Stores bytes of a file into its blocks: what is allocated already, and what is fresh.
class FileStores {
 public:
  FileStores(VolumeImpl& v, Inode& inode);

  /// EUCLEAN: a block of the range is neither the file's nor in `fresh`. EIO: the device.
  [[nodiscard]] Status store(const ExtentMap& fresh, std::uint64_t offset, std::uint64_t length, Source source);
  /// Zeroes what is allocated in [offset, end), in bytes. EIO: the device.
  [[nodiscard]] Status zero(std::uint64_t offset, std::uint64_t end);
  /// Immediate: what was stored is durable. Deferred and page-cached: it is in the inode's dirty ranges.
  /// Streaming stores of this thread are drained here in any case: no other thread's drain covers them.
  [[nodiscard]] Status finish() { return device_.is_memory() ? device_.drain() : Status{}; }

 private:
  VolumeImpl& v_;
  Inode& inode_;
  const DeviceRole role_;
  pmem::Device& device_;
  const bool streaming_;
};

}  // namespace plumb
