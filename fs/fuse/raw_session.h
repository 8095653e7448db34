// Serves an unformatted device as one regular file: everything of `plumb raw` but its command line and what it knows
// about the contents of devices. The one header of fs/fuse that tools include; it knows nothing of libfuse.
//
// Thread safety: called once, in the main thread, before there are others.
#pragma once

#include <functional>
#include <memory>

#include "fs/fuse/options.h"
#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb::fuse {

/// Opens and claims the device, and refuses it if it should not be served: the first thing that the serving process
/// does. With options.volume.read_only the device may be open for writing all the same.
using OpenRawDevice = std::function<Result<std::unique_ptr<pmem::Device>>(const Options&)>;

/// What the process is to exit with. Whoever started a server in the background ends with the exit of the server.
enum RawExit : int { kRawOk = 0, kRawFailed = 1, kRawUsage = 2 };

/// Prepares the mount point, goes to the background unless options.foreground, and serves until the end. What went
/// wrong is on stderr or in the log.
[[nodiscard]] RawExit run_raw(Options options, const OpenRawDevice& open);

}  // namespace plumb::fuse
