#include "fs/fuse/raw_session.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "fs/core/raw_file.h"
#include "fs/fuse/capabilities.h"
#include "fs/fuse/launch.h"
#include "fs/fuse/log.h"
#include "fs/fuse/mount_point.h"
#include "fs/fuse/raw_server.h"
#include "fs/fuse/session_loop.h"
#include "fs/fuse/termination.h"

namespace plumb::fuse {
namespace {

constexpr const char* kProgram = "plumb raw";

RawExit complain(const Error& error, RawExit exit = kRawFailed) {
  spdlog::error("{}", error.code == 0 ? error.detail : error.message());
  return exit;
}

RawExit exit_of(int exit_status) {
  if (exit_status == kExitOk) return kRawOk;
  return exit_status == kExitUsage ? kRawUsage : kRawFailed;
}

// What a server ended with, as its parent sees it: a RawExit, unless it was killed.
RawExit exit_of_server(int status) {
  return status == kRawOk || status == kRawUsage ? static_cast<RawExit>(status) : kRawFailed;
}

bool is_directory(const std::string& path) {
  struct stat attributes {};
  return stat(path.c_str(), &attributes) == 0 && S_ISDIR(attributes.st_mode);
}

// Who may use the device may use the file. Nobody executes it.
Status take_owner_of(const std::string& device, RawServer& server) {
  struct stat attributes {};
  if (stat(device.c_str(), &attributes) != 0) return fail(errno, device);
  server.uid = attributes.st_uid;
  server.gid = attributes.st_gid;
  server.permissions = attributes.st_mode & 0666;
  return {};
}

// A file cannot be mounted over itself: every path to it would lead to the mount, ours too.
Status check_not_itself(const Options& options) {
  struct stat device {};
  struct stat target {};
  if (stat(options.device.c_str(), &device) != 0) return {};  // said better when it is opened
  if (stat(options.mountpoint.c_str(), &target) != 0) return fail(errno, options.mountpoint);
  if (device.st_dev != target.st_dev || device.st_ino != target.st_ino) return {};
  return fail(0, options.device + " cannot be served in its own place: name another mount point");
}

std::string announcement(const RawServer& server, const pmem::Device& device) {
  const Options& options = server.options;
  std::string line = options.device + " is served raw as " + options.mountpoint;
  if (!server.name.empty()) line += "/" + server.name;
  if (server.file.read_only()) line += " (read-only)";
  line += ": " + device.durability_sentence();
  if (device.is_memory() && options.volume.writeback == Writeback::kDeferred) {
    line += " Writeback is deferred: durable is what was synced.";
  }
  return line;
}

RawExit serve(const Options& options, const pmem::Device& device, RawFile& file, Launch& launch) {
  RawServer server{.file = file, .options = options};
  if (is_directory(options.mountpoint)) server.name = std::filesystem::path(options.device).filename();
  if (const Status owner = take_owner_of(options.device, server); !owner) return complain(owner.error());
  std::vector<std::string> warnings;
  server.ask_for_io_uring = choose_io_uring(options, warnings);
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  server.on_init = [&] { report_mounted(options, announcement(server, device), launch); };

  Mount mount{.options = options, .subtype = "plumbraw", .operations = raw_operations(), .server = &server};
  if (file.read_only()) mount.session.emplace_back("ro");
  if (server.ask_for_io_uring) mount.session.emplace_back("io_uring");
  return exit_of(run_session_loop(mount));
}

RawExit run_server(Options options, const OpenRawDevice& open, Launch& launch) {
  block_termination_signals();
  for (const std::string& warning : options.warnings) spdlog::warn("{}", warning);
  auto device = open(options);
  if (!device) return complain(device.error());
  options.volume.read_only = options.volume.read_only || (*device)->info().read_only;
  auto file = RawFile::open(**device, {.read_only = options.volume.read_only,
                                       .writeback = options.volume.writeback,
                                       .sync = options.volume.sync,
                                       .interval_seconds = options.volume.interval_seconds});
  if (!file) return complain(file.error());

  const RawExit exit = serve(options, **device, **file, launch);
  if (const Status closed = (*file)->close(); !closed) return complain(closed.error());
  spdlog::info("{} is no longer served", options.device);
  return exit;
}

}  // namespace

RawExit run_raw(Options options, const OpenRawDevice& open) {
  start_log(options.debug, kProgram);
  // The name is shown in /proc/mounts, where a relative one means nothing.
  options.device = std::filesystem::absolute(options.device).lexically_normal().string();
  if (const Status log = check_log_file(options.log_file); !log) return complain(log.error(), kRawUsage);
  if (const Status usable = check_fuse_device(); !usable) return complain(usable.error());
  const auto mount_point = prepare_mount_point(options.mountpoint, MountTarget::kDirectoryOrFile);
  if (!mount_point) return complain(mount_point.error());
  options.mountpoint = *mount_point;
  if (const Status other = check_not_itself(options); !other) return complain(other.error());

  Launch launch;
  if (!options.foreground) {
    const auto finished = launch.go_to_background();
    if (!finished) return complain(finished.error());
    if (finished->has_value()) return exit_of_server(**finished);
  }
  return run_server(std::move(options), open, launch);
}

}  // namespace plumb::fuse
