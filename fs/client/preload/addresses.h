// Addresses as numbers, and the system calls that reserve and free them.
//
// Thread safety: no state.
#pragma once

#include <sys/mman.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "fs/client/preload/raw.h"

namespace plumb::preload {

inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kHugeBytes = std::size_t{2} << 20;

inline std::uintptr_t number(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address);
}
inline void* pointer(std::uintptr_t address) {
  return reinterpret_cast<void*>(address);
}
/// `unit`: a power of two.
inline std::uintptr_t round_down(std::uintptr_t value, std::uintptr_t unit) {
  return value & ~(unit - 1);
}
inline std::uintptr_t round_up(std::uintptr_t value, std::uintptr_t unit) {
  return round_down(value + unit - 1, unit);
}
inline std::size_t whole_pages(std::size_t length) {
  return round_up(length, kPageBytes);
}

inline void* raw_mmap(void* address, std::size_t length, int protection, int flags, int fd, off64_t offset) {
  const long result = raw::posix(raw::call(SYS_mmap, address, length, protection, flags, fd, offset));
  return reinterpret_cast<void*>(result);
}
inline int raw_munmap(void* address, std::size_t length) {
  return static_cast<int>(raw::posix(raw::call(SYS_munmap, address, length)));
}

}  // namespace plumb::preload
