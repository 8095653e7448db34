#include "fs/fuse/statistics.h"

#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace plumb::fuse {
namespace {

using Json = nlohmann::ordered_json;

Json device_json(const DeviceStatistics& device) {
  return {{"path", device.path},
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
          {"bad_blocks", device.bad_blocks},
          {"dirty_bytes", device.dirty_bytes}};
}

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string to_json(const VolumeStatistics& counters, std::uint64_t syncfs_requests) {
  Json devices = Json::array();
  for (const DeviceStatistics& device : counters.devices) devices.push_back(device_json(device));
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
                       {"syncfs_requests", syncfs_requests},
                       {"unsafe_shutdowns", counters.unsafe_shutdowns},
                       {"leased_inodes", counters.leased_inodes},
                       {"stale_clients", counters.stale_clients}};
  return text_of(result);
}

std::string to_json(const RawFile& file) {
  return text_of({{"raw", true},
                  {"size_bytes", file.size_bytes()},
                  {"read_only", file.read_only()},
                  {"devices", Json::array({device_json(file.statistics())})}});
}

Result<std::unique_ptr<protocol::Statistics>> to_reply(const std::string& text) {
  if (text.size() > protocol::kStatisticsTextMax) return fail(EOVERFLOW);
  auto reply = std::make_unique<protocol::Statistics>();  // zeros
  reply->version = protocol::kVersion;
  reply->length_bytes = static_cast<std::uint32_t>(text.size());
  std::memcpy(reply->text, text.data(), text.size());
  return reply;
}

}  // namespace plumb::fuse
