// What the callbacks of one mount share: libfuse's userdata.
//
// Invariant: outlives the session loop. Thread safety: the members are safe by themselves; `features` is written once,
// by FUSE_INIT, before any other request.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fs/core/volume.h"
#include "fs/fuse/capabilities.h"
#include "fs/fuse/inode_table.h"
#include "fs/fuse/open_files.h"
#include "fs/fuse/options.h"

namespace plumb::fuse {

struct Server {
  Server(Volume& mounted, const Options& mount_options)
      : volume(mounted), options(mount_options), inodes(mounted.root()) {}

  /// The inode of a node id that the kernel got from us.
  [[nodiscard]] Result<InodeRef> inode(fuse_ino_t id) const {
    if (InodeRef found = inodes.find(id)) return found;
    return fail(ESTALE);
  }

  Volume& volume;
  const Options& options;
  InodeTable inodes;
  OpenFiles files;
  Features features;
  fuse_session* session = nullptr;
  bool ask_for_io_uring = false;
  std::atomic<std::uint64_t> syncfs_requests{0};  // from the kernel
  std::function<void()> on_init;                  // called once, when the kernel has agreed on the protocol
};

}  // namespace plumb::fuse
