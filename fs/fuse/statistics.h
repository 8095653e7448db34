// The counters of a volume, or of a device that is served raw, as JSON, for kIocStatistics and `plumb stat`. Thread
// safety: no state.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fs/client/protocol.h"
#include "fs/core/raw_file.h"
#include "fs/core/volume.h"

namespace plumb::fuse {

/// One JSON object; bytes that are not UTF-8 (in paths, labels) are replaced.
[[nodiscard]] std::string to_json(const VolumeStatistics& counters, std::uint64_t syncfs_requests);
[[nodiscard]] std::string to_json(const RawFile& file);

/// The text as the answer of kIocStatistics; EOVERFLOW if it is too long for that.
[[nodiscard]] Result<std::unique_ptr<protocol::Statistics>> to_reply(const std::string& text);

}  // namespace plumb::fuse
