// The check engine on a file system with a realtime device: each damage is found and named.
#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <string>
#include <vector>

#include "fs/core/check.h"
#include "test/unit/core_world.h"
#include "test/unit/volume_editor.h"

namespace plumb::test {
namespace {

constexpr std::uint64_t kMainBytes = 12u << 20;
constexpr std::uint64_t kRealtimeBytes = 8u << 20;
constexpr std::uint64_t kExtent = 16u << 10;
constexpr std::uint64_t kUnit = kExtent / kBlockSize;
constexpr auto kRealtime = DeviceRole::kRealtime;

struct Two {
  pmem::CrashDevice main{kMainBytes, {}};
  pmem::CrashDevice realtime{kRealtimeBytes, {}};
  std::uint64_t file = 0, other = 0;
  [[nodiscard]] Members members() { return {main, &realtime}; }
};

void populate(Two& two) {
  FormatOptions format = fixed_format(kBlockSize);
  format.realtime_extent_bytes = kExtent;
  format.realtime_inherit = true;
  must(Volume::format(two.members(), format));
  World world(two.members());
  two.file = world.create("file").number().value;
  two.other = world.create("other").number().value;
  world.write("file", 0, pattern('f', 100'000));
  world.write("other", 0, pattern('o', 50'000));
  world.create("gone");
  world.write("gone", 0, pattern('g', 50'000));
  world.unlink("gone");
  world.unmount();
}

void set_bit(Editor& e, std::uint64_t extent, bool value) {
  e.edit<std::uint8_t[kBlockSize]>(e.superblock().entry(kRealtime).bitmap_start, [&](auto& bytes) {
    std::uint8_t& byte = bytes[sizeof(media::BitmapHeader) + extent / 8];
    const auto mask = static_cast<std::uint8_t>(1u << (extent % 8));
    byte = static_cast<std::uint8_t>(value ? byte | mask : byte & ~mask);
  });
}

struct Damage {
  const char* name;
  std::function<void(Two&, Editor&)> make;
  std::string object;  // of the problem that must be found
  std::string what;
};

}  // namespace

TEST_CASE("check: a realtime device, damaged in one place", "[core][check][realtime]") {
  constexpr std::uint64_t kFirst = (128u << 10) / kExtent;  // extent of the first byte of data
  constexpr std::uint64_t kLast = kRealtimeBytes / kExtent - 1;
  const std::string file = "inode 2";
  const std::string free_extent = "realtime extent " + std::to_string(kLast);
  const std::vector<Damage> damages = {
      {"label copy 1", [](Two& two, Editor&) { must(two.realtime.zero(0, 4096)); }, "realtime label copy 1", "magic"},
      {"label copy 2",
       [](Two& two, Editor&) {
         std::vector<std::byte> one(1, std::byte{1});
         must(two.realtime.store(65536 + 3000, one));
       },
       "realtime label copy 2", "checksum"},
      {"bitmap checksum", [](Two&, Editor& e) { e.flip(e.offset(e.superblock().entry(kRealtime).bitmap_start) + 50); },
       "realtime bitmap block 0", "checksum"},
      {"bitmap owner",
       [](Two&, Editor& e) {
         e.edit<media::BlockHeader>(e.superblock().entry(kRealtime).bitmap_start,
                                    [](media::BlockHeader& h) { h.owner = 0; });
       },
       "realtime bitmap block 0", "owner"},
      {"head free", [](Two&, Editor& e) { set_bit(e, 0, false); }, "realtime extent 0", "below the data area"},
      {"used extent free", [](Two&, Editor& e) { set_bit(e, kFirst, false); },
       "realtime extent " + std::to_string(kFirst), "owned by inode"},
      {"free extent in use", [](Two&, Editor& e) { set_bit(e, kLast, true); }, free_extent, "owned by nobody"},
      {"free extent not zero",
       [](Two& two, Editor&) {
         std::vector<std::byte> one(1, std::byte{1});
         must(two.realtime.store(kRealtimeBytes - 77, one));
       },
       free_extent, "not zero"},
      {"extent not aligned on the device",
       [](Two& two, Editor& e) {
         e.edit_extent(two.file, 0, [](media::InlineExtent& x) { x.extent.device_block = x.extent.device_block + 1; });
       },
       file, "no whole number"},
      {"extent not aligned in the file",
       [](Two& two, Editor& e) {
         e.edit_extent(two.file, 0, [](media::InlineExtent& x) { x.file_block = x.file_block + 1; });
       },
       file, "does not begin at a realtime extent"},
      {"extent outside",
       [](Two& two, Editor& e) {
         e.edit_extent(two.file, 0,
                       [](media::InlineExtent& x) { x.extent.device_block = kRealtimeBytes / kBlockSize; });
       },
       file, "does not lie in the data area"},
      {"one extent in two files",
       [](Two& two, Editor& e) {
         const std::uint64_t block = e.extent(two.file, 0).extent.device_block;
         e.edit_extent(two.other, 0, [&](media::InlineExtent& x) { x.extent.device_block = block; });
       },
       "realtime extents " + std::to_string(kFirst) + ".." + std::to_string(kFirst + 3), "owned twice"},
      {"flag lost: data looked for on the main device",
       [](Two& two, Editor& e) {
         e.edit_inode(two.file, [](media::Inode& i) { i.flags = i.flags & ~kInodeRealtime; });
       },
       "realtime extents " + std::to_string(kFirst) + ".." + std::to_string(kFirst + 6), "owned by nobody"},
      {"realtime flag of a directory",
       [](Two&, Editor& e) { e.edit_inode(1, [](media::Inode& i) { i.flags = i.flags | kInodeRealtime; }); }, "inode 1",
       "no regular file"},
      {"mark beyond",
       [](Two&, Editor& e) {
         e.edit_state([](media::State& s) { s.zeroed_upto[1] = kRealtimeBytes / kBlockSize + kUnit; });
       },
       "state block", "zeroed_upto of the realtime device"},
      {"mark not whole",
       [](Two&, Editor& e) { e.edit_state([](media::State& s) { s.zeroed_upto[1] = s.zeroed_upto[1] - 1; }); },
       "state block", "zeroed_upto of the realtime device"},
      {"window not whole",
       [](Two&, Editor& e) {
         e.edit_state([](media::State& s) {
           s.windows[25].device = 1;
           s.windows[25].start_block = 2048;
           s.windows[25].length_blocks = 3;
         });
       },
       "state block", "window 25"},
      {"window on a third device",
       [](Two&, Editor& e) {
         e.edit_state([](media::State& s) {
           s.windows[25].device = 2;
           s.windows[25].start_block = 2048;
           s.windows[25].length_blocks = 16;
         });
       },
       "state block", "window 25"},
      {"queue entry of metadata", [](Two&, Editor& e) { e.add_reclaim(media::device_key(1, kLast * kUnit), kUnit, 1); },
       "reclaim tree", "holds none"},
      {"queue entry of a free extent",
       [](Two&, Editor& e) { e.add_reclaim(media::device_key(1, kLast * kUnit), kUnit); }, free_extent,
       "owned by reclaim tree"},
  };
  for (const Damage& damage : damages) {
    CAPTURE(damage.name);
    Two two;
    populate(two);
    REQUIRE(two.file == 2);
    REQUIRE(must(check_volume(two.members(), {.zeros = true, .progress = {}})).problems_total == 0);
    Editor editor(two.members());
    damage.make(two, editor);
    const CheckReport report = must(check_volume(two.members(), {.zeros = true, .progress = {}}));
    bool found = false;
    for (const Problem& problem : report.problems) {
      UNSCOPED_INFO(problem.object << ": " << problem.what);
      found = found || (problem.object == damage.object && problem.what.find(damage.what) != std::string::npos);
    }
    CHECK(found);
  }
}

}  // namespace plumb::test
