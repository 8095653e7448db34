// Mappings that are taken apart, moved, protected and replaced. Every test passes on any file system without the
// preload library, and with it too.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <string>

#include "test/posix/support.h"
#include "test/preload/mapping.h"

using namespace posix;

namespace {

constexpr std::size_t kPages = 16;
constexpr std::size_t kSize = kPages * kPage;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

// Page i is filled with 'a' + i.
Fd lettered_file(const std::string& name = "f", std::size_t count = kPages) {
  Fd fd = open_file(name, O_CREAT | O_RDWR);
  for (std::size_t i = 0; i < count; ++i) {
    write_at(fd.get(), std::string(kPage, static_cast<char>('a' + i % 26)), i * kPage);
  }
  return fd;
}

}  // namespace

TEST_CASE("maps: taken apart by munmap", "[maps]") {
  const TestDirectory dir;
  Fd fd = lettered_file();
  char* const base = map(fd.get(), kSize, kReadWrite, MAP_SHARED);
  REQUIRE(::munmap(base + 4 * kPage, 2 * kPage) == 0);
  CHECK(signal_at(base + 4 * kPage, false) == 256 + SIGSEGV);
  CHECK(signal_at(base + 5 * kPage, false) == 256 + SIGSEGV);
  CHECK(base[3 * kPage] == 'd');
  CHECK(base[6 * kPage] == 'g');
  fd.close();
  base[3 * kPage] = 'X';
  base[6 * kPage] = 'Y';
  CHECK(::msync(base + 3 * kPage, kPage, MS_SYNC) == 0);
  CHECK(code(::msync(base, kSize, MS_SYNC)) == ENOMEM);
  REQUIRE(::munmap(base, kSize) == 0);
  CHECK(signal_at(base + 3 * kPage, false) == 256 + SIGSEGV);
  const std::string data = read_file("f");
  CHECK(data[3 * kPage] == 'X');
  CHECK(data[6 * kPage] == 'Y');
}

TEST_CASE("maps: shorter, longer and moved by mremap", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* base = map(fd.get(), 4 * kPage, kReadWrite, MAP_SHARED, 2 * kPage);
  CHECK(base[0] == 'c');
  base = static_cast<char*>(::mremap(base, 4 * kPage, 2 * kPage, 0));
  REQUIRE(base != MAP_FAILED);
  CHECK(signal_at(base + 2 * kPage, false) == 256 + SIGSEGV);
  base = static_cast<char*>(::mremap(base, 2 * kPage, 10 * kPage, MREMAP_MAYMOVE));
  REQUIRE(base != MAP_FAILED);
  for (std::size_t i = 0; i < 10; ++i) CHECK(base[i * kPage] == static_cast<char>('c' + i));
  base[9 * kPage] = '9';
  CHECK(read_file("f")[11 * kPage] == '9');
  // Something is in the way: it has to move.
  char* const blocked = map(-1, 12 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
  char* small = map(fd.get(), kPage, kReadWrite, MAP_SHARED | MAP_FIXED, 0, blocked);
  CHECK(::mremap(small, kPage, 3 * kPage, 0) == MAP_FAILED);
  CHECK(errno == ENOMEM);
  char* const moved = static_cast<char*>(::mremap(small, kPage, 3 * kPage, MREMAP_MAYMOVE));
  REQUIRE(moved != MAP_FAILED);
  CHECK(moved != small);
  CHECK(moved[2 * kPage] == 'c');
  // To a place that is given.
  char* const placed =
      static_cast<char*>(::mremap(moved, 3 * kPage, 3 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, blocked + 5 * kPage));
  REQUIRE(placed == blocked + 5 * kPage);
  CHECK(placed[kPage] == 'b');
  CHECK(signal_at(moved, false) == 256 + SIGSEGV);
  placed[kPage] = 'Z';
  CHECK(base[0] == 'c');
  CHECK(read_file("f")[kPage] == 'Z');
  CHECK(::munmap(blocked, 12 * kPage) == 0);
  CHECK(::munmap(base, 10 * kPage) == 0);
}

TEST_CASE("maps: made longer than the file by mremap", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* const whole = map(fd.get(), kSize, PROT_READ, MAP_SHARED);
  char* base = map(fd.get(), 4 * kPage, kReadWrite, MAP_SHARED, 12 * kPage);
  base[0] = '0';
  base = static_cast<char*>(::mremap(base, 4 * kPage, 8 * kPage, MREMAP_MAYMOVE));
  REQUIRE(base != MAP_FAILED);
  CHECK(base[0] == '0');
  CHECK(signal_at(base + 4 * kPage, false) == 256 + SIGBUS);
  REQUIRE(::ftruncate(fd.get(), kSize + 4 * kPage) == 0);
  base[5 * kPage] = '5';
  base[kPage] = '1';
  CHECK(whole[12 * kPage] == '0');
  CHECK(whole[13 * kPage] == '1');
  char bytes[2] = "";
  CHECK(::pread(fd.get(), bytes, 1, 17 * kPage) == 1);
  CHECK(bytes[0] == '5');
  REQUIRE(::munmap(base, 8 * kPage) == 0);
  REQUIRE(::munmap(whole, kSize) == 0);
  CHECK(read_file("f")[13 * kPage] == '1');
}

TEST_CASE("maps: rights given and taken by mprotect", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* const base = map(fd.get(), kSize, PROT_READ, MAP_SHARED);
  CHECK(signal_at(base, true) == 256 + SIGSEGV);
  REQUIRE(::mprotect(base + 2 * kPage, 3 * kPage, kReadWrite) == 0);
  base[3 * kPage] = '3';
  CHECK(signal_at(base + kPage, true) == 256 + SIGSEGV);
  CHECK(signal_at(base + 5 * kPage, true) == 256 + SIGSEGV);
  CHECK(::fsync(fd.get()) == 0);
  CHECK(read_file("f")[3 * kPage] == '3');
  REQUIRE(::mprotect(base, kSize, PROT_NONE) == 0);
  CHECK(signal_at(base + 3 * kPage, false) == 256 + SIGSEGV);
  REQUIRE(::munmap(base, kSize) == 0);

  const Fd reader = open_file("f", O_RDONLY);
  char* const fixed = map(reader.get(), kSize, PROT_READ, MAP_SHARED);
  CHECK(code(::mprotect(fixed, kPage, kReadWrite)) == EACCES);
  CHECK(fixed[kPage] == 'b');
  REQUIRE(::munmap(fixed, kSize) == 0);
}

TEST_CASE("maps: a private mapping that gets write access later", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  const Fd reader = open_file("f", O_RDONLY);
  char* const base = map(reader.get(), kSize, PROT_READ, MAP_PRIVATE);
  CHECK(base[kPage] == 'b');
  REQUIRE(::mprotect(base + kPage, kPage, kReadWrite) == 0);
  base[kPage] = 'P';
  CHECK(base[kPage + 1] == 'b');
  CHECK(base[0] == 'a');
  CHECK(base[2 * kPage] == 'c');
  CHECK(read_file("f")[kPage] == 'b');
  write_at(fd.get(), "Q", kPage);
  CHECK(base[kPage] == 'P');
  REQUIRE(::munmap(base, kSize) == 0);
}

TEST_CASE("maps: private stores stay private, in children too", "[maps][fork]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* const base = map(fd.get(), kSize, kReadWrite, MAP_PRIVATE);
  base[0] = '1';
  CHECK(in_child([&] {
          base[0] = '2';
          return base[kPage] == 'b' ? 0 : 1;
        }) == kOk);
  CHECK(base[0] == '1');
  CHECK(read_file("f")[0] == 'a');
  REQUIRE(::munmap(base, kSize) == 0);
}

TEST_CASE("maps: at a fixed address, over others", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  const Fd other = lettered_file("g");
  char* const base = map(fd.get(), kSize, kReadWrite, MAP_SHARED);
  char* const middle = map(other.get(), 2 * kPage, kReadWrite, MAP_SHARED | MAP_FIXED, 7 * kPage, base + 3 * kPage);
  CHECK(middle == base + 3 * kPage);
  CHECK(base[2 * kPage] == 'c');
  CHECK(base[3 * kPage] == 'h');
  CHECK(base[5 * kPage] == 'f');
  base[3 * kPage] = 'H';
  CHECK(read_file("g")[7 * kPage] == 'H');
  CHECK(read_file("f")[3 * kPage] == 'd');
  map(-1, kPage, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0, base + 8 * kPage);
  CHECK(base[8 * kPage] == '\0');
  CHECK(base[9 * kPage] == 'j');
  CHECK(::mmap(base, kPage, PROT_READ, MAP_SHARED | MAP_FIXED_NOREPLACE, fd.get(), 0) == MAP_FAILED);
  CHECK(errno == EEXIST);
  REQUIRE(::munmap(base, kSize) == 0);
}

TEST_CASE("maps: reads and writes see a mapping of more than the file, and one of the file before it", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  const Fd again = open_file("f", O_RDWR);
  char* const first = map(fd.get(), kSize, kReadWrite, MAP_SHARED);
  first[5] = '5';
  char* const larger = map(again.get(), 4 * kSize, kReadWrite, MAP_SHARED);
  CHECK(larger[5] == '5');
  for (int i = 0; i < 50; ++i) {
    const off_t at = i * 1201;
    const char letter = static_cast<char>('A' + i % 26);
    switch (i % 3) {
      case 0:
        first[at] = letter;
        break;
      case 1:
        larger[at] = letter;
        break;
      default:
        write_at(fd.get(), std::string(1, letter), static_cast<std::uint64_t>(at));
    }
    char byte = 0;
    REQUIRE(::pread(again.get(), &byte, 1, at) == 1);
    REQUIRE(byte == letter);
    REQUIRE(first[at] == letter);
    REQUIRE(larger[at] == letter);
  }
  REQUIRE(::ftruncate(fd.get(), 2 * kSize) == 0);
  larger[kSize + 7] = '7';
  REQUIRE(::msync(larger, 2 * kSize, MS_SYNC) == 0);
  CHECK(read_file("f")[kSize + 7] == '7');
  REQUIRE(::munmap(larger, 4 * kSize) == 0);
  REQUIRE(::munmap(first, kSize) == 0);
}

TEST_CASE("maps: without descriptor, name or parent", "[maps][fork]") {
  const TestDirectory dir;
  Fd fd = lettered_file();
  char* const base = map(fd.get(), kSize, kReadWrite, MAP_SHARED);
  fd.close();
  REQUIRE(::unlink("f") == 0);
  // Blocks that were free would be taken now.
  make_file("g", std::string(4 * kSize, 'g'));
  CHECK(base[kPage] == 'b');
  CHECK(in_child([&] {
          base[kPage] = 'C';
          return ::munmap(base, kSize) == 0 ? 0 : 1;
        }) == kOk);
  CHECK(base[kPage] == 'C');
  REQUIRE(::munmap(base, kSize) == 0);
  CHECK(read_file("g") == std::string(4 * kSize, 'g'));
}

TEST_CASE("maps: many, made and ended in a changing order", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file("f", 64);
  std::vector<std::pair<char*, std::size_t>> held;
  std::uint32_t random = 12345;
  const auto next = [&] { return random = random * 1664525 + 1013904223; };
  for (int round = 0; round < 2000; ++round) {
    if (held.size() < 40 && next() >> 31 == 0) {
      const std::size_t page = (next() >> 8) % 60;
      const std::size_t count = 1 + (next() >> 8) % 4;
      char* const base = map(fd.get(), count * kPage, PROT_READ, MAP_SHARED, static_cast<off_t>(page * kPage));
      for (std::size_t i = 0; i < count; ++i) REQUIRE(base[i * kPage] == static_cast<char>('a' + (page + i) % 26));
      held.emplace_back(base, count);
    } else if (!held.empty()) {
      const std::size_t index = (next() >> 8) % held.size();
      REQUIRE(::munmap(held[index].first, held[index].second * kPage) == 0);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(index));
    }
  }
  for (const auto& [base, count] : held) REQUIRE(::munmap(base, count * kPage) == 0);
}

TEST_CASE("maps: a buffer of pread and pwrite", "[maps]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  const Fd other = lettered_file("g");
  char* const base = map(other.get(), kSize, kReadWrite, MAP_SHARED);
  REQUIRE(::pread(fd.get(), base + 5 * kPage, kPage, 0) == static_cast<ssize_t>(kPage));
  CHECK(read_file("g")[5 * kPage] == 'a');
  REQUIRE(::pwrite(fd.get(), base + 6 * kPage, kPage, 0) == static_cast<ssize_t>(kPage));
  CHECK(read_file("f")[0] == 'g');
  REQUIRE(::munmap(base, kSize) == 0);
}
