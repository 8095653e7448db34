// System calls of the direct path, past the names that a preload library puts before those of libc.
//
// Results and errno are those of the libc functions. Nothing here allocates or locks; all of it may be called in a
// signal handler and after fork(2).
//
// Thread safety: no state.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace plumb::client::kernel {

inline int open_file(const char* path, int flags) {
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, 0));
}

inline void close_file(int fd) {
  const int error = errno;
  syscall(SYS_close, fd);
  errno = error;
}

inline ssize_t read_file(int fd, void* to, std::size_t length) {
  return syscall(SYS_read, fd, to, length);
}

/// Repeats what a signal has interrupted before the daemon saw it.
inline int control(int fd, unsigned long request, void* argument) {
  int result = -1;
  do {
    result = static_cast<int>(syscall(SYS_ioctl, fd, request, argument));
  } while (result < 0 && errno == EINTR);
  return result;
}

inline int file_control(int fd, int command, void* argument) {
  return static_cast<int>(syscall(SYS_fcntl, fd, command, argument));
}

/// Of an open file, without asking its file system: type, device numbers, and the mount where the kernel tells it.
inline int stat_cached(int fd, unsigned mask, struct statx* out) {
  return static_cast<int>(syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, mask, out));
}

inline int stat_file(int fd, struct stat* out) {
  return static_cast<int>(syscall(SYS_fstat, fd, out));
}

inline void* map(void* address, std::size_t length, int protection, int flags, int fd, std::uint64_t offset) {
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, length, protection, flags, fd, offset));
}

inline void unmap(void* address, std::size_t length) {
  const int error = errno;
  syscall(SYS_munmap, address, length);
  errno = error;
}

inline int advise(void* address, std::size_t length, int advice) {
  return static_cast<int>(syscall(SYS_madvise, address, length, advice));
}

/// Not a cancellation point.
inline void sleep_us(long microseconds) {
  const timespec pause = {microseconds / 1'000'000, microseconds % 1'000'000 * 1000};
  syscall(SYS_nanosleep, &pause, nullptr);
}

inline int sync_pages(void* address, std::size_t length) {
  return static_cast<int>(syscall(SYS_msync, address, length, MS_SYNC));
}

}  // namespace plumb::client::kernel
