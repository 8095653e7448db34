// Maps of parts of large device pages (devdax with align 2 MiB, hugetlbfs). Every test passes on any file system
// without the preload library, and with it too; with PLUMBFS_TEST_LARGE_PAGES=1 it is on such a device, with the
// library, and the maps have to be the device's.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "test/posix/support.h"
#include "test/preload/mapping.h"

using namespace posix;

namespace {

constexpr std::size_t kLarge = std::size_t{2} << 20;
constexpr std::size_t kFileBytes = 4 * kLarge;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

bool has_large_pages() {
  return ::getenv("PLUMBFS_TEST_LARGE_PAGES") != nullptr;
}

char letter(std::size_t page) {
  return static_cast<char>('a' + page % 23);
}

// Page i is filled with letter(i).
Fd lettered_file(const std::string& name = "f", std::size_t bytes = kFileBytes) {
  Fd fd = open_file(name, O_CREAT | O_RDWR);
  std::string data(bytes, '\0');
  for (std::size_t at = 0; at < bytes; at += kPage) std::memset(&data[at], letter(at / kPage), kPage);
  write_at(fd.get(), data, 0);
  // What has been written by this description has a lease, which would keep it from being moved.
  fd.close();
  return open_file(name, O_RDWR);
}

char byte_at(const Fd& fd, std::uint64_t offset) {
  return static_cast<char>(read_at(fd.get(), 1, offset)[0]);
}

// The line of /proc/self/maps for an address; empty if there is nothing.
std::string line_of(const void* address) {
  std::ifstream lines("/proc/self/maps");
  for (std::string line; std::getline(lines, line);) {
    std::istringstream in(line);
    std::uintptr_t begin = 0;
    std::uintptr_t end = 0;
    char dash = 0;
    in >> std::hex >> begin >> dash >> end;
    const auto at = reinterpret_cast<std::uintptr_t>(address);
    if (at >= begin && at < end) return line;
  }
  return {};
}

// The device is mapped, and not the file.
bool is_direct(const void* address) {
  const std::string line = line_of(address);
  return line.find(" rw-s ") != std::string::npos && line.find(::getenv("PLUMBFS_TEST_DIR")) == std::string::npos;
}
void check_direct(const void* address) {
  INFO(line_of(address));
  if (has_large_pages()) CHECK(is_direct(address));
}

}  // namespace

TEST_CASE("device pages: a page of its own, anywhere in the file", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  for (const std::size_t page : {0U, 1U, 511U, 512U, 700U, 2047U}) {
    char* const base = map(fd.get(), kPage, kReadWrite, MAP_SHARED, page * kPage);
    check_direct(base);
    CHECK(base[0] == letter(page));
    base[7] = '7';
    CHECK(::msync(base, kPage, MS_SYNC) == 0);
    CHECK(byte_at(fd, page * kPage + 7) == '7');
    CHECK(::munmap(base, kPage) == 0);
    CHECK(line_of(base).empty());
  }
}

TEST_CASE("device pages: a map across two of them, taken apart", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  constexpr std::size_t kFirst = 508;
  constexpr std::size_t kPages = 8;
  char* const base = map(fd.get(), kPages * kPage, kReadWrite, MAP_SHARED, kFirst * kPage);
  check_direct(base);
  char* const last = base + (kPages - 1) * kPage;
  // The middle, then the begin: the first device page goes, the second one stays with its last part.
  REQUIRE(::munmap(base + 2 * kPage, 4 * kPage) == 0);
  CHECK(base[0] == letter(kFirst));
  CHECK(last[0] == letter(kFirst + kPages - 1));
  REQUIRE(::munmap(base, 2 * kPage) == 0);
  CHECK(signal_at(base, false) == 256 + SIGSEGV);
  CHECK(signal_at(base + 3 * kPage, false) == 256 + SIGSEGV);
  last[1] = '1';
  CHECK(byte_at(fd, (kFirst + kPages - 1) * kPage + 1) == '1');
  REQUIRE(::munmap(last - kPage, 2 * kPage) == 0);
  for (std::size_t page = 0; page < kPages; ++page) CHECK(line_of(base + page * kPage).empty());
}

TEST_CASE("device pages: what is around a map goes with it", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  // Room that is free afterwards, so that nothing else is there.
  char* const room = map(-1, 4 * kLarge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  char* const wanted = room + (kLarge - reinterpret_cast<std::uintptr_t>(room) % kLarge) % kLarge + kLarge + 3 * kPage;
  REQUIRE(::munmap(room, 4 * kLarge) == 0);
  char* const base = map(fd.get(), kPage, kReadWrite, MAP_SHARED, kLarge + 3 * kPage, wanted);
  CHECK(base == wanted);
  check_direct(base);
  CHECK(line_of(base - kPage).empty() != has_large_pages());
  CHECK(line_of(base + kLarge - 4 * kPage).empty() != has_large_pages());
  CHECK(::munmap(base, kPage) == 0);
  for (const char* at : {base - 3 * kPage, base, base + kLarge - 4 * kPage}) CHECK(line_of(at).empty());
}

TEST_CASE("device pages: rights are of all or of nothing", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* const base = map(fd.get(), 4 * kPage, kReadWrite, MAP_SHARED, kLarge + kPage);
  REQUIRE(::mprotect(base, 4 * kPage, PROT_READ) == 0);
  CHECK(signal_at(base, true) == 256 + SIGSEGV);
  CHECK(signal_at(base + 3 * kPage, true) == 256 + SIGSEGV);
  REQUIRE(::mprotect(base, 4 * kPage, kReadWrite) == 0);
  const Code part = code(::mprotect(base + kPage, kPage, PROT_READ));
  CHECK(part == (has_large_pages() ? EINVAL : kOk));
  CHECK(signal_at(base + kPage, true) == (has_large_pages() ? 0 : 256 + SIGSEGV));
  // What has the rights already may be asked for.
  CHECK(::mprotect(base, kPage, kReadWrite) == 0);
  base[0] = 'X';
  // Alone on its page again.
  REQUIRE(::munmap(base + kPage, 3 * kPage) == 0);
  CHECK(::mprotect(base, kPage, PROT_READ) == 0);
  CHECK(signal_at(base, true) == 256 + SIGSEGV);
  CHECK(base[0] == 'X');
  CHECK(::munmap(base, kPage) == 0);
}

TEST_CASE("device pages: read-only at first", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* const base = map(fd.get(), 2 * kPage, PROT_READ, MAP_SHARED, 5 * kPage);
  CHECK(signal_at(base, true) == 256 + SIGSEGV);
  REQUIRE(::mprotect(base, 2 * kPage, kReadWrite) == 0);
  check_direct(base);
  base[kPage] = 'Y';
  CHECK(::msync(base, 2 * kPage, MS_SYNC) == 0);
  CHECK(byte_at(fd, 6 * kPage) == 'Y');
  CHECK(::munmap(base, 2 * kPage) == 0);
}

TEST_CASE("device pages: longer, moved and shorter by mremap", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* base = map(fd.get(), kPage, kReadWrite, MAP_SHARED, 3 * kPage);
  const char* const before = base;
  base = static_cast<char*>(::mremap(base, kPage, 600 * kPage, MREMAP_MAYMOVE));
  REQUIRE(base != MAP_FAILED);
  check_direct(base + 599 * kPage);
  for (std::size_t page = 0; page < 600; ++page) REQUIRE(base[page * kPage] == letter(3 + page));
  if (base != before) CHECK(line_of(before).empty());
  base[599 * kPage] = 'Z';
  char* const shorter = static_cast<char*>(::mremap(base, 600 * kPage, 2 * kPage, MREMAP_MAYMOVE));
  REQUIRE(shorter == base);
  CHECK(signal_at(base + 599 * kPage, false) == 256 + SIGSEGV);
  CHECK(base[kPage] == letter(4));
  CHECK(byte_at(fd, 602 * kPage) == 'Z');
  CHECK(::munmap(base, 2 * kPage) == 0);
  CHECK(line_of(base).empty());
}

TEST_CASE("device pages: replaced by other maps", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  char* const base = map(fd.get(), 2 * kPage, kReadWrite, MAP_SHARED, kPage);
  check_direct(base);
  if (has_large_pages()) {
    // A part: the rest of the page would have to go.
    CHECK(::mmap(base, kPage, kReadWrite, anonymous, -1, 0) == MAP_FAILED);
    CHECK(errno == EINVAL);
    CHECK(base[0] == letter(1));
  }
  CHECK(map(-1, 2 * kPage, kReadWrite, anonymous, 0, base) == base);
  CHECK(base[0] == '\0');
  CHECK(base[2 * kPage - 1] == '\0');
  CHECK(line_of(base + 2 * kPage).find("rw-s") == std::string::npos);
  CHECK(byte_at(fd, kPage) == letter(1));
  CHECK(::munmap(base, 2 * kPage) == 0);
}

TEST_CASE("device pages: private maps", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file();
  char* const stored = map(fd.get(), 2 * kPage, kReadWrite, MAP_PRIVATE, 510 * kPage);
  stored[kPage] = '!';
  char* const later = map(fd.get(), 3 * kPage, PROT_READ, MAP_PRIVATE, 511 * kPage);
  CHECK(later[0] == letter(511));
  REQUIRE(::mprotect(later, 3 * kPage, kReadWrite) == 0);
  later[2 * kPage] = '?';
  CHECK(later[kPage] == letter(512));
  CHECK(line_of(later + 3 * kPage).find("rw-s") == std::string::npos);
  CHECK(byte_at(fd, 511 * kPage) == letter(511));
  CHECK(byte_at(fd, 513 * kPage) == letter(513));
  char* const none = map(fd.get(), kPage, PROT_NONE, MAP_PRIVATE, 9 * kPage);
  REQUIRE(::mprotect(none, kPage, kReadWrite) == 0);
  CHECK(none[0] == letter(9));
  CHECK(::munmap(none, kPage) == 0);
  CHECK(::munmap(later, 3 * kPage) == 0);
  CHECK(::munmap(stored, 2 * kPage) == 0);
}

TEST_CASE("device pages: holes around a map stay holes", "[maps][pages]") {
  const TestDirectory dir;
  Fd fd = open_file("f", O_CREAT | O_RDWR);
  REQUIRE(::ftruncate(fd.get(), kFileBytes) == 0);
  write_at(fd.get(), std::string(kPage, 'h'), kLarge + 5 * kPage);
  const blkcnt_t before = status(fd.get()).st_blocks;
  fd.close();
  for (const int access : {O_RDONLY, O_RDWR}) {
    const Fd again = open_file("f", access);
    const int protection = access == O_RDWR ? kReadWrite : PROT_READ;
    char* const base = map(again.get(), kPage, protection, MAP_SHARED, kLarge + 5 * kPage);
    CHECK(base[0] == 'h');
    if (access == O_RDWR) base[1] = 'i';
    CHECK(status(again.get()).st_blocks == before);
    CHECK(::munmap(base, kPage) == 0);
    CHECK(byte_at(again, kLarge + 5 * kPage + 1) == (access == O_RDWR ? 'i' : 'h'));
  }
}

TEST_CASE("device pages: the end of a file", "[maps][pages]") {
  const TestDirectory dir;
  const Fd fd = lettered_file("f", kLarge + 3 * kPage);
  char* const base = map(fd.get(), kPage, kReadWrite, MAP_SHARED, kLarge + 2 * kPage);
  CHECK(base[0] == letter(514));
  base[0] = 'E';
  CHECK(::msync(base, kPage, MS_SYNC) == 0);
  CHECK(byte_at(fd, kLarge + 2 * kPage) == 'E');
  REQUIRE(::ftruncate(fd.get(), 2 * kLarge) == 0);
  CHECK(zeros_at(fd.get(), kLarge - 3 * kPage, kLarge + 3 * kPage));
  CHECK(::munmap(base, kPage) == 0);
}

TEST_CASE("device pages: a file in many pieces is moved before it is mapped", "[maps][pages]") {
  const TestDirectory dir;
  {
    const Fd one = open_file("f", O_CREAT | O_RDWR);
    const Fd other = open_file("other", O_CREAT | O_RDWR);
    // By turns, so that the pieces of a file are no neighbours.
    constexpr std::size_t kPiecePages = 16;
    for (std::size_t page = 0; page < 2 * kLarge / kPage; page += kPiecePages) {
      for (std::size_t i = 0; i < kPiecePages; ++i) {
        write_at(one.get(), std::string(kPage, letter(page + i)), (page + i) * kPage);
      }
      write_at(other.get(), std::string(kPiecePages * kPage, 'o'), page * kPage);
    }
  }
  const Fd fd = open_file("f", O_RDWR);
  char* const base = map(fd.get(), 2 * kLarge, kReadWrite, MAP_SHARED);
  check_direct(base);
  for (std::size_t page = 0; page < 2 * kLarge / kPage; ++page) REQUIRE(base[page * kPage] == letter(page));
  CHECK(::munmap(base, 2 * kLarge) == 0);
}
