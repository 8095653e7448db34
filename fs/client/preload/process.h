// Which process this memory belongs to, and what it was started with.
#pragma once

#include <sys/types.h>

namespace plumb::preload {

/// False in a child that shares this memory but not the descriptors (vfork, posix_spawn, clone with CLONE_VM only): it
/// must leave the tables alone. In a child of a fork that ran no handlers (_Fork) it runs them now.
bool owns_tables();

struct Settings {
  bool require_direct;  // PLUMBFS_REQUIRE_DIRECT=1
  const char* stats;    // PLUMBFS_PRELOAD_STATS: a path, "stderr", or null
};
extern Settings settings;

/// "plumbfs: text" on stderr, in one write.
void complain(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace plumb::preload
