// The command line of the daemon, which is also that of /sbin/mount.fuse.plumbfs.
//
//   plumbfs DEVICE MOUNTPOINT [-f] [-d] [-o OPTION,...]
//   mount.fuse.plumbfs DEVICE MOUNTPOINT [-sfnv] [-t TYPE] [-N NAMESPACE] [-o OPTION,...]   (by mount(8))
//
// The two differ in -f: foreground for the daemon, "fake" for a helper of mount(8). An option that is not known is an
// error that names it, except with -s; what belongs to mount(8) and fstab (defaults, noauto, nofail, x-*, ...) is
// accepted and means nothing here. Of options that contradict each other the last one counts.
//
// Knows nothing of libfuse. Thread safety: no state.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "fs/core/volume.h"
#include "fs/media/layout.h"

namespace plumb::fuse {

/// Exit statuses, as mount(8) has them.
enum ExitStatus : int {
  kExitOk = 0,
  kExitUsage = 1,    // incorrect invocation or permissions
  kExitSystem = 2,   // out of memory, cannot fork, ...; also: the file system did not end cleanly
  kExitFailed = 32,  // the mount failed
};

enum class DaxMode : std::uint8_t { kAlways, kInode, kNever };
enum class Assume : std::uint8_t { kNothing, kPmem, kPersistent };
enum class Choice : std::uint8_t { kAuto, kYes, kNo };

struct Options {
  std::string device;
  std::string mountpoint;
  bool foreground = false;
  bool debug = false;
  bool fake = false;  // check the command line, mount nothing
  MountOptions volume;
  DaxMode dax = DaxMode::kAlways;
  Assume assume = Assume::kNothing;
  std::optional<media::Uuid> uuid;  // the file system must have this one
  std::string realtime_device;      // empty: found by its uuid
  std::string log_file;             // empty: syslog, or stderr in the foreground
  unsigned threads = 0;             // most worker threads; 0: by the number of processors
  std::optional<unsigned> max_idle_threads;
  Choice io_uring = Choice::kAuto;
  bool fuseblk = false;  // mount as one of a block device: the kernel passes sync requests on
  bool allow_other = false;
  std::vector<std::string> kernel;    // options of the mount itself: "ro", "nosuid", "context=..."
  std::vector<std::string> warnings;  // for the user, one sentence each
};

/// Why there are no Options: print `text` (to stdout if status is 0) and exit.
struct EarlyExit {
  int status = kExitUsage;
  std::string text;
};

/// `as_root`: the caller is root. Then the mount is for everybody and honours devices and set-id programs, as mounts of
/// other file systems are, unless options say otherwise.
[[nodiscard]] tl::expected<Options, EarlyExit> parse_options(int argc, const char* const* argv, bool as_root);

/// The options of `plumb raw DEVICE MOUNTPOINT -o LIST...`: those of a mount, without those that only a file system
/// understands. The error is one clause that names the option.
[[nodiscard]] tl::expected<Options, std::string> parse_raw_options(const std::vector<std::string>& lists, bool as_root);

/// Splits the argument of -o at its commas. A backslash takes the next character literally; commas within double quotes
/// (SELinux contexts) do not split.
[[nodiscard]] std::vector<std::string> split_options(std::string_view text);

}  // namespace plumb::fuse
