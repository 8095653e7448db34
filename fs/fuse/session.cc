#include "fs/fuse/session.h"

#include <pthread.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "fs/core/members.h"
#include "fs/core/superblock.h"
#include "fs/core/volume.h"
#include "fs/fuse/handlers.h"
#include "fs/fuse/log.h"
#include "fs/fuse/mount_point.h"
#include "fs/fuse/server.h"
#include "fs/fuse/termination.h"
#include "pmem/device.h"

namespace plumb::fuse {
namespace {

using SessionPointer = std::unique_ptr<fuse_session, void (*)(fuse_session*)>;

constexpr auto kBusyPatience = std::chrono::seconds(10);
constexpr auto kBusySilence = std::chrono::seconds(1);
constexpr auto kBusyPoll = std::chrono::milliseconds(50);
constexpr unsigned kLeastThreads = 16;

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

Result<std::unique_ptr<pmem::Device>> open_once(const Options& options, const std::string& path) {
  pmem::OpenOptions how;
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
Result<std::unique_ptr<pmem::Device>> claim(const Options& options, const std::string& path) {
  const auto start = std::chrono::steady_clock::now();
  bool said = false;
  while (true) {
    auto device = open_once(options, path);
    if (device) return device;
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

// libfuse splits -o at commas and takes the character after a backslash literally.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == ',' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

SessionPointer make_session(const Options& options, Server& server) {
  std::string list = "subtype=plumbfs,fsname=" + escaped(options.device);
  for (const std::string& option : options.kernel) list += "," + escaped(option);
  if (server.volume.read_only()) list += ",ro";
  if (server.ask_for_io_uring) list += ",io_uring";
  if (options.debug) list += ",debug";

  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  const bool complete = fuse_opt_add_arg(&arguments, "plumbfs") == 0 && fuse_opt_add_arg(&arguments, "-o") == 0 &&
                        fuse_opt_add_arg(&arguments, list.c_str()) == 0;
  const fuse_lowlevel_ops ops = operations();
  fuse_session* session = complete ? fuse_session_new(&arguments, &ops, sizeof ops, &server) : nullptr;
  fuse_opt_free_args(&arguments);
  return {session, fuse_session_destroy};
}

unsigned thread_count(const Options& options) {
  return options.threads != 0 ? options.threads : std::max(kLeastThreads, 2 * std::thread::hardware_concurrency());
}

int serve(fuse_session* session, const Options& options) {
  const std::unique_ptr<fuse_loop_config, void (*)(fuse_loop_config*)> config(fuse_loop_cfg_create(),
                                                                              fuse_loop_cfg_destroy);
  if (!config) return -ENOMEM;
  fuse_loop_cfg_set_clone_fd(config.get(), 1);
  fuse_loop_cfg_set_max_threads(config.get(), thread_count(options));
  if (options.max_idle_threads) fuse_loop_cfg_set_idle_threads(config.get(), *options.max_idle_threads);
  return fuse_session_loop_mt(session, config.get());
}

// Makes the loop end. Before 3.17 it notices only when a signal interrupts its main thread.
class LoopEnd {
 public:
  explicit LoopEnd(fuse_session* session) : session_(session), loop_thread_(pthread_self()) {
    struct sigaction wake {};
    wake.sa_handler = [](int) {};
    sigaction(SIGUSR1, &wake, nullptr);
  }
  void request() {
    fuse_session_exit(session_);
#if !PLUMB_FUSE_HAS_FEATURE_FLAGS
    while (!ended_) {
      pthread_kill(loop_thread_, SIGUSR1);
      std::this_thread::sleep_for(kBusyPoll);
    }
#endif
  }
  void happened() {
    ended_ = true;
  }

 private:
  fuse_session* const session_;
  [[maybe_unused]] const pthread_t loop_thread_;
  std::atomic<bool> ended_{false};
};

void announce(const Options& options, const OpenMembers& devices, const Volume& volume) {
  std::string line = devices.main->durability_sentence();
  if (devices.realtime) line += " Realtime device: " + devices.realtime->durability_sentence();
  const bool memory = devices.main->is_memory() || (devices.realtime && devices.realtime->is_memory());
  if (memory && options.volume.writeback == Writeback::kDeferred) {
    line += " Writeback is deferred: durable is what was synced.";
  }
  std::printf("plumbfs: mounted on %s%s: %s\n", options.mountpoint.c_str(), volume.read_only() ? " (read-only)" : "",
              line.c_str());
  std::fflush(stdout);
}

// Everything between a mounted volume and its unmount. Returns an exit status.
int run_fuse(const Options& options, const OpenMembers& devices, Volume& volume, Launch& launch) {
  Server server(volume, options);
  std::vector<std::string> warnings;
  server.ask_for_io_uring = choose_io_uring(options, warnings);
  for (const std::string& warning : warnings) spdlog::warn("{}", warning);

  const SessionPointer session = make_session(options, server);
  if (!session) return kExitUsage;
  server.session = session.get();
  server.on_init = [&] {
    announce(options, devices, volume);
    if (!options.foreground || !options.log_file.empty()) {
      const Status logging = log_to_file_or_syslog(options.log_file, options.debug);
      if (!logging) spdlog::warn("{}", logging.error().message());
    }
    spdlog::info("{} is mounted on {}", options.device, options.mountpoint);
    launch.report_ready();
  };
  if (fuse_session_mount(session.get(), options.mountpoint.c_str()) != 0) {
    spdlog::error("{} cannot be mounted on {}", options.device, options.mountpoint);
    return kExitFailed;
  }

  int result = 0;
  {
    LoopEnd end(session.get());
    std::atomic<bool> by_signal{false};
    const TerminationWatch watch([&](int signal) {
      spdlog::info("ending: {}", strsignal(signal));
      by_signal = true;
      unmount(options.mountpoint);
      end.request();
    });
    result = serve(session.get(), options);
    end.happened();
    if (by_signal) result = 0;
  }
  // What a lazy unmount left behind; no request runs any more.
  server.files.clear();
  server.inodes.clear();
  if (result == 0) return kExitOk;
  spdlog::error("the session ended: {}", strerror(result < 0 ? -result : result));
  unmount(options.mountpoint);
  return kExitSystem;
}

Status check_log_file(const std::string& file) {
  if (file.empty() || std::ofstream(file, std::ios::app)) return {};
  return fail(errno, "the log file " + file);
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
  auto device = claim(options, options.device);
  if (!device) return complain(device.error(), kExitFailed);
  if (const Status same = check_uuid(options, **device); !same) return complain(same.error(), kExitFailed);
  auto devices = open_members(std::move(*device), options.realtime_device,
                              [&](const std::string& path) { return claim(options, path); });
  if (!devices) return complain(about(options.device, devices.error()), kExitFailed);
  auto volume = Volume::mount(devices->members(), options.volume);
  if (!volume) return complain(about(options.device, volume.error()), kExitFailed);

  const int status = run_fuse(options, *devices, **volume, launch);
  const Status unmounted = (*volume)->unmount();
  if (!unmounted) {
    spdlog::error("{} was not unmounted cleanly: {}", options.device, unmounted.error().message());
    return status == kExitOk ? kExitSystem : status;
  }
  spdlog::info("{} is unmounted", options.device);
  return status;
}

}  // namespace plumb::fuse
