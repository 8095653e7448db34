#include "fs/core/xattr.h"

#include <cstring>
#include <optional>

#include "fs/core/siphash.h"
#include "fs/core/value_chain.h"

namespace plumb {
namespace {

struct Found {
  std::uint64_t key = 0;
  media::XattrRecord header;
  std::string inline_value;
};

BTree tree_of(Store& store, const media::Inode& inode) {
  return {store, media::TreeKind::kXattrs, inode.number};
}

std::string_view name_in(std::span<const std::byte> record) {
  media::XattrRecord header;
  std::memcpy(&header, record.data(), sizeof header);
  return {reinterpret_cast<const char*>(record.data()) + sizeof header, header.name_length};
}

Found parse(std::uint64_t key, std::span<const std::byte> record) {
  Found found;
  found.key = key;
  std::memcpy(&found.header, record.data(), sizeof found.header);
  const std::size_t value_at = sizeof found.header + found.header.name_length;
  found.inline_value.assign(reinterpret_cast<const char*>(record.data()) + value_at, record.size() - value_at);
  return found;
}

Result<std::optional<Found>> find(Store& store, const media::Inode& inode, std::string_view name) {
  std::optional<Found> found;
  if (inode.xattrs.block == 0) return found;
  const std::uint64_t first = name_key(store.superblock().media().hash_seed, name);
  PLUMB_TRY(tree_of(store, inode).visit(inode.xattrs, first, [&](std::uint64_t key, std::span<const std::byte> record) {
    if (key >= first + kKeysPerName) return false;
    if (name_in(record) != name) return true;
    found = parse(key, record);
    return false;
  }));
  return found;
}

Result<std::uint64_t> free_key(Store& store, const media::Inode& inode, std::string_view name) {
  const std::uint64_t first = name_key(store.superblock().media().hash_seed, name);
  std::uint64_t key = first;
  PLUMB_TRY(tree_of(store, inode).visit(inode.xattrs, first, [&](std::uint64_t k, std::span<const std::byte>) {
    if (k != key) return false;
    ++key;
    return key < first + kKeysPerName;
  }));
  if (key == first + kKeysPerName) return fail(ENOSPC, "xattrs: 256 names with one hash");
  return key;
}

Status free_value(Transaction& t, media::Inode& next, const media::XattrRecord& header) {
  if ((header.flags & media::kXattrInChain) == 0) return {};
  PLUMB_ASSIGN(const std::uint32_t blocks, free_chain(t, header.chain));
  next.chain_blocks = next.chain_blocks - blocks;
  return {};
}

}  // namespace

Result<std::string> read_xattr(Store& store, const media::Inode& inode, std::string_view name) {
  PLUMB_ASSIGN(const std::optional<Found> found, find(store, inode, name));
  if (!found) return fail(ENODATA);
  if ((found->header.flags & media::kXattrInChain) == 0) return found->inline_value;
  return read_chain(store, found->header.chain, found->header.value_length);
}

Status write_xattr(Transaction& t, media::Inode& next, std::string_view name, std::string_view value,
                   XattrSetFlags flags) {
  if (name.empty() || name.size() > kNameMax) return fail(ERANGE);
  if (value.size() > kXattrValueMax) return fail(E2BIG);
  PLUMB_ASSIGN(const std::optional<Found> found, find(t.store(), next, name));
  if (found && flags.create) return fail(EEXIST);
  if (!found && flags.replace) return fail(ENODATA);
  std::uint64_t key = 0;
  if (found) {
    key = found->key;
    PLUMB_TRY(free_value(t, next, found->header));
  } else {
    PLUMB_ASSIGN(key, free_key(t.store(), next, name));
  }
  media::XattrRecord header;
  header.name_length = static_cast<std::uint8_t>(name.size());
  header.value_length = static_cast<std::uint32_t>(value.size());
  header.flags = 0;
  std::string record(sizeof header, '\0');
  record += name;
  if (sizeof header + name.size() + value.size() <= BTree::max_record(t.block_size())) {
    record += value;
  } else {
    PLUMB_ASSIGN(const media::TreeRoot chain, write_chain(t, next.number, value));
    header.flags = media::kXattrInChain;
    header.chain = chain.block;
    next.chain_blocks = next.chain_blocks + chain.nodes;
  }
  std::memcpy(record.data(), &header, sizeof header);
  return tree_of(t.store(), next).put(t, next.xattrs, key, std::as_bytes(std::span(record)));
}

Status erase_xattr(Transaction& t, media::Inode& next, std::string_view name) {
  PLUMB_ASSIGN(const std::optional<Found> found, find(t.store(), next, name));
  if (!found) return fail(ENODATA);
  PLUMB_TRY(free_value(t, next, found->header));
  return tree_of(t.store(), next).erase(t, next.xattrs, found->key);
}

Result<std::vector<std::string>> xattr_names(Store& store, const media::Inode& inode) {
  std::vector<std::string> names;
  PLUMB_TRY(tree_of(store, inode).visit(inode.xattrs, 0, [&](std::uint64_t, std::span<const std::byte> record) {
    names.emplace_back(name_in(record));
    return true;
  }));
  return names;
}

Result<bool> erase_some_xattrs(Transaction& t, media::Inode& next, std::size_t most) {
  for (std::size_t i = 0; i < most && next.xattrs.block != 0; ++i) {
    Found first;
    PLUMB_TRY(tree_of(t.store(), next).visit(next.xattrs, 0, [&](std::uint64_t key, std::span<const std::byte> record) {
      first = parse(key, record);
      return false;
    }));
    PLUMB_TRY(free_value(t, next, first.header));
    PLUMB_TRY(tree_of(t.store(), next).erase(t, next.xattrs, first.key));
  }
  return next.xattrs.block == 0;
}

}  // namespace plumb
