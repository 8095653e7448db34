// The command line of fsck.plumbfs, and the exit statuses that fsck(8) asks of a checker.
#pragma once

#include <string>
#include <variant>

namespace plumb::tools {

inline constexpr int kFsckClean = 0;
inline constexpr int kFsckCorrected = 1;
inline constexpr int kFsckErrorsLeft = 4;
inline constexpr int kFsckOperational = 8;
inline constexpr int kFsckUsage = 16;
inline constexpr int kFsckCancelled = 32;
inline constexpr int kFsckLibrary = 128;

struct FsckOptions {
  std::string device;
  std::string realtime_device;  // empty: found by its uuid
  bool repair = false;          // -y, -p, -a: repair, and replay the journal of what was not unmounted
  bool preen = false;           // -p, -a: at boot; only what loses nothing, and believe what was unmounted cleanly
  bool force = false;           // -f: look all the same
  bool zeros = false;           // free blocks must read as zeros
  bool json = false;
  bool verbose = false;
};

/// The options, or the exit status to leave with at once (everything has been printed).
[[nodiscard]] std::variant<FsckOptions, int> parse_fsck_options(int argc, char** argv);

}  // namespace plumb::tools
