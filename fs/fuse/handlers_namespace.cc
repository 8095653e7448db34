// Names: lookup, forget, and what makes, moves and removes entries.

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>
#include <string>

#include "fs/fuse/attributes.h"
#include "fs/fuse/handlers.h"

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT (1U << 2)
#endif

namespace plumb::fuse::handlers {
namespace {

// Tells the kernel of an inode, which costs one lookup.
void reply_found(Server& server, Request& request, const FoundEntry& found) {
  server.inodes.add_lookup(found.inode);
  if (!request.entry(to_entry(found.attributes))) server.inodes.forget(found.inode.number().value, 1);
}

void make(Server& server, Request& request, fuse_ino_t parent, const char* name, const CreateRequest& wanted) {
  const auto directory = server.inode(parent);
  if (!directory) return request.error(directory.error());
  const auto made = server.volume.create(**directory, name, wanted);
  if (!made) return request.error(made.error());
  reply_found(server, request, *made);
}

// A lookup of "." or ".." comes with a number from an NFS file handle, which the kernel may have forgotten.
Result<FoundEntry> lookup_by_handle(Server& server, fuse_ino_t id, std::string_view name) {
  InodeRef inode = server.inodes.find(id);
  if (!inode) {
    PLUMB_ASSIGN(inode, server.volume.inode_by_number(InodeNumber(id), 0));
  }
  if (name == "..") return server.volume.lookup(*inode, name);
  const Attributes attributes = server.volume.attributes(*inode);
  if (attributes.links == 0) return fail(ESTALE);  // deleted, and the forget is still on its way
  return FoundEntry{inode, attributes};
}

}  // namespace

void lookup(Server& server, Request& request, fuse_ino_t parent, const char* name) {
  const std::string_view wanted = name;
  if (wanted == "." || wanted == "..") {
    const auto found = lookup_by_handle(server, parent, wanted);
    if (!found) return request.error(found.error());
    return reply_found(server, request, *found);
  }
  const auto directory = server.inode(parent);
  if (!directory) return request.error(directory.error());
  const auto found = server.volume.lookup(**directory, wanted);
  if (found) return reply_found(server, request, *found);
  if (found.error().code == ENOENT) {
    static_cast<void>(request.entry(negative_entry()));
  } else {
    request.error(found.error());
  }
}

void forget(Server& server, Request& request, fuse_ino_t id, std::uint64_t count) {
  server.inodes.forget(id, count);
  request.none();
}

void forget_multi(Server& server, Request& request, std::size_t count, fuse_forget_data* forgets) {
  for (std::size_t i = 0; i < count; ++i) server.inodes.forget(forgets[i].ino, forgets[i].nlookup);
  request.none();
}

void mknod(Server& server, Request& request, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev) {
  make(
      server, request, parent, name,
      {.mode = mode, .umask = request.context().umask, .rdev = rdev, .symlink_target = {}, .caller = request.caller()});
}

void mkdir(Server& server, Request& request, fuse_ino_t parent, const char* name, mode_t mode) {
  make(server, request, parent, name,
       {.mode = S_IFDIR | (mode & 07777),
        .umask = request.context().umask,
        .rdev = 0,
        .symlink_target = {},
        .caller = request.caller()});
}

void symlink(Server& server, Request& request, const char* target, fuse_ino_t parent, const char* name) {
  make(server, request, parent, name,
       {.mode = S_IFLNK | 0777, .umask = 0, .rdev = 0, .symlink_target = target, .caller = request.caller()});
}

void link(Server& server, Request& request, fuse_ino_t id, fuse_ino_t parent, const char* name) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  const auto directory = server.inode(parent);
  if (!directory) return request.error(directory.error());
  const auto attributes = server.volume.link(**inode, **directory, name);
  if (!attributes) return request.error(attributes.error());
  reply_found(server, request, {*inode, *attributes});
}

void unlink(Server& server, Request& request, fuse_ino_t parent, const char* name) {
  const auto directory = server.inode(parent);
  if (!directory) return request.error(directory.error());
  request.status(server.volume.unlink(**directory, name));
}

void rmdir(Server& server, Request& request, fuse_ino_t parent, const char* name) {
  const auto directory = server.inode(parent);
  if (!directory) return request.error(directory.error());
  request.status(server.volume.rmdir(**directory, name));
}

void rename(Server& server, Request& request, fuse_ino_t from, const char* from_name, fuse_ino_t to,
            const char* to_name, unsigned flags) {
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0) return request.error(EINVAL);
  const auto from_directory = server.inode(from);
  if (!from_directory) return request.error(from_directory.error());
  const auto to_directory = server.inode(to);
  if (!to_directory) return request.error(to_directory.error());
  const RenameFlags wanted = {.noreplace = (flags & RENAME_NOREPLACE) != 0,
                              .exchange = (flags & RENAME_EXCHANGE) != 0,
                              .whiteout = (flags & RENAME_WHITEOUT) != 0};
  request.status(server.volume.rename(**from_directory, from_name, **to_directory, to_name, wanted, request.caller()));
}

void readlink(Server& server, Request& request, fuse_ino_t id) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  const auto target = server.volume.readlink(**inode);
  if (!target) return request.error(target.error());
  request.text(target->c_str());
}

}  // namespace plumb::fuse::handlers
