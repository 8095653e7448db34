// Values that do not fit a record: xattr values and symlink targets in a chain of metadata blocks, logged like any
// other.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fs/core/store.h"

namespace plumb {

/// Writes `value` and returns the first block and the number of blocks.
[[nodiscard]] Result<media::TreeRoot> write_chain(Transaction& t, std::uint64_t owner, std::string_view value);
/// EUCLEAN if the chain does not hold exactly `length_bytes`.
[[nodiscard]] Result<std::string> read_chain(Store& store, std::uint64_t first_block, std::uint64_t length_bytes);
/// Number of blocks freed.
[[nodiscard]] Result<std::uint32_t> free_chain(Transaction& t, std::uint64_t first_block);
[[nodiscard]] inline std::uint64_t chain_capacity(std::uint32_t block_size) {
  return block_size - sizeof(media::ValueHeader);
}

}  // namespace plumb
