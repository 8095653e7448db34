// Making the contents of a device read as zeros without writing them, where the host can do that.
#pragma once

#include "pmem/device.h"

namespace plumb::tools {

/// True if all of the device reads as zeros afterwards. False: it holds what it held, and plumbfs zeroes blocks when it
/// takes them. Files keep their allocation: what was a hole stays one. Not for dax devices and files on dax file
/// systems, where zeroing is a store like any other or costs more later than it saves.
[[nodiscard]] bool zero_contents(const pmem::Device& device);

/// A file that has holes: its host may be full when they are written to.
[[nodiscard]] bool is_sparse(const pmem::Device& device);

}  // namespace plumb::tools
