// flock(2), fcntl(2) record locks, open file description locks.
#include <sys/file.h>

#include <array>

#include "test/posix/support.h"

using namespace posix;

namespace {
Code lock(int fd, int command, short type, off_t start = 0, off_t length = 0) {
  struct flock request {};
  request.l_type = type;
  request.l_whence = SEEK_SET;
  request.l_start = start;
  request.l_len = length;
  return code(::fcntl(fd, command, &request));
}

/// What another process gets for the same lock.
Code elsewhere(int command, short type, off_t start = 0, off_t length = 0) {
  return in_child([=] { return lock(::open("file", O_RDWR), command, type, start, length).value; });
}

Code flock_elsewhere(int operation) {
  return in_child([=] { return errno_of(::flock(::open("file", O_RDWR), operation | LOCK_NB)); });
}
}  // namespace

TEST_CASE("lock: flock excludes other descriptions until it is given up", "[lock]") {
  const TestDirectory dir;
  make_file("file");
  Fd fd = open_file("file", O_RDWR);
  REQUIRE(code(::flock(fd.get(), LOCK_EX)) == kOk);
  CHECK(flock_elsewhere(LOCK_EX) == EWOULDBLOCK);
  CHECK(flock_elsewhere(LOCK_SH) == EWOULDBLOCK);
  const Fd second = open_file("file", O_RDONLY);
  CHECK(code(::flock(second.get(), LOCK_SH | LOCK_NB)) == EWOULDBLOCK);
  REQUIRE(code(::flock(fd.get(), LOCK_SH)) == kOk);
  CHECK(flock_elsewhere(LOCK_SH) == kOk);
  CHECK(flock_elsewhere(LOCK_EX) == EWOULDBLOCK);
  REQUIRE(code(::flock(fd.get(), LOCK_UN)) == kOk);
  CHECK(flock_elsewhere(LOCK_EX) == kOk);
  REQUIRE(code(::flock(fd.get(), LOCK_EX)) == kOk);
  fd.close();
  CHECK(flock_elsewhere(LOCK_EX) == kOk);
}

TEST_CASE("lock: a blocked flock goes on when the holder dies", "[lock]") {
  const TestDirectory dir;
  make_file("file");
  CHECK(all_succeed(4, [](unsigned) {
    const int fd = ::open("file", O_RDWR);
    if (::flock(fd, LOCK_EX) != 0) return errno;
    ::usleep(10'000);
    return 0;  // the lock ends with the process
  }));
}

TEST_CASE("lock: record locks exclude by range and kind", "[lock]") {
  const TestDirectory dir;
  make_file("file");
  const Fd fd = open_file("file", O_RDWR);
  REQUIRE(lock(fd.get(), F_SETLK, F_WRLCK, 100, 50) == kOk);
  REQUIRE(lock(fd.get(), F_SETLK, F_RDLCK, 200, 50) == kOk);
  const auto refused = [](Code result) { return result == EAGAIN || result == EACCES; };
  CHECK(refused(elsewhere(F_SETLK, F_RDLCK, 149, 1)));
  CHECK(refused(elsewhere(F_SETLK, F_WRLCK, 0, 0)));
  CHECK(refused(elsewhere(F_SETLK, F_WRLCK, 249, 100)));
  CHECK(elsewhere(F_SETLK, F_RDLCK, 200, 50) == kOk);
  CHECK(elsewhere(F_SETLK, F_WRLCK, 150, 50) == kOk);
  CHECK(elsewhere(F_SETLK, F_WRLCK, 0, 100) == kOk);
  REQUIRE(lock(fd.get(), F_SETLK, F_UNLCK, 110, 10) == kOk);  // splits the first one
  CHECK(elsewhere(F_SETLK, F_WRLCK, 110, 10) == kOk);
  CHECK(refused(elsewhere(F_SETLK, F_WRLCK, 109, 1)));
  CHECK(refused(elsewhere(F_SETLK, F_WRLCK, 120, 1)));
  CHECK(lock(open_file("file", O_RDONLY).get(), F_SETLK, F_WRLCK) == EBADF);
}

TEST_CASE("lock: F_GETLK names the holder", "[lock]") {
  const TestDirectory dir;
  make_file("file");
  const Fd fd = open_file("file", O_RDWR);
  REQUIRE(lock(fd.get(), F_SETLK, F_WRLCK, 10, 20) == kOk);
  const pid_t holder = ::getpid();
  CHECK(in_child([=] {
          struct flock request {};
          request.l_type = F_RDLCK;
          request.l_whence = SEEK_SET;
          if (::fcntl(::open("file", O_RDWR), F_GETLK, &request) != 0) return errno;
          if (request.l_type != F_WRLCK || request.l_pid != holder) return 250;
          return request.l_start == 10 && request.l_len == 20 ? 0 : 251;
        }) == kOk);
}

TEST_CASE("lock: record locks end when any descriptor of the process is closed", "[lock]") {
  const TestDirectory dir;
  make_file("file");
  const Fd fd = open_file("file", O_RDWR);
  REQUIRE(lock(fd.get(), F_SETLK, F_WRLCK) == kOk);
  { const Fd other = open_file("file", O_RDONLY); }
  CHECK(elsewhere(F_SETLK, F_WRLCK) == kOk);
}

TEST_CASE("lock: a waiting F_SETLKW serialises a counter", "[lock][concurrent]") {
  const TestDirectory dir;
  make_file("file", "0");
  constexpr unsigned kProcesses = 4;
  constexpr unsigned kRounds = 50;
  REQUIRE(all_succeed(kProcesses, [](unsigned) {
    const int fd = ::open("file", O_RDWR);
    for (unsigned i = 0; i < kRounds; ++i) {
      if (!(lock(fd, F_SETLKW, F_WRLCK) == kOk)) return 1;
      std::array<char, 32> text{};
      if (::pread(fd, text.data(), text.size() - 1, 0) <= 0) return 2;
      const std::string next = std::to_string(std::stoul(text.data()) + 1);
      if (::pwrite(fd, next.data(), next.size(), 0) != static_cast<ssize_t>(next.size())) return 3;
      if (!(lock(fd, F_SETLK, F_UNLCK) == kOk)) return 4;
    }
    return 0;
  }));
  CHECK(read_file("file") == std::to_string(kProcesses * kRounds));
}

TEST_CASE("lock: open file description locks belong to the description", "[lock]") {
  const TestDirectory dir;
  make_file("file");
  Fd one = open_file("file", O_RDWR);
  const Fd two = open_file("file", O_RDWR);
  REQUIRE(lock(one.get(), F_OFD_SETLK, F_WRLCK) == kOk);
  CHECK(lock(two.get(), F_OFD_SETLK, F_WRLCK) == EAGAIN);
  const Fd copy(::dup(one.get()));
  CHECK(lock(copy.get(), F_OFD_SETLK, F_WRLCK) == kOk);
  one.close();
  CHECK(lock(two.get(), F_OFD_SETLK, F_WRLCK) == EAGAIN);
}
