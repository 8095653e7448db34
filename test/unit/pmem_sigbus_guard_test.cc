#include "pmem/sigbus_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

using plumb::pmem::Fault;
using plumb::pmem::guarded_copy;
using plumb::pmem::run_guarded;

constexpr std::size_t kPage = 4096;

// Four pages of a file that has only the first two.
class TruncatedMapping {
 public:
  TruncatedMapping() {
    plumb::pmem::install_sigbus_handler();
    const int fd = memfd_create("sigbus-test", MFD_CLOEXEC);
    REQUIRE(ftruncate(fd, 2 * kPage) == 0);
    void* address = mmap(nullptr, 4 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    REQUIRE(address != MAP_FAILED);
    close(fd);
    base = static_cast<std::byte*>(address);
  }
  TruncatedMapping(const TruncatedMapping&) = delete;
  TruncatedMapping& operator=(const TruncatedMapping&) = delete;
  ~TruncatedMapping() { munmap(base, 4 * kPage); }

  std::byte* base = nullptr;
};

// Runs fn in a child; returns its wait status.
template <typename Fn>
int status_of_child(const Fn& fn) {
  const pid_t pid = fork();
  if (pid == 0) {
    const struct rlimit no_core {};
    setrlimit(RLIMIT_CORE, &no_core);
    // A sanitizer reports the signal before it dies; that is not a finding.
    close(STDERR_FILENO);
    fn();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  return status;
}

bool died(int status) {
  return WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
}

// What the kernel sends for a bad page, sent to ourselves.
void send_machine_check(int code, const void* address) {
  siginfo_t info{};
  info.si_signo = SIGBUS;
  info.si_code = code;
  info.si_addr = const_cast<void*>(address);
  info.si_addr_lsb = 12;
  if (syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info) != 0) std::abort();
}

}  // namespace

TEST_CASE("sigbus guard: a fault in the guarded range is reported with its address", "[pmem][sigbus]") {
  const TruncatedMapping mapping;
  std::array<std::byte, 16> out{};
  const std::byte* bad = mapping.base + 2 * kPage;
  const Fault fault = run_guarded({bad + 8, 16}, [&] { std::memcpy(out.data(), bad + 8, out.size()); });
  REQUIRE(fault);
  CHECK(fault.address >= bad + 8);  // in which order memcpy goes is its own affair
  CHECK(fault.address < bad + 24);
  CHECK_FALSE(fault.is_poison);
}

TEST_CASE("sigbus guard: works again and again, in every thread", "[pmem][sigbus]") {
  const TruncatedMapping mapping;
  const auto hammer = [&mapping] {
    std::array<std::byte, 64> out{};
    int faults = 0;
    for (int i = 0; i < 1000; ++i) {
      const std::size_t page = static_cast<std::size_t>(i) % 4;
      faults += guarded_copy(out.data(), mapping.base + page * kPage, out.size()) ? 0 : 1;
    }
    return faults;
  };
  std::vector<int> faults(4);
  std::vector<std::thread> threads;
  for (int& count : faults) threads.emplace_back([&count, &hammer] { count = hammer(); });
  for (std::thread& thread : threads) thread.join();
  for (const int count : faults) CHECK(count == 500);
}

TEST_CASE("sigbus guard: guards nest, the inner one first", "[pmem][sigbus]") {
  const TruncatedMapping mapping;
  const std::byte* good = mapping.base;
  const std::byte* bad = mapping.base + 3 * kPage;
  std::byte out{};
  bool inner_failed = false;
  bool went_on = false;
  const Fault outer = run_guarded({good, 4 * kPage}, [&] {
    inner_failed = !guarded_copy(&out, bad, 1);
    went_on = true;
    std::memcpy(&out, bad - kPage, 1);
  });
  CHECK(inner_failed);
  CHECK(went_on);
  REQUIRE(outer);
  CHECK(outer.address == bad - kPage);
}

TEST_CASE("sigbus guard: a fault outside of the guarded range kills", "[pmem][sigbus]") {
  const TruncatedMapping mapping;
  const std::byte* bad = mapping.base + 2 * kPage;
  CHECK(died(status_of_child([&] {
    std::byte out{};
    // Guarded is another page than the one that faults.
    static_cast<void>(!run_guarded({mapping.base, kPage}, [&] { std::memcpy(&out, bad, 1); }));
  })));
  CHECK(died(status_of_child([&] { static_cast<void>(*static_cast<const volatile std::byte*>(bad)); })));
  CHECK(died(status_of_child([] { raise(SIGBUS); })));
}

TEST_CASE("sigbus guard: a machine check is reported as poison, from the first guarded byte of its page",
          "[pmem][sigbus]") {
  const TruncatedMapping mapping;
  bool went_on = false;
  const Fault fault = run_guarded({mapping.base + 100, 50}, [&] {
    // The kernel gives the start of the page.
    send_machine_check(BUS_MCEERR_AR, mapping.base);
    went_on = true;
  });
  REQUIRE(fault);
  CHECK_FALSE(went_on);
  CHECK(fault.is_poison);
  CHECK(fault.address == mapping.base + 100);
}

TEST_CASE("sigbus guard: poison that nobody consumed is ignored in a device mapping only", "[pmem][sigbus]") {
  const TruncatedMapping mapping;
  CHECK(died(status_of_child([&] { send_machine_check(BUS_MCEERR_AO, mapping.base + kPage); })));
  plumb::pmem::register_mapping(mapping.base, 4 * kPage);
  CHECK_FALSE(died(status_of_child([&] { send_machine_check(BUS_MCEERR_AO, mapping.base + kPage); })));
  CHECK(died(status_of_child([&] { send_machine_check(BUS_MCEERR_AR, mapping.base + kPage); })));
  plumb::pmem::unregister_mapping(mapping.base);
  CHECK(died(status_of_child([&] { send_machine_check(BUS_MCEERR_AO, mapping.base + kPage); })));
}

TEST_CASE("sigbus guard: a signal that was sent is no fault", "[pmem][sigbus]") {
  const TruncatedMapping mapping;
  CHECK(died(status_of_child([&] { static_cast<void>(!run_guarded({mapping.base, kPage}, [] { raise(SIGBUS); })); })));
}
