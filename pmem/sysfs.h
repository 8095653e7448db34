// What sysfs says about a dax device or the nd region behind a block device.
//
// Every function takes the root of sysfs ("/sys"), so that tests show them a tree of their own.
// Sources: Documentation/ABI/testing/sysfs-bus-dax and sysfs-bus-nvdimm of the kernel.
//
// Thread safety: no state.
#pragma once

#include <cstdint>
#include <string>

#include "pmem/memory_device.h"
#include "pmem/result.h"

namespace plumb::pmem::sysfs {

/// A device number, as in st_rdev.
struct DeviceNumber {
  unsigned major_number = 0;
  unsigned minor_number = 0;
};

/// A devdax character device that can be mapped.
struct DevdaxFacts {
  std::uint64_t size_bytes = 0;
  std::uint64_t align_bytes = 0;
  bool is_persistent = false;  // below an nd region; others (CXL ram, HMEM) count as volatile
  MemoryPlatform platform;
};

/// EINVAL if the character device is no dax device or has no size; ENODEV if its driver is not device_dax (system-ram).
[[nodiscard]] Result<DevdaxFacts> read_devdax(const std::string& root, DeviceNumber number);

/// The platform behind the block device that holds a file (st_dev) or is one; default values where there is no nd
/// region.
[[nodiscard]] MemoryPlatform read_block_platform(const std::string& root, DeviceNumber number);

/// True if the kernel has the block device write-protected.
[[nodiscard]] bool is_block_read_only(const std::string& root, DeviceNumber number);

/// True if a dax device of this name ("dax0.0") exists and is used as system memory, so that it has no device node.
[[nodiscard]] bool is_system_ram(const std::string& root, const std::string& dax_name);

}  // namespace plumb::pmem::sysfs
