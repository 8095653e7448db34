// msync of maps of plumbfs files.

#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#include "fs/client/persist.h"
#include "fs/client/preload/addresses.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/map_table.h"
#include "fs/client/preload/maps.h"
#include "fs/client/preload/next.h"
#include "fs/client/preload/slow_lock.h"
#include "fs/client/preload/unbroken.h"

namespace plumb::preload {
namespace {

int sync_part(const Map& map, int flags) {
  if (map.served == Served::kByKernel) return next.msync(pointer(map.start), map.length(), flags);
  if (!map.is_shared || !map.may_store) return 0;
  map.file->owned->note_stores();
  if ((flags & MS_SYNC) == 0) return 0;
  if (map.file->is_memory) {
    client::persist(pointer(map.start), map.length());
    return 0;
  }
  if (next.msync(pointer(map.start), map.length(), flags) != 0) return -1;
  // The size, and which blocks the file has, are the daemon's to make durable.
  const int fd = find_descriptor(map.file->inode, map.file, false);
  return fd < 0 ? 0 : next.fdatasync(fd);
}

}  // namespace

int sync_map(void* address, std::size_t length, int flags) {
  const std::uintptr_t start = number(address);
  const std::uintptr_t end = start + whole_pages(length);
  const bool is_sound = start % kPageBytes == 0 && (flags & ~(MS_SYNC | MS_ASYNC | MS_INVALIDATE)) == 0 &&
                        (flags & (MS_SYNC | MS_ASYNC)) != (MS_SYNC | MS_ASYNC);
  if (!is_sound || !maps.may_have(start, end)) return next.msync(address, length, flags);
  const int saved = errno;
  ::pthread_testcancel();
  const Unbroken unbroken;  // the references
  // The parts first, then without the lock: an msync may take long, and is the program's to keep apart from its munmap.
  std::uintptr_t at = start;
  int error = 0;
  while (at < end) {
    Map map{};
    {
      const Slow slow(Slow::How::kWait);
      const std::size_t index = slow ? maps.find(at) : maps.size();
      if (index < maps.size() && maps.at(index).start < end) {
        map = maps.at(index).part(at, end);
        hold(map.file);
      }
    }
    const std::uintptr_t gap_end = map.file == nullptr ? end : map.start;
    if (gap_end > at && next.msync(pointer(at), gap_end - at, flags) != 0) error = errno;
    at = gap_end;
    if (map.file == nullptr) break;
    if (sync_part(map, flags) != 0) error = errno;
    drop(map.file);
    at = map.end;
  }
  errno = error != 0 ? error : saved;
  return error != 0 ? -1 : 0;
}

}  // namespace plumb::preload
