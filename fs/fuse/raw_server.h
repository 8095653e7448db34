// What the callbacks of a raw mount share: libfuse's userdata, as server.h is for a volume.
//
// Two layouts. The mount point is a directory: it shows one file, named as the device. The mount point is a regular
// file: it is the device itself.
//
// Invariant: outlives the session loop. Thread safety: as server.h.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "fs/core/raw_file.h"
#include "fs/fuse/capabilities.h"
#include "fs/fuse/fuse_api.h"
#include "fs/fuse/options.h"

namespace plumb::fuse {

struct RawServer {
  RawFile& file;
  const Options& options;
  std::string name{};  // of the file in the directory; empty: the mount point is the file
  // Owner and permissions are those of the device.
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t permissions = 0600;
  Features features{};
  bool ask_for_io_uring = false;
  std::function<void()> on_init{};  // called once, when the kernel has agreed on the protocol

  [[nodiscard]] fuse_ino_t file_id() const { return name.empty() ? FUSE_ROOT_ID : FUSE_ROOT_ID + 1; }
};

[[nodiscard]] fuse_lowlevel_ops raw_operations();

}  // namespace plumb::fuse
