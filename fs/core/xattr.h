// Extended attributes of an inode: a B+tree with hashed keys; values that do not fit a record lie in a chain of blocks.
//
// Names carry their full prefix. Reading needs the inode's lock, shared; changing it the exclusive lock and a
// transaction; `next` is the inode being committed. Setting replaces value and record in one transaction.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "fs/core/btree.h"
#include "fs/core/volume.h"

namespace plumb {

/// ENODATA if there is none.
[[nodiscard]] Result<std::string> read_xattr(Store& store, const media::Inode& inode, std::string_view name);
/// EEXIST / ENODATA by flags, E2BIG above 64 KiB, ERANGE for a name above 255 bytes.
[[nodiscard]] Status write_xattr(Transaction& t, media::Inode& next, std::string_view name, std::string_view value,
                                 XattrSetFlags flags);
[[nodiscard]] Status erase_xattr(Transaction& t, media::Inode& next, std::string_view name);
[[nodiscard]] Result<std::vector<std::string>> xattr_names(Store& store, const media::Inode& inode);
/// Frees up to `most` attributes, for an inode that goes. True when none is left.
[[nodiscard]] Result<bool> erase_some_xattrs(Transaction& t, media::Inode& next, std::size_t most);

}  // namespace plumb
