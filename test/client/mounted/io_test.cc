// Reads and writes through libplumbfs beside those of the kernel, on a mount.

#include <pthread.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "test/client/mounted/support.h"

namespace {

using namespace client;
using posix::as_user;
using posix::code;
using posix::kOk;
using posix::make_file;
using posix::open_file;
using posix::pattern;
using posix::read_at;
using posix::status;
using posix::TestDirectory;
using posix::write_at;

TEST_CASE("client: a file is used directly", "[io]") {
  const TestDirectory directory;
  const Bytes data = make_pattern_file("file", 300000);
  const File file("file");
  INFO(plumbfs_error());
  REQUIRE(plumbfs_is_direct(file.get()) == 1);
  CHECK(size_of(file) == data.size());
  CHECK(read_directly(file, data.size(), 0) == data);
  CHECK(read_directly(file, 1000, 123456) == Bytes(data.begin() + 123456, data.begin() + 124456));
}

TEST_CASE("client: what is written directly the kernel reads at once, and the other way round", "[io]") {
  const TestDirectory directory;
  Bytes data = make_pattern_file("file", 100000);
  const File file("file");
  const Fd fd = open_file("file", O_RDWR);
  for (const std::size_t length : {1, 8, 100, 255, 256, 4096, 10000}) {
    for (const std::size_t offset : {0, 1, 4000, 4096, 50001}) {
      const Bytes piece = pattern(length, static_cast<std::uint32_t>(length + offset));
      write_directly(file, piece, offset);
      CHECK(read_at(fd.get(), length, offset) == piece);
      const Bytes other = pattern(length, static_cast<std::uint32_t>(length + offset + 7));
      write_at(fd.get(), other, offset);
      CHECK(read_directly(file, length, offset) == other);
      std::copy(other.begin(), other.end(), data.begin() + static_cast<std::ptrdiff_t>(offset));
    }
  }
  CHECK(read_directly(file, data.size(), 0) == data);
  CHECK(read_at(fd.get(), data.size(), 0) == data);
}

TEST_CASE("client: the size is everybody's at once", "[io]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  const File file("file");
  const Fd fd = open_file("file", O_RDWR);
  CHECK(size_of(file) == 10000);
  REQUIRE(code(::ftruncate(fd.get(), 3000)) == kOk);
  CHECK(size_of(file) == 3000);
  Bytes data(5000);
  CHECK(plumbfs_read(file.get(), data.data(), data.size(), 1000) == 2000);
  CHECK(plumbfs_read(file.get(), data.data(), data.size(), 3000) == 0);
  CHECK(plumbfs_read(file.get(), data.data(), data.size(), 1 << 30) == 0);
  // Longer again: zeros, whatever was there.
  REQUIRE(code(::ftruncate(fd.get(), 20000)) == kOk);
  CHECK(size_of(file) == 20000);
  CHECK(read_directly(file, 17000, 3000) == Bytes(17000, 0));
  write_at(fd.get(), pattern(100), 30000);
  CHECK(size_of(file) == 30100);
  CHECK(read_directly(file, 100, 30000) == pattern(100));
  // By a write of the library that only the kernel can do.
  write_directly(file, pattern(50), 40000);
  CHECK(status(fd.get()).st_size == 40050);
  CHECK(size_of(file) == 40050);
}

TEST_CASE("client: holes read as zeros, are filled by writes, and are seen when others fill them", "[io]") {
  const TestDirectory directory;
  make_file("file");
  const Fd fd = open_file("file", O_RDWR);
  REQUIRE(code(::ftruncate(fd.get(), 10 << 20)) == kOk);
  const File file("file");
  CHECK(read_directly(file, 8192, 1 << 20) == Bytes(8192, 0));
  CHECK(status(fd.get()).st_blocks == 0);
  write_at(fd.get(), pattern(4096, 3), 1 << 20);
  CHECK(read_directly(file, 4096, 1 << 20) == pattern(4096, 3));
  const Bytes data = pattern(100000, 4);
  write_directly(file, data, 5000000);
  CHECK(status(fd.get()).st_blocks > 0);
  CHECK(read_at(fd.get(), data.size(), 5000000) == data);
  CHECK(read_at(fd.get(), 1000, 4999000) == Bytes(1000, 0));
  CHECK(read_directly(file, data.size(), 5000000) == data);
}

TEST_CASE("client: many small writes into holes", "[io]") {
  const TestDirectory directory;
  make_file("file");
  REQUIRE(code(::truncate("file", 2 << 20)) == kOk);
  Bytes expected(2 << 20, 0);
  {
    const File file("file");
    for (std::uint32_t i = 0; i < 400; ++i) {
      const std::size_t offset = (i * 7919u * 512u) % (expected.size() - 600);
      const Bytes piece = pattern(600, i + 1);
      write_directly(file, piece, offset);
      std::copy(piece.begin(), piece.end(), expected.begin() + static_cast<std::ptrdiff_t>(offset));
      CHECK(read_directly(file, 600, offset) == piece);
    }
    CHECK(code(plumbfs_fsync(file.get())) == kOk);
  }
  const Fd fd = open_file("file", O_RDONLY);
  CHECK(read_at(fd.get(), expected.size(), 0) == expected);
}

TEST_CASE("client: appends of several threads do not meet", "[io]") {
  const TestDirectory directory;
  make_file("file");
  const File file("file");
  constexpr unsigned kThreads = 3;
  constexpr unsigned kAppends = 60;
  constexpr std::size_t kBytes = 700;
  std::vector<std::thread> threads;
  std::vector<std::vector<std::uint64_t>> offsets(kThreads);
  std::atomic<unsigned> failed{0};
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (unsigned i = 0; i < kAppends; ++i) {
        const Bytes data(kBytes, static_cast<std::uint8_t>(thread + 1));
        std::uint64_t at = 0;
        if (plumbfs_append(file.get(), data.data(), data.size(), &at) != static_cast<ssize_t>(kBytes)) ++failed;
        offsets[thread].push_back(at);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  REQUIRE(failed.load() == 0);
  REQUIRE(size_of(file) == kThreads * kAppends * kBytes);
  std::set<std::uint64_t> seen;
  for (unsigned thread = 0; thread < kThreads; ++thread) {
    for (const std::uint64_t at : offsets[thread]) {
      CHECK(at % kBytes == 0);
      CHECK(seen.insert(at).second);
      CHECK(read_directly(file, kBytes, at) == Bytes(kBytes, static_cast<std::uint8_t>(thread + 1)));
    }
  }
}

TEST_CASE("client: a thread that is cancelled in an append does not keep others from it", "[io]") {
  const TestDirectory directory;
  make_file("file");
  const File file("file");
  // Its cancellation is pending when it appends.
  const auto append = [](void* to) -> void* {
    int before = 0;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
    pthread_cancel(pthread_self());
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &before);
    plumbfs_append(static_cast<plumbfs_file*>(to), "one", 3, nullptr);
    return nullptr;
  };
  pthread_t thread{};
  REQUIRE(pthread_create(&thread, nullptr, append, file.get()) == 0);
  REQUIRE(pthread_join(thread, nullptr) == 0);
  CHECK(plumbfs_append(file.get(), "two", 3, nullptr) == 3);
  CHECK(posix::read_file("file") == "onetwo");
}

TEST_CASE("client: a direct write changes mtime, a direct read does not", "[io]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  const timespec old[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(code(::utimensat(AT_FDCWD, "file", old, 0)) == kOk);
  const File file("file");
  read_directly(file, 100, 0);
  CHECK(status("file").st_mtim.tv_sec == 1000);
  timespec before = {};
  ::clock_gettime(CLOCK_REALTIME_COARSE, &before);
  write_directly(file, pattern(100), 50);
  const struct stat after = status("file");
  CHECK(after.st_mtim.tv_sec >= before.tv_sec);
  CHECK(after.st_ctim.tv_sec >= before.tv_sec);
  // It stays after the end of the lease.
  write_directly(file, pattern(100), 50);
}

TEST_CASE("client: descriptors have the rights that they were opened with", "[io]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  char byte = 0;
  const File reader("file", O_RDONLY);
  CHECK(plumbfs_is_direct(reader.get()) == 1);
  CHECK(plumbfs_read(reader.get(), &byte, 1, 0) == 1);
  CHECK(code(plumbfs_write(reader.get(), &byte, 1, 0)) == EBADF);
  CHECK(code(plumbfs_append(reader.get(), &byte, 1, nullptr)) == EBADF);
  CHECK(code(plumbfs_align(reader.get(), nullptr)) == EBUSY);
  const File writer("file", O_WRONLY);
  CHECK(code(plumbfs_read(writer.get(), &byte, 1, 0)) == EBADF);
  CHECK(plumbfs_write(writer.get(), &byte, 1, 0) == 1);
  CHECK(plumbfs_is_direct(writer.get()) == 1);
}

TEST_CASE("client: what cannot be opened is refused with a reason", "[io]") {
  const TestDirectory directory;
  make_file("file");
  CHECK(plumbfs_open("missing", O_RDWR, 0, 0) == nullptr);
  CHECK(errno == ENOENT);
  CHECK(std::string(plumbfs_error()).find("missing") != std::string::npos);
  CHECK(plumbfs_open("file", O_RDWR | O_APPEND, 0, 0) == nullptr);
  CHECK(errno == EINVAL);
  CHECK(plumbfs_open(".", O_RDONLY, 0, 0) == nullptr);
  CHECK(errno == EINVAL);
  CHECK(plumbfs_open("file", O_RDWR, 0, 0x100) == nullptr);
  CHECK(errno == EINVAL);
  CHECK(plumbfs_open_fd(-1, 0) == nullptr);
  CHECK(errno == EBADF);
  CHECK(plumbfs_version() == PLUMBFS_API_VERSION);
}

TEST_CASE("client: another file system works by the kernel, or not at all", "[io]") {
  char path[] = "/tmp/plumbfs-test.XXXXXX";
  const Fd fd(::mkstemp(path));
  REQUIRE(fd);
  CHECK(plumbfs_open(path, O_RDWR, 0, PLUMBFS_DIRECT_ONLY) == nullptr);
  CHECK(errno == ENOTTY);
  INFO(plumbfs_error());
  CHECK(std::string(plumbfs_error()).find("plumbfs") != std::string::npos);
  {
    const File file(path, O_RDWR, 0);
    CHECK(plumbfs_is_direct(file.get()) == 0);
    write_directly(file, pattern(10000), 0);
    CHECK(read_directly(file, 10000, 0) == pattern(10000));
    CHECK(size_of(file) == 10000);
    std::uint64_t at = 0;
    CHECK(plumbfs_append(file.get(), "x", 1, &at) == 1);
    CHECK(at == 10000);
    CHECK(code(plumbfs_align(file.get(), nullptr)) == ENOTTY);
    const Map map(file, 4096, 5000);
    CHECK(plumbfs_map_is_direct(map.get()) == 0);
    const Bytes data = pattern(10000);
    CHECK(map.copy() == Bytes(data.begin() + 4096, data.begin() + 9096));
    map.store(0, pattern(10, 9));
    CHECK(read_directly(file, 10, 4096) == pattern(10, 9));
    CHECK(code(plumbfs_fsync(file.get())) == kOk);
  }
  ::unlink(path);
}

TEST_CASE("client: a descriptor may be closed by its owner", "[io]") {
  const TestDirectory directory;
  const Bytes data = make_pattern_file("file", 10000);
  Fd fd = open_file("file", O_RDWR);
  const File file(plumbfs_open_fd(fd.get(), PLUMBFS_DIRECT_ONLY));
  REQUIRE(file.get() != nullptr);
  fd.close();
  CHECK(plumbfs_is_direct(file.get()) == 1);
  CHECK(read_directly(file, data.size(), 0) == data);
  CHECK(plumbfs_fd(file.get()) >= 0);
}

TEST_CASE("client: writes to a set-id file are the kernel's", "[io]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  const File file("file");
  write_directly(file, pattern(10, 2), 0);
  REQUIRE(code(::chmod("file", 04755)) == kOk);
  write_directly(file, pattern(10, 3), 0);
  CHECK(read_directly(file, 10, 0) == pattern(10, 3));
  const File other("file");
  write_directly(other, pattern(10, 4), 0);
  CHECK(read_directly(other, 10, 0) == pattern(10, 4));
  CHECK(plumbfs_is_direct(other.get()) == 1);
  CHECK(plumbfs_map(other.get(), 0, 4096, PLUMBFS_MAP_WRITE) == nullptr);
  CHECK(errno == (has_direct_maps() ? EPERM : EINVAL));
  REQUIRE(code(::chmod("file", 0755)) == kOk);
}

TEST_CASE("client: who may not open the device goes through the kernel", "[io]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  REQUIRE(code(::chmod("file", 0666)) == kOk);
  make_pattern_file("secret", 10000);
  REQUIRE(code(::chmod("secret", 0600)) == kOk);
  // In the child, a number for what went wrong.
  CHECK(as_user(posix::kUser, [] {
          if (plumbfs_open("file", O_RDWR, 0, PLUMBFS_DIRECT_ONLY) != nullptr || errno != EACCES) return 1;
          if (std::strstr(plumbfs_error(), "cannot be opened for writing: Permission denied") == nullptr) return 2;
          if (plumbfs_open("file", O_RDONLY, 0, PLUMBFS_DIRECT_ONLY) != nullptr || errno != EACCES) return 3;
          plumbfs_file* file = plumbfs_open("file", O_RDWR, 0, 0);
          if (file == nullptr) return 4;
          if (plumbfs_is_direct(file) != 0) return 5;
          char byte = 'x';
          if (plumbfs_write(file, &byte, 1, 77) != 1 || plumbfs_read(file, &byte, 1, 77) != 1 || byte != 'x') return 6;
          plumbfs_mapping* map = plumbfs_map(file, 0, 10000, PLUMBFS_MAP_WRITE);
          if (map == nullptr) return 7;
          if (plumbfs_map_is_direct(map) != 0) return 8;
          static_cast<char*>(plumbfs_map_address(map))[5000] = 'y';
          if (plumbfs_persist(map, plumbfs_map_address(map), 10000) != 0) return 9;
          if (plumbfs_unmap(map) != 0 || plumbfs_close(file) != 0) return 10;
          if (plumbfs_open("secret", O_RDONLY, 0, 0) != nullptr || errno != EACCES) return 11;
          return 0;
        }) == kOk);
  const File file("file");
  CHECK(read_directly(file, 1, 77) == Bytes{'x'});
  CHECK(read_directly(file, 1, 5000) == Bytes{'y'});
}

TEST_CASE("client: a refusal is remembered for the user that it was for", "[io]") {
  const TestDirectory directory;
  make_pattern_file("file", 10000);
  REQUIRE(code(::chmod("file", 0666)) == kOk);
  CHECK(posix::in_child([] {
          if (::seteuid(posix::kUser) != 0) return 1;
          for (int i = 0; i < 3; ++i) {
            if (plumbfs_open("file", O_RDWR, 0, PLUMBFS_DIRECT_ONLY) != nullptr || errno != EACCES) return 2;
            if (std::strstr(plumbfs_error(), "cannot be opened for writing: Permission denied") == nullptr) return 3;
          }
          if (::seteuid(0) != 0) return 4;
          plumbfs_file* const file = plumbfs_open("file", O_RDWR, 0, PLUMBFS_DIRECT_ONLY);
          if (file == nullptr) return 5;
          if (plumbfs_is_direct(file) != 1) return 6;
          return plumbfs_close(file) == 0 ? 0 : 7;
        }) == kOk);
}

TEST_CASE("client: no space for a hole", "[nospace]") {
  const TestDirectory directory;
  make_file("sparse");
  REQUIRE(code(::truncate("sparse", 16 << 20)) == kOk);
  const File file("sparse");
  const Fd full = open_file("full", O_RDWR | O_CREAT);
  off_t size = 0;
  for (off_t step = 64 << 20; step >= 4096;) {
    if (::posix_fallocate(full.get(), size, step) == 0) {
      size += step;
    } else {
      step /= 2;
    }
  }
  const Bytes data(4 << 20, 1);
  ssize_t written = plumbfs_write(file.get(), data.data(), data.size(), 0);
  INFO("written " << written);
  CHECK(written < static_cast<ssize_t>(data.size()));
  CHECK(code(plumbfs_write(file.get(), data.data(), data.size(), 8 << 20)) == ENOSPC);
  if (has_direct_maps()) {
    CHECK(plumbfs_map(file.get(), 0, 16 << 20, PLUMBFS_MAP_WRITE) == nullptr);
    CHECK(errno == ENOSPC);
  }
  CHECK(read_directly(file, 4096, 12 << 20) == Bytes(4096, 0));
}

}  // namespace
