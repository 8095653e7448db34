#include "fs/client/preload/process.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>

#include "fs/client/preload/export.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/maps.h"
#include "fs/client/preload/next.h"
#include "fs/client/preload/raw.h"
#include "fs/client/preload/slow_lock.h"
#include "fs/client/preload/stats.h"
#include "fs/client/preload/thread.h"
#include "fs/client/registry_lock.h"

namespace plumb::preload {

constinit SlowLock slow_lock;
constinit Settings settings{};

namespace {

// The process that the memory belongs to, on a page that is zero in the child of a fork (MADV_WIPEONFORK), and as it is
// in one that shares the memory.
constinit std::atomic<pid_t>* owner = nullptr;
constinit bool slow_lock_is_mine = false;

pid_t process_id() {
  return static_cast<pid_t>(raw::call(SYS_getpid));
}

void become_owner() {
  keep_this_thread_only();
  forget_stats();
  if (owner != nullptr) owner->store(process_id(), std::memory_order_release);
}

void before_fork() {
  slow_lock_is_mine = slow_lock.lock();
}
void after_fork_in_parent() {
  if (slow_lock_is_mine) slow_lock.unlock();
}
void after_fork_in_child() {
  slow_lock.adopt();
  if (slow_lock_is_mine) slow_lock.unlock();
  become_owner();
  forget_not_inherited();
}

void start_owner() {
  const long page = raw::call(SYS_mmap, nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw::failed(page) || raw::call(SYS_madvise, page, 4096, MADV_WIPEONFORK) != 0) return;
  auto* const place = reinterpret_cast<std::atomic<pid_t>*>(page);
  place->store(process_id(), std::memory_order_relaxed);
  owner = place;
}

// After the engine's: what is registered last locks first.
void watch_forks() {
  { const client::RegistryLock registered; }
  ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

__attribute__((constructor(101))) void start() {
  find_next();
  start_owner();
  start_threads();
  look_at_limit();
  watch_forks();
  const char* const direct = ::secure_getenv("PLUMBFS_REQUIRE_DIRECT");
  settings.require_direct = direct != nullptr && ::strcmp(direct, "1") == 0;
  if (const char* const stats = ::secure_getenv("PLUMBFS_PRELOAD_STATS"); stats != nullptr && stats[0] != '\0') {
    static char kept[4096];
    if (::strlen(stats) < sizeof(kept)) settings.stats = ::strcpy(kept, stats);
  }
}

__attribute__((destructor(101))) void finish() {
  if (!owns_tables()) return;
  note_all_stores();
  print_stats();
}

// Which runs no destructors; forked workers end by it.
[[noreturn]] void exit_at_once(int status) {
  finish();
  while (true) raw::call(SYS_exit_group, status);
}

}  // namespace

bool owns_tables() {
  if (in_vfork_child()) return false;
  if (owner == nullptr) return true;  // before the constructor
  const pid_t known = owner->load(std::memory_order_acquire);
  if (known == process_id()) return true;
  if (known != 0) return false;
  become_owner();
  return true;
}

void complain(const char* format, ...) {
  char text[512] = "plumbfs: ";
  const std::size_t head = ::strlen(text);
  va_list arguments;
  va_start(arguments, format);
  const int length = ::vsnprintf(text + head, sizeof(text) - head - 1, format, arguments);
  va_end(arguments);
  if (length < 0) return;
  const std::size_t end = ::strlen(text);
  text[end] = '\n';
  raw::call(SYS_write, 2, text, end + 1);
}

}  // namespace plumb::preload

extern "C" {

[[noreturn]] void plumb_exit(int status) PLUMB_EXPORT("_exit");
void plumb_exit(int status) {
  plumb::preload::exit_at_once(status);
}
[[noreturn]] void plumb_exit_2(int status) PLUMB_ALIAS("_Exit", "_exit");

}  // extern "C"
