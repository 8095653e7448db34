#include "fs/fuse/out_of_memory.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <new>

namespace {

// What becomes of a process that asks for more than there is.
int status_of_child(bool with_handler) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(STDERR_FILENO);
    if (with_handler) plumb::fuse::end_when_out_of_memory();
    volatile std::size_t too_much = std::size_t{1} << 62;
    try {
      ::operator delete(::operator new(too_much));
    } catch (const std::bad_alloc&) {
    }
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace

TEST_CASE("out of memory: the process ends where it would go on with an exception", "[fuse][memory]") {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const int without = status_of_child(false);  // the sanitizers end it by themselves
  CHECK(WIFEXITED(without));
#endif
  const int status = status_of_child(true);
  CHECK_FALSE((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}
