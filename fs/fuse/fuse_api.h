// libfuse's low-level API, and what its versions differ in. The only place that includes libfuse's headers.
//
// plumbfs is written for libfuse 3.18 and also builds with 3.14; what the older one cannot do is told by the constants
// here, so that the code that depends on it reads `if constexpr` or `#if PLUMB_FUSE_...` and nothing else.
//
// Thread safety: no state.
#pragma once

#define FUSE_USE_VERSION 318
#include <fuse_lowlevel.h>

#ifndef FUSE_HOTFIX_VERSION
#define FUSE_HOTFIX_VERSION 0
#endif

// The tmpfile operation (O_TMPFILE).
#define PLUMB_FUSE_HAS_TMPFILE (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15))
// fuse_set_feature_flag(), fuse_conn_info::no_interrupt, FUSE_CAP_DIRECT_IO_ALLOW_MMAP.
#define PLUMB_FUSE_HAS_FEATURE_FLAGS (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17))
// The statx operation, and requests by io_uring.
#define PLUMB_FUSE_HAS_STATX (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18))
#define PLUMB_FUSE_HAS_IO_URING (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 18))
// fuse_file_info::kill_suidgid: without it nobody tells the daemon when a write has to clear set-id bits.
#define PLUMB_FUSE_HAS_KILL_SUIDGID \
  (FUSE_VERSION > FUSE_MAKE_VERSION(3, 18) || (FUSE_VERSION == FUSE_MAKE_VERSION(3, 18) && FUSE_HOTFIX_VERSION >= 3))
