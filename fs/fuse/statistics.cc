#include "fs/fuse/statistics.h"

#include <nlohmann/json.hpp>

namespace plumb::fuse {

std::string to_json(const VolumeStatistics& counters) {
  using Json = nlohmann::ordered_json;
  Json devices = Json::array();
  for (const DeviceStatistics& device : counters.devices) {
    devices.push_back({{"path", device.path},
                       {"type", device.type},
                       {"kind", device.kind},
                       {"role", device.role},
                       {"blocks", device.blocks},
                       {"blocks_free", device.blocks_free},
                       {"writeback_ranges", device.writeback_ranges},
                       {"writeback_bytes", device.writeback_bytes},
                       {"writeback_drains", device.writeback_drains},
                       {"device_flushes", device.device_flushes},
                       {"device_flushed_bytes", device.device_flushed_bytes},
                       {"device_drains", device.device_drains},
                       {"errors", device.errors},
                       {"dirty_bytes", device.dirty_bytes}});
  }
  const Json result = {{"uuid", counters.uuid},
                       {"label", counters.label},
                       {"read_only", counters.read_only},
                       {"devices", std::move(devices)},
                       {"transactions", counters.transactions},
                       {"log_bytes", counters.log_bytes},
                       {"log_forces", counters.log_forces},
                       {"checkpoints", counters.checkpoints},
                       {"reclaim_pending_blocks", counters.reclaim_pending_blocks},
                       {"windows_opened", counters.windows_opened},
                       {"buffers", counters.buffers},
                       {"inodes_in_core", counters.inodes_in_core},
                       {"unsafe_shutdowns", counters.unsafe_shutdowns}};
  return result.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace plumb::fuse
