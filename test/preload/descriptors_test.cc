// Descriptors that are duplicated, closed, inherited and replaced while they are read. Nothing here knows of the
// preload library: without it every test passes on any file system, and with it too.

#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <csetjmp>
#include <string>
#include <thread>
#include <vector>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr std::size_t kSize = 256 * 1024;

// A file of one letter, which has been read once: its descriptor is known.
Fd letter_file(const std::string& name, char letter, int flags = O_RDWR) {
  make_file(name, std::string(kSize, letter));
  Fd fd = open_file(name, flags);
  char one = 0;
  if ((flags & O_ACCMODE) != O_WRONLY) {
    REQUIRE(::pread(fd.get(), &one, 1, 0) == 1);
    REQUIRE(one == letter);
  }
  return fd;
}

char letter_at(int fd, off_t offset = 4097) {
  char letter = 0;
  const ssize_t got = ::pread(fd, &letter, 1, offset);
  return got == 1 ? letter : '?';
}

std::string all_of(int fd) {
  std::string data(kSize, '?');
  const ssize_t got = ::pread(fd, data.data(), data.size(), 0);
  data.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
  return data;
}

// The name of old programs.
extern "C" pid_t old_vfork() __asm__("__vfork") __attribute__((returns_twice));

}  // namespace

TEST_CASE("descriptors: duplicates read the same file, the last one ends it", "[descriptors]") {
  const TestDirectory dir;
  Fd first = letter_file("a", 'a');
  const Fd second(::dup(first.get()));
  const Fd third(::fcntl(first.get(), F_DUPFD_CLOEXEC, 100));
  REQUIRE(third.get() >= 100);
  const int closed = first.get();
  first.close();
  CHECK(letter_at(closed) == '?');
  CHECK(errno == EBADF);
  CHECK(letter_at(second.get()) == 'a');
  CHECK(letter_at(third.get()) == 'a');
  write_at(second.get(), "b", 4097);
  CHECK(letter_at(third.get()) == 'b');
}

TEST_CASE("descriptors: a number that leads elsewhere reads the new file", "[descriptors]") {
  const TestDirectory dir;
  Fd a = letter_file("a", 'a');
  const Fd b = letter_file("b", 'b');
  SECTION("dup2") {
    REQUIRE(::dup2(b.get(), a.get()) == a.get());
    CHECK(letter_at(a.get()) == 'b');
  }
  SECTION("dup3") {
    REQUIRE(::dup3(b.get(), a.get(), O_CLOEXEC) == a.get());
    CHECK(letter_at(a.get()) == 'b');
  }
  SECTION("dup2 of a pipe") {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const Fd reader(ends[0]);
    const Fd writer(ends[1]);
    REQUIRE(::dup2(reader.get(), a.get()) == a.get());
    CHECK(letter_at(a.get()) == '?');
    CHECK(errno == ESPIPE);
  }
  SECTION("dup2 that fails") {
    REQUIRE(::dup2(9999, a.get()) == -1);
    CHECK(letter_at(a.get()) == 'a');
  }
  SECTION("close and open") {
    const int number = a.get();
    a.close();
    const Fd again = open_file("b", O_RDONLY);
    REQUIRE(again.get() == number);
    CHECK(letter_at(number) == 'b');
  }
  SECTION("close by number of the system call") {
    const int number = a.get();
    REQUIRE(::syscall(SYS_close, number) == 0);
    REQUIRE(::syscall(SYS_openat, AT_FDCWD, "b", O_RDONLY) == number);
    CHECK(letter_at(number) == 'b');
  }
  SECTION("close_range") {
    const int number = a.get();
    REQUIRE(::close_range(static_cast<unsigned>(number), static_cast<unsigned>(number), 0) == 0);
    CHECK(letter_at(number) == '?');
    REQUIRE(::dup2(b.get(), number) == number);
    CHECK(letter_at(number) == 'b');
  }
  SECTION("fclose") {
    const int number = a.get();
    FILE* const stream = ::fdopen(::fcntl(number, F_DUPFD, 200), "r+");
    REQUIRE(stream != nullptr);
    const int other = ::fileno(stream);
    CHECK(letter_at(other) == 'a');
    // The name of old programs, too.
    const auto close_stream = reinterpret_cast<int (*)(FILE*)>(::dlsym(RTLD_DEFAULT, GENERATE("fclose", "_IO_fclose")));
    REQUIRE(close_stream != nullptr);
    REQUIRE(close_stream(stream) == 0);
    CHECK(letter_at(other) == '?');
    REQUIRE(::syscall(SYS_dup2, b.get(), other) == other);
    const Fd closed(other);
    CHECK(letter_at(other) == 'b');
  }
  SECTION("fopen and freopen") {
    FILE* stream = ::fopen("a", "r");
    REQUIRE(stream != nullptr);
    CHECK(letter_at(::fileno(stream)) == 'a');
    stream = ::freopen("b", "r", stream);
    REQUIRE(stream != nullptr);
    CHECK(letter_at(::fileno(stream)) == 'b');
    CHECK(::fclose(stream) == 0);
  }
}

TEST_CASE("descriptors: rights and offsets are refused as by the kernel", "[descriptors]") {
  const TestDirectory dir;
  const Fd reader = letter_file("a", 'a', O_RDONLY);
  const Fd writer = letter_file("b", 'b', O_WRONLY);
  char byte = 'x';
  CHECK(code(::pwrite(reader.get(), &byte, 1, 0)) == EBADF);
  CHECK(code(::pread(writer.get(), &byte, 1, 0)) == EBADF);
  CHECK(code(::pread(reader.get(), &byte, 1, -1)) == EINVAL);
  CHECK(code(::pread(12345, &byte, 1, 0)) == EBADF);
  CHECK(::pread(reader.get(), &byte, 0, 0) == 0);
  CHECK(::pread(reader.get(), &byte, 1, kSize) == 0);
  CHECK(::pwrite(writer.get(), "xyz", 3, 10) == 3);
  CHECK(read_file("b").substr(9, 5) == "bxyzb");
  const volatile int negative = -1;
  CHECK(code(::preadv(reader.get(), nullptr, negative, 0)) == EINVAL);
}

TEST_CASE("descriptors: pwrite of an appending descriptor appends", "[descriptors]") {
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a', O_RDWR | O_APPEND);
  write_at(fd.get(), "x", 10);
  CHECK(status(fd.get()).st_size == kSize + 1);
  CHECK(letter_at(fd.get(), 10) == 'a');
  REQUIRE(::fcntl(fd.get(), F_SETFL, 0) == 0);
  write_at(fd.get(), "y", 10);
  CHECK(letter_at(fd.get(), 10) == 'y');
  REQUIRE(::fcntl(fd.get(), F_SETFL, O_APPEND) == 0);
  write_at(fd.get(), "z", 10);
  CHECK(letter_at(fd.get(), 10) == 'y');
  CHECK(status(fd.get()).st_size == kSize + 2);
}

TEST_CASE("descriptors: RLIMIT_FSIZE holds for pwrite", "[descriptors]") {
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  CHECK(in_child([&] {
          ::signal(SIGXFSZ, SIG_IGN);
          const rlimit limit{8192, 8192};
          if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 100;
          if (::pwrite(fd.get(), "x", 1, 100) != 1) return 101;
          return errno_of(::pwrite(fd.get(), "x", 1, 8192));
        }) == Code{EFBIG}.value);
  CHECK(letter_at(fd.get(), 100) == 'x');
  CHECK(letter_at(fd.get(), 8192) == 'a');
}

TEST_CASE("descriptors: vectors, over holes and the end of the file", "[descriptors]") {
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  REQUIRE(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 64 * 1024, 64 * 1024) == 0);
  std::string one(50'000, '?');
  std::string two(50'000, '?');
  const iovec parts[] = {{one.data(), one.size()}, {nullptr, 0}, {two.data(), two.size()}};
  REQUIRE(::preadv(fd.get(), parts, 3, 30'000) == 100'000);
  std::string expected(kSize, 'a');
  expected.replace(64 * 1024, 64 * 1024, 64 * 1024, '\0');
  CHECK(one + two == expected.substr(30'000, 100'000));
  CHECK(::preadv(fd.get(), parts, 3, kSize - 60'000) == 60'000);
  CHECK(::preadv2(fd.get(), parts, 3, kSize - 10, 0) == 10);
  REQUIRE(::lseek(fd.get(), 100'000, SEEK_SET) == 100'000);
  CHECK(::preadv2(fd.get(), parts, 3, -1, 0) == 100'000);
  CHECK(::lseek(fd.get(), 0, SEEK_CUR) == 200'000);

  std::fill(one.begin(), one.end(), 'b');
  std::fill(two.begin(), two.end(), 'c');
  REQUIRE(::pwritev(fd.get(), parts, 3, kSize - 70'000) == 100'000);
  expected.replace(kSize - 70'000, 70'000, one + two);
  CHECK(read_file("a") == expected);
  REQUIRE(::pwritev2(fd.get(), parts, 1, 40'000, RWF_DSYNC) == 50'000);
  expected.replace(40'000, 50'000, one);
  CHECK(read_file("a") == expected);
}

TEST_CASE("descriptors: positions from the end", "[descriptors]") {
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  const Fd other = open_file("a", O_RDWR);
  const auto end = static_cast<off_t>(kSize);
  CHECK(::lseek(fd.get(), 0, SEEK_END) == end);
  CHECK(::lseek(fd.get(), -10, SEEK_END) == end - 10);
  CHECK(::lseek(fd.get(), 0, SEEK_CUR) == end - 10);
  std::string tail(20, '?');
  CHECK(::read(fd.get(), tail.data(), tail.size()) == 10);
  CHECK(::lseek(fd.get(), 100, SEEK_END) == end + 100);
  CHECK(::lseek(fd.get(), -end, SEEK_END) == 0);
  errno = 0;
  CHECK(::lseek(fd.get(), -end - 1, SEEK_END) == -1);
  CHECK(errno == EINVAL);
  errno = 0;
  CHECK(::lseek(fd.get(), INT64_MAX, SEEK_END) == -1);
  CHECK((errno == EINVAL || errno == EOVERFLOW));
  CHECK(::lseek(fd.get(), 0, SEEK_CUR) == 0);

  // The size of another descriptor's write, truncate and fallocate.
  REQUIRE(::pwrite(other.get(), "b", 1, end + 4999) == 1);
  CHECK(::lseek(fd.get(), 0, SEEK_END) == end + 5000);
  CHECK(::write(fd.get(), "c", 1) == 1);
  CHECK(::lseek(other.get(), 0, SEEK_END) == end + 5001);
  REQUIRE(::ftruncate(other.get(), 77) == 0);
  CHECK(::lseek(fd.get(), 0, SEEK_END) == 77);
  REQUIRE(::fallocate(other.get(), 0, 0, 9000) == 0);
  CHECK(::lseek(fd.get(), 0, SEEK_END) == 9000);
  CHECK(::lseek(fd.get(), 0, SEEK_HOLE) == 9000);
  REQUIRE(::truncate("a", 12) == 0);
  CHECK(::lseek(fd.get(), 0, SEEK_END) == 12);
}

TEST_CASE("descriptors: a file written from its start to its end", "[descriptors]") {
  const TestDirectory dir;
  letter_file("a", 'a');
  const Fd fd = open_file("b", O_RDWR | O_CREAT | O_EXCL);
  std::string expected;
  for (int i = 0; i < 40; ++i) {
    const std::string piece(3000, static_cast<char>('a' + i % 26));
    REQUIRE(::pwrite(fd.get(), piece.data(), piece.size(), static_cast<off_t>(expected.size())) == 3000);
    expected += piece;
  }
  REQUIRE(::fdatasync(fd.get()) == 0);
  CHECK(read_file("b") == expected);
  // Over the end from within, and then within.
  for (const std::size_t at : {expected.size() - 10, std::size_t{5}}) {
    REQUIRE(::pwrite(fd.get(), "0123456789ABCDEF", 16, static_cast<off_t>(at)) == 16);
    if (expected.size() < at + 16) expected.resize(at + 16);
    expected.replace(at, 16, "0123456789ABCDEF");
    CHECK(read_file("b") == expected);
    std::string through(expected.size(), '?');
    CHECK(::pread(fd.get(), through.data(), through.size(), 0) == static_cast<ssize_t>(expected.size()));
    CHECK(through == expected);
  }
}

TEST_CASE("descriptors: the names of fortified programs", "[descriptors]") {
  using Pread = ssize_t (*)(int, void*, size_t, off_t, size_t);
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  for (const char* const name : {"__pread64_chk", "__pread_chk"}) {
    const auto pread_chk = reinterpret_cast<Pread>(::dlsym(RTLD_DEFAULT, name));
    REQUIRE(pread_chk != nullptr);
    char bytes[4] = "";
    CHECK(pread_chk(fd.get(), bytes, 3, 5, sizeof(bytes)) == 3);
    CHECK(std::string(bytes) == "aaa");
    CHECK(in_child([&] {
            ::signal(SIGABRT, SIG_DFL);
            return static_cast<int>(pread_chk(fd.get(), bytes, 5, 5, sizeof(bytes)));
          }) == 256 + SIGABRT);
  }
}

TEST_CASE("descriptors: a child of fork has its own", "[descriptors][fork]") {
  const TestDirectory dir;
  Fd fd = letter_file("a", 'a');
  const Fd b = letter_file("b", 'b');
  CHECK(in_child([&] {
          if (letter_at(fd.get()) != 'a') return 1;
          ::dup2(b.get(), fd.get());
          if (letter_at(fd.get()) != 'b') return 2;
          ::close(fd.get());
          if (letter_at(fd.get()) != '?') return 3;
          write_at(b.get(), "c", 4097);
          return 0;
        }) == kOk);
  CHECK(letter_at(fd.get()) == 'a');
  CHECK(letter_at(b.get()) == 'c');
}

TEST_CASE("descriptors: a child of vfork leaves those of its parent alone", "[descriptors][fork]") {
  const bool is_old_name = GENERATE(false, true);
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  const Fd b = letter_file("b", 'b');
  volatile char seen = 0;
  const pid_t child = is_old_name ? old_vfork() : ::vfork();
  if (child == 0) {
    ::dup2(b.get(), fd.get());
    seen = letter_at(fd.get());
    ::close(b.get());
    ::close(fd.get());
    ::open("b", O_RDONLY);
    ::_exit(0);
  }
  REQUIRE(child > 0);
  int ended = 0;
  REQUIRE(::waitpid(child, &ended, 0) == child);
  CHECK(ended == 0);
  CHECK(seen == 'b');
  CHECK(all_of(fd.get()) == std::string(kSize, 'a'));
  CHECK(all_of(b.get()) == std::string(kSize, 'b'));
}

TEST_CASE("descriptors: posix_spawn with file actions", "[descriptors][fork]") {
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  const Fd out = open_file("out", O_CREAT | O_RDWR);
  posix_spawn_file_actions_t actions;
  REQUIRE(::posix_spawn_file_actions_init(&actions) == 0);
  ::posix_spawn_file_actions_adddup2(&actions, fd.get(), 0);
  ::posix_spawn_file_actions_adddup2(&actions, out.get(), 1);
  ::posix_spawn_file_actions_addclose(&actions, fd.get());
  char name[] = "head";
  char option[] = "-c5";
  char* const arguments[] = {name, option, nullptr};
  pid_t child = 0;
  REQUIRE(::posix_spawnp(&child, "head", &actions, nullptr, arguments, environ) == 0);
  ::posix_spawn_file_actions_destroy(&actions);
  int ended = 0;
  REQUIRE(::waitpid(child, &ended, 0) == child);
  CHECK(ended == 0);
  CHECK(read_file("out") == "aaaaa");
  CHECK(letter_at(fd.get()) == 'a');
}

// The blocks of a file that is closed and deleted belong to the next one at once. A copy that is still under way must
// not take, or worse leave, anything there.
TEST_CASE("descriptors: close waits for the copies of other threads", "[descriptors][threads]") {
  const TestDirectory dir;
  constexpr int kRounds = 150;
  std::atomic<int> current{-1};
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      std::string data(kSize, '?');
      while (!stop.load()) {
        const int fd = current.load();
        if (fd < 0) continue;
        if (i == 2) {
          // To whatever file the number leads to by now: its own letter, or none.
          (void)letter_at(fd, 0);
          continue;
        }
        const ssize_t got = ::pread(fd, data.data(), data.size(), 0);
        // A number that is closed may lead to whatever the process opens next, not only to "f".
        if (got <= 0 || data[0] < 'a' || data[0] > 'z') continue;
        if (data.find_first_not_of(data[0], 0) < static_cast<std::size_t>(got)) ++wrong;
      }
    });
  }
  for (int round = 0; round < kRounds; ++round) {
    const char letter = static_cast<char>('a' + round % 26);
    make_file("f", std::string(kSize, letter));
    Fd fd = open_file("f", O_RDWR);
    current.store(fd.get());
    std::this_thread::yield();
    if (letter_at(fd.get()) != letter) ++wrong;
    fd.close();
    REQUIRE(::unlink("f") == 0);
  }
  stop.store(true);
  for (auto& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("descriptors: writers whose descriptor is closed write nowhere else", "[descriptors][threads]") {
  const TestDirectory dir;
  std::atomic<int> current{-1};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const std::string data(kSize, 'w');
    while (!stop.load()) {
      if (const int fd = current.load(); fd >= 0) {
        if (::pwrite(fd, data.data(), data.size(), 0) < 0 && errno != EBADF) break;
      }
    }
  });
  int wrong = 0;
  for (int round = 0; round < 100; ++round) {
    make_file("f", std::string(kSize, 'f'));
    const int fd = ::fcntl(open_file("f", O_RDWR).get(), F_DUPFD, 300);
    current.store(fd);
    std::this_thread::yield();
    current.store(-1);
    // From here on the number is closed, and what takes the blocks is another file.
    REQUIRE(::close(fd) == 0);
    REQUIRE(::unlink("f") == 0);
    make_file("g", std::string(kSize, 'g'));
    if (read_file("g") != std::string(kSize, 'g')) ++wrong;
    REQUIRE(::unlink("g") == 0);
  }
  stop.store(true);
  writer.join();
  CHECK(wrong == 0);
}

namespace {
std::atomic<int> handler_fd{-1};
std::atomic<int> handler_runs{0};
std::atomic<int> handler_wrong{0};
sigjmp_buf jump;

void read_in_handler(int) {
  const int saved = errno;
  std::string::value_type data[3000];
  const ssize_t got = ::pread(handler_fd.load(), data, sizeof(data), 1000);
  if (got != sizeof(data) || data[0] != 'h' || data[2999] != 'h') ++handler_wrong;
  ++handler_runs;
  errno = saved;
}
void close_in_handler(int) {
  ::close(handler_fd.load());
  ++handler_runs;
}
void jump_from_handler(int) {
  siglongjmp(jump, 1);
}

void start_timer(void (*handler)(int), bool repeat) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGALRM, &action, nullptr);
  const timeval step{0, 500};
  const itimerval timer{repeat ? step : timeval{0, 0}, step};
  ::setitimer(ITIMER_REAL, &timer, nullptr);
}
void stop_timer() {
  const itimerval none{};
  ::setitimer(ITIMER_REAL, &none, nullptr);
  ::signal(SIGALRM, SIG_DFL);
}
}  // namespace

TEST_CASE("descriptors: a signal handler reads in the middle of a copy", "[descriptors][signal]") {
  const TestDirectory dir;
  const Fd handled = letter_file("h", 'h');
  const Fd fd = letter_file("a", 'a');
  handler_fd.store(handled.get());
  handler_runs.store(0);
  start_timer(read_in_handler, true);
  int wrong = 0;
  while (handler_runs.load() < 200) {
    if (all_of(fd.get()) != std::string(kSize, 'a')) ++wrong;
  }
  stop_timer();
  CHECK(wrong == 0);
  CHECK(handler_wrong.load() == 0);
}

TEST_CASE("descriptors: a signal handler closes what its thread reads", "[descriptors][signal]") {
  const TestDirectory dir;
  for (int round = 0; round < 50; ++round) {
    Fd fd = letter_file("a", 'a');
    const int number = ::fcntl(fd.get(), F_DUPFD, 400);
    fd.close();
    handler_runs.store(0);
    handler_fd.store(number);
    REQUIRE(letter_at(number) == 'a');
    start_timer(close_in_handler, false);
    while (true) {
      const std::string data = all_of(number);
      if (data.empty()) break;
      REQUIRE(data == std::string(kSize, 'a'));
    }
    stop_timer();
    CHECK(handler_runs.load() == 1);
    REQUIRE(::unlink("a") == 0);
  }
}

TEST_CASE("descriptors: a signal handler that jumps out of a copy, many times", "[descriptors][signal]") {
  const TestDirectory dir;
  Fd fd = letter_file("a", 'a');
  static int round;
  for (round = 0; round < 60; ++round) {
    if (sigsetjmp(jump, 1) == 0) {
      start_timer(jump_from_handler, false);
      while (true) (void)letter_at(fd.get());
    }
  }
  stop_timer();
  CHECK(all_of(fd.get()) == std::string(kSize, 'a'));
  const int number = fd.get();
  fd.close();
  CHECK(letter_at(number) == '?');
}

TEST_CASE("descriptors: threads read and write one file", "[descriptors][threads]") {
  const TestDirectory dir;
  constexpr unsigned kThreads = 8;
  constexpr std::size_t kPart = 64 * 1024;
  const Fd fd = open_file("a", O_CREAT | O_RDWR);
  REQUIRE(::posix_fallocate(fd.get(), 0, kThreads * kPart) == 0);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint32_t round = 1; round < 200; ++round) {
        const Bytes data = pattern(3001, t * 1000 + round);
        const off_t at = static_cast<off_t>(t * kPart + (round * 7919) % (kPart - 3001));
        Bytes back(data.size());
        if (::pwrite(fd.get(), data.data(), data.size(), at) != 3001) ++wrong;
        if (::pread(fd.get(), back.data(), back.size(), at) != 3001 || back != data) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("descriptors: the end of the file moves, blocks come and go", "[descriptors]") {
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  const Fd other = open_file("a", O_RDWR);
  REQUIRE(::ftruncate(other.get(), 5000) == 0);
  CHECK(all_of(fd.get()) == std::string(5000, 'a'));
  REQUIRE(::ftruncate(other.get(), 20'000) == 0);
  CHECK(all_of(fd.get()) == std::string(5000, 'a') + std::string(15'000, '\0'));
  for (int i = 0; i < 300; ++i) {
    write_at(i % 2 == 0 ? fd.get() : other.get(), std::string(100, static_cast<char>('b' + i % 20)), 20'000 + i * 100);
    REQUIRE(letter_at(fd.get(), 20'000 + i * 100 + 99) == static_cast<char>('b' + i % 20));
  }
  REQUIRE(::fallocate(other.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192) == 0);
  CHECK(zeros_at(fd.get(), 8192, 4096));
  write_at(fd.get(), "x", 6000);
  CHECK(letter_at(other.get(), 6000) == 'x');
}

TEST_CASE("descriptors: times are right by the next stat", "[descriptors][time]") {
  const TestDirectory dir;
  const Fd fd = letter_file("a", 'a');
  const struct timespec old[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(::futimens(fd.get(), old) == 0);
  write_at(fd.get(), "x", 10);
  CHECK(status("a").st_mtim.tv_sec > 1000);
  REQUIRE(::fsync(fd.get()) == 0);
  CHECK(status(fd.get()).st_mtim.tv_sec > 1000);
}
