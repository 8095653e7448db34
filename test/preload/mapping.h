// mmap in tests, and touching what it has mapped.
#pragma once

#include <signal.h>
#include <sys/mman.h>

#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstring>

#include "test/posix/support.h"

namespace posix {

inline char* map(int fd, std::size_t length, int protection, int flags, off_t offset = 0, void* address = nullptr) {
  void* const result = ::mmap(address, length, protection, flags, fd, offset);
  INFO("mmap: " << std::strerror(errno));
  REQUIRE(result != MAP_FAILED);
  return static_cast<char*>(result);
}

/// What a child dies of that touches the address: 256 + the signal; 0: nothing.
inline int signal_at(const volatile char* address, bool store) {
  return in_child([=] {
           ::signal(SIGSEGV, SIG_DFL);
           ::signal(SIGBUS, SIG_DFL);
           if (store) *const_cast<volatile char*>(address) = 1;
           return *address == 0 ? 0 : 0;
         })
      .value;
}

}  // namespace posix
