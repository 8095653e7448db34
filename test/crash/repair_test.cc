// Crashes in a repair: whatever is left of it, the next one ends where the first would have.
#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "fs/core/repair.h"
#include "test/crash/sequence.h"
#include "test/unit/volume_editor.h"

namespace {

using namespace plumb;
using namespace plumb::test;

struct Damage {
  const char* name;
  std::function<void(Editor&, const std::map<std::string, std::uint64_t>& inodes)> make;
};

void lose_block(Editor& editor, std::uint64_t block) {
  editor.store(editor.offset(block), Bytes(editor.superblock().block_size()));
}

const std::vector<Damage>& damages() {
  using Inodes = std::map<std::string, std::uint64_t>;
  static const std::vector<Damage> all = {
      {"a leaf of a directory is lost",
       [](Editor& e, const Inodes& inodes) {
         const Bytes root = e.block(e.inode(inodes.at("many")).data.block);
         const Node node = node_view(root.data(), root.size());
         REQUIRE(node.level() == 1);
         lose_block(e, node.child(1));
       }},
      {"the root of a directory's tree is lost",
       [](Editor& e, const Inodes& inodes) { lose_block(e, e.inode(inodes.at("many")).data.block); }},
      {"two files have the same blocks",
       [](Editor& e, const Inodes& inodes) {
         const media::Inode from = e.inode(inodes.at("m"));
         e.edit_inode(inodes.at("g"), [&](media::Inode& inode) {
           inode.inline_data = from.inline_data;
           inode.inline_extents = from.inline_extents;
           inode.blocks = from.blocks;
         });
       }},
      {"the root directory's inode is lost",
       [](Editor& e, const Inodes&) {
         e.store(e.inode_offset(kRootInode.value), Bytes(media::kInodeBytes, std::byte{0xff}));
       }},
      {"an inode is lost",
       [](Editor& e, const Inodes& inodes) {
         e.store(e.inode_offset(inodes.at("d")), Bytes(media::kInodeBytes, std::byte{0xff}));
       }},
      {"the state block is lost", [](Editor& e, const Inodes&) { lose_block(e, e.superblock().media().state_block); }},
      {"the bitmap is lost",
       [](Editor& e, const Inodes&) { lose_block(e, e.superblock().entry(DeviceRole::kMain).bitmap_start); }},
      {"the root of the inode table is lost",
       [](Editor& e, const Inodes&) { lose_block(e, e.state().inode_table.block); }},
      {"both journal headers are lost",
       [](Editor& e, const Inodes&) { e.store(e.superblock().media().journal_start, Bytes(4096)); }},
      {"attributes are lost",
       [](Editor& e, const Inodes& inodes) { lose_block(e, e.inode(inodes.at("g")).xattrs.block); }},
      {"links, sizes and counts are wrong",
       [](Editor& e, const Inodes& inodes) {
         e.edit_inode(inodes.at("f"), [](media::Inode& inode) { inode.links = 9; });
         e.edit_inode(inodes.at("many"), [](media::Inode& inode) { inode.size_bytes = 3; });
         e.edit_state([](media::State& state) { state.orphan_head = 77; });
       }},
  };
  return all;
}

// What is to be kept: everything with a name, but for times, and the directory that a repair makes.
std::map<std::string, std::string> visible(World& world) {
  std::map<std::string, std::string> all;
  const Snapshot snapshot = take_snapshot(world);
  for (const auto& [path, key] : snapshot.names) {
    const VisibleInode& inode = snapshot.inodes.at(key);
    std::string text = std::to_string(inode.attributes.mode) + " " + inode.target + " " + inode.content;
    for (const auto& [name, value] : inode.xattrs) text += " " + name + "=" + value;
    if (path != "lost+found") all[path] = text;
  }
  return all;
}

// Problems that would make a mount of the volume, as it is, overwrite or show what it must not.
std::set<std::string> dangers(Machine& machine) {
  std::set<std::string> found;
  const auto report = check_volume(machine.members(), {.zeros = true, .progress = {}});
  if (!report) return found;
  for (const Problem& problem : report->problems)
    for (const char* kind : {"owned twice", "free in the bitmap, but", "free, but not zero", "above the zeroed mark"})
      if (problem.what.find(kind) != problem.what.npos) found.insert(problem.object + ": " + problem.what);
  return found;
}

}  // namespace

TEST_CASE("crash: a repair may be cut short anywhere, and is done again", "[crash][repair]") {
  const Setting& setting = settings()[GENERATE(from_range(chosen({0, 1, 2, 3}, {1, 2})))];
  const Damage& damage = damages()[GENERATE(range(std::size_t{0}, damages().size()))];
  CAPTURE(setting.name, damage.name, base_seed());
  std::map<std::string, std::uint64_t> inodes;
  Machine damaged(prepared_image(setting,
                                 [&](Actor& a) {
                                   make_small_tree(a);
                                   a.mkdir("many");
                                   for (int i = 0; i < 150; ++i)
                                     a.create("many/a name of some length " + std::to_string(i));
                                   for (const char* name : {"many", "m", "g", "d", "f"})
                                     inodes[name] = a.stat(name).inode.value;
                                 }),
                  setting.kinds);
  {
    // With records in the log, and what they need.
    Actor world(damaged, setting);
    world.create("last");
    must(world->sync());
    world.die();
  }
  Editor editor(damaged.members());
  damage.make(editor, inodes);
  damaged.forget_history();
  const MachineImage image = damaged.current_image();
  const auto repair = [](Machine& machine) {
    const RepairReport report = must(repair_volume(machine.members(), {.preen = false, .zeros = true, .progress = {}}));
    if (report.left.problems_total != 0)
      throw std::runtime_error("left: " + report.left.problems[0].object + ": " + report.left.problems[0].what);
  };
  const auto look = [&](Machine& machine) {
    Actor world(machine, setting);
    return visible(world);
  };
  Machine undisturbed(image, setting.kinds);
  REQUIRE(!check_text(undisturbed).empty());
  repair(undisturbed);
  const auto expected = look(undisturbed);
  REQUIRE(expected.contains("m"));
  Effort effort;
  effort.nested_points = 1000;
  const std::uint64_t before = totals().nested;
  Machine before_repair(image, setting.kinds);
  const std::set<std::string> known = dangers(before_repair);
  const std::string problem = crash_during(repair, image, setting, effort, [&](Machine& machine) -> std::string {
    // Somebody may mount it now.
    for (const std::string& danger : dangers(machine))
      if (!known.contains(danger)) return "worse than before: " + danger;
    repair(machine);
    if (std::string text = check_text(machine); !text.empty()) return text;
    const auto seen = look(machine);
    if (seen == expected) return {};
    for (const auto& [path, text] : expected)
      if (!seen.contains(path)) return "lost: " + path;
    for (const auto& [path, text] : seen)
      if (!expected.contains(path) || expected.at(path) != text) return "not as it was: " + path;
    return {};
  });
  INFO(problem);
  CHECK(problem.empty());
  CHECK(totals().nested - before > 20);
}
