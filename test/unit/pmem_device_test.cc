#include "pmem/device.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>
#include <vector>

#include "test/unit/pmem_temp_dir.h"

namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using plumb::pmem::Device;
using plumb::pmem::DeviceKind;
using plumb::pmem::open_device;
using plumb::pmem::OpenOptions;
using plumb::testing::TempDir;

constexpr std::uint64_t kSize = 1 << 20;

enum class Place { kTmpfs, kDisk };

bool is_memory_file_system(const fs::path& path) {
  struct statfs status {};
  if (statfs(path.c_str(), &status) != 0) return false;
  return status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC;
}

// Skips the test where the place does not exist.
fs::path parent_of(Place place) {
  if (place == Place::kTmpfs) {
    if (!is_memory_file_system("/dev/shm")) SKIP("/dev/shm is no tmpfs");
    return "/dev/shm";
  }
  for (const fs::path& path : {fs::temp_directory_path(), fs::path("/var/tmp"), fs::current_path()}) {
    if (!is_memory_file_system(path) && access(path.c_str(), W_OK) == 0) return path;
  }
  SKIP("no writable directory on a disk");
  return {};
}

class DeviceFile {
 public:
  explicit DeviceFile(Place place) : dir_(parent_of(place)), path_((dir_.path() / "device").string()) { resize(kSize); }
  void resize(std::uint64_t size_bytes) const {
    const int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE(ftruncate(fd, static_cast<off_t>(size_bytes)) == 0);
    close(fd);
  }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const fs::path& dir() const { return dir_.path(); }

 private:
  TempDir dir_;
  std::string path_;
};

std::unique_ptr<Device> must_open(const std::string& path, const OpenOptions& options = {}) {
  auto device = open_device(path, options);
  INFO((device ? "" : device.error().message()));
  REQUIRE(device);
  return std::move(*device);
}

std::vector<std::byte> random_bytes(std::mt19937_64& random, std::size_t length_bytes) {
  std::vector<std::byte> bytes(length_bytes);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

std::vector<std::byte> read_file(const std::string& path) {
  std::vector<std::byte> bytes(fs::file_size(path));
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  close(fd);
  return bytes;
}

}  // namespace

TEST_CASE("device: a file on tmpfs is volatile memory", "[pmem][device]") {
  const DeviceFile file(Place::kTmpfs);
  const auto device = must_open(file.path());
  CHECK(device->info().kind == DeviceKind::kMemory);
  CHECK(device->info().type == "tmpfs file");
  CHECK(device->info().is_volatile);
  CHECK(device->size_bytes() == kSize);
  CHECK(device->info().file_inode != 0);
  CHECK_THAT(device->durability_sentence(), ContainsSubstring("volatile"));
}

TEST_CASE("device: an ordinary file is page-cached", "[pmem][device]") {
  const DeviceFile file(Place::kDisk);
  const auto device = must_open(file.path());
  if (device->info().type == "fsdax file") SKIP("the directory is on a file system with DAX");
  CHECK(device->info().kind == DeviceKind::kCached);
  CHECK(device->info().type == "file");
  CHECK_FALSE(device->info().is_volatile);
  CHECK_THAT(device->durability_sentence(), ContainsSubstring("page cache"));
}

TEST_CASE("device: assume_pmem makes an ordinary file memory, and says so", "[pmem][device]") {
  const DeviceFile file(Place::kDisk);
  const auto device = must_open(file.path(), {.assume_pmem = true});
  CHECK(device->is_memory());
  if (device->info().type == "fsdax file") SKIP("the directory is on a file system with DAX");
  CHECK(device->info().assumed_pmem);
  CHECK_THAT(device->durability_sentence(), ContainsSubstring("because you said so"));
}

TEST_CASE("device: a claimed device is EBUSY until it is closed", "[pmem][device]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  auto writer = must_open(file.path());
  CHECK(open_device(file.path(), {}).error().code == EBUSY);
  CHECK(open_device(file.path(), {.read_only = true}).error().code == EBUSY);
  writer.reset();
  auto reader = must_open(file.path(), {.read_only = true});
  CHECK(open_device(file.path(), {}).error().code == EBUSY);
  const auto second_reader = must_open(file.path(), {.read_only = true});
  reader.reset();
  CHECK(open_device(file.path(), {}).error().code == EBUSY);
}

TEST_CASE("device: a lock that another program holds is respected", "[pmem][device]") {
  const DeviceFile file(Place::kDisk);
  const int fd = open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(flock(fd, LOCK_SH | LOCK_NB) == 0);
  CHECK(open_device(file.path(), {}).error().code == EBUSY);
  CHECK(open_device(file.path(), {.exclusive = false}));
  close(fd);
  CHECK(open_device(file.path(), {}));
}

TEST_CASE("device: what cannot be a device is refused with the reason", "[pmem][device]") {
  const TempDir dir;
  const std::string path = (dir.path() / "x").string();
  CHECK(open_device(path, {}).error().code == ENOENT);
  CHECK(open_device(dir.path().string(), {}).error().code == EINVAL);
  CHECK(open_device("/dev/null", {}).error().code == EINVAL);
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  CHECK(open_device(path, {}).error().code == EINVAL);
  fs::remove(path);
  close(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const auto empty = open_device(path, {});
  CHECK(empty.error().code == EINVAL);
  CHECK_THAT(empty.error().detail, ContainsSubstring("empty"));
}

TEST_CASE("device: PMEM_NO_FLUSH=1 is refused", "[pmem][device]") {
  const DeviceFile file(Place::kDisk);
  REQUIRE(setenv("PMEM_NO_FLUSH", "1", 1) == 0);
  const auto refused = open_device(file.path(), {});
  REQUIRE(unsetenv("PMEM_NO_FLUSH") == 0);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == EINVAL);
  CHECK_THAT(refused.error().detail, ContainsSubstring("PMEM_NO_FLUSH"));
}

TEST_CASE("device: stores of any length and alignment arrive", "[pmem][device]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  const std::uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  const auto device = must_open(file.path());
  std::vector<std::byte> model(kSize);
  for (int step = 0; step < 3000; ++step) {
    const std::size_t limit = step % 3 == 0 ? 20 : step % 3 == 1 ? 700 : 20000;
    const std::uint64_t offset = random() % kSize;
    const std::size_t length = std::min<std::size_t>(random() % limit, kSize - offset);
    const std::vector<std::byte> bytes = random_bytes(random, length);
    const auto at = model.begin() + static_cast<std::ptrdiff_t>(offset);
    switch (random() % 4) {
      case 0:
        REQUIRE(device->zero(offset, length));
        std::fill_n(at, length, std::byte{0});
        REQUIRE(device->is_zero(offset, length) == true);
        break;
      case 1:
        REQUIRE(device->store(offset, bytes));
        std::copy(bytes.begin(), bytes.end(), at);
        break;
      default:
        REQUIRE(device->store_nt(offset, bytes));
        std::copy(bytes.begin(), bytes.end(), at);
        break;
    }
    std::vector<std::byte> loaded(length);
    REQUIRE(device->load(offset, loaded));
    REQUIRE(std::equal(loaded.begin(), loaded.end(), at));
  }
  REQUIRE(device->persist(0, kSize));
  REQUIRE(std::memcmp(device->view(0, kSize), model.data(), kSize) == 0);
  CHECK(read_file(file.path()) == model);
}

TEST_CASE("device: is_zero sees a single bit", "[pmem][device]") {
  const DeviceFile file(Place::kTmpfs);
  const auto device = must_open(file.path());
  const std::byte one{1};
  for (const std::uint64_t at : {0, 1, 4095, 65537}) {
    REQUIRE(device->store(at, {&one, 1}));
    CHECK(device->is_zero(0, kSize) == false);
    CHECK(device->is_zero(at, 1) == false);
    CHECK(device->is_zero(at + 1, kSize - at - 1) == true);
    CHECK(device->is_zero(0, at) == true);
    REQUIRE(device->zero(at, 1));
  }
  CHECK(device->is_zero(17, 0) == true);
}

TEST_CASE("device: stores to neighbouring bytes from several threads do not lose each other", "[pmem][device]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  const auto device = must_open(file.path());
  std::vector<std::thread> threads;
  // Three bytes each, at places that share words.
  for (std::uint64_t id = 0; id < 4; ++id) {
    threads.emplace_back([&device, id] {
      for (int round = 0; round < 5000; ++round) {
        const std::vector<std::byte> bytes(3, static_cast<std::byte>(round + static_cast<int>(id)));
        if (!device->store(3 * id, bytes)) std::abort();
        std::vector<std::byte> loaded(3);
        if (!device->load(3 * id, loaded) || loaded != bytes) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("device: out of range is EINVAL and stores nothing", "[pmem][device]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  const auto device = must_open(file.path());
  std::vector<std::byte> bytes(16, std::byte{1});
  CHECK(device->store(kSize - 8, bytes).error().code == EINVAL);
  CHECK(device->store_nt(kSize - 8, bytes).error().code == EINVAL);
  CHECK(device->load(~std::uint64_t{0} - 3, bytes).error().code == EINVAL);
  CHECK(device->zero(kSize, 1).error().code == EINVAL);
  CHECK(device->flush(1, ~std::uint64_t{0}).error().code == EINVAL);
  CHECK(device->is_zero(0, kSize + 1).error().code == EINVAL);
  CHECK(device->is_zero(0, kSize) == true);
  CHECK(device->store(kSize, {}));
}

TEST_CASE("device: a device open for reading refuses stores", "[pmem][device]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  const auto device = must_open(file.path(), {.read_only = true});
  const std::vector<std::byte> bytes(16);
  CHECK(device->store(0, bytes).error().code == EROFS);
  CHECK(device->store_nt(0, bytes).error().code == EROFS);
  CHECK(device->zero(0, 1).error().code == EROFS);
  CHECK(device->is_zero(0, kSize) == true);
}

TEST_CASE("device: a file truncated under the mapping gives EIO", "[pmem][device][sigbus]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  const auto device = must_open(file.path());
  file.resize(8192);
  std::vector<std::byte> bytes(600, std::byte{1});
  CHECK(device->store(0, bytes));
  const auto loaded = device->load(8000, bytes);
  REQUIRE_FALSE(loaded);
  CHECK(loaded.error().code == EIO);
  CHECK(loaded.error().offset_bytes >= 8192);
  CHECK(device->store(100000, std::span(bytes).first(3)).error().code == EIO);
  CHECK(device->store(100000, bytes).error().code == EIO);
  CHECK(device->store_nt(100001, bytes).error().code == EIO);
  CHECK(device->zero(100001, 5).error().code == EIO);
  CHECK(device->zero(100001, 5000).error().code == EIO);
  CHECK(device->is_zero(4096, kSize - 4096).error().code == EIO);
  if (device->is_memory()) CHECK(device->flush(100001, 5).error().code == EIO);
  CHECK(device->counters().errors >= 7);
  // And the device goes on.
  file.resize(kSize);
  CHECK(device->store(100000, bytes));
  CHECK(device->persist(100000, bytes.size()));
}

TEST_CASE("device: counters count bytes, flushes in pages where there is a page cache, and drains", "[pmem][device]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  const auto device = must_open(file.path());
  const std::vector<std::byte> bytes(10);
  REQUIRE(device->store(4090, bytes));
  REQUIRE(device->persist(4090, 10));
  CHECK(device->counters().stored_bytes == 10);
  CHECK(device->counters().flush_calls == 1);
  CHECK(device->counters().flushed_bytes == (device->is_memory() ? 10 : 8192));
  CHECK(device->counters().drains == 1);
  REQUIRE(device->flush_after_nt(0, 1));
  CHECK(device->counters().flush_calls == (device->is_memory() ? 1 : 2));
  CHECK(device->deep_flush(0, 1));
}

TEST_CASE("device: a size that is no multiple of a page works to its last byte", "[pmem][device]") {
  const DeviceFile file(GENERATE(Place::kTmpfs, Place::kDisk));
  file.resize(5003);
  const auto device = must_open(file.path());
  const std::vector<std::byte> bytes(3, std::byte{9});
  REQUIRE(device->store(5000, bytes));
  REQUIRE(device->persist(5000, 3));
  CHECK(device->store(5001, bytes).error().code == EINVAL);
  CHECK(read_file(file.path()).back() == std::byte{9});
}
