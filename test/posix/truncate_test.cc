// truncate(2) and what may be seen after a file has become shorter and longer again.
#include <sys/mman.h>

#include <array>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr std::size_t kFull = 3 * 65536;
constexpr std::array<std::size_t, 22> kSizes = {0,     1,     2,     511,   512,    513,      1023,  1024,
                                                1025,  2047,  4095,  4096,  4097,   8191,     12288, 16385,
                                                65535, 65536, 65537, 98304, 131071, kFull - 1};

enum class Grow { kTruncate, kWriteBeyond, kAllocate, kAppend };

/// Makes the file kFull bytes long again without writing to [size, kFull - 1).
void grow(int fd, Grow how, const std::string& path) {
  switch (how) {
    case Grow::kTruncate:
      REQUIRE(code(::ftruncate(fd, kFull)) == kOk);
      break;
    case Grow::kWriteBeyond:
      write_at(fd, Bytes{'e'}, kFull - 1);
      break;
    case Grow::kAllocate:
      REQUIRE(code(::fallocate(fd, 0, 0, kFull)) == kOk);
      break;
    case Grow::kAppend: {
      // A reserved range after the end, then the size moves over it by an append of one byte at the end.
      REQUIRE(code(::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, kFull)) == kOk);
      REQUIRE(code(::ftruncate(fd, kFull - 1)) == kOk);
      const Fd append = open_file(path, O_WRONLY | O_APPEND);
      REQUIRE(::write(append.get(), "e", 1) == 1);
      break;
    }
  }
}

bool grows_by_writing(Grow how) {
  return how == Grow::kWriteBeyond || how == Grow::kAppend;
}

}  // namespace

TEST_CASE("truncate: sets the size both ways and reads zeros where it grew", "[truncate]") {
  const TestDirectory dir;
  const Bytes data = pattern(10'000);
  for (const bool by_path : {false, true}) {
    const Fd fd = open_file("file", O_CREAT | O_RDWR | O_TRUNC);
    write_at(fd.get(), data, 0);
    const auto set = [&](off_t size) { return by_path ? ::truncate("file", size) : ::ftruncate(fd.get(), size); };
    REQUIRE(code(set(5000)) == kOk);
    CHECK(status(fd.get()).st_size == 5000);
    CHECK(read_at(fd.get(), 10'000, 0) == Bytes(data.begin(), data.begin() + 5000));
    REQUIRE(code(set(20'000)) == kOk);
    CHECK(status(fd.get()).st_size == 20'000);
    CHECK(zeros_at(fd.get(), 15'000, 5000));
    REQUIRE(code(set(off_t{1} << 40)) == kOk);
    CHECK(zeros_at(fd.get(), 4096, (std::uint64_t{1} << 40) - 4096));
    REQUIRE(code(set(0)) == kOk);
    CHECK(status(fd.get()).st_size == 0);
    if (!on_direct_path()) CHECK(status(fd.get()).st_blocks == 0);
  }
}

TEST_CASE("truncate: errors of the man page", "[truncate]") {
  const TestDirectory dir;
  make_file("file", "abc");
  make_directory("directory");
  CHECK(code(::truncate("directory", 0)) == EISDIR);
  CHECK(code(::truncate("missing", 0)) == ENOENT);
  CHECK(code(::truncate("file/x", 0)) == ENOTDIR);
  CHECK(code(::truncate("file", -1)) == EINVAL);
  CHECK(code(::ftruncate(open_file("file", O_RDONLY).get(), 0)) == EINVAL);
  CHECK(as_user(kUser, [] { return errno_of(::truncate("file", 0)); }) == EACCES);
  CHECK(read_file("file") == "abc");
}

TEST_CASE("truncate: no old data shows after a file grows again", "[truncate][stale]") {
  const TestDirectory dir;
  const Bytes data = pattern(kFull);
  for (const Grow how : {Grow::kTruncate, Grow::kWriteBeyond, Grow::kAllocate, Grow::kAppend}) {
    for (const std::size_t size : kSizes) {
      CAPTURE(static_cast<int>(how), size);
      const Fd fd = open_file("file", O_CREAT | O_RDWR | O_TRUNC);
      write_at(fd.get(), data, 0);
      REQUIRE(code(::ftruncate(fd.get(), static_cast<off_t>(size))) == kOk);
      grow(fd.get(), how, "file");
      Bytes expected(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(size));
      expected.resize(kFull);
      if (grows_by_writing(how)) expected.back() = 'e';
      const Bytes got = read_at(fd.get(), kFull + 1, 0);
      REQUIRE(got.size() == kFull);
      for (std::size_t i = 0; i < kFull; ++i) {
        if (got[i] != expected[i]) FAIL("byte " << i << " is " << int{got[i]} << ", expected " << int{expected[i]});
      }
    }
  }
}

TEST_CASE("truncate: no old data shows in a mapping after a file grows again", "[truncate][stale][mmap]") {
  const TestDirectory dir;
  const Bytes data = pattern(kFull);
  for (const Grow how : {Grow::kTruncate, Grow::kWriteBeyond, Grow::kAllocate}) {
    for (const std::size_t size : kSizes) {
      CAPTURE(static_cast<int>(how), size);
      const Fd fd = open_file("file", O_CREAT | O_RDWR | O_TRUNC);
      REQUIRE(code(::ftruncate(fd.get(), kFull)) == kOk);
      auto* mapping =
          static_cast<std::uint8_t*>(::mmap(nullptr, kFull, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
      REQUIRE(static_cast<void*>(mapping) != MAP_FAILED);
      std::copy(data.begin(), data.end(), mapping);  // dirty in the mapping, not synced
      REQUIRE(code(::ftruncate(fd.get(), static_cast<off_t>(size))) == kOk);
      grow(fd.get(), how, "file");
      std::size_t wrong = kFull;
      for (std::size_t i = 0; i < kFull && wrong == kFull; ++i) {
        const std::uint8_t expected = i < size ? data[i] : (i + 1 == kFull && grows_by_writing(how) ? 'e' : 0);
        if (mapping[i] != expected) wrong = i;
      }
      ::munmap(mapping, kFull);
      CHECK(wrong == kFull);
      const Bytes got = read_at(fd.get(), kFull, 0);
      CHECK(Bytes(got.begin(), got.begin() + static_cast<std::ptrdiff_t>(size)) ==
            Bytes(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(size)));
      CHECK(zeros_at(fd.get(), kFull - 1 - size, size));
    }
  }
}

TEST_CASE("truncate: what a mapping stored beyond the end is not in the file when it grows",
          "[truncate][stale][mmap]") {
  only_on_plumbfs("zeroing of stores beyond the end before a file grows");
  const TestDirectory dir;
  for (const Grow how : {Grow::kTruncate, Grow::kWriteBeyond, Grow::kAllocate}) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{1025}, std::size_t{5000}, std::size_t{65537}}) {
      CAPTURE(static_cast<int>(how), size);
      const Fd fd = open_file("file", O_CREAT | O_RDWR | O_TRUNC);
      const Bytes data = pattern(size);
      write_at(fd.get(), data, 0);
      const std::size_t mapped = (size + kPage - 1) / kPage * kPage;
      auto* mapping =
          static_cast<std::uint8_t*>(::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
      REQUIRE(static_cast<void*>(mapping) != MAP_FAILED);
      std::fill(mapping + size, mapping + mapped, std::uint8_t{0xdd});
      REQUIRE(code(::msync(mapping, mapped, MS_SYNC)) == kOk);
      ::munmap(mapping, mapped);
      CHECK(status("file").st_size == static_cast<off_t>(size));
      grow(fd.get(), how, "file");
      CHECK(read_at(fd.get(), size, 0) == data);
      const bool zeros = zeros_at(fd.get(), kFull - 1 - size, size);
      // The daemon has zeros there. Where every file goes through the page cache, the kernel's page still has what the
      // mapping stored, and only a truncate makes the kernel zero it.
      if (!zeros && how != Grow::kTruncate) needs_kernel(6, 6, "zeros after a mapped end that a write moves");
      CHECK(zeros);
    }
  }
}

TEST_CASE("truncate: blocks of a cut file are not seen in another one", "[truncate][stale]") {
  const TestDirectory dir;
  for (int round = 0; round < 20; ++round) {
    const Fd fd = open_file("secret", O_CREAT | O_RDWR | O_TRUNC);
    write_at(fd.get(), Bytes(1'000'000, 0x5a), 0);
    REQUIRE(code(::ftruncate(fd.get(), round % 2 == 0 ? 0 : 100'001)) == kOk);
    const Fd other = open_file("other", O_CREAT | O_RDWR | O_TRUNC);
    REQUIRE(code(::fallocate(other.get(), 0, 0, 1'000'000)) == kOk);
    REQUIRE(zeros_at(other.get(), 1'000'000, 0));
    write_at(other.get(), Bytes{1}, 1'500'000);  // a hole, and the rest of a block around one byte
    REQUIRE(zeros_at(other.get(), 500'000, 1'000'000));
  }
}
