// A first look at everything the volume does, on both kinds of device and all block sizes.
#include "fs/core/volume.h"

#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <set>
#include <string>
#include <vector>

#include "pmem/crash_explorer.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::DeviceKind;

constexpr std::uint64_t kSize = 32u << 20;

struct Fresh {
  explicit Fresh(DeviceKind kind = DeviceKind::kMemory, std::uint32_t block_size = 4096, std::uint64_t size = kSize)
      : device(crash_device(kind, size)) {
    must(Volume::format(*device, fixed_format(block_size)));
  }
  std::unique_ptr<pmem::CrashDevice> device;
};

void smoke(World& w) {
  w.mkdir("d");
  w.create("d/f");
  w.write("d/f", 0, pattern('a', 10'000));
  CHECK(w.read("d/f") == pattern('a', 10'000));
  CHECK(w.stat("d/f").size_bytes == 10'000);
  w.write("d/f", 1'000'000, "tail");
  CHECK(w.read("d/f", 10'000, 50) == std::string(50, '\0'));
  CHECK(w.read("d/f", 1'000'000) == "tail");
  w.truncate("d/f", 5'000);
  w.truncate("d/f", 6'000);
  CHECK(w.read("d/f") == pattern('a', 5'000) + std::string(1'000, '\0'));
  w.rename("d/f", "g");
  CHECK_FALSE(w.exists("d/f"));
  w.link("g", "d/h");
  CHECK(w.stat("g").links == 2);
  w.unlink("g");
  CHECK(w.read("d/h").size() == 6'000);
  w.symlink("short", "d/h");
  w.symlink("long", std::string(4095, 'l'));
  CHECK(must(w->readlink(*w.find("long"))) == std::string(4095, 'l'));
  w.set_xattr("d/h", "user.small", "v");
  w.set_xattr("d/h", "user.big", pattern('x', 65536));
  CHECK(w.get_xattr("d/h", "user.big") == pattern('x', 65536));
}

void smoke_again(World& w) {
  CHECK(w.read("d/h") == pattern('a', 5'000) + std::string(1'000, '\0'));
  CHECK(must(w->readlink(*w.find("long"))) == std::string(4095, 'l'));
  CHECK(w.get_xattr("d/h", "user.small") == "v");
  CHECK(w.get_xattr("d/h", "user.big") == pattern('x', 65536));
  CHECK(w.stat("d").links == 2);
  CHECK(w.stat("").links == 3);
}

void clean_up(World& w) {
  w.unlink("d/h");
  w.unlink("short");
  w.unlink("long");
  w.rmdir("d");
}

}  // namespace

TEST_CASE("volume: smoke on every block size and kind, with clean and unclean remounts", "[core][volume]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint32_t block_size = GENERATE(1024u, 2048u, 4096u, 16384u, 65536u);
  CAPTURE(static_cast<int>(kind), block_size);
  const Fresh fresh(kind, block_size);
  const bool clean = GENERATE(true, false);
  MountOptions options = quiet_mount();
  options.writeback = GENERATE(Writeback::kImmediate, Writeback::kDeferred);
  std::uint64_t first_free = 0;
  {
    World w(*fresh.device, options);
    first_free = w.blocks_free();
    smoke(w);
    if (clean)
      w.unmount();
    else
      w.die();
  }
  {
    World w(*fresh.device, options);
    CHECK(w->counters().unsafe_shutdowns == (clean ? 0 : 1));
    smoke_again(w);
    if (!clean)
      w.die();
    else
      w.unmount();
  }
  World w(*fresh.device, options);
  smoke_again(w);
  clean_up(w);
  must(w->run_reclaim());
  CHECK(w.blocks_free() == first_free);
  CHECK(w->statistics().inodes - w->statistics().inodes_free == 1);
  w.unmount();
}

// What a crash in mkfs may leave: one copy of the superblock. The next mount counts itself in both, and a crash of that
// must not leave none.
TEST_CASE("volume: a superblock copy that is not whole is mended before the other is rewritten", "[core][volume]") {
  const DeviceKind kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint64_t damaged = GENERATE(0u, 65536u);
  Fresh fresh(kind);
  {
    World world(*fresh.device);
    world.create("f");
    world.die();
  }
  must(fresh.device->zero(damaged + 40, 16));  // its uuid
  pmem::CrashDevice device(fresh.device->current_image(), {.kind = kind});
  {
    World world(device);
    CHECK(world->counters().unsafe_shutdowns == 1);
    world.die();
  }
  std::vector<std::byte> first(4096), second(4096);
  must(device.load(0, first));
  must(device.load(65536, second));
  CHECK(first == second);
  pmem::CrashExplorer explorer(device);
  std::size_t images = 0;
  for (const std::size_t point : device.crash_points())
    images +=
        explorer.for_each_image(point, {.max_systematic = 60, .random_torn = 20}, [&](const pmem::CrashImage& image) {
          pmem::CrashDevice after(image, {.kind = kind});
          World world(after);
          CHECK(world.exists("f"));
          return true;
        });
  CHECK(images > 20);
}

TEST_CASE("volume: a device full of garbage works without being zeroed first", "[core][volume]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  auto device = crash_device(kind, 64u << 20);
  const std::string garbage(1u << 20, '\xa5');
  for (std::uint64_t at = 0; at < device->size_bytes(); at += garbage.size())
    must(device->store_nt(at, std::as_bytes(std::span(garbage))));
  FormatOptions options = fixed_format(GENERATE(1024u, 4096u));
  options.contents_are_zero = false;
  must(Volume::format(*device, options));
  World w(*device);
  const std::uint64_t first_free = w.blocks_free();
  w.create("big");
  w.truncate("big", 40u << 20);
  w.allocate("big", 0, 0, 40u << 20);
  for (std::uint64_t at = 0; at < 40u << 20; at += 1u << 20)
    REQUIRE(w.read("big", at, 1u << 20) == std::string(1u << 20, '\0'));
  w.write("big", 0, pattern('b', 100'000));
  w.unlink("big");
  must(w->run_reclaim());
  CHECK(w.blocks_free() == first_free);
  w.die();
  World again(*device);
  CHECK(again.names().empty());
}

TEST_CASE("volume: rename variants", "[core][volume]") {
  const Fresh fresh;
  World w(*fresh.device);
  w.mkdir("a");
  w.mkdir("b");
  w.create("a/f");
  w.write("a/f", 0, "f");
  w.create("b/g");
  w.write("b/g", 0, "g");
  const auto code = [&](std::string_view from, std::string_view to, RenameFlags flags = {}) {
    return code_of(w.try_rename(from, to, flags));
  };
  CHECK(code("a/none", "x") == ENOENT);
  CHECK(code("a/f", "b/g", {.noreplace = true}) == EEXIST);
  CHECK(code("a/f", "b/h", {.exchange = true}) == ENOENT);
  CHECK(code("a/f", "b/g", {.exchange = true}) == 0);
  CHECK(w.read("a/f") == "g");
  CHECK(code("a/f", "b/g") == 0);
  CHECK(w.read("b/g") == "g");
  CHECK(w.names("a").empty());
  CHECK(code("a", "b/sub") == 0);
  CHECK(w.stat("").links == 3);
  CHECK(w.stat("b").links == 3);
  CHECK(must(w->lookup(*w.find("b/sub"), "..")).attributes.inode == w.stat("b").inode);
  CHECK(code("b", "b/sub/b") == EINVAL);
  CHECK(code("b/sub", "b") == ENOTEMPTY);
  CHECK(code("b/g", "b/sub") == EISDIR);
  CHECK(code("b/sub", "b/g") == ENOTDIR);
  CHECK(code("b", "b/sub", {.exchange = true}) == EINVAL);
  w.mkdir("c");
  w.create("c/x");
  CHECK(code("b/sub", "c") == ENOTEMPTY);
  w.unlink("c/x");
  CHECK(code("b/sub", "c") == 0);
  CHECK(w.stat("").links == 4);
  CHECK(code("c", "b/g", {.exchange = true}) == 0);
  CHECK(S_ISDIR(w.stat("b/g").mode));
  CHECK(w.stat("").links == 3);
  CHECK(w.stat("b").links == 3);
  CHECK(code("c", "w", {.whiteout = true}) == 0);
  CHECK(S_ISCHR(w.stat("c").mode));
  CHECK(w.stat("c").rdev == 0);
  w.link("w", "v");
  CHECK(code("w", "v") == 0);  // two names of one inode
  CHECK(w.exists("w"));
}

TEST_CASE("volume: an unlinked open file lives until its last reference goes", "[core][volume]") {
  const Fresh fresh(GENERATE(DeviceKind::kMemory, DeviceKind::kCached));
  World w(*fresh.device);
  const std::uint64_t free_before = w.blocks_free();
  w.create("f");
  w.write("f", 0, pattern('f', 50'000));
  {
    const auto handle = w.open("f");
    w.unlink("f");
    w.write(*handle, 50'000, "more");
    CHECK(w.read(*handle->inode) == pattern('f', 50'000) + "more");
    must(w->run_reclaim());
    CHECK(w.blocks_free() < free_before);
  }
  must(w->run_reclaim());
  CHECK(w.blocks_free() == free_before);

  SECTION("O_TMPFILE goes, or gets a name") {
    CreateRequest request;
    request.mode = S_IFREG | 0600;
    const InodeRef root = w->root();
    {
      const InodeRef unnamed = must(w->create_unnamed(*root, request)).inode;
      const InodeRef kept = must(w->create_unnamed(*root, request)).inode;
      const auto handle = must(w->open(*kept, O_RDWR));
      w.write(*handle, 0, "kept");
      must(w->link(*kept, *root, "kept"));
    }
    must(w->run_reclaim());
    CHECK(w.read("kept") == "kept");
    CHECK(w->statistics().inodes - w->statistics().inodes_free == 2);
  }
  SECTION("the next mount deletes it when the daemon dies") {
    w.create("g");
    w.write("g", 0, pattern('g', 50'000));
    InodeRef held = w.find("g");
    w.unlink("g");
    held = InodeRef();
    w.die();
    World again(*fresh.device);
    must(again->run_reclaim());
    CHECK(again.blocks_free() == free_before);
  }
}

TEST_CASE("volume: fallocate modes and seek", "[core][volume]") {
  const Fresh fresh(GENERATE(DeviceKind::kMemory, DeviceKind::kCached));
  World w(*fresh.device);
  w.create("f");
  w.allocate("f", FALLOC_FL_KEEP_SIZE, 0, 100'000);
  CHECK(w.stat("f").size_bytes == 0);
  CHECK(w.stat("f").sectors >= 100'000 / 512);
  w.allocate("f", 0, 0, 50'000);
  CHECK(w.read("f") == std::string(50'000, '\0'));
  w.write("f", 0, pattern('p', 50'000));
  w.allocate("f", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5'000, 20'000);
  std::string expected = pattern('p', 50'000);
  std::fill_n(expected.begin() + 5'000, 20'000, '\0');
  CHECK(w.read("f") == expected);
  w.allocate("f", FALLOC_FL_ZERO_RANGE, 40'000, 20'000);
  expected.resize(60'000);
  std::fill_n(expected.begin() + 40'000, 20'000, '\0');
  CHECK(w.read("f") == expected);
  const InodeRef f = w.find("f");
  CHECK(must(w->seek(*f, 0, SEEK_HOLE)) == 8192);
  CHECK(must(w->seek(*f, 8192, SEEK_DATA)) == 24576);
  CHECK(must(w->seek(*f, 24576, SEEK_HOLE)) == 60'000);
  CHECK(code_of(w->seek(*f, 60'000, SEEK_DATA)) == ENXIO);
  CHECK(code_of(w.try_allocate("f", FALLOC_FL_COLLAPSE_RANGE, 0, 4096)) == EOPNOTSUPP);
  CHECK(code_of(w.try_allocate("f", 0, 0, 0)) == EINVAL);
  CHECK(code_of(w.try_allocate("f", 0, kMaxFileSize, 4096)) == EFBIG);
}

TEST_CASE("volume: copy_range copies data and holes", "[core][volume]") {
  const Fresh fresh;
  World w(*fresh.device);
  w.create("from");
  w.write("from", 0, pattern('c', 3'000'000));
  w.create("to");
  const auto from = w.open("from");
  const auto to = w.open("to");
  CHECK(must(w->copy_range(*from, 1'000, *to, 7, 2'500'000, Caller{})) == 2'500'000);
  CHECK(w.read("to") == std::string(7, '\0') + pattern('c', 3'000'000).substr(1'000, 2'500'000));
  CHECK(must(w->copy_range(*from, 2'999'990, *to, 0, 100, Caller{})) == 10);
}

TEST_CASE("volume: a readdir cookie stays valid while entries come and go", "[core][volume]") {
  const Fresh fresh(DeviceKind::kMemory, 1024);
  World w(*fresh.device);
  w.mkdir("d");
  std::set<std::string> stay;
  for (int i = 0; i < 500; ++i) {
    const std::string name = "stays" + std::to_string(i);
    w.create("d/" + name);
    w.create("d/goes" + std::to_string(i));
    stay.insert(name);
  }
  const InodeRef d = w.find("d");
  std::multiset<std::string> seen;
  std::uint64_t cookie = 0;
  for (int round = 0;; ++round) {
    int taken = 0;
    must(w->read_directory(*d, cookie, [&](const DirectoryEntry& entry) {
      if (taken == 7) return false;
      ++taken;
      cookie = entry.cookie;
      if (stay.contains(std::string(entry.name))) seen.insert(std::string(entry.name));
      return true;
    }));
    if (taken == 0) break;
    if (round < 500) {
      w.unlink("d/goes" + std::to_string(round));
      w.create("d/new" + std::to_string(round));
    }
  }
  CHECK(seen == std::multiset<std::string>(stay.begin(), stay.end()));
}

TEST_CASE("volume: append writes at the volume's own end of file", "[core][volume]") {
  const Fresh fresh;
  World w(*fresh.device);
  w.create("f");
  const auto handle = w.open("f", O_WRONLY | O_APPEND);
  w.write(*handle, 999, "one");
  w.write(*handle, 0, "two");
  CHECK(w.read("f") == "onetwo");
}

TEST_CASE("volume: errors are those of the man pages", "[core][volume]") {
  const Fresh fresh;
  World w(*fresh.device);
  w.mkdir("d");
  w.create("d/f");
  const InodeRef root = w->root();
  CreateRequest request;
  request.mode = S_IFREG | 0644;
  CHECK(code_of(w->create(*root, std::string(256, 'n'), request)) == ENAMETOOLONG);
  CHECK(code_of(w->create(*root, std::string(255, 'n'), request)) == 0);
  CHECK(code_of(w->create(*root, "d", request)) == EEXIST);
  CHECK(code_of(w->lookup(*root, "none")) == ENOENT);
  CHECK(code_of(w->lookup(*w.find("d/f"), "x")) == ENOTDIR);
  CHECK(code_of(w->rmdir(*root, "d")) == ENOTEMPTY);
  CHECK(code_of(w->unlink(*root, "d")) == EISDIR);
  CHECK(code_of(w->rmdir(*w.find("d"), "f")) == ENOTDIR);
  const auto handle = w.open("d/f");
  CHECK(code_of(w.try_write(*handle, kMaxFileSize, "x")) == EFBIG);
  CHECK(must(w.try_write(*handle, kMaxFileSize - 1, "xy")) == 1);
  CHECK(w.stat("d/f").size_bytes == kMaxFileSize);
  CHECK(w.read("d/f", kMaxFileSize - 1) == "x");
  const InodeNumber number = w.stat("d/f").inode;
  const std::uint64_t generation = w.stat("d/f").generation;
  CHECK(code_of(w->inode_by_number(number, generation)) == 0);
  CHECK(code_of(w->inode_by_number(number, generation + 1)) == ESTALE);
  CHECK(code_of(w->inode_by_number(InodeNumber(123456), 0)) == ESTALE);
}

TEST_CASE("volume: flags, times and ownership", "[core][volume]") {
  const Fresh fresh(GENERATE(DeviceKind::kMemory, DeviceKind::kCached));
  {
    World w(*fresh.device);
    w.create("f");
    SetAttributes set;
    set.mode = 06755;
    set.uid = 5;
    set.gid = 6;
    set.atime = Timestamp{-5'000'000'000, 999'999'999};
    set.mtime = Timestamp{20'000'000'000, 1};
    w.change("f", set);
    must(w->set_flags(*w.find("f"), kInodeImmutable | kInodeNodump));
    CHECK(code_of(w->open(*w.find("f"), O_RDWR)) == EPERM);
    CHECK(code_of(w->unlink(*w->root(), "f")) == EPERM);
    CHECK(code_of(w.try_rename("f", "g")) == EPERM);
    CHECK(code_of(w->set_attributes(*w.find("f"), set, Caller{})) == EPERM);
    w.unmount();
  }
  World w(*fresh.device);
  const Attributes a = w.stat("f");
  CHECK(a.mode == (S_IFREG | 06755u));
  CHECK(a.uid == 5);
  CHECK(a.gid == 6);
  CHECK(a.atime == Timestamp{-5'000'000'000, 999'999'999});
  CHECK(a.mtime == Timestamp{20'000'000'000, 1});
  CHECK(a.flags == (kInodeImmutable | kInodeNodump));
}
