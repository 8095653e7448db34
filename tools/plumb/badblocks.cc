// plumb badblocks PATH: what the medium has lost, and what it was part of; of a mounted file system from its daemon, of
// a device that is not mounted by looking. --clear tries to use again what no file owns.

#include <sys/stat.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fs/client/protocol.h"
#include "fs/core/bad_block_report.h"
#include "fs/fuse/bad_blocks.h"
#include "tools/common/claim.h"
#include "tools/common/command_line.h"
#include "tools/common/label_text.h"
#include "tools/common/size.h"
#include "tools/plumb/commands.h"
#include "tools/plumb/mounted.h"

namespace plumb::tools {
namespace {

using Json = nlohmann::ordered_json;

Status check_version(const std::string& path, std::uint32_t version) {
  if (version == protocol::kVersion) return {};
  return refuse(path + ": its daemon answers in version " + std::to_string(version) + ", this program knows " +
                std::to_string(protocol::kVersion) + "; use the plumb of the same release as the daemon");
}

Error root_only(const std::string& path, Error error) {
  if (error.code == EPERM) return Error{EPERM, path + ": only root may ask: the list has names of files"};
  return error;
}

Result<Json> of_mount(const std::string& path) {
  PLUMB_ASSIGN(const auto mounted, MountedPath::open(path));
  Json all = Json::array();
  const auto answer = std::make_unique<protocol::BadBlocks>();  // zeros: from the start
  do {
    if (const Status asked = mounted.ioctl(protocol::kIocBadBlocks, answer.get()); !asked)
      return tl::unexpected(root_only(path, asked.error()));
    PLUMB_TRY(check_version(path, answer->version));
    const Json part = answer->length_bytes <= sizeof answer->text
                          ? Json::parse(answer->text, answer->text + answer->length_bytes, nullptr, false)
                          : Json();
    if (!part.is_array()) return refuse(path + ": the answer of its daemon is no list of bad blocks");
    all.insert(all.end(), part.begin(), part.end());
  } while (answer->cursor != protocol::kBadBlocksEnd);
  return all;
}

Result<Json> of_device(const std::string& path) {
  pmem::OpenOptions how;
  how.read_only = true;
  auto device = claim_device(path, how);
  if (!device && device.error().code == EBUSY)
    return refuse(device.error().detail + "; for a mounted file system name its mount point");
  if (!device) return tl::unexpected(device.error());
  // Everything that is looked at lies on the main device.
  PLUMB_ASSIGN(const Superblock superblock, Superblock::read_main(**device));
  Store store(superblock, true);
  PLUMB_TRY(store.open());
  PLUMB_ASSIGN(const auto reports, report_bad_blocks(store, store.bad_blocks().all()));
  Json all = Json::array();
  for (const BadBlockReport& report : reports) all.push_back(fuse::to_json(report));
  return all;
}

Status clear(const std::string& path, bool json) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode))
    return refuse(path + ": --clear works on a mounted file system; name its mount point");
  PLUMB_ASSIGN(const auto mounted, MountedPath::open(path));
  protocol::ClearedBadBlocks answer{};
  if (const Status asked = mounted.ioctl(protocol::kIocClearBadBlocks, &answer); !asked)
    return tl::unexpected(root_only(path, asked.error()));
  PLUMB_TRY(check_version(path, answer.version));
  if (json)
    std::puts(Json{{"cleared", answer.cleared}, {"left", answer.left}}.dump().c_str());
  else
    std::printf("%llu cleared, %llu left\n", static_cast<unsigned long long>(answer.cleared),
                static_cast<unsigned long long>(answer.left));
  return {};
}

std::string use_text(const Json& entry) {
  const std::string use = entry.value("use", "unknown");
  if (use != "file") return use;
  const Json path = entry.value("path", Json());
  const std::string name = path.is_string() ? printable(path.get<std::string>()) : "a file without a name";
  return name + " (inode " + std::to_string(entry.value("inode", std::uint64_t{0})) + ", at byte " +
         std::to_string(entry.value("file_offset_bytes", std::uint64_t{0})) + ")";
}

void print_list(const Json& all) {
  if (all.empty()) {
    std::puts("no bad blocks");
    return;
  }
  std::printf("%-9s %20s %10s  %s\n", "device", "offset bytes", "length", "part of");
  for (const Json& entry : all)
    std::printf("%-9s %20llu %10s  %s\n", entry.value("device", "").c_str(),
                static_cast<unsigned long long>(entry.value("offset_bytes", std::uint64_t{0})),
                size_text(entry.value("length_bytes", std::uint64_t{0})).c_str(), use_text(entry).c_str());
}

Status show(const std::string& path, bool json) {
  struct stat status {};
  const bool is_directory = ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
  PLUMB_ASSIGN(const Json all, is_directory ? of_mount(path) : of_device(path));
  if (json)
    std::puts(all.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  else
    print_list(all);
  return {};
}

}  // namespace

void add_badblocks_command(CLI::App& app, int& status) {
  struct Arguments {
    std::string path;
    bool json = false;
    bool clear = false;
  };
  auto* const command = app.add_subcommand("badblocks", "Show what the medium has lost, and what it was part of");
  const auto arguments = std::make_shared<Arguments>();
  command->add_flag("--json", arguments->json, "As JSON");
  command->add_flag("--clear", arguments->clear, "Try to use again what no file owns, of a mounted file system");
  command->add_option("PATH", arguments->path, "A mount point, or a device that is not mounted")->required();
  command->callback([arguments, &status] {
    const Status done =
        arguments->clear ? clear(arguments->path, arguments->json) : show(arguments->path, arguments->json);
    if (!done) {
      complain(kPlumbProgram, describe(done.error(), arguments->path));
      status = kPlumbError;
    }
  });
}

}  // namespace plumb::tools
