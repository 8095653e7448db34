// What is on a device, for tools that ask before they let it be overwritten.
#pragma once

#include <string>

#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb::tools {

/// One clause: "a plumbfs file system with label \"x\", uuid ...", "an ext4 file system", ...; empty if nothing that
/// anybody knows. Reads only.
[[nodiscard]] Result<std::string> contents_of(const pmem::Device& device);

}  // namespace plumb::tools
