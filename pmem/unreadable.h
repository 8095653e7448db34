// Which parts of a range of a device cannot be read, and what to do with the rest.
//
// Thread safety: as Device.
#pragma once

#include <cstdint>
#include <vector>

#include "pmem/device.h"

namespace plumb::pmem {

/// The units of [offset_bytes, offset_bytes + length_bytes) that cannot be read: the offset of each, ascending. Offset
/// and length are multiples of `unit_bytes`, and the range lies on the device. Reads all of it; where much of it is
/// gone that costs one fault for each unit.
[[nodiscard]] std::vector<std::uint64_t> unreadable_units(const Device& device, std::uint64_t offset_bytes,
                                                          std::uint64_t length_bytes, std::uint64_t unit_bytes);

/// flush() of a range with parts that cannot be read: there a flush fails as a load does, and there is nothing left to
/// flush. True: all of it is flushed; false: all that can be read. Offset and length as flush(), within what is a
/// multiple of 1024 on the device.
[[nodiscard]] Result<bool> flush_readable(Device& device, std::uint64_t offset_bytes, std::uint64_t length_bytes);

}  // namespace plumb::pmem
