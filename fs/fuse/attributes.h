// Attributes of the volume in the forms that FUSE replies take.
//
// Timeouts: every change of names and attributes comes through the kernel of this mount, which updates or invalidates
// what it caches when it sends the request. So both may be kept for long, names that are not there included. The
// exception is what the daemon changes by itself: after FS_IOC_SETFLAGS the ctime, told to the kernel by a
// notification.
//
// Thread safety: no state.
#pragma once

#include <sys/stat.h>

#include "fs/core/volume.h"
#include "fs/fuse/fuse_api.h"

namespace plumb::fuse {

inline constexpr double kEntryTimeoutSeconds = 86400;
inline constexpr double kAttributeTimeoutSeconds = 86400;
/// Of these attributes: none where programs with write leases may change the times at any moment.
[[nodiscard]] inline double attribute_timeout(const Attributes& attributes) {
  return attributes.changes_directly ? 0 : kAttributeTimeoutSeconds;
}

[[nodiscard]] struct stat to_stat(const Attributes& attributes);

/// A name that is there.
[[nodiscard]] fuse_entry_param to_entry(const Attributes& attributes);

/// A name that is not there, to be remembered by the kernel.
[[nodiscard]] fuse_entry_param negative_entry();

#if PLUMB_FUSE_HAS_STATX
[[nodiscard]] struct statx to_statx(const Attributes& attributes);
#endif

}  // namespace plumb::fuse
