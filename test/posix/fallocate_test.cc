// fallocate(2), SEEK_DATA and SEEK_HOLE.
#include <linux/falloc.h>

#include <algorithm>

#include "test/posix/support.h"

using namespace posix;

namespace {
constexpr std::size_t kUnit = 65536;  // the largest block size: holes of this size are seen whatever the block size
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

Code allocate(int fd, int mode, off_t offset, off_t length) {
  return code(::fallocate(fd, mode, offset, length));
}

/// Skips where a reference file system lacks the mode.
void must_allocate(int fd, int mode, off_t offset, off_t length, const char* name) {
  const Code result = allocate(fd, mode, offset, length);
  if (result == EOPNOTSUPP) lacking(name);
  REQUIRE(result == kOk);
}
}  // namespace

TEST_CASE("fallocate: reserves blocks and extends the size", "[fallocate]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  REQUIRE(allocate(fd.get(), 0, 0, 1'000'000) == kOk);
  CHECK(status(fd.get()).st_size == 1'000'000);
  CHECK(status(fd.get()).st_blocks * 512 >= 1'000'000);
  CHECK(zeros_at(fd.get(), 1'000'000, 0));
  write_at(fd.get(), "abc", 500'000);
  REQUIRE(allocate(fd.get(), 0, 400'000, 200'000) == kOk);
  CHECK(status(fd.get()).st_size == 1'000'000);
  CHECK(read_at(fd.get(), 3, 500'000) == Bytes{'a', 'b', 'c'});
}

TEST_CASE("fallocate: KEEP_SIZE reserves beyond the end, and truncate gives it back", "[fallocate]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), "abc", 0);
  REQUIRE(allocate(fd.get(), FALLOC_FL_KEEP_SIZE, 0, 1'000'000) == kOk);
  CHECK(status(fd.get()).st_size == 3);
  CHECK(status(fd.get()).st_blocks * 512 >= 1'000'000);
  CHECK(read_at(fd.get(), 100, 0).size() == 3);
  REQUIRE(::ftruncate(fd.get(), 0) == 0);
  if (!on_direct_path()) CHECK(status(fd.get()).st_blocks == 0);
}

TEST_CASE("fallocate: PUNCH_HOLE zeroes to the byte and frees whole blocks", "[fallocate]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  const Bytes data = pattern(8 * kUnit);
  write_at(fd.get(), data, 0);
  const blkcnt_t full = status(fd.get()).st_blocks;
  for (const auto& [offset, length] : std::vector<std::pair<std::size_t, std::size_t>>{{1, 1},
                                                                                       {100, 5000},
                                                                                       {kUnit - 1, 2},
                                                                                       {2 * kUnit, 2 * kUnit},
                                                                                       {5 * kUnit + 1, kUnit},
                                                                                       {8 * kUnit - 10, 100}}) {
    CAPTURE(offset, length);
    const std::size_t end = std::min(offset + length, data.size());
    Bytes expected = read_at(fd.get(), data.size(), 0);
    std::fill(expected.begin() + static_cast<std::ptrdiff_t>(offset),
              expected.begin() + static_cast<std::ptrdiff_t>(end), std::uint8_t{0});
    REQUIRE(allocate(fd.get(), kPunch, static_cast<off_t>(offset), static_cast<off_t>(length)) == kOk);
    REQUIRE(read_at(fd.get(), data.size() + 1, 0) == expected);
  }
  CHECK(status(fd.get()).st_size == static_cast<off_t>(data.size()));
  if (!on_direct_path()) CHECK(status(fd.get()).st_blocks <= full - static_cast<blkcnt_t>(2 * kUnit / 512));
  // Beyond the end there is nothing to punch, and the size stays.
  CHECK(allocate(fd.get(), kPunch, static_cast<off_t>(20 * kUnit), 100) == kOk);
  CHECK(status(fd.get()).st_size == static_cast<off_t>(data.size()));
  REQUIRE(allocate(fd.get(), kPunch, 0, static_cast<off_t>(100 * kUnit)) == kOk);
  CHECK(zeros_at(fd.get(), data.size(), 0));
  if (!on_direct_path()) CHECK(status(fd.get()).st_blocks == 0);
}

TEST_CASE("fallocate: ZERO_RANGE zeroes, with the size as asked", "[fallocate]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), pattern(100'000), 0);
  must_allocate(fd.get(), FALLOC_FL_ZERO_RANGE, 5001, 30'000, "FALLOC_FL_ZERO_RANGE");
  CHECK(zeros_at(fd.get(), 30'000, 5001));
  CHECK(read_at(fd.get(), 5001, 0) == pattern(5001));
  const Bytes data = pattern(100'000);
  CHECK(read_at(fd.get(), 64'999, 35'001) == Bytes(data.begin() + 35'001, data.end()));
  REQUIRE(allocate(fd.get(), FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 90'000, 100'000) == kOk);
  CHECK(status(fd.get()).st_size == 100'000);
  CHECK(zeros_at(fd.get(), 10'000, 90'000));
  REQUIRE(allocate(fd.get(), FALLOC_FL_ZERO_RANGE, 90'000, 100'000) == kOk);
  CHECK(status(fd.get()).st_size == 190'000);
  CHECK(zeros_at(fd.get(), 100'000, 90'000));
}

TEST_CASE("fallocate: errors of the man page", "[fallocate]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  CHECK(allocate(fd.get(), 0, 0, 0) == EINVAL);
  CHECK(allocate(fd.get(), 0, -1, 10) == EINVAL);
  CHECK(allocate(fd.get(), 0, 0, -10) == EINVAL);
  CHECK(allocate(fd.get(), 0, INT64_MAX - 10, 100) == EFBIG);
  CHECK(allocate(fd.get(), FALLOC_FL_PUNCH_HOLE, 0, 100) == EOPNOTSUPP);
  CHECK(allocate(open_file("file", O_RDONLY).get(), 0, 0, 100) == EBADF);
  REQUIRE(::mkfifo("fifo", 0644) == 0);
  const Fd fifo = open_file("fifo", O_RDWR);
  CHECK(allocate(fifo.get(), 0, 0, 100) == ESPIPE);
  if (on_plumbfs()) {
    CHECK(allocate(fd.get(), FALLOC_FL_COLLAPSE_RANGE, 0, kUnit) == EOPNOTSUPP);
    CHECK(allocate(fd.get(), FALLOC_FL_INSERT_RANGE, 0, kUnit) == EOPNOTSUPP);
  }
  CHECK(status(fd.get()).st_size == 0);
}

TEST_CASE("fallocate: more than there is room for is ENOSPC and takes nothing", "[fallocate][space]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), "abc", 0);
  const Code result = allocate(fd.get(), 0, 0, off_t{1} << 50);
  if (result == EFBIG && !on_plumbfs()) SKIP("a reference file system with smaller files");
  CHECK(result == ENOSPC);
  CHECK(status(fd.get()).st_size == 3);
  CHECK(read_at(fd.get(), 10, 0) == Bytes{'a', 'b', 'c'});
  const Fd other = open_file("other", O_CREAT | O_RDWR);
  write_at(other.get(), pattern(1'000'000), 0);  // there is room as before
}

TEST_CASE("seek: data and holes are told apart", "[seek]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  const auto data = [&](std::size_t at) { return ::lseek(fd.get(), static_cast<off_t>(at), SEEK_DATA); };
  const auto hole = [&](std::size_t at) { return ::lseek(fd.get(), static_cast<off_t>(at), SEEK_HOLE); };
  CHECK(code(data(0)) == ENXIO);
  CHECK(code(hole(0)) == ENXIO);
  write_at(fd.get(), pattern(2 * kUnit), 0);
  write_at(fd.get(), pattern(kUnit), 6 * kUnit);
  REQUIRE(::ftruncate(fd.get(), 10 * kUnit) == 0);
  CHECK(data(0) == 0);
  CHECK(data(100) == 100);
  CHECK(hole(0) == 2 * kUnit);
  CHECK(hole(100) == 2 * kUnit);
  CHECK(data(2 * kUnit) == 6 * kUnit);
  CHECK(hole(3 * kUnit) == 3 * kUnit);
  CHECK(data(6 * kUnit + 5) == 6 * kUnit + 5);
  CHECK(hole(6 * kUnit) == 7 * kUnit);
  CHECK(code(data(7 * kUnit)) == ENXIO);
  CHECK(hole(9 * kUnit + 1) == 9 * kUnit + 1);
  CHECK(code(hole(10 * kUnit)) == ENXIO);
  CHECK(code(data(10 * kUnit)) == ENXIO);
  CHECK(code(::lseek(fd.get(), -1, SEEK_DATA)) == ENXIO);
  CHECK(code(::lseek(fd.get(), -1, SEEK_SET)) == EINVAL);
  REQUIRE(allocate(fd.get(), kPunch, 0, kUnit) == kOk);
  if (!on_direct_path()) {
    CHECK(data(0) == kUnit);
    CHECK(hole(0) == 0);
  }
}

TEST_CASE("seek: a file without holes has one at its end", "[seek]") {
  const TestDirectory dir;
  make_file("file", std::string(kUnit + 17, 'x'));
  const Fd fd = open_file("file", O_RDONLY);
  CHECK(::lseek(fd.get(), 0, SEEK_HOLE) == kUnit + 17);
  CHECK(::lseek(fd.get(), kUnit + 16, SEEK_DATA) == kUnit + 16);
  CHECK(::lseek(fd.get(), 0, SEEK_END) == kUnit + 17);
}

TEST_CASE("seek: a walk over many holes meets each piece once", "[seek]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  constexpr off_t kPieces = 500;
  for (off_t i = 0; i < kPieces; ++i) {
    write_at(fd.get(), pattern(kUnit / 2 + 1), static_cast<std::uint64_t>(i * 3 + 1) * kUnit);
  }
  off_t at = 0;
  for (off_t i = 0; i < kPieces; ++i) {
    const off_t data = ::lseek(fd.get(), at, SEEK_DATA);
    REQUIRE(data == (i * 3 + 1) * static_cast<off_t>(kUnit));
    at = ::lseek(fd.get(), data, SEEK_HOLE);
    REQUIRE(at > data + static_cast<off_t>(kUnit / 2));
    REQUIRE(at <= data + static_cast<off_t>(kUnit));
  }
  CHECK(code(::lseek(fd.get(), at, SEEK_DATA)) == ENXIO);
}
