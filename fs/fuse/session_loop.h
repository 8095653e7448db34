// The libfuse session of a mount, whatever it serves: made, mounted, announced, served by threads, ended.
//
// Ends by umount(8) from outside, or by SIGTERM, SIGINT or SIGHUP, which unmount from inside. Announcing is the job of
// FUSE_INIT (report_mounted()), when kernel and daemon have agreed on the protocol.
//
// Thread safety: run_session_loop() in the main thread, once; report_mounted() from the thread of FUSE_INIT.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "fs/fuse/fuse_api.h"
#include "fs/fuse/launch.h"
#include "fs/fuse/options.h"

namespace plumb::fuse {

/// What to mount. All of it outlives run_session_loop().
struct Mount {
  const Options& options;
  std::string subtype;                 // "fuse.SUBTYPE" in /proc/mounts
  std::vector<std::string> session{};  // options of libfuse and the mount, beside those in `options`
  fuse_lowlevel_ops operations{};
  void* server = nullptr;                           // userdata of the operations
  bool take_syncfs = false;                         // serve by RequestLoop (fs/fuse/syncfs.h)
  std::function<void(fuse_session*)> on_created{};  // optional: before it is mounted
};

/// Mounts and serves until the end; when it returns, no request runs any more. An exit status (ExitStatus).
[[nodiscard]] int run_session_loop(const Mount& mount);

/// The mount is up: `line` goes to stdout, the log to where the options say, and the launch is over.
void report_mounted(const Options& options, const std::string& line, Launch& launch);

}  // namespace plumb::fuse
