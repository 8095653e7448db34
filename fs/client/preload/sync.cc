// fsync and its like, and what changes the blocks of a file.
//
// sync(2) and syncfs(2) stay the kernel's: what write calls stored is durable, or in the page cache of the device,
// where sync(2) finds it; stores through maps are for msync and fsync.

#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>

#include "fs/client/preload/export.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/next.h"
#include "fs/client/preload/table.h"
#include "fs/client/preload/thread.h"

namespace plumb::preload {
namespace {

// True if there is nothing to be done for the file. A file that is not known yet is looked at: a program that only
// writes and syncs has most to gain.
bool is_synced(int fd, bool data_only) {
  Entry entry;
  File* const file = find_file(fd, MayWait::kNo, &entry);
  if (file == nullptr) return false;
  const Use use(file);
  if (!use || !(load(find_place(fd)) == entry)) return false;
  client::DirectFile* const direct = file->direct.load(std::memory_order_acquire);
  if (direct != nullptr && direct->is_synced(data_only)) {
    ++use.counters().syncs_saved;
    return true;
  }
  ++use.counters().kernel_syncs;
  if (direct != nullptr && file->stores_mapped.load(std::memory_order_relaxed)) direct->note_stores();
  return false;
}

}  // namespace
}  // namespace plumb::preload

using namespace plumb::preload;

extern "C" {

int plumb_fsync(int fd) PLUMB_EXPORT("fsync");
int plumb_fsync(int fd) {
  return is_synced(fd, false) ? 0 : next.fsync(fd);
}

int plumb_fdatasync(int fd) PLUMB_EXPORT("fdatasync");
int plumb_fdatasync(int fd) {
  return is_synced(fd, true) ? 0 : next.fdatasync(fd);
}

int plumb_sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) PLUMB_EXPORT("sync_file_range");
int plumb_sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
  constexpr unsigned kKnown = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  const bool is_sound = offset >= 0 && length >= 0 && offset + length >= offset && (flags & ~kKnown) == 0;
  return is_sound && is_synced(fd, true) ? 0 : next.sync_file_range(fd, offset, length, flags);
}

int plumb_ftruncate(int fd, off64_t length) PLUMB_EXPORT("ftruncate64");
int plumb_ftruncate(int fd, off64_t length) {
  expect_blocks(fd);
  return next.ftruncate(fd, length);
}
int plumb_ftruncate_2(int, off64_t) PLUMB_ALIAS("ftruncate", "ftruncate64");

int plumb_fallocate(int fd, int mode, off64_t offset, off64_t length) PLUMB_EXPORT("fallocate64");
int plumb_fallocate(int fd, int mode, off64_t offset, off64_t length) {
  expect_blocks(fd);
  return next.fallocate(fd, mode, offset, length);
}
int plumb_fallocate_2(int, int, off64_t, off64_t) PLUMB_ALIAS("fallocate", "fallocate64");

int plumb_posix_fallocate(int fd, off64_t offset, off64_t length) PLUMB_EXPORT("posix_fallocate64");
int plumb_posix_fallocate(int fd, off64_t offset, off64_t length) {
  expect_blocks(fd);
  return next.posix_fallocate(fd, offset, length);
}
int plumb_posix_fallocate_2(int, off64_t, off64_t) PLUMB_ALIAS("posix_fallocate", "posix_fallocate64");

}  // extern "C"
