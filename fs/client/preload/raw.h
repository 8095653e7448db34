// System calls without libc between: what this library does for itself must neither meet its own functions nor be a
// cancellation point. Results are the kernel's, -4095 .. -1 is an error; posix() makes them libc's.
//
// Thread safety: no state.
#pragma once

#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <type_traits>

#if !defined(__x86_64__)
#error "the preload library knows the system calls of x86-64 only"
#endif

namespace plumb::preload::raw {

template <typename T>
inline long word(T value) {
  if constexpr (std::is_null_pointer_v<T>) {
    return 0;
  } else if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<long>(value);
  } else {
    return static_cast<long>(value);
  }
}

inline long call6(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

template <typename A = long, typename B = long, typename C = long, typename D = long, typename E = long,
          typename F = long>
inline long call(long number, A a = 0, B b = 0, C c = 0, D d = 0, E e = 0, F f = 0) {
  return call6(number, word(a), word(b), word(c), word(d), word(e), word(f));
}

inline bool failed(long result) {
  return static_cast<unsigned long>(result) > -4096UL;
}

/// As libc returns it: -1 with errno.
inline long posix(long result) {
  if (!failed(result)) return result;
  errno = static_cast<int>(-result);
  return -1;
}

}  // namespace plumb::preload::raw
