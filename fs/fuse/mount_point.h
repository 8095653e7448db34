// The place in the file tree: what has to be right before a mount, and how it is taken away.
//
// As root by system calls, else through the set-id helper fusermount3. Thread safety: all functions from any thread.
#pragma once

#include <cstdint>
#include <string>

#include "pmem/result.h"

namespace plumb::fuse {

enum class MountTarget : std::uint8_t { kDirectory, kDirectoryOrFile };

/// The absolute path of a directory (or regular file) that can be mounted on. A mount there whose daemon is dead
/// (ENOTCONN) is detached first. ENOENT, ENOTDIR, EACCES, each with a clear detail.
[[nodiscard]] Result<std::string> prepare_mount_point(const std::string& path,
                                                      MountTarget target = MountTarget::kDirectory);

/// /dev/fuse can be opened, and whoever is not root has fusermount3.
[[nodiscard]] Status check_fuse_device();

/// Where `device` is mounted by a daemon of ours that lives, as a plumbfs or raw, or by one that
/// has died and left the mount of a block device (-o fuseblk), which holds it; empty if nowhere.
[[nodiscard]] std::string where_mounted(const std::string& device);

/// Takes the mount away while its daemon still serves: as umount(8) if nobody uses it; otherwise what its users have
/// mapped and changed is written back first, and the mount is detached lazily.
void unmount(const std::string& mount_point);

}  // namespace plumb::fuse
