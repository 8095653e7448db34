// plumb info DEVICE: the superblock of a file system that is not mounted. Reads only.

#include <array>
#include <cstdio>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "fs/core/store.h"
#include "fs/core/superblock.h"
#include "fs/media/layout.h"
#include "fs/media/uuid_text.h"
#include "pmem/device.h"
#include "tools/common/claim.h"
#include "tools/common/command_line.h"
#include "tools/common/label_text.h"
#include "tools/common/size.h"
#include "tools/common/superblocks.h"
#include "tools/plumb/commands.h"

namespace plumb::tools {
namespace {

using Json = nlohmann::ordered_json;

std::string time_text(const media::Time& time) {
  const auto seconds = static_cast<std::time_t>(time.seconds.get());
  std::tm parts{};
  std::array<char, 64> text{};
  if (::gmtime_r(&seconds, &parts) == nullptr) return std::to_string(seconds);
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text.data();
}

std::string copy_text(const SuperblockCopy& copy) {
  return copy.status ? "ok" : copy.status.error().detail;
}

Json member_json(const media::DeviceEntry& entry) {
  Json json;
  json["role"] = entry.role == 0 ? "main" : "realtime";
  json["uuid"] = media::uuid_text(entry.uuid);
  json["size_bytes"] = entry.size_bytes.get();
  json["kind"] = entry.kind == 0 ? "memory" : "page-cached";
  json["volatile"] = entry.is_volatile != 0;
  json["allocation_unit_bytes"] = entry.extent_bytes.get();
  json["data_start_block"] = entry.data_start.get();
  return json;
}

// Entries of the list of bad blocks. Nothing: the metadata that would tell cannot be read.
std::optional<std::uint64_t> count_bad_blocks(pmem::Device& device) {
  const auto superblock = Superblock::read_main(device);
  if (!superblock) return std::nullopt;
  if ((superblock->media().ro_compat & media::kRoCompatBadBlocks) == 0) return 0;
  Store store(*superblock, true);
  if (!store.open()) return std::nullopt;
  return store.bad_blocks().all().size();
}

Json info_json(pmem::Device& device, const SuperblockCopies& copies) {
  const media::Superblock& superblock = copies.current()->superblock;
  const auto clean = was_unmounted(device, superblock);
  Json json;
  json["device"] = device.info().path;
  json["type"] = device.info().type;
  json["label"] = label_of(superblock.label);
  json["uuid"] = media::uuid_text(superblock.uuid);
  json["format_version"] = superblock.version.get();
  json["compat"] = superblock.compat.get();
  json["ro_compat"] = superblock.ro_compat.get();
  json["incompat"] = superblock.incompat.get();
  json["created"] = time_text(superblock.created);
  json["created_seconds"] = static_cast<std::int64_t>(superblock.created.seconds.get());
  json["block_size_bytes"] = superblock.block_size_bytes.get();
  json["blocks"] = superblock.devices[0].size_bytes / superblock.block_size_bytes;
  json["journal_bytes"] = superblock.journal_bytes.get();
  json["clean"] = clean ? Json(*clean) : Json(nullptr);
  json["unsafe_shutdowns"] = superblock.unsafe_shutdowns.get();
  const auto bad_blocks = count_bad_blocks(device);
  json["bad_blocks"] = bad_blocks ? Json(*bad_blocks) : Json(nullptr);
  for (const SuperblockCopy& copy : copies.copies)
    json["superblock_copies"].push_back({{"offset_bytes", copy.offset_bytes}, {"state", copy_text(copy)}});
  for (std::uint32_t i = 0; i < superblock.device_count; ++i)
    json["members"].push_back(member_json(superblock.devices[i]));
  return json;
}

void line(const char* name, const std::string& value) {
  std::printf("%-18s%s\n", name, printable(value).c_str());
}

std::string features_text(const media::Superblock& superblock) {
  std::array<char, 80> text{};
  std::snprintf(text.data(), text.size(), "compat %#llx, ro_compat %#llx, incompat %#llx",
                static_cast<unsigned long long>(superblock.compat),
                static_cast<unsigned long long>(superblock.ro_compat),
                static_cast<unsigned long long>(superblock.incompat));
  return text.data();
}

void print_info(pmem::Device& device, const SuperblockCopies& copies) {
  const media::Superblock& superblock = copies.current()->superblock;
  const auto clean = was_unmounted(device, superblock);
  const std::string label = label_of(superblock.label);
  line("device", device.info().path + " (" + device.info().type + ")");
  line("label", label.empty() ? "(none)" : label);
  line("uuid", media::uuid_text(superblock.uuid));
  line("format version", std::to_string(superblock.version));
  line("features", features_text(superblock));
  line("created", time_text(superblock.created));
  line("block size", size_text(superblock.block_size_bytes));
  line("blocks", std::to_string(superblock.devices[0].size_bytes / superblock.block_size_bytes));
  line("journal", size_text(superblock.journal_bytes));
  line("state", !clean   ? "the journal headers are damaged"
                : *clean ? "clean"
                         : "not unmounted; the next mount recovers it");
  line("unsafe shutdowns", std::to_string(superblock.unsafe_shutdowns));
  const auto bad_blocks = count_bad_blocks(device);
  line("bad blocks", !bad_blocks        ? "unknown: the metadata cannot be read"
                     : *bad_blocks == 0 ? "none"
                                        : std::to_string(*bad_blocks) + "; see plumb badblocks");
  for (const SuperblockCopy& copy : copies.copies)
    line("superblock", "at byte " + std::to_string(copy.offset_bytes) + ": " + copy_text(copy));
  for (std::uint32_t i = 0; i < superblock.device_count; ++i) {
    const media::DeviceEntry& entry = superblock.devices[i];
    line(entry.role == 0 ? "main device" : "realtime device",
         size_text(entry.size_bytes) + ", " + (entry.kind == 0 ? "memory" : "page-cached") +
             (entry.is_volatile != 0 ? ", volatile" : "") + ", uuid " + media::uuid_text(entry.uuid));
  }
}

// A device that is a member, but not the main one.
void show_member(const pmem::Device& device, const media::MemberLabel& label, bool json) {
  if (json) {
    const Json member = {{"device", device.info().path},
                         {"type", device.info().type},
                         {"role", "realtime"},
                         {"uuid", media::uuid_text(label.uuid)},
                         {"filesystem_uuid", media::uuid_text(label.filesystem_uuid)},
                         {"label", label_of(label.label)},
                         {"size_bytes", label.size_bytes.get()},
                         {"allocation_unit_bytes", label.extent_bytes.get()}};
    std::puts(member.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    return;
  }
  const std::string name = label_of(label.label);
  line("device", device.info().path + " (" + device.info().type + ")");
  line("role", "realtime device of a plumbfs; its main device has the rest");
  line("uuid", media::uuid_text(label.uuid));
  line("of file system", media::uuid_text(label.filesystem_uuid));
  line("label", name.empty() ? "(none)" : name);
  line("size", size_text(label.size_bytes));
  line("realtime extent", size_text(label.extent_bytes));
}

Status show(const std::string& path, bool json) {
  pmem::OpenOptions how;
  how.read_only = true;
  auto device = claim_device(path, how);
  if (!device && device.error().code == EBUSY)
    return refuse(device.error().detail + "; for a mounted file system use plumb stat MOUNTPOINT");
  if (!device) return tl::unexpected(device.error());
  const SuperblockCopies copies = read_superblocks(**device);
  if (copies.current() == nullptr) {
    if (const auto label = Superblock::read_label(**device)) {
      show_member(**device, *label, json);
      return {};
    }
    const Error& error = copies.most_telling().status.error();
    if (!copies.any_magic()) return refuse(path + " holds no plumbfs");
    return fail(error.code, path + ": " + error.detail, copies.most_telling().offset_bytes);
  }
  if (json)
    std::puts(info_json(**device, copies).dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  else
    print_info(**device, copies);
  return {};
}

}  // namespace

void add_info_command(CLI::App& app, int& status) {
  struct Arguments {
    std::string device;
    bool json = false;
  };
  auto* const command = app.add_subcommand("info", "Show the superblock of a device that is not mounted");
  const auto arguments = std::make_shared<Arguments>();
  command->add_flag("--json", arguments->json, "As one JSON object");
  command->add_option("DEVICE", arguments->device, "Dax device, block device or file")->required();
  command->callback([arguments, &status] {
    if (const Status done = show(arguments->device, arguments->json); !done) {
      complain(kPlumbProgram, describe(done.error(), arguments->device));
      status = kPlumbError;
    }
  });
}

}  // namespace plumb::tools
