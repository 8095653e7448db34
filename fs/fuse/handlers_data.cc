// File contents.
//
// A read replies from the mapping of the device; a write stores from libfuse's receive buffer, which the kernel filled:
// one copy each by the daemon or the kernel, none in between. (write_buf would give the same buffer, or a pipe, and
// with it a copy more.)

#include <fcntl.h>

#include <utility>

#include "fs/fuse/handlers.h"

namespace plumb::fuse::handlers {
namespace {

// Who writes, and whether set-id bits stay.
Caller writer(const Server& server, const Request& request, const fuse_file_info& file) {
#if PLUMB_FUSE_HAS_KILL_SUIDGID
  if (server.features.kill_setid) return request.caller(file.kill_suidgid == 0);
#endif
  static_cast<void>(server);
  static_cast<void>(file);
  return request.caller_by_uid();
}

// pwritev2(2) with RWF_SYNC or RWF_DSYNC shows as a flag that the description itself does not have.
Status sync_if_this_write_asks(Server& server, FileHandle& handle, int flags) {
  if ((flags & O_SYNC) == O_SYNC && !handle.sync) return server.volume.fsync(handle, FsyncMode::kFull);
  if ((flags & O_DSYNC) != 0 && !handle.dsync && !handle.sync) return server.volume.fsync(handle, FsyncMode::kDataOnly);
  return {};
}

}  // namespace

void read(Server& server, Request& request, fuse_ino_t id, std::size_t size, off_t offset, fuse_file_info* file) {
  Inode& inode = *OpenFiles::from(file->fh).handle().inode;
  const bool keep_atime = (file->flags & O_NOATIME) != 0;
  const auto pin = server.volume.read(inode, static_cast<std::uint64_t>(offset), size, keep_atime);
  if (!pin) return request.error(pin.error());
  if (!request.data(*pin, InodeNumber(id))) server.volume.note_unreadable(*pin);
}

void write(Server& server, Request& request, fuse_ino_t, const char* data, std::size_t size, off_t offset,
           fuse_file_info* file) {
  const bool from_page_cache = file->writepage != 0;
  OpenFile& open_file = OpenFiles::from(file->fh);
  // The description that happens to carry pages of a mapping says nothing about how they are written.
  const auto handle = from_page_cache ? Result<FileHandle*>(&open_file.handle())
                                      : open_file.handle_for_write(server.volume, file->flags);
  if (!handle) return request.error(handle.error());
  const iovec piece = {.iov_base = const_cast<char*>(data), .iov_len = size};
  const auto written = server.volume.write(**handle, static_cast<std::uint64_t>(offset), {&piece, 1},
                                           writer(server, request, *file), from_page_cache);
  if (!written) return request.error(written.error());
  if (!from_page_cache) {
    const Status synced = sync_if_this_write_asks(server, **handle, file->flags);
    if (!synced) return request.error(synced.error());
  }
  request.count(*written);
}

void fsync(Server& server, Request& request, fuse_ino_t, int data_only, fuse_file_info* file) {
  request.status(server.volume.fsync(OpenFiles::from(file->fh).handle(),
                                     data_only != 0 ? FsyncMode::kDataOnly : FsyncMode::kFull));
}

void fallocate(Server& server, Request& request, fuse_ino_t, int mode, off_t offset, off_t length,
               fuse_file_info* file) {
  request.status(server.volume.allocate(OpenFiles::from(file->fh).handle(), mode, static_cast<std::uint64_t>(offset),
                                        static_cast<std::uint64_t>(length), request.caller_by_uid()));
}

void lseek(Server& server, Request& request, fuse_ino_t, off_t offset, int whence, fuse_file_info* file) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return request.error(EINVAL);
  if (offset < 0) return request.error(ENXIO);
  const auto found =
      server.volume.seek(*OpenFiles::from(file->fh).handle().inode, static_cast<std::uint64_t>(offset), whence);
  if (!found) return request.error(found.error());
  request.offset(*found);
}

void copy_file_range(Server& server, Request& request, fuse_ino_t, off_t from_offset, fuse_file_info* from, fuse_ino_t,
                     off_t to_offset, fuse_file_info* to, std::size_t length, int flags) {
  if (flags != 0) return request.error(EINVAL);
  const auto copied = server.volume.copy_range(
      OpenFiles::from(from->fh).handle(), static_cast<std::uint64_t>(from_offset), OpenFiles::from(to->fh).handle(),
      static_cast<std::uint64_t>(to_offset), length, request.caller_by_uid());
  if (!copied) return request.error(copied.error());
  request.count(*copied);
}

}  // namespace plumb::fuse::handlers
