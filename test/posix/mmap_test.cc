// mmap(2): shared and private mappings, and how they agree with read and write.
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <csignal>

#include "test/posix/support.h"

using namespace posix;

namespace {
class Mapping {
 public:
  Mapping(int fd, std::size_t length, int protection, int flags, off_t offset = 0) : length_(length) {
    address_ = ::mmap(nullptr, length, protection, flags, fd, offset);
    if (address_ == MAP_FAILED && errno == ENODEV) {
      needs_kernel(6, 6, "shared mmap together with direct_io");
    }
    REQUIRE(address_ != MAP_FAILED);
  }
  ~Mapping() { ::munmap(address_, length_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  [[nodiscard]] std::uint8_t* data() const { return static_cast<std::uint8_t*>(address_); }
  [[nodiscard]] Bytes bytes(std::size_t offset, std::size_t length) const {
    return Bytes(data() + offset, data() + offset + length);
  }

 private:
  void* address_ = nullptr;
  std::size_t length_;
};
constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr std::size_t kSize = 16 * kPage;
}  // namespace

TEST_CASE("mmap: a shared mapping and read/write see each other at once", "[mmap]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), pattern(kSize), 0);
  const Mapping one(fd.get(), kSize, kReadWrite, MAP_SHARED);
  const Fd again = open_file("file", O_RDWR);
  const Mapping two(again.get(), kSize, PROT_READ, MAP_SHARED);
  CHECK(one.bytes(0, kSize) == pattern(kSize));
  for (std::uint32_t i = 0; i < 200; ++i) {
    const std::size_t at = (i * 7919) % (kSize - 100);
    const Bytes data = pattern(100, i + 100);
    if (i % 2 == 0) {
      std::copy(data.begin(), data.end(), one.data() + at);
    } else {
      write_at(again.get(), data, at);
    }
    REQUIRE(read_at(fd.get(), 100, at) == data);
    REQUIRE(one.bytes(at, 100) == data);
    REQUIRE(two.bytes(at, 100) == data);
  }
}

TEST_CASE("mmap: a private mapping never reaches the file", "[mmap]") {
  const TestDirectory dir;
  make_file("file", std::string(kSize, 'a'));
  const Fd fd = open_file("file", O_RDONLY);  // enough for a private writable mapping
  const Mapping mapping(fd.get(), kSize, kReadWrite, MAP_PRIVATE);
  std::fill(mapping.data(), mapping.data() + kSize, std::uint8_t{'b'});
  CHECK(read_file("file") == std::string(kSize, 'a'));
  CHECK(mapping.bytes(0, kSize) == Bytes(kSize, 'b'));
}

TEST_CASE("mmap: stores stay after msync, munmap and close", "[mmap]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(::truncate("file", kSize) == 0);
  const Bytes data = pattern(kSize);
  {
    const Fd fd = open_file("file", O_RDWR);
    const Mapping mapping(fd.get(), kSize, kReadWrite, MAP_SHARED);
    std::copy(data.begin(), data.end(), mapping.data());
    CHECK(code(::msync(mapping.data(), kSize, MS_SYNC)) == kOk);
    CHECK(code(::msync(mapping.data(), kSize, MS_ASYNC)) == kOk);
    std::copy(data.begin(), data.begin() + 10, mapping.data() + 100);  // not synced
  }
  Bytes expected = data;
  std::copy(data.begin(), data.begin() + 10, expected.begin() + 100);
  CHECK(read_at(open_file("file", O_RDONLY).get(), kSize + 1, 0) == expected);
}

TEST_CASE("mmap: a mapping works without its descriptor and without the name", "[mmap]") {
  const TestDirectory dir;
  Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), pattern(kSize), 0);
  const Mapping mapping(fd.get(), kSize, kReadWrite, MAP_SHARED);
  fd.close();
  REQUIRE(::unlink("file") == 0);
  CHECK(list(".").empty());
  CHECK(mapping.bytes(0, kSize) == pattern(kSize));
  std::fill(mapping.data(), mapping.data() + kSize, std::uint8_t{7});
  CHECK(code(::msync(mapping.data(), kSize, MS_SYNC)) == kOk);
  CHECK(mapping.bytes(0, kSize) == Bytes(kSize, 7));
}

TEST_CASE("mmap: two processes share a mapping", "[mmap]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(::truncate("file", kSize) == 0);
  const Fd fd = open_file("file", O_RDWR);
  const Mapping mapping(fd.get(), kSize, kReadWrite, MAP_SHARED);
  CHECK(in_child([] {
          const int other = ::open("file", O_RDWR);
          void* address = ::mmap(nullptr, kSize, kReadWrite, MAP_SHARED, other, 0);
          if (address == MAP_FAILED) return 1;
          std::fill_n(static_cast<std::uint8_t*>(address), kSize, std::uint8_t{42});
          return 0;
        }) == kOk);
  CHECK(mapping.bytes(0, kSize) == Bytes(kSize, 42));
  CHECK(read_at(fd.get(), kSize, 0) == Bytes(kSize, 42));
}

TEST_CASE("mmap: access beyond the last page is SIGBUS, the rest of the last page is zero", "[mmap]") {
  const TestDirectory dir;
  make_file("file", std::string(100, 'x'));
  const Fd fd = open_file("file", O_RDWR);
  const Mapping mapping(fd.get(), 4 * kPage, kReadWrite, MAP_SHARED);
  CHECK(mapping.bytes(100, kPage - 100) == Bytes(kPage - 100, 0));
  CHECK(in_child([&] {
          const volatile std::uint8_t* beyond = mapping.data() + kPage;
          return *beyond == 0 ? 0 : 1;
        }) == 256 + SIGBUS);
  // The mapping comes alive as the file grows, and loses what is cut off.
  REQUIRE(::ftruncate(fd.get(), 3 * kPage) == 0);
  CHECK(mapping.bytes(kPage, kPage) == Bytes(kPage, 0));
  mapping.data()[2 * kPage] = 9;
  REQUIRE(::ftruncate(fd.get(), 2 * kPage) == 0);
  CHECK(in_child([&] {
          const volatile std::uint8_t* beyond = mapping.data() + 2 * kPage;
          return *beyond == 0 ? 0 : 1;
        }) == 256 + SIGBUS);
}

TEST_CASE("mmap: rights of the descriptor bound the rights of the mapping", "[mmap]") {
  const TestDirectory dir;
  make_file("file", "abc");
  const Fd reader = open_file("file", O_RDONLY);
  const Fd writer = open_file("file", O_WRONLY);
  CHECK(::mmap(nullptr, kPage, kReadWrite, MAP_SHARED, reader.get(), 0) == MAP_FAILED);
  CHECK(errno == EACCES);
  CHECK(::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, writer.get(), 0) == MAP_FAILED);
  CHECK(errno == EACCES);
  CHECK(::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, reader.get(), 1) == MAP_FAILED);
  CHECK(errno == EINVAL);
}

TEST_CASE("mmap: stores into a hole allocate, and other holes stay", "[mmap][sparse]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  constexpr std::size_t kHole = 8 * 1024 * 1024;
  REQUIRE(::ftruncate(fd.get(), kHole) == 0);
  {
    const Mapping mapping(fd.get(), kHole, kReadWrite, MAP_SHARED);
    CHECK(mapping.bytes(kHole / 2, kPage) == Bytes(kPage, 0));
    for (std::size_t at = 0; at < kHole; at += 1024 * 1024) mapping.data()[at + 5] = 77;
    REQUIRE(code(::msync(mapping.data(), kHole, MS_SYNC)) == kOk);
  }
  for (std::size_t at = 0; at < kHole; at += 1024 * 1024) {
    REQUIRE(read_at(fd.get(), 7, at) == Bytes{0, 0, 0, 0, 0, 77, 0});
    REQUIRE(zeros_at(fd.get(), 500'000, at + 6));
  }
  // A direct map for stores has all its blocks from the start.
  if (!on_direct_path()) CHECK(status(fd.get()).st_blocks * 512 < static_cast<off_t>(kHole));
}

TEST_CASE("mmap: punched, zeroed and copied ranges show in a mapping", "[mmap]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  write_at(fd.get(), pattern(kSize), 0);
  const Mapping mapping(fd.get(), kSize, kReadWrite, MAP_SHARED);
  CHECK(mapping.bytes(0, kSize) == pattern(kSize));
  REQUIRE(code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 10'000)) == kOk);
  CHECK(mapping.bytes(5000, 10'000) == Bytes(10'000, 0));
  mapping.data()[6000] = 5;
  CHECK(read_at(fd.get(), 1, 6000) == Bytes{5});
  if (::fallocate(fd.get(), FALLOC_FL_ZERO_RANGE, 5500, 1000) == 0) {
    CHECK(mapping.bytes(5500, 1000) == Bytes(1000, 0));
  } else {
    CHECK_FALSE(on_plumbfs());
  }
  const Fd source = open_file("source", O_CREAT | O_RDWR);
  write_at(source.get(), pattern(20'000, 9), 0);
  off_t from = 0;
  off_t to = 3000;
  REQUIRE(::copy_file_range(source.get(), &from, fd.get(), &to, 20'000, 0) == 20'000);
  CHECK(mapping.bytes(3000, 20'000) == pattern(20'000, 9));
  // A dirty mapping is the source of a copy.
  std::fill(mapping.data(), mapping.data() + 1000, std::uint8_t{3});
  from = 0;
  to = 0;
  REQUIRE(::copy_file_range(fd.get(), &from, source.get(), &to, 1000, 0) == 1000);
  CHECK(read_at(source.get(), 1000, 0) == Bytes(1000, 3));
}

TEST_CASE("mmap: stores move mtime by the next msync", "[mmap][time]") {
  const TestDirectory dir;
  make_file("file", std::string(kPage, 'x'));
  const Fd fd = open_file("file", O_RDWR);
  const struct timespec old[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(::futimens(fd.get(), old) == 0);
  const Mapping mapping(fd.get(), kPage, kReadWrite, MAP_SHARED);
  mapping.data()[0] = 'y';
  REQUIRE(::msync(mapping.data(), kPage, MS_SYNC) == 0);
  CHECK(status(fd.get()).st_mtim.tv_sec > 1000);
}

TEST_CASE("mmap: a large mapping, touched backwards", "[mmap]") {
  const TestDirectory dir;
  constexpr std::size_t kLarge = 32 * 1024 * 1024;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  REQUIRE(::ftruncate(fd.get(), kLarge) == 0);
  {
    const Mapping mapping(fd.get(), kLarge, kReadWrite, MAP_SHARED);
    for (std::size_t page = kLarge / kPage; page-- > 0;) {
      const std::uint32_t number = static_cast<std::uint32_t>(page);
      std::memcpy(mapping.data() + page * kPage + 40, &number, sizeof(number));
    }
  }
  for (std::size_t page = 0; page < kLarge / kPage; page += 97) {
    std::uint32_t number = 0;
    REQUIRE(::pread(fd.get(), &number, sizeof(number), static_cast<off_t>(page * kPage + 40)) == sizeof(number));
    REQUIRE(number == page);
  }
}

TEST_CASE("mmap: fsync of another descriptor writes back the mapping", "[mmap][sync]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  REQUIRE(::ftruncate(fd.get(), kSize) == 0);
  const Mapping mapping(fd.get(), kSize, kReadWrite, MAP_SHARED);
  std::fill(mapping.data(), mapping.data() + kSize, std::uint8_t{8});
  const Fd other = open_file("file", O_RDONLY);
  CHECK(code(::fsync(other.get())) == kOk);
  CHECK(read_at(other.get(), kSize, 0) == Bytes(kSize, 8));
}
