// Space: a full volume, deleting on it, and everything coming back.
#include <linux/falloc.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <random>
#include <string>

#include "fs/core/volume.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::DeviceKind;

// Writes until there is no space; returns the bytes written.
std::uint64_t fill(World& w, std::string_view path, std::size_t piece) {
  if (!w.exists(path)) w.create(path);
  const auto handle = w.open(path);
  const std::string bytes = pattern('F', piece);
  std::uint64_t at = w.stat(path).size_bytes;
  const std::uint64_t start = at;
  while (true) {
    const auto written = w.try_write(*handle, at, bytes);
    if (!written) {
      REQUIRE(written.error().code == ENOSPC);
      return at - start;
    }
    at += *written;
  }
}

}  // namespace

TEST_CASE("space: fill, delete and fill again gives the same", "[core][space]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint32_t block_size = GENERATE(1024u, 4096u, 65536u);
  const std::size_t piece = GENERATE(3'000u, 1u << 20);
  CAPTURE(static_cast<int>(kind), block_size, piece);
  auto device = crash_device(kind, 16u << 20);
  FormatOptions options = fixed_format(block_size);
  options.contents_are_zero = false;
  must(Volume::format(*device, options));
  World w(*device);
  const std::uint64_t first_free = w.blocks_free();
  std::uint64_t first_filled = 0;
  for (int round = 0; round < 3; ++round) {
    const std::uint64_t filled = fill(w, "f", piece);
    if (round == 0) first_filled = filled;
    // The queue may keep a block as its empty root.
    CHECK(filled + block_size >= first_filled);
    CHECK(w->statistics().blocks_available <= 1);
    // Deleting needs no space that is not there.
    w.unlink("f");
    must(w->run_reclaim());
    CHECK(w.blocks_free() == first_free);
    device->forget_history();
  }
  CHECK(first_filled > 8u << 20);
  w.unmount();
}

TEST_CASE("space: many small files, until none fits; then delete them all", "[core][space]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint32_t block_size = GENERATE(1024u, 4096u);
  CAPTURE(static_cast<int>(kind), block_size);
  auto device = crash_device(kind, 8u << 20);
  must(Volume::format(*device, fixed_format(block_size)));
  World w(*device);
  const std::uint64_t first_free = w.blocks_free();
  CreateRequest request;
  request.mode = S_IFREG | 0644;
  int made = 0;
  for (int round = 0; round < 2; ++round) {
    int count = 0;
    while (true) {
      const std::string name = "file" + std::to_string(count);
      const auto created = w->create(*w->root(), name, request);
      if (!created) {
        REQUIRE(created.error().code == ENOSPC);
        break;
      }
      const auto handle = w.open(name);
      const auto written = w.try_write(*handle, 0, pattern('s', 1500));
      ++count;
      if (!written) REQUIRE(written.error().code == ENOSPC);
    }
    if (round == 0) made = count;
    CHECK(count == made);
    // What is full can still be read, renamed over and deleted.
    CHECK(w.read("file0") == pattern('s', 1500));
    w.rename("file1", "file0");
    for (int i = count - 1; i >= 0; --i)
      if (i != 1) w.unlink("file" + std::to_string(i));
    must(w->run_reclaim());
    CHECK(w.blocks_free() == first_free);
    device->forget_history();
  }
  w.unmount();
}

TEST_CASE("space: a full volume refuses, keeps what it has, and truncate and punch free", "[core][space]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  auto device = crash_device(kind, 12u << 20);
  must(Volume::format(*device, fixed_format(4096)));
  World w(*device);
  w.create("keep");
  w.write("keep", 0, pattern('k', 20'000));
  w.create("sparse");
  w.truncate("sparse", 1u << 30);
  const std::uint64_t filled = fill(w, "f", 65536);
  CHECK(code_of(w.try_allocate("sparse", 0, 0, 1u << 20)) == ENOSPC);
  CHECK(code_of(w.try_set_xattr("keep", "user.big", pattern('x', 65536))) == ENOSPC);
  CHECK(w.read("keep") == pattern('k', 20'000));
  CHECK(w.read("sparse", 0, 65536) == std::string(65536, '\0'));
  SECTION("truncate") {
    w.truncate("f", 1u << 20);
  }
  SECTION("punch") {
    w.allocate("f", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1u << 20, 4u << 20);
  }
  SECTION("overwrite needs no space") {
    w.write("keep", 0, pattern('K', 20'000));
    CHECK(w.read("keep") == pattern('K', 20'000));
    w.unlink("f");
  }
  w.allocate("sparse", 0, 0, 1u << 20);
  w.set_xattr("keep", "user.big", pattern('x', 65536));
  CHECK(filled > 4u << 20);
  w.die();
  World again(*device);
  CHECK(again.read("sparse", 0, 65536) == std::string(65536, '\0'));
  CHECK(again.get_xattr("keep", "user.big") == pattern('x', 65536));
}

TEST_CASE("space: what a failed write took comes back as zeros", "[core][space]") {
  auto device = crash_device(GENERATE(DeviceKind::kMemory, DeviceKind::kCached), 8u << 20);
  must(Volume::format(*device, fixed_format(1024)));
  World w(*device);
  w.create("f");
  fill(w, "f", 100'000);
  w.truncate("f", w.stat("f").size_bytes - 300'000);
  must(w->run_reclaim());
  // Every other block: many extents, until the tree of the file cannot grow.
  w.create("holes");
  const auto handle = w.open("holes");
  std::uint64_t blocks = 0;
  while (w.try_write(*handle, blocks * 2048, "S")) ++blocks;
  CHECK(blocks > 50);
  for (std::uint64_t i = 0; i < blocks; ++i) REQUIRE(w.read("holes", i * 2048, 1) == "S");
  w.unlink("f");
  must(w->run_reclaim());
  w.create("zeros");
  w.allocate("zeros", 0, 0, 2u << 20);
  CHECK(w.read("zeros") == std::string(2u << 20, '\0'));
}

TEST_CASE("space: a file of thousands of extents is cut and deleted on a full volume", "[core][space]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const bool cut = GENERATE(false, true);
  CAPTURE(static_cast<int>(kind), cut);
  auto device = crash_device(kind, 8u << 20);
  must(Volume::format(*device, fixed_format(1024)));
  World w(*device);
  const std::uint64_t first_free = w.blocks_free();
  w.create("holes");
  {
    const auto handle = w.open("holes");
    std::uint64_t at = 0;
    while (w.try_write(*handle, at, "x")) at += 2048;
    CHECK(at > 5000u * 2048);
    device->forget_history();
  }
  if (cut) {
    w.truncate("holes", 2048);
    CHECK(w.read("holes") == "x" + std::string(2047, '\0'));
  }
  w.unlink("holes");
  must(w->run_reclaim());
  CHECK(w.blocks_free() == first_free);
  w.unmount();
}

TEST_CASE("space: random files of all sizes come and go", "[core][space]") {
  const std::uint64_t seed = std::random_device{}();
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint32_t block_size = GENERATE(1024u, 16384u);
  CAPTURE(seed, static_cast<int>(kind), block_size);
  std::mt19937_64 random(seed);
  auto device = crash_device(kind, 24u << 20);
  FormatOptions options = fixed_format(block_size);
  options.contents_are_zero = random() % 2 == 0;
  must(Volume::format(*device, options));
  World w(*device);
  const std::uint64_t first_free = w.blocks_free();
  for (int step = 0; step < 400; ++step) {
    const std::string name = "f" + std::to_string(random() % 12);
    if (w.exists(name) && random() % 3 == 0) {
      w.unlink(name);
    } else {
      if (!w.exists(name)) w.create(name);
      const auto handle = w.open(name);
      const std::size_t size = random() % 20 == 0 ? 6u << 20 : random() % 60'000;
      if (random() % 4 == 0)
        (void)w->allocate(*handle, random() % 2 == 0 ? FALLOC_FL_KEEP_SIZE : 0, random() % (4u << 20), size + 1, {});
      else if (random() % 4 == 0)
        w.truncate(name, random() % (4u << 20));
      else
        (void)w.try_write(*handle, random() % (4u << 20), pattern('r', size));
    }
    if (random() % 40 == 0) must(w->run_reclaim());
    if (step % 100 == 99) {
      if (random() % 2 == 0)
        w.die();
      else
        w.unmount();
      device->forget_history();
      w = World(*device);
    }
  }
  for (const std::string& name : w.names()) w.unlink(name);
  must(w->run_reclaim());
  CHECK(w.blocks_free() == first_free);
  w.unmount();
}
