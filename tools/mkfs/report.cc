#include "tools/mkfs/report.h"

#include <nlohmann/json.hpp>

#include "fs/media/uuid_text.h"
#include "tools/common/label_text.h"
#include "tools/common/size.h"

namespace plumb::tools {
namespace {

const char* kind_of(const pmem::Device& device) {
  return device.is_memory() ? "memory" : "page-cached";
}

std::uint64_t blocks_of(const media::Superblock& superblock) {
  return superblock.devices[0].size_bytes / superblock.block_size_bytes;
}

}  // namespace

std::string report_text(const MkfsReport& report) {
  const media::Superblock& superblock = report.superblock;
  const pmem::DeviceInfo& info = report.device.info();
  std::string text = info.path + ": plumbfs made\n";
  text += "  device      " + info.type + ", " + size_text(info.size_bytes) + ", " + kind_of(report.device) +
          (info.is_volatile ? ", VOLATILE" : "") + "\n";
  text += "  durability  " + report.device.durability_sentence() + "\n";
  text +=
      "  blocks      " + std::to_string(blocks_of(superblock)) + " of " + size_text(superblock.block_size_bytes) + "\n";
  text += "  journal     " + size_text(superblock.journal_bytes) + "\n";
  text += "  uuid        " + media::uuid_text(superblock.uuid) + "\n";
  if (report.realtime != nullptr) {
    const pmem::DeviceInfo& second = report.realtime->info();
    const media::DeviceEntry& entry = superblock.devices[1];
    text += "  realtime    " + second.path + ": " + second.type + ", " + size_text(second.size_bytes) + ", " +
            kind_of(*report.realtime) + (second.is_volatile ? ", VOLATILE" : "") + "\n";
    text += "              " + std::to_string(entry.size_bytes / entry.extent_bytes) + " extents of " +
            size_text(entry.extent_bytes) + ", uuid " + media::uuid_text(entry.uuid) + "\n";
    text += "              " + report.realtime->durability_sentence() + "\n";
  }
  const std::string label = label_of(superblock.label);
  text += "  label       " + (label.empty() ? "(none)" : printable(label)) + "\n";
  if (info.is_volatile)
    text += "note: this device is lost when the machine loses power or restarts, and everything on it.\n";
  if (report.sparse)
    text +=
        "note: the file has holes; when its file system is full, writes to them fail with EIO. "
        "'fallocate -l SIZE FILE' or mkfs.plumbfs --size allocates it fully.\n";
  return text;
}

std::string report_json(const MkfsReport& report) {
  const media::Superblock& superblock = report.superblock;
  const pmem::DeviceInfo& info = report.device.info();
  nlohmann::ordered_json json;
  json["device"] = info.path;
  json["type"] = info.type;
  json["kind"] = kind_of(report.device);
  json["volatile"] = info.is_volatile;
  json["durability"] = report.device.durability_sentence();
  json["size_bytes"] = info.size_bytes;
  json["block_size_bytes"] = superblock.block_size_bytes.get();
  json["blocks"] = blocks_of(superblock);
  json["journal_bytes"] = superblock.journal_bytes.get();
  json["uuid"] = media::uuid_text(superblock.uuid);
  json["label"] = label_of(superblock.label);
  json["sparse"] = report.sparse;
  if (report.realtime != nullptr) {
    const pmem::DeviceInfo& second = report.realtime->info();
    const media::DeviceEntry& entry = superblock.devices[1];
    json["realtime"] = {{"device", second.path},
                        {"type", second.type},
                        {"kind", kind_of(*report.realtime)},
                        {"volatile", second.is_volatile},
                        {"durability", report.realtime->durability_sentence()},
                        {"size_bytes", entry.size_bytes.get()},
                        {"extent_bytes", entry.extent_bytes.get()},
                        {"uuid", media::uuid_text(entry.uuid)}};
  }
  // A label may be any bytes; JSON is UTF-8.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace plumb::tools
