// fsync(2) and its kin, O_SYNC, O_DIRECT. What they make durable is the crash tests' matter; here: that they succeed
// where they must, fail where they must, and lose nothing.
#include <cstdlib>

#include "test/posix/support.h"

using namespace posix;

TEST_CASE("sync: fsync and fdatasync of files, whatever they are open for", "[sync]") {
  const TestDirectory dir;
  make_file("file", "abc");
  for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_APPEND}) {
    const Fd fd = open_file("file", flags);
    CHECK(code(::fsync(fd.get())) == kOk);
    CHECK(code(::fdatasync(fd.get())) == kOk);
  }
  CHECK(code(::fsync(open_file("file", O_PATH).get())) == EBADF);
  const Fd fd = open_file("file", O_RDWR);
  for (std::uint32_t i = 0; i < 100; ++i) {
    write_at(fd.get(), pattern(5000, i), i * 4000);
    REQUIRE(code(i % 2 == 0 ? ::fsync(fd.get()) : ::fdatasync(fd.get())) == kOk);
  }
  CHECK(read_at(fd.get(), 5000, 99 * 4000) == pattern(5000, 99));
  REQUIRE(::unlink("file") == 0);
  CHECK(code(::fsync(fd.get())) == kOk);
}

TEST_CASE("sync: fsync of directories, also of a deleted one", "[sync][directory]") {
  const TestDirectory dir;
  make_directory("d");
  const Fd fd = open_file("d", O_RDONLY | O_DIRECTORY);
  make_file("d/f");
  CHECK(code(::fsync(fd.get())) == kOk);
  CHECK(code(::fdatasync(fd.get())) == kOk);
  REQUIRE(::unlink("d/f") == 0);
  CHECK(code(::fsync(fd.get())) == kOk);
  REQUIRE(::rmdir("d") == 0);
  CHECK(code(::fsync(fd.get())) == kOk);
}

TEST_CASE("sync: sync, syncfs and sync_file_range", "[sync]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), pattern(1'000'000), 0);
  CHECK(code(::sync_file_range(fd.get(), 4096, 8192, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER)) == kOk);
  CHECK(code(::syncfs(fd.get())) == kOk);
  ::sync();
  CHECK(read_at(fd.get(), 1'000'001, 0) == pattern(1'000'000));
}

TEST_CASE("sync: O_SYNC and O_DSYNC writes", "[sync]") {
  const TestDirectory dir;
  for (const int flag : {O_SYNC, O_DSYNC}) {
    const Fd fd = open_file("file", O_CREAT | O_TRUNC | O_RDWR | flag);
    for (std::uint32_t i = 0; i < 50; ++i) write_at(fd.get(), pattern(3000, i), i * 3000);
    for (std::uint32_t i = 0; i < 50; ++i) REQUIRE(read_at(fd.get(), 3000, i * 3000) == pattern(3000, i));
  }
}

TEST_CASE("sync: O_DIRECT reads and writes whole blocks", "[sync][direct]") {
  const TestDirectory dir;
  make_file("file");
  const int direct = ::open("file", O_RDWR | O_DIRECT | O_CLOEXEC);
  if (direct < 0 && errno == EINVAL) lacking("O_DIRECT");
  const Fd fd(direct);
  constexpr std::size_t kLength = 64 * kPage;
  auto* buffer = static_cast<std::uint8_t*>(std::aligned_alloc(kPage, kLength));
  const Bytes data = pattern(kLength);
  std::copy(data.begin(), data.end(), buffer);
  CHECK(::pwrite(fd.get(), buffer, kLength, kPage) == static_cast<ssize_t>(kLength));
  const Fd plain = open_file("file", O_RDWR);
  CHECK(zeros_at(plain.get(), kPage, 0));
  CHECK(read_at(plain.get(), kLength + 1, kPage) == data);
  write_at(plain.get(), "plain", 2 * kPage);
  std::fill(buffer, buffer + kLength, std::uint8_t{0});
  CHECK(::pread(fd.get(), buffer, kPage, 2 * kPage) == static_cast<ssize_t>(kPage));
  CHECK(std::memcmp(buffer, "plain", 5) == 0);
  CHECK(::pread(fd.get(), buffer, kLength, kLength) == static_cast<ssize_t>(kPage));  // the end of the file
  std::free(buffer);
}
