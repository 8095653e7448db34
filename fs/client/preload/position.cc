// lseek to the end of a file.
//
// The kernel of a mount does not keep the attributes of a file that programs store to by themselves, so SEEK_END would
// be a request to the daemon; the size is in the file's slot. Data bases ask for it all the time. The position itself
// stays the kernel's.
//
// Async-signal-safe, as libc's is.

#include <sys/types.h>
#include <unistd.h>

#include <cstdint>
#include <limits>

#include "fs/client/preload/export.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/next.h"
#include "fs/client/preload/table.h"
#include "fs/client/preload/thread.h"

namespace plumb::preload {
namespace {

// Where SEEK_END with `offset` leads to. False if the kernel has to say.
bool find_end(int fd, off64_t offset, off64_t* position) {
  const std::atomic<std::uint64_t>* const place = find_place(fd);
  if (place == nullptr) return false;
  const Entry entry = load(place);
  if (!entry.is_file()) return false;
  const Use use(entry.file());
  if (!use || !(load(place) == entry)) return false;
  const client::DirectFile* const direct = entry.file()->direct.load(std::memory_order_acquire);
  std::uint64_t size = 0;
  if (direct == nullptr || !direct->size(&size)) return false;
  return size <= std::uint64_t{std::numeric_limits<off64_t>::max()} &&
         !__builtin_add_overflow(static_cast<off64_t>(size), offset, position) && *position >= 0;
}

}  // namespace
}  // namespace plumb::preload

using namespace plumb::preload;

extern "C" {

off64_t plumb_lseek(int fd, off64_t offset, int whence) PLUMB_EXPORT("lseek64");
off64_t plumb_lseek(int fd, off64_t offset, int whence) {
  off64_t position = 0;
  if (whence == SEEK_END && find_end(fd, offset, &position)) return next.lseek(fd, position, SEEK_SET);
  return next.lseek(fd, offset, whence);
}
off64_t plumb_lseek_2(int, off64_t, int) PLUMB_ALIAS("lseek", "lseek64");
off64_t plumb_lseek_3(int, off64_t, int) PLUMB_ALIAS("__lseek", "lseek64");

}  // extern "C"
