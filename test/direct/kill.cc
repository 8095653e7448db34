// Clients and the daemon, killed in the middle of direct stores.
//
// Three clients with the preload library store records of 4 KiB: by pwrite, through a map with msync, and through a map
// alone. Each word of a record says which store it is of; what was begun and what was done is kept in memory that the
// clients share with this program, which no kill takes away. The death of a process loses nothing, on either kind of
// device: a record has the words of the last store that was done, or of the one that was begun and not done.
//
// When the daemon is killed its clients go on, also beside the next daemon. That one is told to unlink a file which a
// client keeps storing into, and writes new files: none of the client's words may ever show in them.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <thread>

#include "test/direct/direct.h"
#include "test/kill/daemon.h"

namespace direct_test {
namespace {

using namespace std::chrono_literals;

constexpr int kClients = 3;
constexpr std::uint64_t kRecords = 64, kRecordBytes = 4096, kWords = kRecordBytes / 8;
constexpr std::uint64_t kDataBytes = kClients * kRecords * kRecordBytes;
constexpr std::uint64_t kScratchBytes = 1u << 20;
constexpr std::uint64_t kScratchWord = 0x5354'414c'4553'5354;
constexpr auto kPatience = 30s;  // far beyond what anything here takes: it only ends a hanging test

struct Shared {
  std::array<std::array<std::atomic<std::uint64_t>, kRecords>, kClients> begun, done;
  std::array<std::atomic<std::uint64_t>, kClients> stores;
};

std::uint64_t word_of(std::uint64_t sequence, int client, std::uint64_t record, std::uint64_t word) {
  if (sequence == 0) return 0;
  return sequence << 24 ^ (static_cast<std::uint64_t>(client) << 20 | record << 12 | word) ^ sequence << 45;
}

void make_record(std::uint64_t* record_words, std::uint64_t sequence, int client, std::uint64_t record) {
  for (std::uint64_t i = 0; i < kWords; ++i) record_words[i] = word_of(sequence, client, record, i);
}

void* map_file(const std::string& path, std::uint64_t bytes, const std::string& mount_point) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) fail_errno(path);
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) fail_errno("mmap of " + path);
  ::close(fd);
  if (!is_direct_map(at, mount_point)) throw Failure(path + " is not mapped directly");
  return at;
}

std::uint64_t offset_of(int client, std::uint64_t record) {
  return (static_cast<std::uint64_t>(client) * kRecords + record) * kRecordBytes;
}

class Trial {
 public:
  explicit Trial(const KillOptions& options)
      : options_(options),
        random_(options.seed),
        daemon_(
            {options.plumbfs, options.fsck, options.device, options.mount_point, options.mount_options, options.log}),
        shared_fd_(make_shared(sizeof(Shared))),
        shared_(*static_cast<Shared*>(map_shared(shared_fd_, sizeof(Shared)))) {}
  ~Trial() {
    for (const pid_t client : clients_) {
      ::kill(client, SIGKILL);
      ::waitpid(client, nullptr, 0);
    }
  }
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  void run() {
    daemon_.start();
    daemon_.wait_until_mounted();
    make_file("data", kDataBytes);
    for (std::uint64_t round = 0; round < options_.rounds; ++round) {
      const bool kills_daemon = random_.below(2) == 0;
      try {
        one_round(round, kills_daemon);
      } catch (const std::exception& failure) {
        throw Failure("round " + std::to_string(round) + (kills_daemon ? " (daemon killed): " : " (clients killed): ") +
                      failure.what());
      }
    }
    daemon_.unmount();
    daemon_.check(true);
    std::printf("%llu rounds: clients killed in %llu, the daemon in %llu; %llu stores; %llu records were torn\n",
                static_cast<unsigned long long>(options_.rounds), static_cast<unsigned long long>(client_kills_),
                static_cast<unsigned long long>(daemon_kills_), static_cast<unsigned long long>(stores_),
                static_cast<unsigned long long>(torn_));
  }

 private:
  void one_round(std::uint64_t round, bool kills_daemon) {
    const std::string scratch = "scratch" + std::to_string(round);
    make_file(scratch, kScratchBytes);
    for (auto& count : shared_.stores) count = 0;
    for (int i = 0; i < kClients; ++i)
      clients_.push_back(spawn_worker({"kill-worker", std::to_string(shared_fd_), std::to_string(i),
                                       options_.mount_point, scratch, std::to_string(random_.next())},
                                      options_.preload, shared_fd_));
    wait_for("the clients to store", [&] {
      for (int i = 0; i < kClients; ++i)
        if (shared_.stores[i].load() == 0) return !is_alive(i);
      return true;
    });
    for (int i = 0; i < kClients; ++i)
      if (!is_alive(i)) throw Failure("client " + std::to_string(i) + " ended by itself");
    std::this_thread::sleep_for(std::chrono::microseconds(random_.below(60'000)));
    if (!kills_daemon) {
      kill_clients();
      ++client_kills_;
    } else {
      ++daemon_kills_;
      daemon_.kill_hard();
      std::this_thread::sleep_for(std::chrono::microseconds(random_.below(5'000)));
      daemon_.start();
      daemon_.wait_until_mounted();
      beside_stale_clients(scratch, round);
    }
    wait_for("leases to end",
             [&] { return statistics(options_.mount_point).find("\"leased_inodes\":0") != std::string::npos; });
    verify_data();
    if (!kills_daemon && ::unlink(path(scratch).c_str()) != 0) fail_errno(scratch);
    if (round % 16 == 15) {
      // What is on the device is sound, too, and nothing leaks.
      daemon_.unmount();
      daemon_.check(true);
      daemon_.start();
      daemon_.wait_until_mounted();
    }
  }

  // The clients of the dead daemon live, and store into their maps.
  void beside_stale_clients(const std::string& scratch, std::uint64_t round) {
    for (int i = 0; i < kClients; ++i)
      if (!is_alive(i)) throw Failure("client " + std::to_string(i) + " did not outlive the daemon");
    if (statistics(options_.mount_point).find("\"stale_clients\":true") == std::string::npos)
      throw Failure("the new daemon does not know of the clients of the old one");
    if (::unlink(path(scratch).c_str()) != 0) fail_errno(scratch);
    std::vector<std::string> fresh;
    for (int i = 0; i < 4; ++i) {
      fresh.push_back("fresh" + std::to_string(round) + "." + std::to_string(i));
      make_file(fresh.back(), kScratchBytes);
    }
    const std::uint64_t stores_before = shared_.stores[2].load();
    wait_for("a stale client to store", [&] { return shared_.stores[2].load() > stores_before + 10; });
    for (const std::string& name : fresh) expect_zeros(name);
    kill_clients();
    wait_for("the new daemon to see the end of stale clients",
             [&] { return statistics(options_.mount_point).find("\"stale_clients\":false") != std::string::npos; });
    for (const std::string& name : fresh) {
      expect_zeros(name);
      if (::unlink(path(name).c_str()) != 0) fail_errno(name);
    }
  }

  void verify_data() {
    const int fd = ::open(path("data").c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) fail_errno("data");
    for (int client = 0; client < kClients; ++client) {
      for (std::uint64_t record = 0; record < kRecords; ++record) {
        std::uint64_t words[kWords];
        const auto at = static_cast<off_t>(offset_of(client, record));
        if (::pread(fd, words, sizeof words, at) != static_cast<ssize_t>(sizeof words)) fail_errno("data");
        const std::uint64_t done = shared_.done[client][record], begun = shared_.begun[client][record];
        std::uint64_t of_done = 0, of_begun = 0;
        for (std::uint64_t i = 0; i < kWords; ++i) {
          of_done += words[i] == word_of(done, client, record, i) ? 1 : 0;
          of_begun += words[i] == word_of(begun, client, record, i) ? 1 : 0;
          if (words[i] != word_of(done, client, record, i) && words[i] != word_of(begun, client, record, i))
            throw Failure("client " + std::to_string(client) + ", record " + std::to_string(record) + ", word " +
                          std::to_string(i) + " is neither of store " + std::to_string(done) +
                          ", which was done, nor " + std::to_string(begun) + ", which was begun");
        }
        if (of_done != kWords && of_begun != kWords) ++torn_;
        if (of_done == kWords) {
          shared_.begun[client][record] = done;
          continue;
        }
        make_record(words, begun, client, record);
        if (::pwrite(fd, words, sizeof words, at) != static_cast<ssize_t>(sizeof words)) fail_errno("data");
        shared_.done[client][record] = begun;
      }
      stores_ += shared_.stores[client];
    }
    ::close(fd);
  }

  void kill_clients() {
    for (const pid_t client : clients_) ::kill(client, SIGKILL);
    for (const pid_t client : clients_) ::waitpid(client, nullptr, 0);
    clients_.clear();
  }

  bool is_alive(int client) { return ::waitpid(clients_[static_cast<std::size_t>(client)], nullptr, WNOHANG) == 0; }

  template <typename Condition>
  void wait_for(const char* what, const Condition& condition) {
    const auto limit = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > limit) throw Failure(std::string("waited in vain for ") + what);
      std::this_thread::sleep_for(1ms);
    }
  }

  [[nodiscard]] std::string path(const std::string& name) const { return options_.mount_point + "/" + name; }

  // Zeros that were written, in blocks of its own.
  void make_file(const std::string& name, std::uint64_t bytes) {
    const int fd = ::open(path(name).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) fail_errno(name);
    const std::vector<char> zeros(bytes);
    if (::pwrite(fd, zeros.data(), bytes, 0) != static_cast<ssize_t>(bytes)) fail_errno(name);
    ::close(fd);
  }

  void expect_zeros(const std::string& name) {
    const int fd = ::open(path(name).c_str(), O_RDONLY | O_CLOEXEC);
    std::vector<std::uint64_t> words(kScratchBytes / 8);
    if (fd < 0 || ::pread(fd, words.data(), kScratchBytes, 0) != static_cast<ssize_t>(kScratchBytes)) fail_errno(name);
    ::close(fd);
    for (std::size_t i = 0; i < words.size(); ++i)
      if (words[i] != 0)
        throw Failure(name + ": word " + std::to_string(i) +
                      (words[i] == kScratchWord ? " is a store of a stale client" : " is not zero"));
  }

  const KillOptions& options_;
  Random random_;
  kill_test::Daemon daemon_;
  const int shared_fd_;
  Shared& shared_;
  std::vector<pid_t> clients_;
  std::uint64_t client_kills_ = 0, daemon_kills_ = 0, stores_ = 0, torn_ = 0;
};

}  // namespace

// FD CLIENT MOUNT_POINT SCRATCH SEED: stores until it is killed.
int kill_worker(const std::vector<std::string>& arguments) {
  auto& shared = *static_cast<Shared*>(map_shared(std::stoi(arguments.at(0)), sizeof(Shared)));
  const int client = std::stoi(arguments.at(1));
  const std::string& mount_point = arguments.at(2);
  Random random(std::stoull(arguments.at(4)));
  auto* const map = static_cast<char*>(map_file(mount_point + "/data", kDataBytes, mount_point));
  auto* const scratch =
      static_cast<std::uint64_t*>(map_file(mount_point + "/" + arguments.at(3), kScratchBytes, mount_point));
  const int fd = ::open((mount_point + "/data").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) fail_errno("data");
  bool by_pwrite = client == 0;
  while (true) {
    const std::uint64_t record = random.below(kRecords);
    alignas(64) std::uint64_t words[kWords];
    const std::uint64_t sequence = shared.begun[client][record] + 1;
    make_record(words, sequence, client, record);
    shared.begun[client][record] = sequence;
    const std::uint64_t at = offset_of(client, record);
    if (by_pwrite) {
      // Once its daemon is dead and another one has come, pwrite goes to the kernel, which says so.
      by_pwrite = ::pwrite(fd, words, sizeof words, static_cast<off_t>(at)) == static_cast<ssize_t>(sizeof words);
      if (!by_pwrite && errno != ENOTCONN && errno != ECONNABORTED) fail_errno("pwrite");
    }
    if (!by_pwrite) {
      std::memcpy(map + at, words, sizeof words);
      if (client == 1 && ::msync(map + at, sizeof words, MS_SYNC) != 0) fail_errno("msync");
    }
    shared.done[client][record] = sequence;
    scratch[random.below(kScratchBytes / 8)] = kScratchWord;
    shared.stores[client].fetch_add(1);
  }
}

void run_kill(const KillOptions& options) {
  Trial(options).run();
}

}  // namespace direct_test
