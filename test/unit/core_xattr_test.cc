// Extended attributes and ACLs through the volume.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <random>
#include <string>

#include "fs/core/acl.h"
#include "fs/core/volume.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::DeviceKind;

std::string acl_value(std::uint16_t user, std::uint16_t group, std::uint16_t mask, std::uint16_t other) {
  return acl::serialize({{acl::kUserObj, user, acl::kNoId},
                         {acl::kUser, 7, 1000},
                         {acl::kGroupObj, group, acl::kNoId},
                         {acl::kMask, mask, acl::kNoId},
                         {acl::kOther, other, acl::kNoId}});
}

}  // namespace

TEST_CASE("xattr: random use agrees with a map", "[core][xattr]") {
  const std::uint64_t seed = std::random_device{}();
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint32_t block_size = GENERATE(1024u, 4096u, 65536u);
  CAPTURE(seed, static_cast<int>(kind), block_size);
  std::mt19937_64 random(seed);
  auto device = crash_device(kind, 32u << 20);
  must(Volume::format(*device, fixed_format(block_size)));
  World w(*device);
  w.create("f");
  std::map<std::string, std::string> model;
  for (int step = 0; step < 600; ++step) {
    std::string name = "user.a" + std::to_string(random() % 80);
    if (random() % 5 == 0) name.resize(255, 'n');
    const bool there = model.contains(name);
    if (random() % 3 == 0) {
      const int expected = there ? 0 : ENODATA;
      const InodeRef f = w.find("f");
      REQUIRE(code_of(w->remove_xattr(*f, name)) == expected);
      model.erase(name);
      continue;
    }
    const std::size_t most = random() % 10 == 0 ? 65536 : random() % 3 == 0 ? 3000 : 100;
    const std::string value = pattern(static_cast<char>('a' + random() % 26), random() % (most + 1));
    const XattrSetFlags flags{.create = random() % 8 == 0, .replace = false};
    const int expected = flags.create && there ? EEXIST : 0;
    REQUIRE(code_of(w.try_set_xattr("f", name, value, flags)) == expected);
    if (expected == 0) model[name] = value;
    if (step % 150 == 0) {
      must(w->run_reclaim());
      w.die();
      device->forget_history();
      w = World(*device);
    }
  }
  const InodeRef f = w.find("f");
  CHECK(must(w->list_xattrs(*f)).size() == model.size());
  for (const auto& [name, value] : model) REQUIRE(w.get_xattr("f", name) == value);
  CHECK(code_of(w.try_set_xattr("f", "user.none", "x", {.create = false, .replace = true})) == ENODATA);
  CHECK(code_of(w.try_set_xattr("f", "user.long", std::string(65537, 'x'))) == E2BIG);
}

TEST_CASE("xattr: hundreds of them, and all blocks come back", "[core][xattr]") {
  auto device = crash_device(DeviceKind::kMemory, 32u << 20);
  must(Volume::format(*device, fixed_format(1024)));
  World w(*device);
  const std::uint64_t first_free = w.blocks_free();
  w.create("f");
  for (int i = 0; i < 400; ++i) w.set_xattr("f", "user.n" + std::to_string(i), pattern('v', 10 + 10u * (i % 60)));
  w.set_xattr("f", "user.big", pattern('b', 65536));
  CHECK(w.stat("f").sectors > 400);
  SECTION("removed one by one") {
    for (int i = 0; i < 400; ++i) w.remove_xattr("f", "user.n" + std::to_string(i));
    w.remove_xattr("f", "user.big");
    CHECK(w.stat("f").sectors == 0);
  }
  w.unlink("f");
  must(w->run_reclaim());
  CHECK(w.blocks_free() == first_free);
}

TEST_CASE("xattr: a truncate takes the capability, and nothing else, with it", "[core][xattr]") {
  const int others = GENERATE(0, 1, 60);
  const std::uint64_t new_size = GENERATE(0u, 100u, 50000u);
  CAPTURE(others, new_size);
  auto device = crash_device(DeviceKind::kMemory, 32u << 20);
  must(Volume::format(*device, fixed_format(1024)));
  World w(*device);
  const std::uint64_t first_free = w.blocks_free();
  w.create("f");
  w.write("f", 0, pattern('d', 50000));
  for (int i = 0; i < others; ++i) w.set_xattr("f", "user.n" + std::to_string(i), pattern('v', 100));
  w.set_xattr("f", "security.capability", pattern('c', 20));
  w.truncate("f", new_size);
  CHECK(code_of(w->get_xattr(*w.find("f"), "security.capability")) == ENODATA);
  CHECK(must(w->list_xattrs(*w.find("f"))).size() == static_cast<std::size_t>(others));
  CHECK(w.stat("f").size_bytes == new_size);
  w.die();
  w = World(*device);
  CHECK(must(w->list_xattrs(*w.find("f"))).size() == static_cast<std::size_t>(others));
  w.unlink("f");
  must(w->run_reclaim());
  CHECK(w.blocks_free() == first_free);
}

TEST_CASE("acl: inherited by files and directories, and in step with the mode", "[core][acl]") {
  auto device = crash_device(DeviceKind::kMemory, 16u << 20);
  must(Volume::format(*device, fixed_format(4096)));
  World w(*device);
  w.mkdir("d");
  w.set_xattr("d", acl::kDefaultName, acl_value(7, 5, 5, 0));
  CreateRequest request;
  request.mode = S_IFREG | 0666;
  request.umask = 077;  // does not count beside a default ACL
  must(w->create(*w.find("d"), "f", request));
  CHECK((w.stat("d/f").mode & 0777) == 0640);
  CHECK_FALSE(w.get_xattr("d/f", acl::kAccessName).empty());
  request.mode = S_IFDIR | 0777;
  must(w->create(*w.find("d"), "sub", request));
  CHECK(w.get_xattr("d/sub", acl::kDefaultName) == w.get_xattr("d", acl::kDefaultName));
  // chmod changes the mask.
  SetAttributes set;
  set.mode = 0600;
  w.change("d/f", set);
  const acl::Acl entries = must(acl::parse(w.get_xattr("d/f", acl::kAccessName)));
  CHECK(entries[3].tag == acl::kMask);
  CHECK(entries[3].perm == 0);
  // Setting an ACL changes the mode; one that the mode can say is not kept.
  w.set_xattr("d/f", acl::kAccessName, acl_value(6, 4, 6, 1));
  CHECK((w.stat("d/f").mode & 0777) == 0661);
  const std::string minimal =
      acl::serialize({{acl::kUserObj, 6, acl::kNoId}, {acl::kGroupObj, 4, acl::kNoId}, {acl::kOther, 0, acl::kNoId}});
  w.set_xattr("d/f", acl::kAccessName, minimal);
  CHECK((w.stat("d/f").mode & 0777) == 0640);
  CHECK(code_of(w->get_xattr(*w.find("d/f"), acl::kAccessName)) == ENODATA);
  // Without a default ACL the umask counts.
  w.remove_xattr("d", acl::kDefaultName);
  request.mode = S_IFREG | 0666;
  must(w->create(*w.find("d"), "g", request));
  CHECK((w.stat("d/g").mode & 0777) == 0600);
  CHECK(code_of(w.try_set_xattr("d/g", acl::kDefaultName, acl_value(7, 5, 5, 0))) == EACCES);
}

TEST_CASE("inherit: set-gid directories, flags, and a remount", "[core][volume]") {
  auto device = crash_device(DeviceKind::kCached, 16u << 20);
  must(Volume::format(*device, fixed_format(4096)));
  {
    World w(*device);
    w.mkdir("d");
    SetAttributes set;
    set.mode = 02755;
    set.gid = 42;
    w.change("d", set);
    must(w->set_flags(*w.find("d"), kInodeDax | kInodeNoatime));
    w.create("d/f");
    w.mkdir("d/sub");
    w.die();
  }
  World w(*device);
  CHECK(w.stat("d/f").gid == 42);
  CHECK(w.stat("d/f").flags == (kInodeDax | kInodeNoatime));
  CHECK(w.stat("d/sub").mode == (S_IFDIR | 02755u));
  CHECK(w.stat("d/sub").flags == (kInodeDax | kInodeNoatime));
}
