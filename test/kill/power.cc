#include "test/kill/power.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "test/kill/model.h"
#include "test/kill/operation.h"
#include "test/kill/verify.h"
#include "test/kill/worker.h"

namespace kill_test {
namespace {

using namespace std::chrono_literals;
constexpr unsigned kWorkers = 2;
constexpr std::uint64_t kMagic = 0x706c756d62637574;  // "plumbcut"

/// Plain data on persistent memory. What is stored is there after the cut: an emulated NVDIMM has no caches to lose.
struct Record {
  std::uint64_t magic;
  std::uint64_t rounds;         // that have begun
  std::uint64_t next_number;    // of operations: unique in the life of the file system
  std::uint64_t acknowledged;   // in all rounds
  std::uint64_t free_at_first;  // blocks of the empty file system
  std::atomic<bool> working;    // workers have begun: the logs count
  Control control;
  std::array<Log, kWorkers> logs;
};

Record& map_record(const std::string& path) {
  constexpr std::size_t kAlign = std::size_t{2} << 20;
  constexpr std::size_t kLength = (sizeof(Record) + kAlign - 1) / kAlign * kAlign;
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) throw Failure(path + ": " + std::strerror(errno));
  void* memory = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (memory == MAP_FAILED) throw Failure("mapping " + path + ": " + std::strerror(errno));
  return *static_cast<Record*>(memory);
}

int remove_entry(const char* path, const struct stat* /*status*/, int /*type*/, struct FTW* where) {
  return where->level == 0 ? 0 : std::remove(path);
}

class PowerCut {
 public:
  explicit PowerCut(const PowerSettings& settings)
      : settings_(settings), daemon_(settings.programs), record_(map_record(settings.record)) {}

  void run() {
    daemon_.check(false);  // before anything has recovered: fsck replays in memory
    daemon_.start();
    daemon_.wait_until_mounted();
    if (record_.magic != kMagic) {
      record_.free_at_first = free_blocks();
      record_.next_number = 1;
      record_.rounds = 0;
      record_.acknowledged = 0;
      record_.working = false;
      record_.magic = kMagic;
    }
    if (record_.working) verify();
    delete_everything();
    record_.working = false;
    if (settings_.finish) {
      daemon_.unmount();
      daemon_.check(true);
      std::printf("%llu power cuts, %llu operations acknowledged, nothing lost\n",
                  static_cast<unsigned long long>(record_.rounds),
                  static_cast<unsigned long long>(record_.acknowledged));
      return;
    }
    work();
  }

 private:
  [[nodiscard]] std::string directory(unsigned worker) const {
    return settings_.programs.mount_point + "/w" + std::to_string(worker);
  }

  void verify() {
    std::string line;
    for (unsigned i = 0; i < kWorkers; ++i) {
      Log& log = record_.logs[i];
      if (log.error != 0) {
        throw Failure("worker " + std::to_string(i) +
                      ": before the cut an operation failed: " + std::strerror(log.error));
      }
      const std::uint64_t acknowledged = log.acknowledged;
      const std::uint64_t issued = log.issued;
      Tree tree;
      for (std::uint64_t k = 0; k < acknowledged; ++k) tree.apply(log.operations[k]);
      line += " " + std::to_string(acknowledged);
      try {
        if (issued > acknowledged) {
          Operation& operation = log.operations[acknowledged];
          operation.inode = 0;
          const char* outcome = resolve_in_flight(directory(i), tree, operation);
          line += std::string("(") + kKindNames[static_cast<std::size_t>(operation.kind)] + ": " + outcome + ")";
        }
        compare(directory(i), tree);
      } catch (const Difference& difference) {
        std::string text = "worker " + std::to_string(i) + ": " + difference.what() + "\n  its last operations:\n";
        for (std::uint64_t k = issued > 30 ? issued - 30 : 0; k < issued; ++k) {
          text += "    " + log.operations[k].text() + (k < acknowledged ? "\n" : "   (in flight)\n");
        }
        throw Failure(text);
      }
      record_.acknowledged += acknowledged;
      record_.next_number += issued;
    }
    std::printf("power cut %llu: acknowledged and there:%s\n", static_cast<unsigned long long>(record_.rounds),
                line.c_str());
  }

  void delete_everything() {
    if (::nftw(settings_.programs.mount_point.c_str(), remove_entry, 64, FTW_PHYS | FTW_DEPTH | FTW_MOUNT) != 0) {
      throw Failure(std::string("deleting everything: ") + std::strerror(errno));
    }
    constexpr int kPolls = 1200;
    for (int i = 0; i < kPolls && free_blocks() != record_.free_at_first; ++i) std::this_thread::sleep_for(50ms);
    if (const std::uint64_t now = free_blocks(); now != record_.free_at_first) {
      throw Failure("with everything deleted " + std::to_string(now) + " blocks are free, at first it were " +
                    std::to_string(record_.free_at_first));
    }
  }

  [[nodiscard]] std::uint64_t free_blocks() const {
    struct statvfs fs {};
    if (::statvfs(settings_.programs.mount_point.c_str(), &fs) != 0) {
      throw Failure(std::string("statvfs: ") + std::strerror(errno));
    }
    return fs.f_bfree;
  }

  [[noreturn]] void work() {
    std::random_device random;
    record_.control.killed = false;
    for (unsigned i = 0; i < kWorkers; ++i) {
      if (::mkdir(directory(i).c_str(), 0755) != 0) throw Failure(std::string("mkdir: ") + std::strerror(errno));
      record_.logs[i].issued = 0;
      record_.logs[i].acknowledged = 0;
      record_.logs[i].error = 0;
    }
    ++record_.rounds;
    record_.working = true;
    std::vector<pid_t> pids;
    for (unsigned i = 0; i < kWorkers; ++i) {
      const std::uint64_t seed = random();
      const pid_t pid = ::fork();
      if (pid < 0) throw Failure(std::string("fork: ") + std::strerror(errno));
      if (pid == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        Tree tree;
        // Numbers of the workers do not overlap: each has a bit of its own far above any count.
        Worker body(directory(i), tree, record_.logs[i], record_.control, seed,
                    record_.next_number + (std::uint64_t{i} << 48), settings_.use_mmap);
        ::_exit(body.run());
      }
    }
    const int ready = ::open(settings_.ready.c_str(), O_CREAT | O_WRONLY, 0644);
    if (ready < 0) throw Failure(settings_.ready + ": " + std::strerror(errno));
    ::close(ready);
    int status = 0;
    const pid_t ended = ::wait(&status);
    throw Failure("a worker (" + std::to_string(ended) + ") ended with wait status " + std::to_string(status) +
                  " before the power was cut");
  }

  PowerSettings settings_;
  Daemon daemon_;
  Record& record_;
};

}  // namespace

void run_until_power_cut(const PowerSettings& settings) {
  PowerCut(settings).run();
}

}  // namespace kill_test
