// plumbfs, the daemon, and mount.fuse.plumbfs, the helper of mount(8): see fs/fuse/options.h.

#include <unistd.h>

#include <cstdio>
#include <exception>

#include "fs/fuse/launch.h"
#include "fs/fuse/log.h"
#include "fs/fuse/mount_point.h"
#include "fs/fuse/options.h"
#include "fs/fuse/out_of_memory.h"
#include "fs/fuse/session.h"

namespace plumb::fuse {
namespace {

int complain(const Error& error, int status) {
  std::fprintf(stderr, "plumbfs: %s\n", error.message().c_str());
  return status;
}

int run(int argc, char** argv) {
  auto options = parse_options(argc, argv, geteuid() == 0);
  if (!options) {
    std::fputs(options.error().text.c_str(), options.error().status == kExitOk ? stdout : stderr);
    return options.error().status;
  }
  if (options->fake) return kExitOk;
  start_log(options->debug);
  end_when_out_of_memory();

  // What can be said without the device is said before there is a second process.
  if (const Status usable = check_fuse_device(); !usable) return complain(usable.error(), kExitFailed);
  const auto mount_point = prepare_mount_point(options->mountpoint);
  if (!mount_point) return complain(mount_point.error(), kExitFailed);
  options->mountpoint = *mount_point;

  Launch launch;
  if (!options->foreground) {
    const auto finished = launch.go_to_background();
    if (!finished) return complain(finished.error(), kExitSystem);
    if (finished->has_value()) return **finished;
  }
  return run_session(std::move(*options), launch);
}

}  // namespace
}  // namespace plumb::fuse

int main(int argc, char** argv) {
  try {
    return plumb::fuse::run(argc, argv);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "plumbfs: %s\n", exception.what());
    return plumb::fuse::kExitSystem;
  }
}
