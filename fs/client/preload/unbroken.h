// What has been begun is brought to its end: a signal handler of the program may leave by siglongjmp, and a thread may
// be cancelled in a function of libc that is called in between. Either would leave a lock held or a file half closed.
//
// Handlers wait meanwhile, at most for an answer of the daemon. Those of faults do not: nobody else can handle them.
//
// Thread safety: each is of the thread that made it.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <cstdint>

#include "fs/client/preload/raw.h"

namespace plumb::preload {

/// A set of signals as the kernel has it.
constexpr std::uint64_t signal_bit(int signal) {
  return std::uint64_t{1} << (signal - 1);
}
inline constexpr std::uint64_t kAllButFaults = ~(signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGFPE) |
                                                 signal_bit(SIGILL) | signal_bit(SIGTRAP) | signal_bit(SIGSYS));

/// No handler runs in this thread while it lives.
class NoHandlers {
 public:
  NoHandlers() { raw::call(SYS_rt_sigprocmask, SIG_BLOCK, &kAllButFaults, &before_, sizeof(before_)); }
  ~NoHandlers() { raw::call(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof(before_)); }
  NoHandlers(const NoHandlers&) = delete;
  NoHandlers& operator=(const NoHandlers&) = delete;

 private:
  std::uint64_t before_ = 0;
};

/// Nor is the thread cancelled.
class Unbroken {
 public:
  Unbroken() { ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
  ~Unbroken() { ::pthread_setcancelstate(before_, nullptr); }
  Unbroken(const Unbroken&) = delete;
  Unbroken& operator=(const Unbroken&) = delete;

 private:
  NoHandlers no_handlers_;
  int before_ = 0;
};

}  // namespace plumb::preload
