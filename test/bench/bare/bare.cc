// The limit of the direct path: pread and pwrite as a copy from and to one mapped file, without a look at the
// descriptor. For measurements only. Whatever is read or written, by whichever descriptor, is the file
// PLUMBFS_BARE_FILE (as it was when the program started; nothing may go beyond its end). Writes are streaming stores
// and a fence.

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/client/persist.h"

namespace {

char* base = nullptr;
size_t size = 0;

__attribute__((constructor)) void start() {
  const char* const path = getenv("PLUMBFS_BARE_FILE");
  if (path == nullptr) return;
  const int fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0));
  struct stat status {};
  if (fd < 0 || fstat(fd, &status) != 0) abort();
  size = static_cast<size_t>(status.st_size);
  base = reinterpret_cast<char*>(syscall(SYS_mmap, nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  if (base == MAP_FAILED) abort();
  syscall(SYS_close, fd);
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) ssize_t pread64(int, void* to, size_t length, off_t offset) {
  memcpy(to, base + offset, length);
  return static_cast<ssize_t>(length);
}

__attribute__((visibility("default"))) ssize_t pwrite64(int, const void* from, size_t length, off_t offset) {
  plumb::client::copy_persist(base + offset, from, length);
  return static_cast<ssize_t>(length);
}

__attribute__((visibility("default"))) int fsync(int) {
  return 0;
}

}  // extern "C"
