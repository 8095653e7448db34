// Ways to a file and its mappings that few programs take, and calls that do not come to their end. As everything here:
// the same results without the preload library, on any file system.

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <csetjmp>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr std::size_t kPages = 16;
constexpr std::size_t kSize = kPages * kPage;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

// Page i is filled with 'a' + i. Its descriptor has been read and written.
Fd lettered_file(const std::string& name) {
  std::string content;
  for (std::size_t i = 0; i < kPages; ++i) content.append(kPage, static_cast<char>('a' + i));
  make_file(name, content);
  Fd fd = open_file(name, O_RDWR);
  char one = 0;
  REQUIRE(::pread(fd.get(), &one, 1, 0) == 1);
  REQUIRE(::pwrite(fd.get(), &one, 1, 0) == 1);
  return fd;
}

char* map(int fd, std::size_t length, int protection, int flags) {
  void* const result = ::mmap(nullptr, length, protection, flags, fd, 0);
  INFO("mmap: " << std::strerror(errno));
  REQUIRE(result != MAP_FAILED);
  return static_cast<char*>(result);
}

// Whether a mapping of this file is left in the process: as long as there is one, the file is in use.
bool is_mapped(const std::string& path) {
  std::ifstream lines("/proc/self/maps");
  for (std::string line; std::getline(lines, line);)
    if (line.ends_with(path)) return true;
  return false;
}

// Runs `call` in a thread whose cancellation is pending when it is made.
void call_cancelled(const std::function<void()>& call) {
  struct Job {
    const std::function<void()>& call;
    pthread_barrier_t ready;
    pthread_barrier_t cancelled;
  } job{call, {}, {}};
  REQUIRE(::pthread_barrier_init(&job.ready, nullptr, 2) == 0);
  REQUIRE(::pthread_barrier_init(&job.cancelled, nullptr, 2) == 0);
  const auto run = [](void* argument) -> void* {
    auto& mine = *static_cast<Job*>(argument);
    int before = 0;
    ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    ::pthread_barrier_wait(&mine.ready);
    ::pthread_barrier_wait(&mine.cancelled);
    ::pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
    mine.call();
    return nullptr;
  };
  pthread_t thread{};
  REQUIRE(::pthread_create(&thread, nullptr, run, &job) == 0);
  ::pthread_barrier_wait(&job.ready);
  REQUIRE(::pthread_cancel(thread) == 0);
  ::pthread_barrier_wait(&job.cancelled);
  REQUIRE(::pthread_join(thread, nullptr) == 0);
  ::pthread_barrier_destroy(&job.ready);
  ::pthread_barrier_destroy(&job.cancelled);
}

void make_old(int fd) {
  const timespec old[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(::futimens(fd, old) == 0);
}

sigjmp_buf jump;
void jump_from_handler(int) {
  ::siglongjmp(jump, 1);
}

}  // namespace

TEST_CASE("entry points: a thread that is cancelled in close, fclose or msync keeps nothing", "[cancel]") {
  const TestDirectory dir;
  const std::string path = dir.path() + "/f";
  Fd fd = lettered_file("f");
  SECTION("close") {
    const int number = fd.get();
    call_cancelled([number] { ::close(number); });
    fd.close();
  }
  SECTION("fclose") {
    FILE* const stream = ::fdopen(::dup(fd.get()), "r+");
    REQUIRE(stream != nullptr);
    char one = 0;
    REQUIRE(::pread(::fileno(stream), &one, 1, 0) == 1);
    REQUIRE(::fputs("not flushed", stream) >= 0);
    const int number = ::fileno(stream);
    call_cancelled([stream] { ::fclose(stream); });
    ::close(number);
    fd.close();
  }
  SECTION("msync") {
    char* const base = map(fd.get(), kSize, kReadWrite, MAP_SHARED);
    call_cancelled([base] { ::msync(base, kSize, MS_SYNC); });
    REQUIRE(::munmap(base, kSize) == 0);
    fd.close();
  }
  CHECK(!is_mapped(path));
}

// From a first use of a file, which takes longest, and later ones.
TEST_CASE("entry points: a signal handler jumps out of whatever a read does", "[signal]") {
  const TestDirectory dir;
  lettered_file("f").close();
  ::signal(SIGALRM, jump_from_handler);
  sigset_t alarm;
  ::sigemptyset(&alarm);
  ::sigaddset(&alarm, SIGALRM);
  static int round;
  for (round = 0; round < 300; ++round) {
    static volatile int number;
    number = -1;
    if (::sigsetjmp(jump, 1) == 0) {
      const itimerval soon{{0, 0}, {0, 20 + (round * 37) % 400}};
      ::setitimer(ITIMER_REAL, &soon, nullptr);
      while (true) {
        sigset_t before;
        ::pthread_sigmask(SIG_BLOCK, &alarm, &before);
        number = ::open("f", O_RDONLY);
        ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
        char one = 0;
        (void)::pread(number, &one, 1, 0);
        ::close(number);
      }
    }
    // Which of the calls it was is not known: the number may have been closed.
    ::close(number);
  }
  const itimerval none{};
  ::setitimer(ITIMER_REAL, &none, nullptr);
  ::signal(SIGALRM, SIG_DFL);

  // What a handler left in the middle of a copy is put in order by a later one.
  make_file("g", "g");
  const int later = ::open("g", O_RDONLY);
  char one = 0;
  CHECK(::pread(later, &one, 1, 0) == 1);
  CHECK(::close(later) == 0);
  CHECK(!is_mapped(dir.path() + "/f"));

  // Another thread finds nothing locked.
  char* base = nullptr;
  pthread_t thread{};
  const auto use = [](void* to) -> void* {
    const int fd = ::open("f", O_RDWR);
    *static_cast<char**>(to) = static_cast<char*>(::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, fd, 0));
    ::close(fd);
    return nullptr;
  };
  REQUIRE(::pthread_create(&thread, nullptr, use, &base) == 0);
  REQUIRE(::pthread_join(thread, nullptr) == 0);
  REQUIRE(base != MAP_FAILED);
  CHECK(base[3 * kPage] == 'd');
  CHECK(::munmap(base, kSize) == 0);
}

TEST_CASE("entry points: O_APPEND is of the description, by whichever number it is set", "[descriptors]") {
  const TestDirectory dir;
  Fd fd = lettered_file("f");
  // As if both had been inherited: no call told that they are one.
  const Fd other(static_cast<int>(::syscall(SYS_dup, fd.get())));
  REQUIRE(other.get() >= 0);
  const bool both_are_read = GENERATE(false, true);
  char one = 0;
  if (both_are_read) REQUIRE(::pread(other.get(), &one, 1, 0) == 1);
  SECTION("by libc") {
    REQUIRE(::fcntl(other.get(), F_SETFL, O_APPEND) == 0);
  }
  SECTION("by number of the system call") {
    REQUIRE(::syscall(SYS_fcntl, other.get(), F_SETFL, O_APPEND) == 0);
  }
  write_at(fd.get(), "x", 10);
  CHECK(status(fd.get()).st_size == kSize + 1);
  REQUIRE(::fcntl(other.get(), F_SETFL, 0) == 0);
  write_at(fd.get(), "y", 10);
  CHECK(status(fd.get()).st_size == kSize + 1);
  CHECK(read_file("f")[10] == 'y');
}

TEST_CASE("entry points: a descriptor for neither reading nor writing", "[descriptors]") {
  const TestDirectory dir;
  const Fd file = lettered_file("f");
  const Fd fd = open_file("f", O_ACCMODE);
  char byte = 'x';
  CHECK(code(::pread(fd.get(), &byte, 1, 0)) == EBADF);
  CHECK(code(::pwrite(fd.get(), &byte, 1, 0)) == EBADF);
  CHECK(code(::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd.get(), 0) == MAP_FAILED ? -1 : 0) == EACCES);
}

TEST_CASE("entry points: RLIMIT_FSIZE set by number of the system call", "[descriptors]") {
  const TestDirectory dir;
  const Fd fd = lettered_file("f");
  const long number = GENERATE(long{SYS_setrlimit}, long{SYS_prlimit64});
  CHECK(in_child([&] {
          ::signal(SIGXFSZ, SIG_IGN);
          const rlimit limit{8192, 8192};
          const long done = number == SYS_setrlimit ? ::syscall(number, RLIMIT_FSIZE, &limit)
                                                    : ::syscall(number, 0, RLIMIT_FSIZE, &limit, nullptr);
          if (done != 0) return 100;
          return errno_of(::pwrite(fd.get(), "x", 1, 8192));
        }) == Code{EFBIG}.value);
}

TEST_CASE("entry points: rights given by pkey_mprotect", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file("f");
  char* const base = map(fd.get(), kSize, PROT_READ, MAP_SHARED);
  SECTION("by libc") {
    REQUIRE(::pkey_mprotect(base + kPage, kPage, kReadWrite, -1) == 0);
  }
  SECTION("by number of the system call") {
    REQUIRE(::syscall(SYS_pkey_mprotect, base + kPage, kPage, kReadWrite, -1) == 0);
  }
  make_old(fd.get());
  base[kPage] = 'P';
  REQUIRE(::msync(base, kSize, MS_SYNC) == 0);
  CHECK(status("f").st_mtim.tv_sec > 1000);
  CHECK(read_file("f")[kPage] == 'P');
  REQUIRE(::munmap(base, kSize) == 0);
}

TEST_CASE("entry points: pages of a mapping in another order", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file("f");
  char* const base = map(fd.get(), kSize, kReadWrite, MAP_SHARED);
  SECTION("by libc") {
    REQUIRE(::remap_file_pages(base + 4 * kPage, 2 * kPage, 0, 10, 0) == 0);
  }
  SECTION("by number of the system call") {
    REQUIRE(::syscall(SYS_remap_file_pages, base + 4 * kPage, 2 * kPage, 0, 10, 0) == 0);
  }
  for (std::size_t i = 0; i < kPages; ++i) {
    CHECK(base[i * kPage] == static_cast<char>('a' + (i == 4 || i == 5 ? i + 6 : i)));
  }
  base[5 * kPage] = '5';
  CHECK(base[11 * kPage] == '5');
  CHECK(read_file("f")[11 * kPage] == '5');
  CHECK(code(::remap_file_pages(base, kPage, PROT_READ, 0, 0)) == EINVAL);
  REQUIRE(::munmap(base, kSize) == 0);
}

TEST_CASE("entry points: madvise makes a hole of a part of a mapping", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file("f");
  char* const base = map(fd.get(), kSize, kReadWrite, MAP_SHARED);
  make_old(fd.get());
  REQUIRE(::madvise(base + 2 * kPage, 3 * kPage, MADV_REMOVE) == 0);
  CHECK(status("f").st_mtim.tv_sec > 1000);
  CHECK(zeros_at(fd.get(), 3 * kPage, 2 * kPage));
  CHECK(base[2 * kPage] == 0);
  CHECK(base[5 * kPage] == 'f');
  base[3 * kPage] = 'x';
  CHECK(read_file("f").substr(kPage * 3, 2) == std::string("x\0", 2));
  REQUIRE(::munmap(base, kSize) == 0);
  const Fd reader = open_file("f", O_RDONLY);
  char* const read_only = map(reader.get(), kSize, PROT_READ, MAP_SHARED);
  CHECK(code(::madvise(read_only, kPage, MADV_REMOVE)) == EACCES);
  CHECK(read_only[0] == 'a');
  REQUIRE(::munmap(read_only, kSize) == 0);
}

TEST_CASE("entry points: a mapping that children do not get", "[maps][fork]") {
  const TestDirectory dir;
  const Fd fd = lettered_file("f");
  char* const base = map(fd.get(), kSize, PROT_READ, MAP_SHARED);
  REQUIRE(::madvise(base + 4 * kPage, 4 * kPage, MADV_DONTFORK) == 0);
  const auto child = [&] {
    if (base[3 * kPage] != 'd' || base[8 * kPage] != 'i') return 1;
    // Free there, and memory of its own then.
    char* const own = static_cast<char*>(
        ::mmap(base + 4 * kPage, 4 * kPage, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    if (own != base + 4 * kPage) return 2;
    own[0] = 'x';
    if (::mprotect(own, kPage, PROT_READ) != 0 || ::mprotect(own, kPage, kReadWrite) != 0) return 3;
    if (own[0] != 'x') return 4;
    own[0] = 'y';
    return 0;
  };
  CHECK(in_child(child) == kOk);
  CHECK(base[4 * kPage] == 'e');
  CHECK(read_file("f")[4 * kPage] == 'e');
  REQUIRE(::madvise(base, kSize, MADV_DOFORK) == 0);
  CHECK(in_child([&] { return base[4 * kPage] == 'e' ? 0 : 1; }) == kOk);
  REQUIRE(::munmap(base, kSize) == 0);
}
