// Images of format version 1 that are kept for ever: a later plumbfs mounts them, or refuses them with a clear line.
//
// They were written by this test with PLUMB_WRITE_IMAGES=DIRECTORY; a new format version writes new ones beside them.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic ignored "-Warray-bounds"  // false positives on inlined std::string, GCC bug 105329
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#endif
#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <fstream>
#include <string>

#include "fs/core/check.h"
#include "fs/media/layout.h"
#include "fs/media/verify.h"
#include "test/image/packed_image.h"
#include "test/unit/core_world.h"

namespace plumb::test {
namespace {

constexpr std::uint64_t kImageBytes = 8u << 20;
const std::string kLongTarget(3000, 't');

struct Kept {
  const char* name;
  std::uint32_t block_size_bytes;
  bool clean;
};
constexpr Kept kKept[] = {{"v1-4k-clean.image", 4096, true}, {"v1-1k-unclean.image", 1024, false}};

void fill(World& world) {
  world.mkdir("dir");
  for (int i = 0; i < 40; ++i) world.create("dir/entry-" + std::to_string(i));
  world.create("small");
  world.write("small", 0, pattern('s', 1000));
  world.create("sparse");
  for (std::uint64_t i = 0; i < 6; ++i) world.write("sparse", i * 131072, pattern('p', 100, i));
  world.link("small", "dir/other-name");
  world.symlink("short-link", "dir/entry-1");
  world.symlink("long-link", kLongTarget);
  world.make("fifo", S_IFIFO | 0600);
  must(world->set_xattr(*world.find("small"), "user.short", "value", {}, {}));
  must(world->set_xattr(*world.find("small"), "user.long", std::string(20000, 'x'), {}, {}));
  world.create("gone");
  world.write("gone", 0, pattern('g', 5000));
  world.unlink("gone");
}

void compare(World& world) {
  CHECK(world.read("small") == pattern('s', 1000));
  CHECK(world.read("dir/other-name") == pattern('s', 1000));
  const std::string sparse = world.read("sparse");
  REQUIRE(sparse.size() == 5 * 131072 + 100);
  for (std::uint64_t i = 0; i < 6; ++i) {
    CHECK(sparse.substr(i * 131072, 100) == pattern('p', 100, i));
    if (i < 5) {
      CHECK(sparse.substr(i * 131072 + 100, 131072 - 100) == std::string(131072 - 100, '\0'));
    }
  }
  for (int i = 0; i < 40; ++i) CHECK(world.exists("dir/entry-" + std::to_string(i)));
  CHECK_FALSE(world.exists("gone"));
  CHECK(must(world->readlink(*world.find("short-link"))) == "dir/entry-1");
  CHECK(must(world->readlink(*world.find("long-link"))) == kLongTarget);
  CHECK(S_ISFIFO(world->attributes(*world.find("fifo")).mode));
  CHECK(world->attributes(*world.find("small")).links == 2);
  CHECK(must(world->get_xattr(*world.find("small"), "user.short")) == "value");
  CHECK(must(world->get_xattr(*world.find("small"), "user.long")) == std::string(20000, 'x'));
}

void check_clean(pmem::Device& device) {
  const CheckReport report = must(check_volume(device, {.zeros = true, .progress = {}}));
  for (const Problem& problem : report.problems) UNSCOPED_INFO(problem.object << ": " << problem.what);
  CHECK(report.problems_total == 0);
}

std::string path_of(const Kept& kept) {
  return std::string(PLUMBFS_TEST_DIR) + "/image/" + kept.name;
}

}  // namespace

TEST_CASE("image: what this version writes is what it reads", "[image]") {
  for (const Kept& kept : kKept) {
    auto device = crash_device(pmem::DeviceKind::kMemory, kImageBytes);
    must(Volume::format(*device, fixed_format(kept.block_size_bytes)));
    World world(*device);
    fill(world);
    compare(world);
    if (kept.clean)
      world.unmount();
    else
      world.die();
    check_clean(*device);
    if (const char* directory = std::getenv("PLUMB_WRITE_IMAGES")) {
      const std::span<const std::byte> bytes(device->view(0, kImageBytes), kImageBytes);
      std::ofstream(std::string(directory) + "/" + kept.name, std::ios::binary) << pack_image(bytes);
    }
  }
}

TEST_CASE("image: a file system of format version 1 mounts, is whole, and works", "[image]") {
  for (const Kept& kept : kKept) {
    for (const pmem::DeviceKind kind : {pmem::DeviceKind::kMemory, pmem::DeviceKind::kCached}) {
      INFO(kept.name);
      const std::vector<std::byte> bytes = unpack_image(path_of(kept));
      REQUIRE(bytes.size() == kImageBytes);
      pmem::CrashDevice device(pmem::CrashImage(bytes), {.kind = kind});
      check_clean(device);
      {
        World world(device);
        CHECK(world->counters().unsafe_shutdowns == (kept.clean ? 0 : 1));
        compare(world);
        world.create("new");
        world.write("new", 0, pattern('n', 70000));
        world.rename("new", "dir/new");
        world.unlink("small");
        world.unmount();
      }
      check_clean(device);
      World again(device);
      CHECK(again.read("dir/new") == pattern('n', 70000));
      CHECK_FALSE(again.exists("small"));
      again.unmount();
    }
  }
}

TEST_CASE("image: a later format version and unknown features are refused by name", "[image]") {
  const std::vector<std::byte> original = unpack_image(path_of(kKept[0]));
  auto refusal = [&](auto change) {
    std::vector<std::byte> bytes = original;
    for (const std::uint64_t offset : media::kSuperblockOffsets) {
      media::Superblock superblock;
      std::memcpy(&superblock, bytes.data() + offset, sizeof superblock);
      change(superblock);
      media::seal_superblock(superblock);
      std::memcpy(bytes.data() + offset, &superblock, sizeof superblock);
    }
    pmem::CrashDevice device(pmem::CrashImage(bytes), {.kind = pmem::DeviceKind::kMemory});
    const auto volume = Volume::mount(device, quiet_mount());
    REQUIRE_FALSE(volume.has_value());
    CHECK(volume.error().code == ENOTSUP);
    return volume.error().message();
  };
  CHECK(refusal([](media::Superblock& sb) { sb.version = 2; }).find("version 2") != std::string::npos);
  CHECK(refusal([](media::Superblock& sb) { sb.incompat = 1u << 20; }).find("1048576") != std::string::npos);
}

}  // namespace plumb::test
