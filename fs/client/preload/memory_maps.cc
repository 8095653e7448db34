// mmap and what is done to its result: see maps.h.

#include <stdarg.h>
#include <sys/mman.h>
#include <sys/types.h>

#include <cstddef>

#include "fs/client/preload/export.h"
#include "fs/client/preload/maps.h"

using namespace plumb::preload;

extern "C" {

void* plumb_mmap(void* address, size_t length, int protection, int flags, int fd, off64_t offset)
    PLUMB_EXPORT("mmap64");
void* plumb_mmap(void* address, size_t length, int protection, int flags, int fd, off64_t offset) {
  return map_file(address, length, protection, flags, fd, offset);
}
void* plumb_mmap_2(void*, size_t, int, int, int, off64_t) PLUMB_ALIAS("mmap", "mmap64");

int plumb_munmap(void* address, size_t length) PLUMB_EXPORT("munmap");
int plumb_munmap(void* address, size_t length) {
  return unmap(address, length);
}

void* plumb_mremap(void* address, size_t old_length, size_t new_length, int flags, ...) PLUMB_EXPORT("mremap");
void* plumb_mremap(void* address, size_t old_length, size_t new_length, int flags, ...) {
  void* new_address = nullptr;
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    new_address = va_arg(arguments, void*);
    va_end(arguments);
  }
  return remap(address, old_length, new_length, flags, new_address);
}

int plumb_mprotect(void* address, size_t length, int protection) PLUMB_EXPORT("mprotect");
int plumb_mprotect(void* address, size_t length, int protection) {
  return protect(address, length, protection, -1);
}
int plumb_pkey_mprotect(void* address, size_t length, int protection, int key) PLUMB_EXPORT("pkey_mprotect");
int plumb_pkey_mprotect(void* address, size_t length, int protection, int key) {
  return protect(address, length, protection, key);
}

int plumb_remap_file_pages(void* address, size_t length, int protection, size_t page, int flags)
    PLUMB_EXPORT("remap_file_pages");
int plumb_remap_file_pages(void* address, size_t length, int protection, size_t page, int flags) {
  return remap_pages(address, length, protection, page, flags);
}

int plumb_msync(void* address, size_t length, int flags) PLUMB_EXPORT("msync");
int plumb_msync(void* address, size_t length, int flags) {
  return sync_map(address, length, flags);
}

}  // extern "C"
