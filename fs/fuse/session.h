// One mount from the command line to its end: device, volume, FUSE session, and their orderly end in reverse.
//
// The session ends by umount(8) from outside, or by SIGTERM, SIGINT or SIGHUP, which unmount from inside (lazily, if
// the mount is in use). Either way the volume is unmounted after the last request; until that is done the claim on the
// device stays, and a new mount of the same device waits for it.
//
// Thread safety: called once, in the main thread, before there are others.
#pragma once

#include "fs/fuse/launch.h"
#include "fs/fuse/options.h"

namespace plumb::fuse {

/// Mounts and serves until the end. Returns the exit status of the process.
[[nodiscard]] int run_session(Options options, Launch& launch);

}  // namespace plumb::fuse
