#include "fs/fuse/capabilities.h"

#include <array>
#include <cstdint>
#include <fstream>

// Bits that the older libfuse does not know are never capable.
#ifndef FUSE_CAP_DIRECT_IO_ALLOW_MMAP
#define FUSE_CAP_DIRECT_IO_ALLOW_MMAP 0
#endif
#ifndef FUSE_CAP_HANDLE_KILLPRIV_V2
#define FUSE_CAP_HANDLE_KILLPRIV_V2 0
#endif
#ifndef FUSE_CAP_OVER_IO_URING
#define FUSE_CAP_OVER_IO_URING 0
#endif

namespace plumb::fuse {
namespace {

constexpr unsigned kMaxBackground = 128;  // read-ahead and asynchronous direct I/O in flight
constexpr unsigned kCongestionThreshold = 96;

bool want(fuse_conn_info& connection, std::uint64_t capability) {
  if (capability == 0) return false;
#if PLUMB_FUSE_HAS_FEATURE_FLAGS
  return fuse_set_feature_flag(&connection, capability);
#else
  if ((connection.capable & capability) == 0) return false;
  connection.want |= static_cast<unsigned>(capability);
  return true;
#endif
}

void refuse(fuse_conn_info& connection, std::uint64_t capability) {
#if PLUMB_FUSE_HAS_FEATURE_FLAGS
  fuse_unset_feature_flag(&connection, capability);
#else
  connection.want &= ~static_cast<unsigned>(capability);
#endif
}

struct Wanted {
  std::uint64_t capability;
  const char* without;  // null: nothing anybody would notice
};

constexpr std::array<Wanted, 10> kWanted = {{
    {FUSE_CAP_POSIX_ACL, "no POSIX ACLs"},
    {FUSE_CAP_DONT_MASK, "default ACLs do not override the umask"},
    {FUSE_CAP_PARALLEL_DIROPS, nullptr},
    {FUSE_CAP_READDIRPLUS, nullptr},
    {FUSE_CAP_READDIRPLUS_AUTO, nullptr},
    {FUSE_CAP_ATOMIC_O_TRUNC, nullptr},
    {FUSE_CAP_ASYNC_READ, nullptr},
    {FUSE_CAP_ASYNC_DIO, nullptr},
    {FUSE_CAP_IOCTL_DIR, "no flags on directories"},
    {FUSE_CAP_EXPORT_SUPPORT, "no NFS export, no name_to_handle_at"},
}};

constexpr std::uint64_t kOfVolumesOnly = FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK | FUSE_CAP_READDIRPLUS |
                                         FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_EXPORT_SUPPORT;

constexpr std::array<std::uint64_t, 7> kRefused = {
    FUSE_CAP_WRITEBACK_CACHE, FUSE_CAP_SPLICE_READ, FUSE_CAP_SPLICE_WRITE, FUSE_CAP_SPLICE_MOVE,
    FUSE_CAP_AUTO_INVAL_DATA, FUSE_CAP_POSIX_LOCKS, FUSE_CAP_FLOCK_LOCKS,
};

}  // namespace

bool choose_io_uring(const Options& options, std::vector<std::string>& warnings) {
  if (options.io_uring == Choice::kNo) return false;
  std::string reason;
  if (options.fuseblk) {
    reason = "with fuseblk every request is looked at as it comes in (fs/fuse/syncfs.h)";
  } else if (!PLUMB_FUSE_HAS_IO_URING) {
    reason = "this plumbfs was built with a libfuse older than 3.18";
  } else {
    std::string parameter;
    std::ifstream("/sys/module/fuse/parameters/enable_uring") >> parameter;
    if (parameter == "Y" || parameter == "1") return true;
    reason = parameter.empty() ? "this kernel has no FUSE over io_uring (6.14 has)"
                               : "/sys/module/fuse/parameters/enable_uring is " + parameter;
  }
  if (options.io_uring == Choice::kYes) warnings.push_back("io_uring is not used: " + reason);
  return false;
}

Features negotiate(fuse_conn_info& connection, const Options& options, Contents contents, bool io_uring,
                   std::vector<std::string>& missing) {
  Features features;
  for (const Wanted& wanted : kWanted) {
    if (contents == Contents::kRawDevice && (wanted.capability & kOfVolumesOnly) != 0) {
      refuse(connection, wanted.capability);
      continue;
    }
    if (!want(connection, wanted.capability) && wanted.without != nullptr) missing.emplace_back(wanted.without);
  }
  for (const std::uint64_t capability : kRefused) refuse(connection, capability);

  // Pages that the kernel caches change through the kernel only.
  static_cast<void>(want(connection, FUSE_CAP_EXPLICIT_INVAL_DATA));
  // A cached symbolic link is read without the daemon, and its atime stays.
  if (options.volume.atime == AtimeMode::kNoatime) static_cast<void>(want(connection, FUSE_CAP_CACHE_SYMLINKS));

  features.direct_io_mmap = want(connection, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
  if (!features.direct_io_mmap && options.dax != DaxMode::kNever) {
    missing.emplace_back("no shared mmap together with direct I/O, files go through the kernel's page cache");
  }
  features.kill_setid = PLUMB_FUSE_HAS_KILL_SUIDGID && want(connection, FUSE_CAP_HANDLE_KILLPRIV_V2);
  if (io_uring) {
    features.io_uring = want(connection, FUSE_CAP_OVER_IO_URING);
  } else {
    refuse(connection, FUSE_CAP_OVER_IO_URING);
  }

  connection.max_write = kMaxWriteBytes;
  connection.max_background = kMaxBackground;
  connection.congestion_threshold = kCongestionThreshold;
  connection.time_gran = 1;
#if PLUMB_FUSE_HAS_FEATURE_FLAGS
  // Requests are short, and tracking them for interruption takes a lock of the whole session at each.
  connection.no_interrupt = 1;
#endif
  return features;
}

}  // namespace plumb::fuse
