#include "fs/fuse/session.h"

#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fs/core/members.h"
#include "fs/core/superblock.h"
#include "fs/core/volume.h"
#include "fs/fuse/block_device_hold.h"
#include "fs/fuse/handlers.h"
#include "fs/fuse/log.h"
#include "fs/fuse/mount_point.h"
#include "fs/fuse/server.h"
#include "fs/fuse/session_loop.h"
#include "fs/fuse/termination.h"
#include "pmem/client_lock.h"
#include "pmem/device.h"

namespace plumb::fuse {
namespace {

constexpr auto kBusyPatience = std::chrono::seconds(10);
constexpr auto kBusySilence = std::chrono::seconds(1);
constexpr auto kBusyPoll = std::chrono::milliseconds(50);

int complain(const Error& error, int status) {
  spdlog::error("{}", error.message());
  return status;
}

// The error, as one that names the device whether or not its own detail does.
Error about(const std::string& device, Error error) {
  if (error.detail.find(device) == std::string::npos) {
    error.detail = error.detail.empty() ? device : device + ": " + error.detail;
  }
  return error;
}

// --- the device and the volume ---

Result<std::unique_ptr<pmem::Device>> open_once(const Options& options, const std::string& path,
                                                BlockDeviceHold* hold) {
  pmem::OpenOptions how;
  if (options.fuseblk && hold != nullptr) {
    PLUMB_TRY(hold->take(path));
    how.hold_block_device = false;
  }
  how.assume_pmem = options.assume == Assume::kPmem;
  how.assert_persistent = options.assume == Assume::kPersistent;
  auto device = pmem::open_device(path, how);
  // A read-only mount recovers too, so it writes if it can.
  const bool forbidden = !device && (device.error().code == EROFS || device.error().code == EACCES);
  if (forbidden && options.volume.read_only) {
    how.read_only = true;
    device = pmem::open_device(path, how);
  }
  return device;
}

// Claims the device. The daemon of an earlier mount may still be writing its last bytes after umount(8) has returned:
// that is worth waiting for, a mounted device is not.
// `hold`: of the main device; null for the others.
Result<std::unique_ptr<pmem::Device>> claim(const Options& options, const std::string& path, BlockDeviceHold* hold) {
  const auto start = std::chrono::steady_clock::now();
  bool said = false;
  while (true) {
    auto device = open_once(options, path, hold);
    if (device) return device;
    if (hold != nullptr) hold->release();
    if (device.error().code == EBUSY) {
      const std::string elsewhere = where_mounted(path);
      if (!elsewhere.empty()) return fail(EBUSY, path + " is mounted on " + elsewhere);
      const auto waited = std::chrono::steady_clock::now() - start;
      if (waited > kBusySilence && !std::exchange(said, true)) spdlog::info("{} is in use, waiting", path);
      if (waited < kBusyPatience) {
        std::this_thread::sleep_for(kBusyPoll);
        continue;
      }
    }
    return tl::unexpected(about(path, device.error()));
  }
}

Status check_uuid(const Options& options, pmem::Device& device) {
  if (!options.uuid) return {};
  const auto superblock = Superblock::read_main(device);
  if (!superblock) return tl::unexpected(about(options.device, superblock.error()));
  if (!std::equal(options.uuid->begin(), options.uuid->end(), superblock->media().uuid.begin())) {
    return fail(ENODEV, options.device + " has another file system than the one with the uuid asked for");
  }
  return {};
}

// --- the FUSE session ---

std::string announcement(const Options& options, const OpenMembers& devices, const Volume& volume) {
  std::string line = "plumbfs: mounted on " + options.mountpoint + (volume.read_only() ? " (read-only)" : "") + ": " +
                     devices.main->durability_sentence();
  if (devices.realtime) line += " Realtime device: " + devices.realtime->durability_sentence();
  const bool memory = devices.main->is_memory() || (devices.realtime && devices.realtime->is_memory());
  if (memory && options.volume.writeback == Writeback::kDeferred) {
    line += " Writeback is deferred: durable is what was synced.";
  }
  return line;
}

// Everything between a mounted volume and its unmount. Returns an exit status.
int run_fuse(const Options& options, const OpenMembers& devices, BlockDeviceHold& hold, Volume& volume,
             Launch& launch) {
  Server server(volume, options);
  std::vector<std::string> warnings;
  server.ask_for_io_uring = choose_io_uring(options, warnings);
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);
  server.on_init = [&] { report_mounted(options, announcement(options, devices, volume), launch); };

  Mount mount{.options = options, .subtype = "plumbfs", .operations = operations(), .server = &server};
  if (volume.read_only()) mount.session.emplace_back("ro");
  if (server.ask_for_io_uring) mount.session.emplace_back("io_uring");
  if (options.fuseblk) {
    mount.session.emplace_back("blkdev");
    // The size it has already: the kernel would drop the pages of the device, dirty ones among them, to change it.
    mount.session.push_back("blksize=" + std::to_string(hold.block_bytes()));
    mount.take_syncfs = true;
  }
  mount.on_created = [&](fuse_session* session) {
    server.session = session;
    hold.release();  // now it is the mount's
  };
  const int status = run_session_loop(mount);
  // What a lazy unmount left behind; no request runs any more. Who has leased something may live on: nothing of it is
  // given back, and what was stored so far is flushed while it is known where.
  if (volume.counters().leased_inodes != 0) {
    spdlog::warn("{}: programs still map files; what is deleted stays until they end", options.device);
    if (const Status synced = volume.sync(); !synced) spdlog::error("{}: {}", options.device, synced.error().message());
  }
  server.files.clear();
  server.inodes.clear();
  return status;
}

}  // namespace

int run_session(Options options, Launch& launch) {
  block_termination_signals();
  // The name is shown in /proc/mounts, where a relative one means nothing.
  options.device = std::filesystem::absolute(options.device).lexically_normal().string();
  for (const std::string& warning : options.warnings) spdlog::warn("{}", warning);
  if (const Status log = check_log_file(options.log_file); !log) return complain(log.error(), kExitUsage);
  if (options.assume == Assume::kPmem) {
    spdlog::warn("assume=pmem: {} is treated as persistent memory. A power cut may destroy the file system.",
                 options.device);
  }

  if (!options.realtime_device.empty())
    options.realtime_device = std::filesystem::absolute(options.realtime_device).lexically_normal().string();
  BlockDeviceHold hold;
  auto device = claim(options, options.device, &hold);
  if (!device) return complain(device.error(), kExitFailed);
  if (const Status same = check_uuid(options, **device); !same) return complain(same.error(), kExitFailed);
  auto devices = open_members(std::move(*device), options.realtime_device,
                              [&](const std::string& path) { return claim(options, path, nullptr); });
  if (!devices) return complain(about(options.device, devices.error()), kExitFailed);
  // As failures of requests: a medium that fails must not fill the log.
  options.volume.on_notice = [](const std::string& line) { log_failure(line); };
  const auto locks = pmem::ClientLocks::open(options.device);
  if (!locks) return complain(locks.error(), kExitFailed);
  options.volume.has_stale_clients = [&](std::uint64_t epoch) { return (*locks)->others_than(epoch); };
  auto volume = Volume::mount(devices->members(), options.volume);
  if (!volume) return complain(about(options.device, volume.error()), kExitFailed);

  const int status = run_fuse(options, *devices, hold, **volume, launch);
  const Status unmounted = (*volume)->unmount();
  if (!unmounted) {
    spdlog::error("{} was not unmounted cleanly: {}", options.device, unmounted.error().message());
    return status == kExitOk ? kExitSystem : status;
  }
  spdlog::info("{} is unmounted", options.device);
  return status;
}

}  // namespace plumb::fuse
