// What PLUMBFS_PRELOAD_STATS prints at the end of a process.
//
// Thread safety: any.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>

namespace plumb::preload {

/// A file or map that is direct, or is left to the kernel for a reason. With slow_lock held.
void note_file(bool is_direct, const char* why);
void note_map(bool is_direct, const char* why);

/// The last one that was noted for a file, whether or not statistics are wanted.
const char* last_reason();

/// Lines about this process to where they were asked for, once.
void print_stats();
/// In the child of a fork: starts at nothing.
void forget_stats();

}  // namespace plumb::preload
