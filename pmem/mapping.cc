#include "pmem/mapping.h"

#include <sys/mman.h>

#include "pmem/sigbus_guard.h"

namespace plumb::pmem {

Result<Mapping> Mapping::map(int fd, std::size_t length_bytes, bool writable, int flags) {
  install_sigbus_handler();
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* address = mmap(nullptr, length_bytes, protection, flags, fd, 0);
  if (address == MAP_FAILED) return fail(errno);
  // A core dump of the daemon is not the place for a whole device; where it is refused nothing is lost.
  static_cast<void>(madvise(address, length_bytes, MADV_DONTDUMP));
  Mapping mapping;
  mapping.base_ = static_cast<std::byte*>(address);
  mapping.length_bytes_ = length_bytes;
  register_mapping(mapping.base_, length_bytes);
  return mapping;
}

Mapping::~Mapping() {
  if (base_ == nullptr) return;
  unregister_mapping(base_);
  munmap(base_, length_bytes_);
}

}  // namespace plumb::pmem
