#include "fs/fuse/session_loop.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>

#include "fs/fuse/log.h"
#include "fs/fuse/mount_point.h"
#include "fs/fuse/syncfs.h"
#include "fs/fuse/termination.h"

namespace plumb::fuse {
namespace {

using SessionPointer = std::unique_ptr<fuse_session, void (*)(fuse_session*)>;

constexpr unsigned kLeastThreads = 16;
#if !PLUMB_FUSE_HAS_FEATURE_FLAGS
constexpr auto kLoopEndPoll = std::chrono::milliseconds(50);
#endif

// libfuse splits -o at commas and takes the character after a backslash literally.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == ',' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

SessionPointer make_session(const Mount& mount) {
  std::string list = "subtype=" + mount.subtype + ",fsname=" + escaped(mount.options.device);
  for (const std::string& option : mount.options.kernel) list += "," + escaped(option);
  for (const std::string& option : mount.session) list += "," + escaped(option);
  if (mount.options.debug) list += ",debug";

  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  const bool complete = fuse_opt_add_arg(&arguments, mount.subtype.c_str()) == 0 &&
                        fuse_opt_add_arg(&arguments, "-o") == 0 && fuse_opt_add_arg(&arguments, list.c_str()) == 0;
  fuse_session* session =
      complete ? fuse_session_new(&arguments, &mount.operations, sizeof mount.operations, mount.server) : nullptr;
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
      std::this_thread::sleep_for(kLoopEndPoll);
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

}  // namespace

int run_session_loop(const Mount& mount) {
  const Options& options = mount.options;
  const SessionPointer session = make_session(mount);
  if (!session) return kExitUsage;
  if (mount.on_created) mount.on_created(session.get());
  if (fuse_session_mount(session.get(), options.mountpoint.c_str()) != 0) {
    spdlog::error("{} cannot be mounted on {}", options.device, options.mountpoint);
    return kExitFailed;
  }

  int result = 0;
  {
    LoopEnd end(session.get());
    RequestLoop own_loop(session.get(), thread_count(options));
    std::atomic<bool> by_signal{false};
    const TerminationWatch watch([&](int signal) {
      spdlog::info("ending: {}", strsignal(signal));
      by_signal = true;
      unmount(options.mountpoint);
      if (mount.take_syncfs) {
        own_loop.end();
      } else {
        end.request();
      }
    });
    result = mount.take_syncfs ? own_loop.run() : serve(session.get(), options);
    end.happened();
    if (by_signal) result = 0;
  }
  if (result == 0) return kExitOk;
  spdlog::error("the session ended: {}", strerror(result < 0 ? -result : result));
  unmount(options.mountpoint);
  return kExitSystem;
}

void report_mounted(const Options& options, const std::string& line, Launch& launch) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
  if (!options.foreground || !options.log_file.empty()) {
    const Status logging = log_to_file_or_syslog(options.log_file, options.debug);
    if (!logging) spdlog::warn("{}", logging.error().message());
  }
  spdlog::info("{} is mounted on {}", options.device, options.mountpoint);
  launch.report_ready();
}

}  // namespace plumb::fuse
