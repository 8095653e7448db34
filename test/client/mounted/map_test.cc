// Maps of a file's device pages: what becomes of them when the file changes, and who sees what.

#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "test/client/mounted/support.h"

namespace {

using namespace client;
using posix::code;
using posix::in_child;
using posix::kOk;
using posix::make_file;
using posix::open_file;
using posix::pattern;
using posix::read_at;
using posix::status;
using posix::TestDirectory;
using posix::write_at;

void only_with_direct_maps() {
  if (!has_direct_maps()) SKIP("blocks are smaller than the page: no direct maps");
}

// A file whose blocks lie in many pieces: every second one was written first, the others backwards.
Bytes make_scattered_file(const std::string& path, std::size_t blocks) {
  const std::size_t block = std::max<std::size_t>(block_size(), 65536);  // of a realtime extent, too
  const Fd fd = open_file(path, O_RDWR | O_CREAT);
  Bytes all(blocks * block);
  const auto put = [&](std::size_t i) {
    const Bytes data = pattern(block, static_cast<std::uint32_t>(i + 1));
    write_at(fd.get(), data, i * block);
    std::copy(data.begin(), data.end(), all.begin() + static_cast<std::ptrdiff_t>(i * block));
  };
  for (std::size_t i = 1; i < blocks; i += 2) put(i);
  for (std::size_t i = (blocks - 1) / 2 * 2 + 2; i >= 2; i -= 2) put(i - 2);
  return all;
}

// Of /proc/self/maps: those of [address, address + length).
std::size_t count_maps(const void* address, std::size_t length) {
  std::FILE* file = std::fopen("/proc/self/maps", "r");
  REQUIRE(file != nullptr);
  char line[8192];
  std::size_t count = 0;
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  while (std::fgets(line, sizeof line, file) != nullptr) {
    const std::uintptr_t at = std::strtoull(line, nullptr, 16);
    if (at >= begin && at < begin + length) ++count;
  }
  std::fclose(file);
  return count;
}

TEST_CASE("client map: loads and stores are the file", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  const Bytes data = make_pattern_file("file", 100000);
  const File file("file");
  const Fd fd = open_file("file", O_RDWR);
  const Map map(file, 0, 100000);
  CHECK(plumbfs_map_is_direct(map.get()) == 1);
  CHECK(plumbfs_map_length(map.get()) == 100000);
  CHECK(map.copy() == data);
  map.store(5001, pattern(9000, 2));
  CHECK(read_at(fd.get(), 9000, 5001) == pattern(9000, 2));
  CHECK(read_directly(file, 9000, 5001) == pattern(9000, 2));
  write_at(fd.get(), pattern(3000, 3), 70000);
  CHECK(Bytes(map.bytes() + 70000, map.bytes() + 73000) == pattern(3000, 3));
  write_directly(file, pattern(3000, 4), 71000);
  CHECK(Bytes(map.bytes() + 71000, map.bytes() + 74000) == pattern(3000, 4));
  CHECK(code(plumbfs_fsync(file.get())) == kOk);
  CHECK(code(::fsync(fd.get())) == kOk);
}

TEST_CASE("client map: of a part, for reading", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  const Bytes data = make_pattern_file("file", 3 << 20);
  const File file("file", O_RDONLY);
  const Map map(file, (1 << 20) + 8192, 123457, 0);
  CHECK(plumbfs_map_is_direct(map.get()) == 1);
  CHECK(map.copy() == Bytes(data.begin() + (1 << 20) + 8192, data.begin() + (1 << 20) + 8192 + 123457));
  CHECK(plumbfs_map(file.get(), 0, 4096, PLUMBFS_MAP_WRITE) == nullptr);
  CHECK(errno == EACCES);
  // The device was opened for reading only: no mprotect makes it writable.
  CHECK(code(::mprotect(map.bytes(), 4096, PROT_READ | PROT_WRITE)) == EACCES);
}

TEST_CASE("client map: one range of addresses for a file in many pieces", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  const Bytes data = make_scattered_file("file", 40);
  const File file("file");
  CHECK(read_directly(file, data.size(), 0) == data);
  const Map map(file, 0, data.size());
  CHECK(plumbfs_map_is_direct(map.get()) == 1);
  CHECK(count_maps(map.bytes(), data.size()) > 4);
  CHECK(map.copy() == data);
  const Bytes over = pattern(1 << 20, 99);
  map.store(65536 * 3 + 100, over);
  const Fd fd = open_file("file", O_RDONLY);
  CHECK(read_at(fd.get(), over.size(), 65536 * 3 + 100) == over);
}

TEST_CASE("client map: pieces that are neighbours on the device are one map", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  make_pattern_file("file", 4 << 20);
  const File file("file");
  const Map map(file, 0, 4 << 20);
  CHECK(count_maps(map.bytes(), 4 << 20) <= 4);
}

TEST_CASE("client map: holes are filled for stores only", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  make_file("file");
  REQUIRE(code(::truncate("file", 1 << 20)) == kOk);
  const File file("file");
  CHECK(plumbfs_map(file.get(), 0, 1 << 20, 0) == nullptr);
  CHECK(errno == ENXIO);
  CHECK(std::string(plumbfs_error()).find("holes") != std::string::npos);
  CHECK(status("file").st_blocks == 0);
  {
    const File falls_back("file", O_RDWR, 0);
    const Map map(falls_back, 0, 1 << 20, 0);
    CHECK(plumbfs_map_is_direct(map.get()) == 0);
    CHECK(map.is_zero(0, 1 << 20));
  }
  const Map map(file, 0, 1 << 20);
  CHECK(plumbfs_map_is_direct(map.get()) == 1);
  CHECK(status("file").st_blocks == (1 << 20) / 512);
  CHECK(map.is_zero(0, 1 << 20));
  map.store(500000, pattern(1000));
  const Fd fd = open_file("file", O_RDONLY);
  CHECK(read_at(fd.get(), 1000, 500000) == pattern(1000));
}

TEST_CASE("client map: impossible ranges", "[map]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  const File file("file");
  const auto refused = [&](std::uint64_t offset, std::size_t length, unsigned flags) {
    return plumbfs_map(file.get(), offset, length, flags) == nullptr ? errno : 0;
  };
  CHECK(refused(0, 0, 0) == EINVAL);
  CHECK(refused(100, 100, 0) == EINVAL);
  CHECK(refused(0, 100, 0x80) == EINVAL);
  CHECK(refused(0, SIZE_MAX, 0) == EINVAL);
  CHECK(refused(~std::uint64_t{4095}, 4096, 0) == EINVAL);
  CHECK(refused(0, 20000, PLUMBFS_MAP_WRITE) == ENXIO);
  CHECK(std::string(plumbfs_error()).find("10000") != std::string::npos);
  CHECK(refused(1 << 20, 4096, 0) == ENXIO);
  const File writer("file", O_WRONLY);
  CHECK(plumbfs_map(writer.get(), 0, 4096, PLUMBFS_MAP_WRITE) == nullptr);
  CHECK(errno == EACCES);
}

TEST_CASE("client map: blocks smaller than the page are mapped by the kernel", "[map]") {
  if (has_direct_maps()) SKIP("blocks are as large as the page");
  const TestDirectory directory;
  const Bytes data = make_pattern_file("file", 10000);
  const File file("file");
  CHECK(plumbfs_map(file.get(), 0, 10000, PLUMBFS_MAP_WRITE) == nullptr);
  CHECK(errno == EINVAL);
  CHECK(std::string(plumbfs_error()).find("smaller than the page") != std::string::npos);
  const File falls_back("file", O_RDWR, 0);
  CHECK(plumbfs_is_direct(falls_back.get()) == 1);
  Map map(falls_back, 0, 10000);
  CHECK(plumbfs_map_is_direct(map.get()) == 0);
  CHECK(map.copy() == data);
  map.store(3000, pattern(4000, 2));
  map.unmap();
  CHECK(read_directly(file, 4000, 3000) == pattern(4000, 2));
}

TEST_CASE("client map: persist takes ranges of the map only", "[map]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  const File file("file", O_RDWR, 0);
  const Map map(file, 0, 10000);
  CHECK(code(plumbfs_persist(map.get(), map.bytes() + 9999, 1)) == kOk);
  CHECK(code(plumbfs_persist(map.get(), map.bytes() + 10000, 0)) == kOk);
  CHECK(code(plumbfs_persist(map.get(), map.bytes() + 9999, 2)) == EINVAL);
  CHECK(code(plumbfs_persist(map.get(), map.bytes() - 1, 1)) == EINVAL);
  CHECK(code(plumbfs_persist(map.get(), map.bytes() + 1, SIZE_MAX)) == EINVAL);
}

TEST_CASE("client map: truncated under it", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  const Bytes data = make_pattern_file("file", 300000);
  const File file("file");
  const Map map(file, 0, 300000);
  const Fd fd = open_file("file", O_RDWR);
  REQUIRE(code(::ftruncate(fd.get(), 10001)) == kOk);
  CHECK(Bytes(map.bytes(), map.bytes() + 10001) == Bytes(data.begin(), data.begin() + 10001));
  CHECK(map.is_zero(10001, 300000));
  CHECK(size_of(file) == 10001);
  // A store behind the end is no part of the file, and never will be.
  std::memset(map.bytes() + 20000, 'x', 200000);
  REQUIRE(code(::ftruncate(fd.get(), 300000)) == kOk);
  CHECK(posix::zeros_at(fd.get(), 300000 - 10001, 10001));
  CHECK(map.is_zero(10001, 300000));
  // And it is the file again.
  map.store(100000, pattern(50000, 5));
  CHECK(read_at(fd.get(), 50000, 100000) == pattern(50000, 5));
}

TEST_CASE("client map: punched under it", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  const Bytes data = make_pattern_file("file", 1 << 20);
  const File file("file");
  Map map(file, 0, 1 << 20);
  const Fd fd = open_file("file", O_RDWR);
  REQUIRE(code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 131072, 524288)) == kOk);
  CHECK(map.is_zero(131072, 131072 + 524288));
  CHECK(map.bytes()[131071] == data[131071]);
  CHECK(map.bytes()[131072 + 524288] == data[131072 + 524288]);
  CHECK(read_directly(file, 524288, 131072) == Bytes(524288, 0));
  map.store(262144, pattern(1000, 6));
  CHECK(read_at(fd.get(), 1000, 262144) == pattern(1000, 6));
  map.unmap();
  CHECK(read_at(fd.get(), 1000, 262144) == pattern(1000, 6));
  CHECK(posix::zeros_at(fd.get(), 262144 - 131072, 131072));
}

TEST_CASE("client map: an unlinked file lives in its map, and goes with it", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  constexpr std::uint64_t kBytes = 32 << 20;
  const auto free_bytes = [] {
    struct statvfs space = {};
    REQUIRE(::statvfs(".", &space) == 0);
    return std::uint64_t{space.f_bfree} * space.f_frsize;
  };
  const std::uint64_t at_first = free_bytes();
  const Bytes data = make_pattern_file("file", kBytes);
  File file("file");
  Map map(file, 0, kBytes);
  file.close();
  REQUIRE(code(::unlink("file")) == kOk);
  {
    // Others come for space.
    const Bytes other = make_pattern_file("other", 16 << 20, 7);
    CHECK(map.copy() == data);
    map.store(1 << 20, pattern(100000, 8));
    const Fd fd = open_file("other", O_RDONLY);
    CHECK(read_at(fd.get(), other.size(), 0) == other);
  }
  REQUIRE(code(::unlink("other")) == kOk);
  CHECK(free_bytes() + kBytes <= at_first);
  map.unmap();
  // The description ends a moment after the last map, and reclaim is in the background.
  for (int i = 0; i < 600 && free_bytes() + kBytes / 2 < at_first; ++i) ::usleep(50000);
  CHECK(free_bytes() + kBytes / 2 >= at_first);
}

TEST_CASE("client map: the lease lives as long as the map", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  make_pattern_file("file", 4 << 20);
  File file("file");
  Map map(file, 0, 4 << 20);
  file.close();
  // Had the lease ended, the blocks would be another file's soon.
  REQUIRE(code(::truncate("file", 0)) == kOk);
  CHECK(map.is_zero(0, 4 << 20));
  const Bytes other = make_pattern_file("other", 64 << 20, 9);
  CHECK(map.is_zero(0, 4 << 20));
  std::memset(map.bytes(), 'z', 4 << 20);
  const Fd fd = open_file("other", O_RDONLY);
  CHECK(read_at(fd.get(), other.size(), 0) == other);
}

TEST_CASE("client map: two processes map one file", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  make_pattern_file("file", 1 << 20);
  const File file("file");
  const Map map(file, 0, 1 << 20);
  CHECK(in_child([] {
          plumbfs_file* mine = plumbfs_open("file", O_RDWR, 0, PLUMBFS_DIRECT_ONLY);
          if (mine == nullptr) return 1;
          plumbfs_mapping* other = plumbfs_map(mine, 65536, 65536, PLUMBFS_MAP_WRITE);
          if (other == nullptr) return 2;
          auto* bytes = static_cast<std::uint8_t*>(plumbfs_map_address(other));
          if (std::memcmp(bytes, pattern(1 << 20).data() + 65536, 65536) != 0) return 3;
          std::memset(bytes, 'c', 65536);
          if (plumbfs_persist(other, bytes, 65536) != 0) return 4;
          if (plumbfs_unmap(other) != 0 || plumbfs_close(mine) != 0) return 5;
          return 0;
        }) == kOk);
  CHECK(Bytes(map.bytes() + 65536, map.bytes() + 131072) == Bytes(65536, 'c'));
  CHECK(map.bytes()[131072] == pattern(1 << 20)[131072]);
}

TEST_CASE("client map: fork shares files and maps", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  make_pattern_file("file", 1 << 20);
  File file("file");
  Map map(file, 0, 1 << 20);
  const Bytes data = read_directly(file, 100, 0);
  CHECK(in_child([&] {
          std::memset(map.bytes() + 4096, 'f', 4096);
          if (plumbfs_persist(map.get(), map.bytes() + 4096, 4096) != 0) return 1;
          const Bytes piece(5000, 'g');
          if (plumbfs_write(file.get(), piece.data(), piece.size(), 100000) != 5000) return 2;
          if (plumbfs_is_direct(file.get()) != 1) return 3;
          // What the child gives back stays the parent's.
          map.unmap();
          file.close();
          return 0;
        }) == kOk);
  CHECK(Bytes(map.bytes() + 4096, map.bytes() + 8192) == Bytes(4096, 'f'));
  CHECK(read_directly(file, 5000, 100000) == Bytes(5000, 'g'));
  // The lease is still there: the blocks are nobody else's.
  REQUIRE(code(::truncate("file", 0)) == kOk);
  make_pattern_file("other", 32 << 20, 3);
  CHECK(map.is_zero(0, 1 << 20));
}

TEST_CASE("client map: a child that lives longer keeps the lease", "[map]") {
  only_with_direct_maps();
  const TestDirectory directory;
  make_pattern_file("file", 1 << 20);
  int go[2] = {};
  REQUIRE(::pipe(go) == 0);
  pid_t child = 0;
  {
    const File file("file");
    const Map map(file, 0, 1 << 20);
    child = ::fork();
    if (child == 0) {
      ::close(go[1]);
      char byte = 0;
      (void)!::read(go[0], &byte, 1);
      ::_exit(map.is_zero(0, 1 << 20) ? 0 : 1);
    }
  }
  ::close(go[0]);
  REQUIRE(code(::truncate("file", 0)) == kOk);
  make_pattern_file("other", 32 << 20, 3);
  ::close(go[1]);
  int result = -1;
  REQUIRE(::waitpid(child, &result, 0) == child);
  CHECK(result == 0);
}

TEST_CASE("client map: alignment before anything else", "[map][align]") {
  const TestDirectory directory;
  const Bytes data = make_scattered_file("file", 96);  // 6 MiB
  File file("file");
  std::uint64_t aligned = 0;
  {
    // Somebody uses it.
    const File other("file");
    CHECK(plumbfs_is_direct(other.get()) == 1);
    CHECK(code(plumbfs_align(file.get(), &aligned)) == EBUSY);
    CHECK(std::string(plumbfs_error()).find("direct use") != std::string::npos);
    CHECK(plumbfs_map(file.get(), 0, data.size(), PLUMBFS_MAP_ALIGN | PLUMBFS_MAP_WRITE) == nullptr);
    CHECK(errno == EBUSY);
  }
  // The close of the other ends its lease some moments later.
  int tries = 0;
  while (plumbfs_align(file.get(), &aligned) != 0 && errno == EBUSY && ++tries < 200) ::usleep(10000);
  INFO(plumbfs_error());
  CHECK(tries < 200);
  if (!is_on_realtime()) CHECK(aligned == 6 << 20);
  CHECK(read_directly(file, data.size(), 0) == data);
  CHECK(code(plumbfs_align(file.get(), &aligned)) == EBUSY);
  if (has_direct_maps()) {
    const Map map(file, 0, data.size());
    CHECK(map.copy() == data);
    if (!is_on_realtime()) {
      CHECK(reinterpret_cast<std::uintptr_t>(map.bytes()) % (2 << 20) == 0);
      CHECK(count_maps(map.bytes(), data.size()) <= 3);
    }
  }
}

}  // namespace
