// open(2): creating, flags, O_APPEND, O_TMPFILE.
#include <sys/wait.h>

#include <algorithm>
#include <array>

#include "test/posix/support.h"

using namespace posix;

TEST_CASE("open: O_EXCL refuses what exists, also a dangling symbolic link", "[open]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(::symlink("nowhere", "dangling") == 0);
  CHECK(code(::open("file", O_CREAT | O_EXCL | O_RDWR, 0644)) == EEXIST);
  CHECK(code(::open("dangling", O_CREAT | O_EXCL | O_RDWR, 0644)) == EEXIST);
  CHECK_FALSE(exists("nowhere"));
  const Fd through = open_file("dangling", O_CREAT | O_RDWR);
  CHECK(exists("nowhere"));
}

TEST_CASE("open: errors of the man page", "[open]") {
  const TestDirectory dir;
  make_file("file", "x");
  make_directory("directory");
  REQUIRE(::symlink("file", "link") == 0);
  REQUIRE(::symlink("loop", "loop") == 0);
  CHECK(code(::open("missing", O_RDONLY)) == ENOENT);
  CHECK(code(::open("missing/file", O_CREAT | O_RDWR, 0644)) == ENOENT);
  CHECK(code(::open("file/below", O_RDONLY)) == ENOTDIR);
  CHECK(code(::open("file", O_RDONLY | O_DIRECTORY)) == ENOTDIR);
  CHECK(code(::open("file/", O_RDONLY)) == ENOTDIR);
  CHECK(code(::open("directory", O_WRONLY)) == EISDIR);
  CHECK(code(::open("directory", O_RDWR)) == EISDIR);
  CHECK(code(::open("directory", O_CREAT | O_RDONLY, 0644)) == EISDIR);
  CHECK(code(::open("new/", O_CREAT | O_RDWR, 0644)) == EISDIR);
  CHECK(code(::open("link", O_RDONLY | O_NOFOLLOW)) == ELOOP);
  CHECK(code(::open("loop", O_RDONLY)) == ELOOP);
  CHECK(code(::open("", O_RDONLY)) == ENOENT);
}

TEST_CASE("open: O_TRUNC empties a file and moves mtime and ctime", "[open]") {
  const TestDirectory dir;
  make_file("file", std::string(100'000, 'x'));
  const struct timespec old[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, "file", old, 0) == 0);
  const Fd reader = open_file("file", O_RDONLY);
  const Fd fd = open_file("file", O_WRONLY | O_TRUNC);
  CHECK(status("file").st_size == 0);
  CHECK(status("file").st_mtim.tv_sec > 1000);
  CHECK(read_at(reader.get(), 10, 0).empty());
}

TEST_CASE("open: the mode of a new file is masked, and the descriptor works whatever the mode", "[open]") {
  const TestDirectory dir;
  ::umask(027);
  Fd fd = open_file("masked", O_CREAT | O_RDWR, 0666);
  ::umask(022);
  CHECK(permissions("masked") == 0640);
  REQUIRE(::chmod(".", 0777) == 0);
  CHECK(as_user(kUser, [] {
          const int none = ::open("none", O_CREAT | O_RDWR | O_EXCL, 0);
          if (none < 0) return errno;
          if (::write(none, "abc", 3) != 3) return 250;
          return errno_of(::open("none", O_RDONLY)) == EACCES ? 0 : 251;
        }) == kOk);
  CHECK(permissions("none") == 0);
  CHECK(status("none").st_uid == kUser);
  CHECK(status("none").st_size == 3);
}

TEST_CASE("open: O_APPEND writes at the end that two descriptors share", "[open][append]") {
  const TestDirectory dir;
  const Fd one = open_file("log", O_CREAT | O_WRONLY | O_APPEND);
  const Fd two = open_file("log", O_WRONLY | O_APPEND);
  const Fd plain = open_file("log", O_RDWR);
  std::string expected;
  for (int i = 0; i < 50; ++i) {
    const std::string line = "line " + std::to_string(i) + "\n";
    const int fd = i % 2 == 0 ? one.get() : two.get();
    REQUIRE(::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
    expected += line;
    if (i == 20) {  // somebody else makes the file longer
      write_at(plain.get(), "xyz", expected.size());
      expected += "xyz";
    }
    if (i == 30) {  // and shorter
      REQUIRE(::ftruncate(plain.get(), 40) == 0);
      expected.resize(40);
    }
  }
  CHECK(read_file("log") == expected);
  CHECK(::lseek(one.get(), 0, SEEK_CUR) > 0);
}

TEST_CASE("open: pwrite on an O_APPEND descriptor appends, as Linux does", "[open][append]") {
  const TestDirectory dir;
  make_file("file", "0123456789");
  const Fd fd = open_file("file", O_WRONLY | O_APPEND);
  REQUIRE(::pwrite(fd.get(), "ab", 2, 3) == 2);
  CHECK(read_file("file") == "0123456789ab");
}

TEST_CASE("open: O_APPEND can be switched on and off with fcntl", "[open][append]") {
  const TestDirectory dir;
  make_file("file", "0123456789");
  const Fd fd = open_file("file", O_WRONLY);
  REQUIRE(::fcntl(fd.get(), F_SETFL, O_APPEND) == 0);
  REQUIRE(::write(fd.get(), "a", 1) == 1);
  REQUIRE(::fcntl(fd.get(), F_SETFL, 0) == 0);
  REQUIRE(::pwrite(fd.get(), "b", 1, 0) == 1);
  CHECK(read_file("file") == "b123456789a");
}

TEST_CASE("open: processes that append never lose or mix records", "[open][append][concurrent]") {
  const TestDirectory dir;
  make_file("log");
  constexpr unsigned kWriters = 4;
  constexpr unsigned kRecords = 300;
  REQUIRE(all_succeed(kWriters, [](unsigned writer) {
    const int fd = ::open("log", O_WRONLY | O_APPEND);
    for (unsigned i = 0; i < kRecords; ++i) {
      std::string record(37 + (i * 7 + writer) % 200, static_cast<char>('a' + writer));
      record.back() = '\n';
      if (::write(fd, record.data(), record.size()) != static_cast<ssize_t>(record.size())) return 1;
    }
    return 0;
  }));
  const std::string content = read_file("log");
  std::array<unsigned, kWriters> seen{};
  std::size_t at = 0;
  while (at < content.size()) {
    const std::size_t end = content.find('\n', at);
    REQUIRE(end != std::string::npos);
    const unsigned writer = static_cast<unsigned>(content[at] - 'a');
    REQUIRE(writer < kWriters);
    const std::size_t length = 37 + (seen[writer] * 7 + writer) % 200;
    REQUIRE(end - at + 1 == length);
    REQUIRE(std::all_of(content.begin() + static_cast<std::ptrdiff_t>(at),
                        content.begin() + static_cast<std::ptrdiff_t>(end), [&](char c) { return c == content[at]; }));
    ++seen[writer];
    at = end + 1;
  }
  for (const unsigned count : seen) CHECK(count == kRecords);
}

namespace {
Fd open_unnamed(int flags) {
  needs_kernel(6, 2, "O_TMPFILE over FUSE");
  const int fd = ::open(".", O_TMPFILE | O_RDWR | flags, 0640);
  if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) lacking("O_TMPFILE");
  REQUIRE(code(fd) == kOk);
  return Fd(fd);
}
}  // namespace

TEST_CASE("open: O_TMPFILE makes a file without a name, which linkat can name", "[open][tmpfile]") {
  const TestDirectory dir;
  const Fd fd = open_unnamed(0);
  CHECK(list(".").empty());
  CHECK(status(fd.get()).st_nlink == 0);
  CHECK((status(fd.get()).st_mode & 07777) == 0640);
  const Bytes data = pattern(100'000);
  write_at(fd.get(), data, 0);
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  REQUIRE(code(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW)) == kOk);
  CHECK(list(".") == std::set<std::string>{"named"});
  CHECK(status("named").st_nlink == 1);
  CHECK(status("named").st_ino == status(fd.get()).st_ino);
  CHECK(read_at(open_file("named", O_RDONLY).get(), data.size() + 1, 0) == data);
}

TEST_CASE("open: O_TMPFILE with O_EXCL can never be named", "[open][tmpfile]") {
  const TestDirectory dir;
  const Fd fd = open_unnamed(O_EXCL);
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  CHECK(code(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW)) == ENOENT);
  CHECK(list(".").empty());
}

TEST_CASE("open: a descriptor keeps its rights after chmod", "[open]") {
  const TestDirectory dir;
  REQUIRE(::chmod(".", 0777) == 0);
  CHECK(as_user(kUser, [] {
          const int fd = ::open("file", O_CREAT | O_RDWR, 0600);
          if (fd < 0 || ::chmod("file", 0) != 0) return 250;
          if (::write(fd, "abc", 3) != 3) return 251;
          std::array<char, 3> buffer{};
          if (::pread(fd, buffer.data(), buffer.size(), 0) != 3) return 252;
          return errno_of(::open("file", O_WRONLY)) == EACCES ? 0 : 249;
        }) == kOk);
}
