// The list of bad blocks as programs see it: the JSON of `plumb badblocks`, and the answer of kIocBadBlocks.
//
// Thread safety: as Volume.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>

#include "fs/client/protocol.h"
#include "fs/core/bad_block_report.h"
#include "fs/core/volume.h"
#include "pmem/result.h"

namespace plumb::fuse {

/// One object: device ("main" or "realtime"), offset_bytes, length_bytes, use (name_of), and of a file inode,
/// file_offset_bytes and path (null if it has no name).
[[nodiscard]] nlohmann::ordered_json to_json(const BadBlockReport& report);

/// The entries from `cursor` on, as many as fit.
[[nodiscard]] Result<std::unique_ptr<protocol::BadBlocks>> bad_blocks_reply(Volume& volume, std::uint64_t cursor);

}  // namespace plumb::fuse
