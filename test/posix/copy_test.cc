// copy_file_range(2), sendfile(2), splice(2).
#include <sys/sendfile.h>

#include <algorithm>

#include "test/posix/support.h"

using namespace posix;

namespace {
/// Copies all of it, in as many calls as it takes; gives back how much came.
std::size_t copy_all(int from, off_t from_offset, int to, off_t to_offset, std::size_t length) {
  std::size_t done = 0;
  while (done < length) {
    const ssize_t copied = ::copy_file_range(from, &from_offset, to, &to_offset, length - done, 0);
    REQUIRE(code(copied) == kOk);
    if (copied == 0) break;
    done += static_cast<std::size_t>(copied);
  }
  return done;
}
}  // namespace

TEST_CASE("copy_file_range: copies between files at odd offsets", "[copy]") {
  const TestDirectory dir;
  const Bytes data = pattern(5'000'000);
  const Fd from = open_file("from", O_CREAT | O_RDWR);
  const Fd to = open_file("to", O_CREAT | O_RDWR);
  write_at(from.get(), data, 0);
  write_at(to.get(), pattern(100'000, 2), 0);
  CHECK(copy_all(from.get(), 123, to.get(), 4567, 4'000'000) == 4'000'000);
  CHECK(read_at(to.get(), 4'000'000, 4567) == Bytes(data.begin() + 123, data.begin() + 4'000'123));
  CHECK(read_at(to.get(), 4567, 0) == pattern(4567, 2));
  CHECK(status(to.get()).st_size == 4'004'567);
  CHECK(read_at(from.get(), data.size() + 1, 0) == data);
}

TEST_CASE("copy_file_range: stops at the end of the source", "[copy]") {
  const TestDirectory dir;
  make_file("from", "0123456789");
  make_file("to");
  const Fd from = open_file("from", O_RDONLY);
  const Fd to = open_file("to", O_RDWR);
  CHECK(copy_all(from.get(), 4, to.get(), 0, 1000) == 6);
  CHECK(read_file("to") == "456789");
  off_t at = 10;
  CHECK(::copy_file_range(from.get(), &at, to.get(), nullptr, 10, 0) == 0);
  at = 1000;
  CHECK(::copy_file_range(from.get(), &at, to.get(), nullptr, 10, 0) == 0);
}

TEST_CASE("copy_file_range: moves the file offsets when none are given", "[copy]") {
  const TestDirectory dir;
  make_file("from", "0123456789");
  make_file("to");
  const Fd from = open_file("from", O_RDONLY);
  const Fd to = open_file("to", O_RDWR);
  REQUIRE(::copy_file_range(from.get(), nullptr, to.get(), nullptr, 4, 0) == 4);
  REQUIRE(::copy_file_range(from.get(), nullptr, to.get(), nullptr, 3, 0) == 3);
  CHECK(::lseek(from.get(), 0, SEEK_CUR) == 7);
  CHECK(::lseek(to.get(), 0, SEEK_CUR) == 7);
  CHECK(read_file("to") == "0123456");
}

TEST_CASE("copy_file_range: within one file, without overlap", "[copy]") {
  const TestDirectory dir;
  const Bytes data = pattern(300'000);
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), data, 0);
  CHECK(copy_all(fd.get(), 0, fd.get(), 300'001, 300'000) == 300'000);
  CHECK(read_at(fd.get(), 300'000, 300'001) == data);
  CHECK(zeros_at(fd.get(), 1, 300'000));
  off_t from = 1000;
  off_t to = 1500;
  CHECK(code(::copy_file_range(fd.get(), &from, fd.get(), &to, 1000, 0)) == EINVAL);
}

TEST_CASE("copy_file_range: holes arrive as zeros", "[copy][sparse]") {
  const TestDirectory dir;
  const Fd from = open_file("from", O_CREAT | O_RDWR);
  const Fd to = open_file("to", O_CREAT | O_RDWR);
  write_at(from.get(), pattern(1000), 3'000'000);
  REQUIRE(::ftruncate(from.get(), 4'000'000) == 0);
  write_at(to.get(), pattern(4'000'000, 3), 0);
  CHECK(copy_all(from.get(), 0, to.get(), 0, 4'000'000) == 4'000'000);
  CHECK(read_at(to.get(), 4'000'000, 0) == read_at(from.get(), 4'000'000, 0));
}

TEST_CASE("copy_file_range: errors of the man page", "[copy]") {
  const TestDirectory dir;
  make_file("from", "0123456789");
  make_file("to");
  make_directory("directory");
  const Fd from = open_file("from", O_RDONLY);
  const Fd to = open_file("to", O_WRONLY);
  const auto copy = [](int source, int target, unsigned flags = 0) {
    return code(::copy_file_range(source, nullptr, target, nullptr, 5, flags));
  };
  CHECK(copy(from.get(), to.get(), 1) == EINVAL);
  CHECK(copy(to.get(), to.get()) == EBADF);
  CHECK(copy(from.get(), from.get()) == EBADF);
  CHECK(copy(from.get(), open_file("to", O_WRONLY | O_APPEND).get()) == EBADF);
  CHECK(copy(open_file("directory", O_RDONLY).get(), to.get()) == EISDIR);
  CHECK(read_file("to").empty());
}

TEST_CASE("copy_file_range: moves mtime of the target", "[copy][time]") {
  const TestDirectory dir;
  make_file("from", "0123456789");
  make_file("to");
  const struct timespec old[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, "to", old, 0) == 0);
  const Fd from = open_file("from", O_RDONLY);
  const Fd to = open_file("to", O_WRONLY);
  REQUIRE(::copy_file_range(from.get(), nullptr, to.get(), nullptr, 10, 0) == 10);
  CHECK(status("to").st_mtim.tv_sec > 1000);
}

TEST_CASE("sendfile and splice: move data in and out", "[copy]") {
  const TestDirectory dir;
  const Bytes data = pattern(60'000);
  const Fd from = open_file("from", O_CREAT | O_RDWR);
  const Fd to = open_file("to", O_CREAT | O_RDWR);
  write_at(from.get(), data, 0);
  off_t at = 1000;
  REQUIRE(::sendfile(to.get(), from.get(), &at, 59'000) == 59'000);
  CHECK(read_at(to.get(), 60'000, 0) == Bytes(data.begin() + 1000, data.end()));
  int ends[2] = {-1, -1};
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const Fd out(ends[0]);
  const Fd in(ends[1]);
  at = 5;
  const ssize_t moved = ::splice(from.get(), &at, in.get(), nullptr, 30'000, 0);
  REQUIRE(moved > 0);
  off_t target = 100'000;
  REQUIRE(::splice(out.get(), nullptr, to.get(), &target, static_cast<std::size_t>(moved), 0) == moved);
  CHECK(read_at(to.get(), static_cast<std::size_t>(moved), 100'000) ==
        Bytes(data.begin() + 5, data.begin() + 5 + moved));
}
