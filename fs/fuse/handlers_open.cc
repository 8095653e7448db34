// Opening and closing files.

#include <fcntl.h>
#include <sys/stat.h>

#include <memory>
#include <utility>

#include "fs/core/inode.h"
#include "fs/fuse/attributes.h"
#include "fs/fuse/handlers.h"

namespace plumb::fuse::handlers {

bool is_direct(const Server& server, const Attributes& attributes) {
  // A direct file that cannot be mapped shared would break programs: such a kernel gets cached ones.
  if (!server.features.direct_io_mmap) return false;
  switch (server.options.dax) {
    case DaxMode::kAlways:
      return true;
    case DaxMode::kNever:
      return false;
    case DaxMode::kInode:
      return (attributes.flags & kInodeDax) != 0;
  }
  return true;
}

namespace {

void set_open_flags(Server& server, FileHandle& handle, const Attributes& attributes, fuse_file_info& file) {
  const Inode& inode = *handle.inode;
  // With dax=inode the flag of a file may go while programs have it leased: it stays direct then.
  file.direct_io = is_direct(server, attributes) || !server.volume.use_page_cache(handle) ? 1 : 0;
  // Nothing but stores past the kernel changes the pages behind its back: else an open need not drop them.
  file.keep_cache = inode.was_stored_directly.load(std::memory_order_acquire) ? 0 : 1;
  file.noflush = 1;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)
  file.parallel_direct_writes = 1;
#endif
}

// The set-id bits go with the contents, unless the caller has CAP_FSETID.
Status truncate_on_open(Server& server, Request& request, Inode& inode, const fuse_file_info& file) {
  SetAttributes empty;
  empty.size_bytes = 0;
#if PLUMB_FUSE_HAS_KILL_SUIDGID
  empty.kill_setid = server.features.kill_setid ? file.kill_suidgid != 0 : request.context().uid != 0;
#else
  static_cast<void>(file);
  empty.kill_setid = request.context().uid != 0;
#endif
  PLUMB_TRY(server.volume.set_attributes(inode, empty, request.caller(!empty.kill_setid)));
  return {};
}

// Replies to create and tmpfile: an entry and an open file at once.
void reply_created(Server& server, Request& request, const FoundEntry& made, fuse_file_info& file) {
  // Open flags of creation have done their work.
  auto handle = server.volume.open(*made.inode, file.flags & ~(O_CREAT | O_EXCL | O_TRUNC));
  if (!handle) return request.error(handle.error());
  set_open_flags(server, **handle, made.attributes, file);
  const std::uint64_t fh = server.files.add(std::make_unique<OpenFile>(std::move(*handle), file.flags));
  file.fh = fh;
  server.inodes.add_lookup(made.inode);
  if (request.created(to_entry(made.attributes), file)) return;
  server.files.release(fh);
  server.inodes.forget(made.inode.number().value, 1);
}

CreateRequest regular_file(const Request& request, mode_t mode) {
  return {.mode = S_IFREG | (mode & 07777),
          .umask = request.context().umask,
          .rdev = 0,
          .symlink_target = {},
          .caller = request.caller()};
}

}  // namespace

void open(Server& server, Request& request, fuse_ino_t id, fuse_file_info* file) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  auto handle = server.volume.open(**inode, file->flags);
  if (!handle) return request.error(handle.error());
  if ((file->flags & O_TRUNC) != 0) {
    const Status truncated = truncate_on_open(server, request, **inode, *file);
    if (!truncated) return request.error(truncated.error());
  }
  set_open_flags(server, **handle, server.volume.attributes(**inode), *file);
  const std::uint64_t fh = server.files.add(std::make_unique<OpenFile>(std::move(*handle), file->flags));
  file->fh = fh;
  if (!request.opened(*file)) server.files.release(fh);
}

void create(Server& server, Request& request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* file) {
  const auto directory = server.inode(parent);
  if (!directory) return request.error(directory.error());
  const auto made = server.volume.create(**directory, name, regular_file(request, mode));
  if (!made) return request.error(made.error());
  reply_created(server, request, *made, *file);
}

void tmpfile(Server& server, Request& request, fuse_ino_t parent, mode_t mode, fuse_file_info* file) {
  const auto directory = server.inode(parent);
  if (!directory) return request.error(directory.error());
  const auto made = server.volume.create_unnamed(**directory, regular_file(request, mode));
  if (!made) return request.error(made.error());
  reply_created(server, request, *made, *file);
}

void release(Server& server, Request& request, fuse_ino_t, fuse_file_info* file) {
  server.volume.end_lease(OpenFiles::from(file->fh).handle());
  server.files.release(file->fh);
  request.ok();
}

}  // namespace plumb::fuse::handlers
