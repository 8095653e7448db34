// The command line of mkfs.plumbfs.
#pragma once

#include <cstdint>
#include <string>
#include <variant>

#include "fs/core/volume.h"

namespace plumb::tools {

// Exit statuses, documented in mkfs.plumbfs(8).
inline constexpr int kMkfsOk = 0;
inline constexpr int kMkfsError = 1;
inline constexpr int kMkfsUsage = 2;

struct MkfsOptions {
  std::string device;
  std::string realtime_device;  // empty: none
  FormatOptions format;
  std::uint64_t create_bytes = 0;  // --size: make the file of this size; 0: the device exists
  bool force = false;              // overwrite what is there
  bool assume_persistent = false;  // the user knows that a devdax without an nd region keeps its contents
  bool quiet = false;
  bool json = false;
};

/// The options, or the exit status to leave with at once (everything has been printed).
[[nodiscard]] std::variant<MkfsOptions, int> parse_mkfs_options(int argc, char** argv);

}  // namespace plumb::tools
