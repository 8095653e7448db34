// What a user can see of a volume, as a value, and how two of them differ.
//
// Invariant: taking a snapshot stores nothing on the device (the world is mounted with noatime).
//
// Thread safety: none needed.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "test/unit/core_world.h"

namespace plumb::test {

/// Number and generation: an inode that was deleted and one that has its number are two.
using InodeKey = std::pair<std::uint64_t, std::uint64_t>;

struct VisibleInode {
  Attributes attributes;
  std::string target;  // of a symlink
  std::map<std::string, std::string> xattrs;
  std::string content;  // of a regular file
};

struct Snapshot {
  std::map<std::string, InodeKey> names;  // path -> inode; "" is the root
  std::map<InodeKey, VisibleInode> inodes;
};

/// What a reader gets who goes on behind errors. Bytes that cannot be read are kUnreadable, on the list of bad blocks
/// or not; no test writes that.
inline constexpr char kUnreadable = '!';
[[nodiscard]] std::string content_of(World& world, Inode& inode);

/// `held`: inodes that may have no name any more.
[[nodiscard]] Snapshot take_snapshot(World& world, const std::vector<InodeRef>& held = {});

/// Everything but contents. Empty if they are the same; otherwise the first difference in words.
[[nodiscard]] std::string metadata_difference(const Snapshot& seen, const Snapshot& expected);
/// The same for an operation that is made of several transactions: each field of an inode may be that of before or of
/// after, the number of blocks anything in between; names are those of before.
[[nodiscard]] std::string step_difference(const Snapshot& seen, const Snapshot& before, const Snapshot& after);
/// True if the inode has the same names and metadata in both, or is in neither.
[[nodiscard]] bool same_inode(const Snapshot& a, const Snapshot& b, InodeKey key);
[[nodiscard]] std::string content_difference(const Snapshot& seen, const Snapshot& expected);

/// Where each byte of a file may come from.
struct ByteSources {
  std::span<const Snapshot> versions;  // byte i may be that of any of these; beyond their end of file it is zero
  // Which of them the metadata is of. Bytes that a truncate between an older version and it cut off do not come back;
  // bytes that a later one cuts off are not touched while it has not happened.
  std::size_t shown = 0;
  bool unborn_is_zero = false;   // also zero where the file is not in all versions
  bool words_are_whole = false;  // the bytes of an aligned 8-byte word are all of one version
};
/// Empty, or which byte in [begin, end) of `content` comes from nowhere; of a word, its first one.
[[nodiscard]] std::string foreign_byte(const std::string& content, InodeKey key, const ByteSources& sources,
                                       std::size_t begin, std::size_t end);

}  // namespace plumb::test
