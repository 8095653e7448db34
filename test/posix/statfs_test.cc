// statfs(2): the figures are those of the allocator.
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include <algorithm>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr std::uint64_t kMegabyte = 1024 * 1024;
constexpr int kPolls = 200;  // of 50 ms each: how long space may take to come back

struct statvfs figures() {
  struct statvfs fs {};
  REQUIRE(code(::statvfs(".", &fs)) == kOk);
  return fs;
}
std::uint64_t free_bytes() {
  return figures().f_bfree * figures().f_frsize;
}

/// Waits until the free space is `expected` again. A deletion may be worked off behind one's back.
bool returns_to(std::uint64_t expected) {
  for (int i = 0; i < kPolls; ++i) {
    if (free_bytes() == expected) return true;
    ::usleep(50'000);
  }
  UNSCOPED_INFO("free space is " << free_bytes() << ", at first it was " << expected << ", difference "
                                 << static_cast<std::int64_t>(free_bytes() - expected));
  return false;
}

/// Free space when nothing of earlier tests is still being given back.
std::uint64_t settled_free_bytes() {
  std::uint64_t last = free_bytes();
  for (int same = 0, polls = 0; same < 4 && polls < kPolls; ++polls) {
    ::usleep(50'000);
    const std::uint64_t now = free_bytes();
    same = now == last ? same + 1 : 0;
    last = now;
  }
  return last;
}

}  // namespace

TEST_CASE("statfs: the figures make sense", "[statfs]") {
  const TestDirectory dir;
  const struct statvfs fs = figures();
  CHECK(fs.f_namemax == 255);
  CHECK(fs.f_bsize >= 512);
  CHECK(fs.f_frsize >= 512);
  CHECK(fs.f_blocks > 0);
  CHECK(fs.f_bfree <= fs.f_blocks);
  CHECK(fs.f_bavail <= fs.f_bfree);
  CHECK(fs.f_files > 0);
  CHECK(fs.f_ffree <= fs.f_files);
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  struct statfs by_fd {};
  REQUIRE(code(::fstatfs(fd.get(), &by_fd)) == kOk);
  CHECK(by_fd.f_blocks == fs.f_blocks);
}

TEST_CASE("statfs: 16 MiB written are 16 MiB less, and come back when deleted", "[statfs]") {
  only_on_plumbfs("a file system of one's own");
  const TestDirectory dir;
  const std::uint64_t before = settled_free_bytes();
  {
    const Fd fd = open_file("file", O_CREAT | O_RDWR);
    for (std::uint64_t i = 0; i < 16; ++i) write_at(fd.get(), pattern(kMegabyte), i * kMegabyte);
    REQUIRE(::fsync(fd.get()) == 0);
    const std::uint64_t taken = before - free_bytes();
    CHECK(taken >= 16 * kMegabyte);
    CHECK(taken <= 17 * kMegabyte);
    CHECK(status(fd.get()).st_blocks * 512 >= static_cast<off_t>(16 * kMegabyte));
  }
  REQUIRE(::unlink("file") == 0);
  CHECK(returns_to(before));
}

TEST_CASE("statfs: truncate, punch and deletion of many files give everything back", "[statfs]") {
  only_on_plumbfs("a file system of one's own");
  not_on_direct_path("an open file keeps its blocks");
  const TestDirectory dir;
  make_file("file");
  const Fd fd = open_file("file", O_RDWR);
  const std::uint64_t before = settled_free_bytes();
  write_at(fd.get(), pattern(4 * kMegabyte), 0);
  REQUIRE(::ftruncate(fd.get(), 0) == 0);
  CHECK(returns_to(before));
  write_at(fd.get(), pattern(4 * kMegabyte), 0);
  REQUIRE(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4 * kMegabyte) == 0);
  REQUIRE(::ftruncate(fd.get(), 0) == 0);
  CHECK(returns_to(before));
  REQUIRE(::fallocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, 4 * kMegabyte) == 0);
  CHECK(before - free_bytes() >= 4 * kMegabyte);
  REQUIRE(::ftruncate(fd.get(), 0) == 0);
  CHECK(returns_to(before));
}

TEST_CASE("statfs: a deleted file that is open keeps its space until it is closed", "[statfs][unlink]") {
  only_on_plumbfs("a file system of one's own");
  const TestDirectory dir;
  const std::uint64_t before = settled_free_bytes();
  {
    const Fd fd = open_file("file", O_CREAT | O_RDWR);
    write_at(fd.get(), pattern(4 * kMegabyte), 0);
    REQUIRE(::unlink("file") == 0);
    ::usleep(100'000);
    CHECK(before - free_bytes() >= 4 * kMegabyte);
    CHECK(read_at(fd.get(), 4 * kMegabyte, 0) == pattern(4 * kMegabyte));
  }
  CHECK(returns_to(before));
}

TEST_CASE("statfs: a thousand files, their directories and attributes come and go", "[statfs]") {
  only_on_plumbfs("a file system of one's own");
  const TestDirectory dir;
  const auto round = [] {
    make_directory("d");
    for (int i = 0; i < 1000; ++i) make_file("d/" + std::to_string(i), std::string(static_cast<std::size_t>(i), 'x'));
    for (int i = 0; i < 50; ++i) make_directory("d/s" + std::to_string(i));
    const fsfilcnt_t files = figures().f_files - figures().f_ffree;
    for (int i = 0; i < 1000; ++i) REQUIRE(::unlink(("d/" + std::to_string(i)).c_str()) == 0);
    for (int i = 0; i < 50; ++i) REQUIRE(::rmdir(("d/s" + std::to_string(i)).c_str()) == 0);
    REQUIRE(::rmdir("d") == 0);
    return files;
  };
  // The inode table may grow once; then it must be used again.
  CHECK(round() >= 1050);
  const std::uint64_t before = settled_free_bytes();
  CHECK(round() >= 1050);
  CHECK(returns_to(before));
}
