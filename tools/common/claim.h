// Opening a device for a tool: claim it, and when somebody else has it, say who.
#pragma once

#include <memory>
#include <string>

#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb::tools {

/// One clause about who uses `path` now: "is mounted on /mnt (ext4)", "is in use as swap space", "is locked by process
/// 12 (plumbfs)", ... Empty if nothing is known. Looks at the kernel's tables only, never at the device.
[[nodiscard]] std::string user_of_device(const std::string& path);

/// pmem::open_device, and:
///   - EBUSY names the user, if that can be found out;
///   - a daemon that is ending (umount(8) returns before it is done) is waited for, up to 30 s;
///   - EBUSY also for a use that the claim does not see (a file under a loop device, a swap file), unless read_only.
[[nodiscard]] Result<std::unique_ptr<pmem::Device>> claim_device(const std::string& path,
                                                                 const pmem::OpenOptions& options);

}  // namespace plumb::tools
