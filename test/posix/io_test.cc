// read(2) and write(2): offsets, sizes, vectors, limits, sparse files.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include <algorithm>
#include <csignal>
#include <limits>

#include "test/posix/support.h"

using namespace posix;

namespace {
constexpr std::uint64_t kMaxSize = static_cast<std::uint64_t>(std::numeric_limits<off_t>::max());

/// A write that a reference file system may refuse as too far out.
void write_far(int fd, const Bytes& data, std::uint64_t offset) {
  const ssize_t done = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
  if (done < 0 && errno == EFBIG) lacking("files of 2^63-1 bytes");
  REQUIRE(code(done) == kOk);
  REQUIRE(done == static_cast<ssize_t>(data.size()));
}
}  // namespace

TEST_CASE("io: every offset and length around blocks reads back", "[io]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  Bytes model;
  std::uint32_t seed = 0;
  for (const std::size_t base : {0UL, 1024UL, 4096UL, 8192UL, 65536UL, 131072UL}) {
    for (const std::size_t delta : {0UL, 1UL, 511UL, 1023UL, 4095UL}) {
      for (const std::size_t length : {1UL, 2UL, 513UL, 4096UL, 4097UL, 70'000UL}) {
        const Bytes data = pattern(length, ++seed);
        write_at(fd.get(), data, base + delta);
        if (model.size() < base + delta + length) model.resize(base + delta + length);
        std::copy(data.begin(), data.end(), model.begin() + static_cast<std::ptrdiff_t>(base + delta));
      }
    }
    REQUIRE(read_at(fd.get(), model.size() + 100, 0) == model);
  }
}

TEST_CASE("io: reads stop at the end of the file", "[io]") {
  const TestDirectory dir;
  make_file("file", "0123456789");
  const Fd fd = open_file("file", O_RDONLY);
  CHECK(read_at(fd.get(), 100, 0).size() == 10);
  CHECK(read_at(fd.get(), 100, 9).size() == 1);
  CHECK(read_at(fd.get(), 100, 10).empty());
  CHECK(read_at(fd.get(), 100, 4096).empty());
  CHECK(read_at(fd.get(), 100, kMaxSize - 100).empty());
  CHECK(code(::pread(fd.get(), nullptr, 0, 0)) == kOk);
  CHECK(code(::pwrite(fd.get(), "x", 1, 0)) == EBADF);
  std::array<char, 1> byte{};
  CHECK(code(::pread(fd.get(), byte.data(), 1, -1)) == EINVAL);
}

TEST_CASE("io: a write of nothing changes nothing", "[io]") {
  const TestDirectory dir;
  make_file("file", "abc");
  const struct timespec old[2] = {{1000, 5}, {1000, 5}};
  REQUIRE(::utimensat(AT_FDCWD, "file", old, 0) == 0);
  const Fd fd = open_file("file", O_WRONLY);
  CHECK(::pwrite(fd.get(), "", 0, 1000) == 0);
  CHECK(status("file").st_size == 3);
  CHECK(status("file").st_mtim.tv_sec == 1000);
}

TEST_CASE("io: one large unaligned write and read", "[io]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  const Bytes data = pattern(9 * 1024 * 1024 + 12'345);
  write_at(fd.get(), data, 4097);
  CHECK(zeros_at(fd.get(), 4097, 0));
  CHECK(read_at(fd.get(), data.size() + 1, 4097) == data);
  CHECK(status("file").st_size == static_cast<off_t>(data.size() + 4097));
}

TEST_CASE("io: vectors of a thousand odd pieces", "[io]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  Bytes data = pattern(300'000);
  std::vector<iovec> parts;
  std::size_t at = 0;
  for (std::size_t i = 0; parts.size() < 1000 && at < data.size(); ++i) {
    const std::size_t length = std::min<std::size_t>(i * 37 % 601, data.size() - at);  // some are empty
    parts.push_back({data.data() + at, length});
    at += length;
  }
  data.resize(at);
  REQUIRE(::pwritev(fd.get(), parts.data(), static_cast<int>(parts.size()), 77) == static_cast<ssize_t>(at));
  CHECK(read_at(fd.get(), at + 1, 77) == data);
  Bytes back(at);
  std::size_t given = 0;
  for (iovec& part : parts) {
    part.iov_base = back.data() + given;
    given += part.iov_len;
  }
  REQUIRE(::preadv(fd.get(), parts.data(), static_cast<int>(parts.size()), 77) == static_cast<ssize_t>(at));
  CHECK(back == data);
}

TEST_CASE("io: offsets up to 2^63-1 work, and not one byte more", "[io][large]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  for (const unsigned shift : {31U, 32U, 33U, 41U, 44U, 52U, 62U}) {
    CAPTURE(shift);
    const std::uint64_t offset = (std::uint64_t{1} << shift) - 3;
    const Bytes data = pattern(7, shift);
    write_far(fd.get(), data, offset);
    CHECK(status(fd.get()).st_size == static_cast<off_t>(offset + 7));
    CHECK(read_at(fd.get(), 100, offset) == data);
    CHECK(zeros_at(fd.get(), 1000, offset - 1000));
  }
  write_far(fd.get(), {'z'}, kMaxSize - 1);
  CHECK(status(fd.get()).st_size == static_cast<off_t>(kMaxSize));
  CHECK(read_at(fd.get(), 1, kMaxSize - 1) == Bytes{'z'});
  CHECK(code(::pwrite(fd.get(), "ab", 2, static_cast<off_t>(kMaxSize - 1))) == EINVAL);
  CHECK(code(::pwrite(fd.get(), "a", 1, static_cast<off_t>(kMaxSize))) == EINVAL);
  CHECK(read_at(fd.get(), 7, (std::uint64_t{1} << 31) - 3) == pattern(7, 31));
  CHECK(status(fd.get()).st_blocks < 4096);
  // Through the file offset the end is met by the file system, not by the range check of pwrite.
  REQUIRE(::lseek(fd.get(), static_cast<off_t>(kMaxSize), SEEK_SET) == static_cast<off_t>(kMaxSize));
  const Code beyond = code(::write(fd.get(), "a", 1));
  CHECK((beyond == EFBIG || beyond == EINVAL));
  REQUIRE(::ftruncate(fd.get(), 0) == 0);
  if (!on_direct_path()) CHECK(status(fd.get()).st_blocks == 0);
}

TEST_CASE("io: RLIMIT_FSIZE cuts a write, then EFBIG and SIGXFSZ", "[io][large]") {
  const TestDirectory dir;
  make_file("file");
  CHECK(in_child([] {
          ::signal(SIGXFSZ, SIG_IGN);
          const struct rlimit limit { 10'000, 10'000 };
          if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 250;
          const int fd = ::open("file", O_RDWR);
          const Bytes data = pattern(8192);
          if (::pwrite(fd, data.data(), data.size(), 5000) != 5000) return 251;
          if (::pwrite(fd, "x", 1, 10'000) != -1 || errno != EFBIG) return 252;
          if (::ftruncate(fd, 10'001) != -1 || errno != EFBIG) return 249;
          return 0;
        }) == kOk);
  CHECK(status("file").st_size == 10'000);
  CHECK(in_child([] {
          const struct rlimit limit { 100, 100 };
          if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 250;
          const int fd = ::open("file", O_RDWR);
          return ::pwrite(fd, "x", 1, 100) == 1 ? 0 : 1;
        }) == 256 + SIGXFSZ);
}

TEST_CASE("io: a sparse file has the blocks that were written and zeros between", "[io][sparse]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  for (std::uint64_t i = 0; i < 64; ++i) write_at(fd.get(), pattern(100, static_cast<std::uint32_t>(i)), i << 24);
  for (std::uint64_t i = 0; i < 64; ++i) {
    REQUIRE(read_at(fd.get(), 100, i << 24) == pattern(100, static_cast<std::uint32_t>(i)));
    if (i < 63) REQUIRE(zeros_at(fd.get(), 300'000, (i << 24) + 100));
  }
  CHECK(status(fd.get()).st_size == (off_t{63} << 24) + 100);
  CHECK(status(fd.get()).st_blocks > 0);
  CHECK(status(fd.get()).st_blocks * 512 <= 80 * 65536);  // a block each, and those of the extent tree
}

TEST_CASE("io: many small holes in one file", "[io][sparse]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  constexpr std::uint64_t kPieces = 3000;  // enough extents for a tree of more than one level
  for (std::uint64_t i = 0; i < kPieces; ++i) {
    const std::uint64_t at = (i * 1237) % kPieces;  // in no order
    write_at(fd.get(), pattern(16, static_cast<std::uint32_t>(at)), at * 131'072);
  }
  for (std::uint64_t i = 0; i < kPieces; ++i) {
    REQUIRE(read_at(fd.get(), 16, i * 131'072) == pattern(16, static_cast<std::uint32_t>(i)));
  }
  // Half of it goes; the rest must stay.
  REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(kPieces / 2 * 131'072)) == 0);
  REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(kPieces * 131'072)) == 0);
  for (std::uint64_t i = 0; i < kPieces; ++i) {
    const bool kept = i < kPieces / 2;
    REQUIRE(read_at(fd.get(), 16, i * 131'072) == (kept ? pattern(16, static_cast<std::uint32_t>(i)) : Bytes(16, 0)));
  }
}

TEST_CASE("io: a file can be written from a mapping of itself", "[io][mmap]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  const Bytes data = pattern(256 * 1024);
  write_at(fd.get(), data, 0);
  void* mapping = ::mmap(nullptr, data.size(), PROT_READ, MAP_SHARED, fd.get(), 0);
  REQUIRE(mapping != MAP_FAILED);
  // The source pages are not in memory yet: the write faults them in from the file that it writes.
  CHECK(::pwrite(fd.get(), mapping, data.size(), static_cast<off_t>(data.size())) == static_cast<ssize_t>(data.size()));
  ::munmap(mapping, data.size());
  CHECK(read_at(fd.get(), data.size() + 1, data.size()) == data);
}

TEST_CASE("io: a bad buffer is EFAULT and leaves the file alone", "[io]") {
  not_on_direct_path("the copy is the program's own, so a bad buffer is SIGSEGV");
  const TestDirectory dir;
  make_file("file", "abc");
  const Fd fd = open_file("file", O_RDWR);
  void* nothing = ::mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(nothing != MAP_FAILED);
  CHECK(code(::pwrite(fd.get(), nothing, 3, 0)) == EFAULT);
  CHECK(code(::pread(fd.get(), nothing, 3, 0)) == EFAULT);
  ::munmap(nothing, kPage);
  CHECK(read_file("file") == "abc");
}
