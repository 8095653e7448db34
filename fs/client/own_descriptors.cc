#include "fs/client/own_descriptors.h"

#include <sched.h>
#include <sys/wait.h>

#include <csignal>

#include "fs/client/kernel.h"

namespace plumb::client {
namespace {

constexpr std::size_t kStackBytes = 256 << 10;
constexpr std::size_t kSignalSetBytes = 8;  // the kernel's

struct Job {
  void (*work)(void*);
  void* argument;
};

int run(void* job) {
  const auto* const wanted = static_cast<Job*>(job);
  wanted->work(wanted->argument);
  syscall(SYS_exit, 0);
  return 0;
}

}  // namespace

void in_own_descriptors(void (*work)(void* argument), void* argument) noexcept {
  const int error = errno;
  void* const stack =
      kernel::map(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  int child = -1;
  if (stack != MAP_FAILED) {
    // A handler of the program must not run in the child.
    const std::uint64_t all = ~std::uint64_t{0};
    std::uint64_t before = 0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, kSignalSetBytes);
    Job job{work, argument};
    // No signal tells of its end, and no wait of the program for children of its own finds it.
    child = clone(run, static_cast<char*>(stack) + kStackBytes, CLONE_VM | CLONE_VFORK, &job);
    if (child > 0) {
      while (syscall(SYS_wait4, child, nullptr, __WCLONE, nullptr) < 0 && errno == EINTR) {
      }
    }
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, nullptr, kSignalSetBytes);
    kernel::unmap(stack, kStackBytes);
  }
  if (child <= 0) work(argument);
  errno = error;
}

}  // namespace plumb::client
