// Directories: readdir, readdirplus, fsyncdir.

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fs/fuse/attributes.h"
#include "fs/fuse/handlers.h"
#include "fs/fuse/syncfs.h"

namespace plumb::fuse::handlers {
namespace {

struct Collected {
  std::string name;
  InodeNumber inode;
  std::uint8_t type;
  std::uint64_t cookie;
};

// An entry without attributes: the kernel takes the number and the type from it, and no lookup.
fuse_entry_param bare_entry(InodeNumber inode, std::uint8_t type) {
  fuse_entry_param entry{};
  entry.attr.st_ino = inode.value;
  entry.attr.st_mode = static_cast<mode_t>(type) << 12;  // DT_* to S_IFMT
  return entry;
}

// The names that fit into `size` bytes of a readdirplus reply.
Result<std::vector<Collected>> collect(Server& server, Request& request, Inode& directory, std::size_t size,
                                       std::uint64_t cookie) {
  std::vector<Collected> entries;
  std::size_t used = 0;
  const fuse_entry_param entry{};
  PLUMB_TRY(server.volume.read_directory(directory, cookie, [&](const DirectoryEntry& found) {
    Collected next{std::string(found.name), found.inode, found.type, found.cookie};
    used += fuse_add_direntry_plus(request.raw(), nullptr, 0, next.name.c_str(), &entry, 0);
    if (used > size) return false;
    entries.push_back(std::move(next));
    return true;
  }));
  return entries;
}

// What readdirplus says of one name. The inode it took a lookup of, if any, is appended to `told`.
fuse_entry_param entry_with_lookup(Server& server, Inode& directory, const Collected& collected,
                                   std::vector<InodeRef>& told) {
  if (collected.name == "." || collected.name == "..") return bare_entry(collected.inode, collected.type);
  const auto found = server.volume.lookup(directory, collected.name);
  if (!found) return bare_entry(collected.inode, collected.type);  // gone meanwhile, or damaged: lookup will tell
  told.push_back(found->inode);
  server.inodes.add_lookup(found->inode);
  return to_entry(found->attributes);
}

}  // namespace

void readdir(Server& server, Request& request, fuse_ino_t id, std::size_t size, off_t cookie, fuse_file_info*) {
  const auto directory = server.inode(id);
  if (!directory) return request.error(directory.error());
  const auto buffer = std::make_unique_for_overwrite<char[]>(size);
  std::size_t used = 0;
  std::string name;
  const auto status =
      server.volume.read_directory(**directory, static_cast<std::uint64_t>(cookie), [&](const DirectoryEntry& entry) {
        name = entry.name;
        const struct stat attributes = bare_entry(entry.inode, entry.type).attr;
        const std::size_t needed = fuse_add_direntry(request.raw(), buffer.get() + used, size - used, name.c_str(),
                                                     &attributes, static_cast<off_t>(entry.cookie));
        if (needed > size - used) return false;
        used += needed;
        return true;
      });
  if (!status) return request.error(status.error());
  static_cast<void>(request.bytes(buffer.get(), used));
}

void readdirplus(Server& server, Request& request, fuse_ino_t id, std::size_t size, off_t cookie, fuse_file_info*) {
  const auto directory = server.inode(id);
  if (!directory) return request.error(directory.error());
  const auto entries = collect(server, request, **directory, size, static_cast<std::uint64_t>(cookie));
  if (!entries) return request.error(entries.error());

  const auto buffer = std::make_unique_for_overwrite<char[]>(size);
  std::size_t used = 0;
  std::vector<InodeRef> told;
  told.reserve(entries->size());
  for (const Collected& collected : *entries) {
    const fuse_entry_param entry = entry_with_lookup(server, **directory, collected, told);
    used += fuse_add_direntry_plus(request.raw(), buffer.get() + used, size - used, collected.name.c_str(), &entry,
                                   static_cast<off_t>(collected.cookie));
  }
  if (request.bytes(buffer.get(), used)) return;
  for (const InodeRef& inode : told) server.inodes.forget(inode.number().value, 1);
}

void fsyncdir(Server& server, Request& request, fuse_ino_t id, int data_only, fuse_file_info* file) {
  if (is_syncfs(*file)) {
    ++server.syncfs_requests;
    return request.status(server.volume.sync());
  }
  const auto directory = server.inode(id);
  if (!directory) return request.error(directory.error());
  request.status(server.volume.fsync_inode(**directory, data_only != 0 ? FsyncMode::kDataOnly : FsyncMode::kFull));
}

}  // namespace plumb::fuse::handlers
