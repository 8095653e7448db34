// plumb_kill: random operations by several processes, the daemon killed at a random moment, then mounted again.
//
// After each round: fsck.plumbfs -n finds nothing, everything acknowledged is there, the operation in flight of each
// worker has happened or has not (data: each byte old or new), and the next round works on the same file system.
//
// Exit status: 0 passed, 1 failed, 2 wrong usage.
#include <dirent.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "test/kill/daemon.h"
#include "test/kill/model.h"
#include "test/kill/operation.h"
#include "test/kill/power.h"
#include "test/kill/verify.h"
#include "test/kill/worker.h"

namespace kill_test {
namespace {

using namespace std::chrono_literals;
constexpr auto kWorkerLimit = 60s;  // a worker that outlives the daemon this long hangs

struct Settings {
  Programs programs;
  unsigned rounds = 10;
  unsigned workers = 4;
  unsigned longest_ms = 400;
  std::uint64_t seed = 0;
  bool use_mmap = true;
};

/// Memory that the workers share with the supervisor.
template <typename T>
T* make_shared_memory() {
  void* memory = ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw Failure(std::string("mmap: ") + std::strerror(errno));
  return new (memory) T();
}

struct WorkerState {
  std::string directory;
  Tree tree;
  Log* log = nullptr;
  std::uint64_t next_number = 1;
  pid_t pid = -1;
};

int remove_entry(const char* path, const struct stat* /*status*/, int /*type*/, struct FTW* where) {
  return where->level == 0 ? 0 : std::remove(path);
}

class Supervisor {
 public:
  explicit Supervisor(Settings settings)
      : settings_(std::move(settings)),
        daemon_(settings_.programs),
        random_(settings_.seed),
        control_(make_shared_memory<Control>()),
        workers_(settings_.workers) {
    for (WorkerState& worker : workers_) worker.log = make_shared_memory<Log>();
  }
  ~Supervisor() {
    for (const WorkerState& worker : workers_) {
      if (worker.pid > 0) {
        ::kill(worker.pid, SIGKILL);
        ::waitpid(worker.pid, nullptr, 0);
      }
    }
  }
  Supervisor(const Supervisor&) = delete;
  Supervisor& operator=(const Supervisor&) = delete;

  void run() {
    daemon_.start();
    daemon_.wait_until_mounted();
    const std::uint64_t free_at_first = free_blocks();
    for (unsigned i = 0; i < workers_.size(); ++i) {
      workers_[i].directory = settings_.programs.mount_point + "/w" + std::to_string(i);
      if (::mkdir(workers_[i].directory.c_str(), 0755) != 0)
        throw Failure(std::string("mkdir: ") + std::strerror(errno));
    }
    for (round_ = 0; round_ < settings_.rounds; ++round_) {
      one_round();
      if (random_() % 8 == 0 || round_ + 1 == settings_.rounds) clean_remount();
    }
    delete_everything(free_at_first);
    daemon_.unmount();
    daemon_.check(true);
    std::printf(
        "%llu operations acknowledged; in flight at the kill: %u before, %u after, %u torn; %u kills in recovery\n",
        static_cast<unsigned long long>(total_), before_, after_, torn_, recovery_kills_);
    if (daemon_.most_mounts() > 1) {
      throw Failure(std::to_string(daemon_.most_mounts()) +
                    " mounts were stacked: a dead one was mounted over, not detached");
    }
  }

  /// For the report of a failure.
  [[nodiscard]] std::string where() const {
    return "round " + std::to_string(round_) + ", seed " + std::to_string(settings_.seed);
  }

 private:
  void start_worker(WorkerState& worker, std::uint64_t seed) {
    worker.log->issued = 0;
    worker.log->acknowledged = 0;
    worker.log->error = 0;
    worker.pid = ::fork();
    if (worker.pid < 0) throw Failure(std::string("fork: ") + std::strerror(errno));
    if (worker.pid > 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    int status = 4;
    {
      Worker body(worker.directory, worker.tree, *worker.log, *control_, seed, worker.next_number, settings_.use_mmap);
      status = body.run();
    }
    ::_exit(status);
  }

  void end_worker(WorkerState& worker, unsigned index) {
    const auto limit = std::chrono::steady_clock::now() + kWorkerLimit;
    int status = 0;
    while (::waitpid(worker.pid, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > limit) {
        throw Failure("worker " + std::to_string(index) + " hangs after the death of the daemon");
      }
      std::this_thread::sleep_for(1ms);
    }
    worker.pid = -1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    std::string text = "worker " + std::to_string(index) + " ended with wait status " + std::to_string(status);
    if (const int error = worker.log->error; error != 0) {
      text += ": an operation failed on the living file system: " + std::string(std::strerror(error));
    }
    throw Failure(text + history(worker));
  }

  /// The last operations of the round, and before them those that name the path.
  static std::string history(const WorkerState& worker, const std::string& path = "") {
    constexpr std::uint64_t kShown = 30;
    const std::uint64_t issued = worker.log->issued;
    const std::uint64_t acknowledged = worker.log->acknowledged;
    std::string text = "\n  its last operations:\n";
    for (std::uint64_t i = 0; i < issued; ++i) {
      const Operation& operation = worker.log->operations[i];
      const bool named = path.ends_with("/" + std::string(operation.path.data())) ||
                         path.ends_with("/" + std::string(operation.other.data()));
      if (i + kShown < issued && !(named && !path.empty())) continue;
      text += "    " + operation.text() + (i < acknowledged ? "\n" : "   (in flight)\n");
    }
    return text;
  }

  void one_round() {
    control_->killed = false;
    for (WorkerState& worker : workers_) start_worker(worker, random_());
    const unsigned longest_ms = random_() % 6 == 0 ? 20 : settings_.longest_ms;
    const auto delay_ms = static_cast<unsigned>(random_() % longest_ms);
    std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
    // A failed operation or a daemon that died by itself must be told from what the kill does.
    const bool alive = daemon_.running();
    control_->killed = alive;
    if (alive) daemon_.kill_hard();
    for (unsigned i = 0; i < workers_.size(); ++i) end_worker(workers_[i], i);
    if (!alive) throw Failure("the daemon ended by itself");
    daemon_.check(false);
    while (random_() % 4 == 0) {
      daemon_.start();
      std::this_thread::sleep_for(std::chrono::microseconds(random_() % 30'000));
      daemon_.kill_hard();
      daemon_.check(false);
      ++recovery_kills_;
    }
    daemon_.start();
    daemon_.wait_until_mounted();
    verify(delay_ms);
  }

  void verify(unsigned delay_ms) {
    std::string line;
    for (unsigned i = 0; i < workers_.size(); ++i) {
      WorkerState& worker = workers_[i];
      const std::uint64_t acknowledged = worker.log->acknowledged;
      const std::uint64_t issued = worker.log->issued;
      for (std::uint64_t k = 0; k < acknowledged; ++k) worker.tree.apply(worker.log->operations[k]);
      total_ += acknowledged;
      line += " " + std::to_string(acknowledged);
      try {
        if (issued > acknowledged) {
          Operation& operation = worker.log->operations[acknowledged];
          operation.inode = 0;
          const char* outcome = resolve_in_flight(worker.directory, worker.tree, operation);
          line += std::string("(") + kKindNames[static_cast<std::size_t>(operation.kind)] + ": " + outcome + ")";
          ++(*outcome == 'b' ? before_ : *outcome == 'a' ? after_ : torn_);
        }
        compare(worker.directory, worker.tree);
      } catch (const Difference& difference) {
        throw Failure("worker " + std::to_string(i) + ": " + difference.what() + history(worker, difference.path()));
      }
      worker.next_number += issued;
    }
    std::printf("round %3u: killed after %3u ms, acknowledged:%s\n", round_, delay_ms, line.c_str());
  }

  void clean_remount() {
    daemon_.unmount();
    daemon_.check(true);
    daemon_.start();
    daemon_.wait_until_mounted();
    for (unsigned i = 0; i < workers_.size(); ++i) {
      try {
        compare(workers_[i].directory, workers_[i].tree);
      } catch (const Difference& difference) {
        throw Failure("after a clean unmount, worker " + std::to_string(i) + ": " + difference.what());
      }
    }
  }

  [[nodiscard]] std::uint64_t free_blocks() const {
    struct statvfs fs {};
    if (::statvfs(settings_.programs.mount_point.c_str(), &fs) != 0) {
      throw Failure(std::string("statvfs: ") + std::strerror(errno));
    }
    return fs.f_bfree;
  }

  void delete_everything(std::uint64_t free_at_first) {
    if (::nftw(settings_.programs.mount_point.c_str(), remove_entry, 64, FTW_PHYS | FTW_DEPTH | FTW_MOUNT) != 0) {
      throw Failure(std::string("deleting everything at the end: ") + std::strerror(errno));
    }
    constexpr int kPolls = 300;
    for (int i = 0; i < kPolls && free_blocks() != free_at_first; ++i) std::this_thread::sleep_for(50ms);
    if (const std::uint64_t now = free_blocks(); now != free_at_first) {
      throw Failure("with everything deleted " + std::to_string(now) + " blocks are free, at first it were " +
                    std::to_string(free_at_first));
    }
  }

  Settings settings_;
  Daemon daemon_;
  std::mt19937_64 random_;
  Control* control_;
  std::vector<WorkerState> workers_;
  unsigned round_ = 0;
  std::uint64_t total_ = 0;
  unsigned before_ = 0, after_ = 0, torn_ = 0, recovery_kills_ = 0;
};

}  // namespace
}  // namespace kill_test

int main(int argc, char** argv) {
  kill_test::Settings settings;
  settings.seed = std::random_device{}();
  bool no_mmap = false;
  CLI::App app("Kills the daemon at random moments and checks what was acknowledged");
  app.add_option("device", settings.programs.device, "A fresh file system")->required()->check(CLI::ExistingFile);
  app.add_option("mountpoint", settings.programs.mount_point, "Where to mount it")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--plumbfs", settings.programs.plumbfs, "The daemon")->required();
  app.add_option("--fsck", settings.programs.fsck, "fsck.plumbfs")->required();
  app.add_option("--log", settings.programs.log, "Output of the daemon and of fsck is appended here")->required();
  app.add_option("--options", settings.programs.options, "Mount options");
  app.add_option("--rounds", settings.rounds)->capture_default_str();
  app.add_option("--workers", settings.workers)->check(CLI::Range(1, 32))->capture_default_str();
  app.add_option("--longest-ms", settings.longest_ms, "Longest time before a kill")->capture_default_str();
  app.add_option("--seed", settings.seed, "Decides operations and moments (default: random, printed)");
  app.add_flag("--no-mmap", no_mmap, "Without mappings");
  kill_test::PowerSettings power;
  app.add_option("--power-record", power.record, "Work until the power goes; the record, checked at the next start");
  app.add_option("--ready", power.ready, "With --power-record: make this file when the work begins");
  app.add_flag("--finish", power.finish, "With --power-record: check only, and end");
  CLI11_PARSE(app, argc, argv);
  settings.use_mmap = !no_mmap;
  if (settings.longest_ms == 0) settings.longest_ms = 1;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  if (!power.record.empty()) {
    power.programs = settings.programs;
    power.use_mmap = settings.use_mmap;
    try {
      kill_test::run_until_power_cut(power);
      return 0;
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "FAILED: %s\n", failure.what());
      return 1;
    }
  }
  std::printf("seed %llu\n", static_cast<unsigned long long>(settings.seed));
  std::string where;
  try {
    kill_test::Supervisor supervisor(settings);
    try {
      supervisor.run();
      return 0;
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "FAILED: %s: %s\n", supervisor.where().c_str(), failure.what());
    }
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "FAILED: %s\n", failure.what());
  }
  return 1;
}
