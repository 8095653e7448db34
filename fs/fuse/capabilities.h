// What is asked of the kernel at FUSE_INIT, and what is done where it cannot.
//
//   capability                          needs                          without it
//   shared mmap together with direct_io kernel 6.6, libfuse 3.17       files are opened cached, write-through
//   set-id clearing told by the kernel  kernel 5.12, libfuse 3.18.3    cleared for every caller but root
//   O_TMPFILE                           kernel 6.2, libfuse 3.15       EOPNOTSUPP
//   btime by statx                      kernel 6.6, libfuse 3.18       no btime
//   FUSE over io_uring                  kernel 6.14, libfuse 3.18,     /dev/fuse, one descriptor a thread
//                                       module parameter enable_uring
//   FUSE_SYNCFS                         kernel 6.18, -o fuseblk        contract of fs/DESIGN.md, explicit sync ioctl
//   COLLAPSE, INSERT, UNSHARE, MAP_SYNC no kernel                      refused by the kernel
//
// Never used: the kernel's writeback cache (acknowledged writes are with the daemon), splice (slower than one copy from
// the mapping), AUTO_INVAL_DATA (the daemon is the only writer, a changed mtime is no reason to drop cached pages),
// remote locks (the kernel keeps flock and fcntl locks itself), NO_OPEN (a write needs the flags of its description),
// NO_OPENDIR (it makes the kernel cache directories, whose cookies then break when entries go).
//
// Thread safety: no state.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fs/fuse/fuse_api.h"
#include "fs/fuse/options.h"

namespace plumb::fuse {

inline constexpr unsigned kMaxWriteBytes = 1U << 20;  // 256 pages, the kernel's usual limit of a request

/// What was agreed on.
struct Features {
  bool direct_io_mmap = false;  // FOPEN_DIRECT_IO files can be mapped shared
  bool kill_setid = false;      // the kernel says when set-id bits go
  bool io_uring = false;
};

/// True if the session should ask for io_uring; `options` may force the answer. The reason why not, if it was asked for
/// by the user, is added to `warnings`.
[[nodiscard]] bool choose_io_uring(const Options& options, std::vector<std::string>& warnings);

enum class Contents : std::uint8_t {
  kVolume,
  // One file of fixed size: no ACLs, no names to list with their attributes. O_TRUNC comes as a truncate of its own:
  // the kernel would take the file for empty after an open that takes the flag along.
  kRawDevice,
};

/// Called from FUSE_INIT: sets what is wanted in `connection`. What is missing is added to `missing`, one clause each.
[[nodiscard]] Features negotiate(fuse_conn_info& connection, const Options& options, Contents contents, bool io_uring,
                                 std::vector<std::string>& missing);

}  // namespace plumb::fuse
