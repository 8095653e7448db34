// What other software left on a device: file systems, partition tables, RAID members, swap space, encrypted volumes.
// Found by libblkid, so that mkfs does not overwrite them unasked, and wiped when asked, so that nobody finds two
// things on one device.
//
// Reading and wiping go through the Device. libblkid wants a descriptor to read from: a dax device has no read(2), so
// the ends of it, where signatures lie, are shown to libblkid as a sparse memfd of the same size.
//
// Thread safety: none needed, mkfs is single-threaded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb::tools {

struct Signature {
  std::string what;  // "an ext4 file system", "a gpt partition table", "a linux_raid_member RAID member", ...
  std::string label;
  std::string uuid;
  std::uint64_t offset_bytes = 0;  // of its magic
  std::uint64_t length_bytes = 0;
};

/// Everything libblkid knows on the device.
[[nodiscard]] Result<std::vector<Signature>> find_signatures(const pmem::Device& device);

/// Overwrites the magic of everything find_signatures() finds, durably, until it finds nothing more. What was wiped.
[[nodiscard]] Result<std::vector<Signature>> wipe_signatures(pmem::Device& device);

}  // namespace plumb::tools
