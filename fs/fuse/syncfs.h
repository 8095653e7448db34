// FUSE_SYNCFS, which libfuse has no handler for (before 3.19: it answers ENOSYS, and the kernel never asks again).
//
// The kernel sends it for syncfs(2) and sync(2) on mounts of a block device (-o fuseblk, from Linux 6.18), after it has
// written back what was stored through shared mappings. RequestLoop reads the requests itself and turns this one into
// one that libfuse knows and that has the same shape of reply: a FUSE_FSYNCDIR of the root with a handle that no
// directory ever gets. Everything else, replies included, is libfuse's.
//
// It takes the place of fuse_session_loop_mt(), and costs what that has more: threads that come and go with the load,
// and a descriptor of /dev/fuse for each. (fuse_session_custom_io() would let libfuse's loop call our read(2); but a
// libfuse may be built without, and the one that tools/setup builds is.) Not for io_uring, whose requests libfuse takes
// by itself.
//
// Thread safety: run() once; end() from any thread, while run() runs or before; the rest has no state.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "fs/fuse/fuse_api.h"
#include "pmem/mutex.h"

namespace plumb::fuse {

class RequestLoop {
 public:
  /// `session` is mounted.
  RequestLoop(fuse_session* session, unsigned threads) : session_(session), threads_(threads) {}

  /// Serves until the mount is gone or end() is called, and all requests are answered. 0 or -errno. Uses SIGUSR1, whose
  /// handler must be one that does nothing and does not restart system calls.
  [[nodiscard]] int run();
  void end();

 private:
  void work();
  [[nodiscard]] int serve_one(std::vector<char>& buffer);  // 0, or -errno that ends the session

  fuse_session* const session_;
  const unsigned threads_;
  Mutex mutex_;  // leaf
  std::condition_variable changed_;
  unsigned working_ PLUMB_GUARDED_BY(mutex_) = 0;
  int error_ PLUMB_GUARDED_BY(mutex_) = 0;
};

/// True if this fsyncdir is a FUSE_SYNCFS: everything is to become durable.
[[nodiscard]] bool is_syncfs(const fuse_file_info& file);

/// What RequestLoop does to a request of `length_bytes` in a buffer of `buffer_bytes`: its new length.
[[nodiscard]] std::size_t turn_syncfs(void* buffer, std::size_t length_bytes, std::size_t buffer_bytes);

}  // namespace plumb::fuse
