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

#include "fs/core/journal.h"
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

bool is_used(Editor& editor, DeviceRole role, std::uint64_t unit) {
  const Superblock& superblock = editor.superblock();
  const std::uint64_t bits = superblock.bits_per_bitmap_block();
  const Bytes bitmap = editor.block(superblock.entry(role).bitmap_start + unit / bits);
  const auto byte = std::to_integer<unsigned>(bitmap[sizeof(media::BitmapHeader) + unit % bits / 8]);
  return (byte >> unit % 8 & 1) != 0;
}

// Free blocks on each device that have blocks of a file behind them.
void make_holes(Actor& a) {
  for (const bool on_realtime : {false, true}) {
    if (on_realtime && !a.setting().has_realtime()) continue;
    const std::string where = on_realtime ? "realtime" : "main";
    for (const char* name : {"hole of ", "behind it, "}) {
      a.create(name + where);
      a.set_flags(name + where, on_realtime ? kInodeRealtime : 0);
      a.write(name + where, 0, pattern('h', 9000));
    }
  }
  for (const char* where : {"main", "realtime"})
    if (a.exists("hole of " + std::string(where))) a.unlink("hole of " + std::string(where));
  must(a->run_reclaim());
}

// The first of each device: below the mark, wherever that is put.
void dirty_free_blocks(Editor& editor) {
  const Superblock& superblock = editor.superblock();
  for (std::size_t i = 0; i < superblock.device_count(); ++i) {
    const auto role = static_cast<DeviceRole>(i);
    std::uint64_t unit = superblock.entry(role).data_start / superblock.unit_blocks(role);
    while (is_used(editor, role, unit)) ++unit;
    const std::uint64_t at = unit * superblock.unit_bytes(role);
    must(superblock.device(role).store(at, Bytes(superblock.block_size(), std::byte{'S'})));
  }
}

// Whole, and in its place, but with a field that no mount writes.
void misstate_journal_header(Editor& editor) {
  const std::uint64_t start = editor.superblock().media().journal_start;
  std::uint64_t best = 0, update = 0;
  for (const std::uint64_t at : {start, start + media::kJournalHeaderStride}) {
    media::JournalHeader header;
    std::memcpy(&header, editor.load(at, sizeof header).data(), sizeof header);
    if (header.update < update) continue;
    best = at;
    update = header.update;
  }
  media::JournalHeader header;
  std::memcpy(&header, editor.load(best, sizeof header).data(), sizeof header);
  header.deferred = 7;
  header.crc = media::checksum(bytes_of(header), offsetof(media::JournalHeader, crc));
  editor.store(best, bytes_of(header));
}

// Appends a record as the journal would, if anybody asked it to, that stores into the lease slots.
void append_foreign_record(Editor& editor) {
  const media::Superblock& sb = editor.superblock().media();
  Journal journal(editor.superblock().device(DeviceRole::kMain), media::journal_geometry(sb));
  (void)must(journal.recover());
  const Bytes bytes(8, std::byte{1});
  (void)must(journal.append(std::vector<RedoRange>{{sb.lease_start, bytes}}));
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
         const media::Inode from = e.inode(inodes.at("f"));
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
      {"the state block is lost, and free blocks are not zero",
       [](Editor& e, const Inodes&) {
         lose_block(e, e.superblock().media().state_block);
         dirty_free_blocks(e);
       }},
      {"free blocks are not zero", [](Editor& e, const Inodes&) { dirty_free_blocks(e); }},
      {"one copy of the superblock and of the label is lost",
       [](Editor& e, const Inodes&) {
         const Superblock& superblock = e.superblock();
         for (std::size_t i = 0; i < superblock.device_count(); ++i)
           must(superblock.device(static_cast<DeviceRole>(i)).store(media::kSuperblockOffsets[0], Bytes(4096)));
       }},
      {"a journal header has a field that no mount writes",
       [](Editor& e, const Inodes&) { misstate_journal_header(e); }},
      {"a record of the journal stores outside of the metadata",
       [](Editor& e, const Inodes&) { append_foreign_record(e); }},
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

bool is_mountable(const MachineImage& image, const Setting& setting) {
  Machine machine(image, setting.kinds);
  return Volume::mount(machine.members(), setting.mount_options()).has_value();
}

const Setting& setting_of(std::size_t number) {
  return number < settings().size() ? settings()[number] : realtime_settings()[number - settings().size()];
}

}  // namespace

TEST_CASE("crash: a repair may be cut short anywhere, and is done again", "[crash][repair]") {
  const Setting& setting = setting_of(GENERATE(from_range(chosen({0, 1, 2, 3, 5, 7}, {1, 2, 3, 5}))));
  const Damage& damage = damages()[GENERATE(range(std::size_t{0}, damages().size()))];
  CAPTURE(setting.name, damage.name, base_seed());
  std::map<std::string, std::uint64_t> inodes;
  Machine damaged(prepared_image(setting,
                                 [&](Actor& a) {
                                   make_small_tree(a);
                                   a.mkdir("many");
                                   for (int i = 0; i < 150; ++i)
                                     a.create("many/a name of some length " + std::to_string(i));
                                   make_holes(a);
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
  // What was repaired stays so, whatever happens to the power.
  const pmem::ImageLimits kept{
      .exhaustive_stores = 4, .max_systematic = scaled(60), .random_subsets = 4, .torn_stores = 1, .seed = base_seed()};
  MachineExplorer repaired(undisturbed);
  repaired.for_each(undisturbed.mark("repaired"), kept, [&](const MachineImage& left) {
    Machine after(left, setting.kinds);
    INFO(left.description());
    REQUIRE(check_text(after).empty());
    return true;
  });
  const auto expected = look(undisturbed);
  REQUIRE(expected.contains("m"));
  Effort effort;
  effort.nested_points = 1000;
  const std::uint64_t before = totals().nested;
  Machine before_repair(image, setting.kinds);
  const std::set<std::string> known = dangers(before_repair);
  const bool was_mountable = is_mountable(image, setting);
  const std::string problem = crash_during(repair, image, setting, effort, [&](Machine& machine) -> std::string {
    // Somebody may mount it now.
    if (was_mountable && !is_mountable(machine.current_image(), setting)) return "cannot be mounted any more";
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
  CHECK(totals().nested - before > 10);
}

TEST_CASE("crash: what a preen has mended is durable, whatever else it leaves", "[crash][repair]") {
  const Setting& setting = setting_of(GENERATE(0u, 3u, 5u, 7u));
  CAPTURE(setting.name, base_seed());
  Machine machine(prepared_image(setting, make_small_tree), setting.kinds);
  const auto copies = [&](const MachineImage& image) {
    Machine of(image, setting.kinds);
    std::set<std::string> different;
    for (pmem::CrashDevice* device : {&of.main(), of.realtime()}) {
      if (device == nullptr) continue;
      std::vector<std::byte> first(4096), second(4096);
      must(device->load(media::kSuperblockOffsets[0], first));
      must(device->load(media::kSuperblockOffsets[1], second));
      if (first != second) different.insert(device->info().path);
    }
    return different;
  };
  {
    Editor editor(machine.members());
    const Superblock& superblock = editor.superblock();
    for (std::size_t i = 0; i < superblock.device_count(); ++i)
      must(superblock.device(static_cast<DeviceRole>(i)).store(media::kSuperblockOffsets[0], Bytes(4096)));
    editor.store(superblock.media().journal_start, Bytes(4096));  // nothing for -p
  }
  machine.forget_history();
  REQUIRE(copies(machine.current_image()).size() == (setting.has_realtime() ? 2 : 1));
  const RepairReport report = must(repair_volume(machine.members(), {.preen = true, .zeros = false, .progress = {}}));
  REQUIRE(report.needs_more);
  MachineExplorer explorer(machine);
  CHECK(copies(explorer.nothing(machine.mark("ended"))).empty());
}
