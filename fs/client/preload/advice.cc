// madvise, as far as it is more than advice: holes are made in the file and not in the device, and a child of fork does
// not believe in mappings that it did not get.

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#include "fs/client/preload/export.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/map_table.h"
#include "fs/client/preload/maps.h"
#include "fs/client/preload/process.h"
#include "fs/client/preload/raw.h"
#include "fs/client/preload/slow_lock.h"

namespace plumb::preload {
namespace {

constexpr std::size_t kPageBytes = 4096;

// A range in one direct map that may be stored to now, and a descriptor of its file: then it is for fallocate. What
// else there is the kernel knows; of a map without descriptor it zeroes the device's pages.
bool is_for_file(std::uintptr_t start, std::uintptr_t end, int* fd, std::uint64_t* offset) {
  const std::size_t index = maps.find(start);
  if (index == maps.size()) return false;
  const Map& map = maps.at(index);
  if (map.start > start || map.end < end || map.served != Served::kByDevice) return false;
  if (!map.is_shared || (map.protection & PROT_WRITE) == 0) return false;
  *fd = find_descriptor(map.file->inode, map.file, true);
  *offset = map.part(start, end).offset;
  return *fd >= 0;
}

void set_inherited(std::uintptr_t start, std::uintptr_t end, bool is_inherited) {
  if (!maps.overlaps(start, end)) return;
  maps.split(start);
  maps.split(end);
  for (std::size_t index = maps.find(start); index < maps.size() && maps.at(index).start < end; ++index)
    maps.at(index).is_inherited = is_inherited;
}

}  // namespace

int advise(void* address, std::size_t length, int advice) {
  const auto by_kernel = [&] { return static_cast<int>(raw::posix(raw::call(SYS_madvise, address, length, advice))); };
  const auto start = reinterpret_cast<std::uintptr_t>(address);
  const std::uintptr_t end = start + ((length + kPageBytes - 1) & ~(kPageBytes - 1));
  const bool concerns = advice == MADV_REMOVE || advice == MADV_DONTFORK || advice == MADV_DOFORK;
  if (!concerns || start % kPageBytes != 0 || end <= start || !maps.may_have(start, end)) return by_kernel();
  const Slow slow(Slow::How::kWait);
  if (!slow || !owns_tables()) return by_kernel();
  if (advice == MADV_REMOVE) {
    int fd = -1;
    std::uint64_t offset = 0;
    if (!is_for_file(start, end, &fd, &offset)) return by_kernel();
    constexpr int kMode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return static_cast<int>(raw::posix(raw::call(SYS_fallocate, fd, kMode, offset, end - start)));
  }
  const int result = by_kernel();
  if (result == 0) set_inherited(start, end, advice == MADV_DOFORK);
  return result;
}

void forget_not_inherited() {
  const Slow slow(Slow::How::kWait);
  if (!slow) return;
  for (std::size_t index = 0; index < maps.size();) {
    const Map map = maps.at(index);
    if (map.is_inherited) {
      ++index;
      continue;
    }
    maps.remove(index);
    raw::call(SYS_munmap, map.start, map.length());  // what was added to it since
    drop(map.file);
  }
}

}  // namespace plumb::preload

extern "C" {

int plumb_madvise(void* address, size_t length, int advice) PLUMB_EXPORT("madvise");
int plumb_madvise(void* address, size_t length, int advice) {
  return plumb::preload::advise(address, length, advice);
}

}  // extern "C"
