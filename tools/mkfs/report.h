// What mkfs.plumbfs says when it has made a file system.
#pragma once

#include <string>

#include "fs/media/layout.h"
#include "pmem/device.h"

namespace plumb::tools {

struct MkfsReport {
  const pmem::Device& device;
  const pmem::Device* realtime;         // null if there is none
  const media::Superblock& superblock;  // as read back
  bool sparse = false;
};

[[nodiscard]] std::string report_text(const MkfsReport& report);
[[nodiscard]] std::string report_json(const MkfsReport& report);

}  // namespace plumb::tools
