// The counters of a volume as JSON, for kIocStatistics and `plumb stat`. Thread safety: no state.
#pragma once

#include <string>

#include "fs/core/volume.h"

namespace plumb::fuse {

/// One JSON object; bytes that are not UTF-8 (in paths, labels) are replaced.
[[nodiscard]] std::string to_json(const VolumeStatistics& counters);

}  // namespace plumb::fuse
