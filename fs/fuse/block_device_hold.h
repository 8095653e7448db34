// Holds a block device exclusively (O_EXCL) until the mount of -o fuseblk takes it over.
//
// The kernel claims the device of a fuseblk mount for the mount itself, which fails while anybody holds it; so the
// description that is mapped cannot be the holder. This one is, from the claim until just before mount(2): nothing that
// the kernel knows of (a mount, swap, md, dm) has the device or can get it. Between the release and mount(2) the lock
// on the mapped description still keeps plumbfs programs away.
//
// Thread safety: none needed, the main thread has it.
#pragma once

#include <string>

#include "pmem/result.h"

namespace plumb::fuse {

class BlockDeviceHold {
 public:
  BlockDeviceHold() = default;
  ~BlockDeviceHold() { release(); }
  BlockDeviceHold(const BlockDeviceHold&) = delete;
  BlockDeviceHold& operator=(const BlockDeviceHold&) = delete;

  /// EBUSY if it is in use; ENOTBLK, clearly, if it is no block device.
  [[nodiscard]] Status take(const std::string& device);
  void release();
  /// The block size that the kernel's page cache uses on the device now.
  [[nodiscard]] unsigned block_bytes() const { return block_bytes_; }

 private:
  int fd_ = -1;
  unsigned block_bytes_ = 0;
};

}  // namespace plumb::fuse
