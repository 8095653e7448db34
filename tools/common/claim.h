// Opening a device for a tool: claim it, and when somebody else has it, say who.
#pragma once

#include <memory>
#include <string>

#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb::tools {

struct DeviceUser {
  /// "is mounted on /mnt (ext4)", "is in use as swap space", "is in use by process 12 (plumbfs)", ... Empty: none is
  /// known.
  std::string what;
  /// A daemon that holds the device without a mount: one that is starting, or writing its last bytes after umount(8).
  bool passing = false;
};

/// Who uses `path` now. Looks at the kernel's tables only, never at the device.
[[nodiscard]] DeviceUser user_of_device(const std::string& path);

/// The same, but waits up to 30 s for a user that is passing.
[[nodiscard]] DeviceUser lasting_user_of_device(const std::string& path);

/// Who uses `path` although we hold the lock that claims it: a mount of another file system, swap, a loop device, RAID,
/// ...
[[nodiscard]] std::string user_despite_claim(const std::string& path);

/// pmem::open_device, and:
///   - EBUSY names the user, if that can be found out;
///   - a daemon that is ending is waited for, up to 30 s;
///   - EBUSY also for a use that the claim does not see (a file under a loop device, a swap file), and for
///     programs that still map files of a mount that ended, unless read_only.
[[nodiscard]] Result<std::unique_ptr<pmem::Device>> claim_device(const std::string& path,
                                                                 const pmem::OpenOptions& options);

}  // namespace plumb::tools
