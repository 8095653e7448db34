// Entries of a directory: a B+tree with hashed keys below 2^63, so that a readdir cookie is a key and stays valid while
// entries come and go. Names with the same hash take the following keys (256 of them).
//
// `media::Inode::size_bytes` of a directory counts its entries. Reading needs the directory's lock, shared; changing it
// the exclusive lock and a transaction; `next` is the directory's inode being committed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "fs/core/btree.h"

namespace plumb {

inline constexpr std::uint64_t kCookieDot = 1;
inline constexpr std::uint64_t kCookieDotDot = 2;

struct Dentry {
  std::uint64_t key = 0;
  InodeNumber inode;
  std::uint8_t type = 0;
  std::string name;
};

/// From a verified record.
[[nodiscard]] Dentry parse_dentry(std::uint64_t key, std::span<const std::byte> record);

[[nodiscard]] Result<std::optional<Dentry>> find_dentry(Store& store, const media::Inode& directory,
                                                        std::string_view name);
/// The caller knows that the name is not there.
[[nodiscard]] Status add_dentry(Transaction& t, media::Inode& next, std::string_view name, InodeNumber inode,
                                std::uint8_t type);
[[nodiscard]] Status remove_dentry(Transaction& t, media::Inode& next, const Dentry& entry);
/// The same name for another inode.
[[nodiscard]] Status redirect_dentry(Transaction& t, media::Inode& next, const Dentry& entry, InodeNumber inode,
                                     std::uint8_t type);

/// 0, ENAMETOOLONG, EINVAL (empty, "/", NUL) or EEXIST-like outcomes of "." and ".." (EINVAL).
[[nodiscard]] Status check_name(std::string_view name);

}  // namespace plumb
