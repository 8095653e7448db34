#include "fs/core/directory.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "fs/core/siphash.h"

namespace plumb {
namespace {

BTree tree_of(Store& store, const media::Inode& directory) {
  return {store, media::TreeKind::kDirectory, directory.number};
}

std::vector<std::byte> record_of(std::string_view name, InodeNumber inode, std::uint8_t type) {
  media::DirectoryRecord header;
  header.inode = inode.value;
  header.type = type;
  header.name_length = static_cast<std::uint8_t>(name.size());
  std::vector<std::byte> record(sizeof header + name.size());
  std::memcpy(record.data(), &header, sizeof header);
  std::memcpy(record.data() + sizeof header, name.data(), name.size());
  return record;
}

}  // namespace

Status check_name(std::string_view name) {
  if (name.size() > kNameMax) return fail(ENAMETOOLONG);
  if (name.empty() || name == "." || name == "..") return fail(EINVAL);
  if (name.find('/') != std::string_view::npos || name.find('\0') != std::string_view::npos) return fail(EINVAL);
  return {};
}

Dentry parse_dentry(std::uint64_t key, std::span<const std::byte> record) {
  media::DirectoryRecord header;
  std::memcpy(&header, record.data(), sizeof header);
  return {key, InodeNumber(header.inode), header.type,
          std::string(reinterpret_cast<const char*>(record.data()) + sizeof header, header.name_length)};
}

Result<std::optional<Dentry>> find_dentry(Store& store, const media::Inode& directory, std::string_view name) {
  const std::uint64_t first = name_key(store.superblock().media().hash_seed, name);
  std::optional<Dentry> found;
  PLUMB_TRY(
      tree_of(store, directory).visit(directory.data, first, [&](std::uint64_t key, std::span<const std::byte> record) {
        if (key >= first + kKeysPerName) return false;
        media::DirectoryRecord header;
        std::memcpy(&header, record.data(), sizeof header);
        const std::string_view its_name(reinterpret_cast<const char*>(record.data()) + sizeof header,
                                        header.name_length);
        if (its_name != name) return true;
        found = parse_dentry(key, record);
        return false;
      }));
  return found;
}

Status add_dentry(Transaction& t, media::Inode& next, std::string_view name, InodeNumber inode, std::uint8_t type) {
  const std::uint64_t first = name_key(t.store().superblock().media().hash_seed, name);
  std::uint64_t free_key = first;
  PLUMB_TRY(tree_of(t.store(), next).visit(next.data, first, [&](std::uint64_t key, std::span<const std::byte>) {
    if (key != free_key) return false;
    ++free_key;
    return free_key < first + kKeysPerName;
  }));
  if (free_key == first + kKeysPerName) return fail(ENOSPC, "directory: 256 names with one hash");
  PLUMB_TRY(tree_of(t.store(), next).put(t, next.data, free_key, record_of(name, inode, type)));
  next.size_bytes = next.size_bytes + 1;
  return {};
}

Status remove_dentry(Transaction& t, media::Inode& next, const Dentry& entry) {
  PLUMB_TRY(tree_of(t.store(), next).erase(t, next.data, entry.key));
  next.size_bytes = next.size_bytes - 1;
  return {};
}

Status redirect_dentry(Transaction& t, media::Inode& next, const Dentry& entry, InodeNumber inode, std::uint8_t type) {
  return tree_of(t.store(), next).put(t, next.data, entry.key, record_of(entry.name, inode, type));
}

}  // namespace plumb
