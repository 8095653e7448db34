#include "fs/core/check.h"

#include <dirent.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "fs/core/acl.h"
#include "fs/core/node.h"
#include "fs/core/siphash.h"
#include "fs/core/superblock.h"
#include "fs/media/verify.h"
#include "test/unit/core_world.h"
#include "test/unit/volume_editor.h"

namespace plumb::test {
namespace {

constexpr std::uint64_t kDeviceBytes = 12u << 20;

CheckReport checked(pmem::Device& device, bool zeros = true) {
  CheckOptions options;
  options.zeros = zeros;
  return must(check_volume(device, options));
}

std::string text_of(const CheckReport& report) {
  std::string text = std::to_string(report.problems_total) + " problems";
  for (const Problem& problem : report.problems) text += "\n  " + problem.object + ": " + problem.what;
  return text;
}

bool names(const CheckReport& report, const std::string& object, const std::string& what) {
  return std::any_of(report.problems.begin(), report.problems.end(), [&](const Problem& problem) {
    return problem.object == object && problem.what.find(what) != std::string::npos;
  });
}

// One of everything.
struct Made {
  std::uint64_t file, other, scattered, brief, wordy, fifo, dir, sub, many, gone;
};

Made populate(World& world) {
  Made made{};
  const auto number = [](const InodeRef& inode) { return inode.number().value; };
  made.file = number(world.create("file"));
  world.write("file", 0, pattern('f', 3000));
  world.write("file", 100'000, pattern('g', 3000));
  world.link("file", "file again");
  made.other = number(world.create("other"));
  world.write("other", 0, pattern('o', 5000));
  world.allocate("other", FALLOC_FL_KEEP_SIZE, 50'000, 20'000);
  made.scattered = number(world.create("scattered"));
  for (std::uint64_t i = 0; i < 200; ++i) world.write("scattered", i * 2 * kBlockSize, pattern('s', kBlockSize));
  made.brief = number(world.symlink("brief", "file"));
  made.wordy = number(world.symlink("wordy", std::string(2500, 'w')));
  made.fifo = number(world.make("fifo", S_IFIFO | 0600));
  world.make("null", S_IFCHR | 0666, {}, makedev(1, 3));
  made.dir = number(world.mkdir("dir"));
  made.sub = number(world.mkdir("dir/sub"));
  world.create("dir/sub/leaf");
  made.many = number(world.mkdir("many"));
  for (int i = 0; i < 1500; ++i) world.create("many/entry number " + std::to_string(i));
  const auto set = [&](const char* path, std::string_view name, const std::string& value) {
    world.set_xattr(path, name, value);
  };
  set("file", "user.short", "value");
  set("file", "user.long", pattern('x', 5000));
  const acl::Acl list{{acl::kUserObj, 6, acl::kNoId},
                      {acl::kUser, 4, 1000},
                      {acl::kGroupObj, 4, acl::kNoId},
                      {acl::kMask, 4, acl::kNoId},
                      {acl::kOther, 0, acl::kNoId}};
  set("file", acl::kAccessName, acl::serialize(list));
  set("dir", acl::kDefaultName, acl::serialize(list));
  made.gone = number(world.create("gone"));
  world.write("gone", 0, pattern('d', 9000));
  world.unlink("gone");
  return made;
}

struct Sample {
  Made made{};
  pmem::CrashImage image;
};

// The populated volume, unmounted.
const Sample& sample() {
  static const Sample* const made = [] {
    const auto device = crash_device(pmem::DeviceKind::kCached, kDeviceBytes);
    must(Volume::format(*device, fixed_format(kBlockSize)));
    World world(*device);
    const Made numbers = populate(world);
    world.unmount();
    return new Sample{numbers, device->current_image()};
  }();
  return *made;
}

struct Damage {
  std::string name;
  std::function<void(Editor&, const Made&)> apply;
  std::function<std::string(const Editor&, const Made&)> object;
  std::string what;
};

std::string inode_name(std::uint64_t number) {
  return "inode " + std::to_string(number);
}

// Each must be found and be called by its name.
void check_damages(const std::vector<Damage>& damages) {
  for (const Damage& damage : damages) {
    INFO(damage.name);
    pmem::CrashDevice device(sample().image, {.kind = pmem::DeviceKind::kCached});
    Editor editor(device);
    damage.apply(editor, sample().made);
    const CheckReport report = checked(device);
    const std::string object = damage.object(editor, sample().made);
    INFO(text_of(report));
    INFO("expected: " << object << ": " << damage.what);
    CHECK(report.problems_total > 0);
    CHECK(names(report, object, damage.what));
  }
}

auto fixed(std::string name) {
  return [name = std::move(name)](const Editor&, const Made&) { return name; };
}
auto of(std::uint64_t Made::*member) {
  return [member](const Editor&, const Made& made) { return inode_name(made.*member); };
}
// Changes one inode.
template <typename F>
auto inode_edit(std::uint64_t Made::*member, F change) {
  return [member, change](Editor& editor, const Made& made) { editor.edit_inode(made.*member, change); };
}

}  // namespace

TEST_CASE("check: a new and a used volume are clean, whatever the block size", "[core][check]") {
  for (const std::uint32_t block_size : {1024u, 2048u, 4096u, 16384u, 65536u}) {
    for (const pmem::DeviceKind kind : {pmem::DeviceKind::kMemory, pmem::DeviceKind::kCached}) {
      INFO("block size " << block_size);
      const auto device = crash_device(kind, 24u << 20);
      must(Volume::format(*device, fixed_format(block_size)));
      const CheckReport fresh = checked(*device);
      INFO(text_of(fresh));
      REQUIRE(fresh.problems_total == 0);
      CHECK(fresh.inodes == 1);
      CHECK(fresh.was_clean);

      World world(*device);
      populate(world);
      // Not unmounted: records to replay, an entry in the reclaim tree or an orphan, windows open.
      const CheckReport mounted = checked(*device);
      INFO(text_of(mounted));
      REQUIRE(mounted.problems_total == 0);
      CHECK_FALSE(mounted.was_clean);
      world.unmount();
      const CheckReport used = checked(*device);
      INFO(text_of(used));
      REQUIRE(used.problems_total == 0);
      CHECK(used.was_clean);
      CHECK(used.inodes == 1512);
      CHECK(used.directories == 4);
      CHECK(used.files == 1504);
      CHECK(used.journal_records == 0);
      CHECK(used.blocks_total == device->size_bytes() / block_size);
      CHECK(used.blocks_used > 0);
    }
  }
}

TEST_CASE("check: orphans and pending reclaim are no problem", "[core][check]") {
  const auto device = crash_device(pmem::DeviceKind::kMemory, kDeviceBytes);
  must(Volume::format(*device, fixed_format(kBlockSize)));
  World world(*device);
  world.mkdir("dir");
  world.create("open");
  world.write("open", 0, pattern('o', 20'000));
  const InodeRef file = world.find("open");
  const InodeRef directory = world.find("dir");
  CreateRequest request;
  request.mode = S_IFREG | 0600;
  const InodeRef unnamed = must(world->create_unnamed(*world->root(), request)).inode;
  world.unlink("open");
  world.rmdir("dir");
  world.create("cut");
  world.write("cut", 0, pattern('c', 50'000));
  world.truncate("cut", 10);
  const CheckReport report = checked(*device);
  INFO(text_of(report));
  CHECK(report.problems_total == 0);
  CHECK(report.inodes == 5);
  CHECK(report.journal_records > 0);
}

TEST_CASE("check: never writes", "[core][check]") {
  const auto device = crash_device(pmem::DeviceKind::kMemory, kDeviceBytes);
  must(Volume::format(*device, fixed_format(kBlockSize)));
  World world(*device);
  world.create("file");
  const auto events = device->event_count();
  REQUIRE(checked(*device).problems_total == 0);
  CHECK(device->event_count() == events);
}

TEST_CASE("check: no file system is an error, not a report", "[core][check]") {
  const auto device = crash_device(pmem::DeviceKind::kMemory, kDeviceBytes);
  CHECK(code_of(check_volume(*device, {})) == EUCLEAN);
}

TEST_CASE("check: superblocks, journal and state", "[core][check]") {
  using Slots = std::array<media::WindowSlot, media::kWindowSlots>;
  check_damages({
      {"superblock copy 1", [](Editor& e, const Made&) { e.flip(60); }, fixed("superblock copy 1"), "checksum"},
      {"superblock copy 2", [](Editor& e, const Made&) { e.flip(65536 + 60); }, fixed("superblock copy 2"), "checksum"},
      {"journal header magic", [](Editor& e, const Made&) { e.flip(e.superblock().media().journal_start); },
       fixed("journal header 1"), "magic"},
      {"journal header checksum",
       [](Editor& e, const Made&) {
         e.flip(e.superblock().media().journal_start + media::kJournalHeaderStride +
                offsetof(media::JournalHeader, epoch));
       },
       fixed("journal header 2"), "checksum"},
      {"both journal headers",
       [](Editor& e, const Made&) {
         e.flip(e.superblock().media().journal_start);
         e.flip(e.superblock().media().journal_start + media::kJournalHeaderStride);
       },
       fixed("journal"), "magic"},
      {"state block checksum",
       [](Editor& e, const Made&) { e.flip(e.offset(e.superblock().media().state_block) + 100); }, fixed("state block"),
       "checksum"},
      {"zeroed_upto beyond the device",
       [](Editor& e, const Made&) { e.edit_state([&](media::State& s) { s.zeroed_upto[0] = e.blocks() + 1; }); },
       fixed("state block"), "zeroed_upto"},
      {"zeroed_upto below what is in use",
       [](Editor& e, const Made&) { e.edit_state([&](media::State& s) { s.zeroed_upto[0] = e.data_start() + 1; }); },
       [](const Editor& e, const Made&) {
         for (std::uint64_t end = e.data_start() + 2;; ++end) {
           const Bytes map = e.block(e.bitmap_block(0));
           const auto byte = static_cast<unsigned>(map[sizeof(media::BitmapHeader) + end / 8]);
           if ((byte >> (end % 8) & 1) == 0)
             return "blocks " + std::to_string(e.data_start() + 1) + ".." + std::to_string(end - 1);
         }
       },
       "above the zeroed mark"},
      {"window outside",
       [](Editor& e, const Made&) {
         e.edit_state([&](media::State& s) {
           Slots& slots = s.windows;
           slots[3].start_block = e.blocks() - 1;
           slots[3].length_blocks = 2;
         });
       },
       fixed("state block"), "window 3"},
      {"bad block tree", [](Editor& e, const Made&) { e.edit_state([&](media::State& s) { s.bad_blocks.block = 3; }); },
       fixed("bad block tree"), "data area"},
  });
}

TEST_CASE("check: bitmap and owners", "[core][check]") {
  const auto data_block = [](const Editor& e, const Made& made) {
    return "block " + std::to_string(e.extent(made.file, 0).extent.device_block);
  };
  check_damages({
      {"bitmap checksum", [](Editor& e, const Made&) { e.flip(e.offset(e.bitmap_block(0)) + 50); },
       fixed("bitmap block 0"), "checksum"},
      {"bitmap owner",
       [](Editor& e, const Made&) {
         e.edit<media::BlockHeader>(e.bitmap_block(1), [](media::BlockHeader& h) { h.owner = 7; });
       },
       fixed("bitmap block 1"), "owner"},
      {"bit beyond the end",
       [](Editor& e, const Made&) {
         e.edit<std::uint8_t[kBlockSize]>(e.bitmap_block(1), [](auto& bytes) { bytes[kBlockSize - 1] = 0x80; });
       },
       fixed("bitmap block 1"), "beyond the end"},
      {"head area free", [](Editor& e, const Made&) { e.set_bit(5, false); }, fixed("block 5"), "below the data area"},
      {"used block free", [](Editor& e, const Made& m) { e.set_bit(e.extent(m.file, 0).extent.device_block, false); },
       data_block, "owned by inode"},
      {"free blocks in use",
       [](Editor& e, const Made&) {
         for (std::uint64_t i = 0; i < 3; ++i) e.set_bit(e.free_block() - i, true);
       },
       [](const Editor& e, const Made&) {
         return "blocks " + std::to_string(e.free_block() - 2) + ".." + std::to_string(e.free_block());
       },
       "owned by nobody"},
      {"one block in two files",
       [](Editor& e, const Made& m) {
         const auto block = e.extent(m.file, 0).extent.device_block;
         e.edit_extent(m.other, 0, [&](media::InlineExtent& x) { x.extent.device_block = block; });
       },
       [](const Editor& e, const Made& m) {
         const std::uint64_t first = e.extent(m.file, 0).extent.device_block;
         return "blocks " + std::to_string(first) + ".." +
                std::to_string(first + e.extent(m.other, 0).extent.length_blocks - 1);
       },
       "owned twice: by inode"},
      {"free block not zero", [](Editor& e, const Made&) { e.flip(e.offset(e.free_block()) + 1000); },
       [](const Editor& e, const Made&) { return "block " + std::to_string(e.blocks() - 3); }, "not zero"},
      {"reclaim entry of a file's blocks",
       [](Editor& e, const Made& m) { e.add_reclaim(e.extent(m.file, 0).extent.device_block, 1); }, data_block,
       "owned twice: by reclaim tree"},
      {"reclaim entry outside", [](Editor& e, const Made&) { e.add_reclaim(e.blocks() - 1, 2); }, fixed("reclaim tree"),
       "data area"},
      {"reclaim entry of no device", [](Editor& e, const Made&) { e.add_reclaim((3ull << 56) + e.free_block(), 1); },
       fixed("reclaim tree"), "no member"},
      {"reclaim entry of no kind", [](Editor& e, const Made&) { e.add_reclaim(e.free_block(), 1, 9); },
       fixed("reclaim tree"), "kind"},
  });
}

TEST_CASE("check: inodes", "[core][check]") {
  check_damages({
      {"checksum", [](Editor& e, const Made& m) { e.flip(e.inode_offset(m.file) + 33); }, of(&Made::file), "checksum"},
      {"number", inode_edit(&Made::file, [](media::Inode& i) { i.number = i.number + 1; }), of(&Made::file), "number"},
      {"flags", inode_edit(&Made::file, [](media::Inode& i) { i.flags = 1u << 20; }), of(&Made::file), "flags"},
      {"nanoseconds", inode_edit(&Made::fifo, [](media::Inode& i) { i.ctime_ns = 1'000'000'000; }), of(&Made::fifo),
       "nanoseconds"},
      {"blocks", inode_edit(&Made::file, [](media::Inode& i) { i.blocks = i.blocks + 1; }), of(&Made::file),
       "blocks is"},
      {"chain_blocks", inode_edit(&Made::file, [](media::Inode& i) { i.chain_blocks = 1; }), of(&Made::file),
       "chain_blocks is"},
      {"links", inode_edit(&Made::file, [](media::Inode& i) { i.links = 3; }), of(&Made::file), "links is 3"},
      {"links too few", inode_edit(&Made::file, [](media::Inode& i) { i.links = 1; }), of(&Made::file), "2 names"},
      {"no links", inode_edit(&Made::fifo, [](media::Inode& i) { i.links = 0; }), of(&Made::fifo), "no links"},
      {"links of a directory", inode_edit(&Made::dir, [](media::Inode& i) { i.links = 2; }), of(&Made::dir),
       "links is 2"},
      {"size of a directory", inode_edit(&Made::dir, [](media::Inode& i) { i.size_bytes = 7; }), of(&Made::dir),
       "size_bytes says 7"},
      {"parent", inode_edit(&Made::sub, [](media::Inode& i) { i.parent = 1; }), of(&Made::sub), "its parent is"},
      {"parent of a file", inode_edit(&Made::file, [](media::Inode& i) { i.parent = 1; }), of(&Made::file),
       "parent is set"},
      {"on no orphan list", inode_edit(&Made::file, [](media::Inode& i) { i.on_orphan_list = 1; }), of(&Made::file),
       "not on the list"},
      {"orphan list to a free inode",
       [](Editor& e, const Made&) { e.edit_state([](media::State& s) { s.orphan_head = 4001; }); },
       fixed("orphan list"), "4001"},
      {"orphan list to a proper inode",
       [](Editor& e, const Made& m) { e.edit_state([&](media::State& s) { s.orphan_head = m.file; }); },
       of(&Made::file), "on_orphan_list is 0"},
      {"orphan list in a circle",
       [](Editor& e, const Made& m) {
         e.edit_state([&](media::State& s) { s.orphan_head = m.file; });
         for (const auto& [from, to] : {std::pair{m.file, m.other}, std::pair{m.other, m.file}})
           e.edit_inode(from, [next = to](media::Inode& i) {
             i.on_orphan_list = 1;
             i.next_orphan = next;
           });
       },
       fixed("orphan list"), "leads back"},
      {"free slot", [](Editor& e, const Made& m) { e.flip(e.inode_offset(m.gone) + 200); }, of(&Made::gone), "magic"},
      {"slot 0", [](Editor& e, const Made&) { e.flip(e.inode_offset(0) + 200); }, fixed("inode 0"), "not zero"},
      {"rdev", inode_edit(&Made::fifo, [](media::Inode& i) { i.rdev = 1; }), of(&Made::fifo), "rdev"},
      {"root gone", [](Editor& e, const Made&) { e.store(e.inode_offset(1), Bytes(sizeof(media::Inode))); },
       fixed("inode 1"), "no root"},
  });
}

TEST_CASE("check: contents of files and symbolic links", "[core][check]") {
  const auto tree = [](const Editor& e, const Made& m) { return e.inode(m.scattered).data.block.get(); };
  check_damages({
      {"extent outside",
       [](Editor& e, const Made& m) {
         e.edit_extent(m.file, 0, [&](media::InlineExtent& x) { x.extent.device_block = e.blocks() - 1; });
       },
       of(&Made::file), "data area"},
      {"extent in the journal",
       [](Editor& e, const Made& m) {
         e.edit_extent(m.file, 0, [&](media::InlineExtent& x) { x.extent.device_block = e.data_start() - 1; });
       },
       of(&Made::file), "data area"},
      {"extents overlap",
       [](Editor& e, const Made& m) { e.edit_extent(m.file, 1, [](media::InlineExtent& x) { x.file_block = 1; }); },
       of(&Made::file), "overlaps"},
      {"extent flags",
       [](Editor& e, const Made& m) { e.edit_extent(m.file, 0, [](media::InlineExtent& x) { x.extent.flags = 1; }); },
       of(&Made::file), "flags"},
      {"empty extent",
       [](Editor& e, const Made& m) {
         e.edit_extent(m.file, 0, [](media::InlineExtent& x) { x.extent.length_blocks = 0; });
       },
       of(&Made::file), "empty"},
      {"inline extents beside a tree", inode_edit(&Made::scattered, [](media::Inode& i) { i.inline_extents = 1; }),
       of(&Made::scattered), "inline extents"},
      {"node checksum", [=](Editor& e, const Made& m) { e.flip(e.offset(e.leaf(tree(e, m), 50)) + 900); },
       of(&Made::scattered), "checksum"},
      {"node owner",
       [=](Editor& e, const Made& m) {
         e.edit<media::BlockHeader>(tree(e, m), [](media::BlockHeader& h) { h.owner = 3; });
       },
       of(&Made::scattered), "owner is 3"},
      {"node level",
       [=](Editor& e, const Made& m) {
         e.edit<media::NodeHeader>(e.leaf(tree(e, m), 50), [](media::NodeHeader& h) { h.level = 1; });
       },
       of(&Made::scattered), ""},
      {"node kind",
       [=](Editor& e, const Made& m) {
         e.edit<media::NodeHeader>(tree(e, m), [](media::NodeHeader& h) { h.kind = 6; });
       },
       of(&Made::scattered), "kind"},
      {"number of nodes", inode_edit(&Made::scattered, [](media::Inode& i) { i.data.nodes = i.data.nodes + 1; }),
       of(&Made::scattered), "nodes"},
      {"key above the separator",
       [=](Editor& e, const Made& m) {
         e.edit_node(e.leaf(tree(e, m), 0), [](Node& node) { node.set_key(node.count() - 1, 1u << 30); });
       },
       of(&Made::scattered), "range"},
      {"tree leads to itself",
       [=](Editor& e, const Made& m) {
         const media::Le64 self(tree(e, m));
         e.edit_node(self, [&](Node& node) { node.overwrite(1, bytes_of(self)); });
       },
       [=](const Editor& e, const Made& m) { return "block " + std::to_string(tree(e, m)); }, "owned twice"},
      {"target longer than its chain", inode_edit(&Made::wordy, [](media::Inode& i) { i.size_bytes = 2501; }),
       of(&Made::wordy), "symlink target"},
      {"target shorter than its chain", inode_edit(&Made::wordy, [](media::Inode& i) { i.size_bytes = 100; }),
       of(&Made::wordy), "symlink target"},
      {"inline target and chain", inode_edit(&Made::brief, [](media::Inode& i) { i.data.block = 4000; }),
       of(&Made::brief), "inline target"},
      {"contents of a fifo", inode_edit(&Made::fifo, [](media::Inode& i) { i.size_bytes = 1; }), of(&Made::fifo),
       "size_bytes"},
      {"inode block twice in the table",
       [](Editor& e, const Made&) {
         e.edit_node(e.leaf(e.state().inode_table.block, 1), [](Node& node) {
           const auto record = node.record(0);
           const Bytes first(record.begin(), record.end());
           node.overwrite(1, first);
         });
       },
       [](const Editor& e, const Made&) { return "block " + std::to_string(e.inode_block(1)); },
       "owned twice: by inode block 0 and by inode block 1"},
  });
}

TEST_CASE("check: names", "[core][check]") {
  check_damages({
      {"key of a name",
       [](Editor& e, const Made& m) {
         e.edit_named(e.inode(m.sub).data, "leaf",
                      [](Node& node, std::size_t slot) { node.set_key(slot, node.key(slot) ^ 0x100); });
       },
       of(&Made::sub), "key"},
      {"name twice", [](Editor& e, const Made& m) { e.add_entry(m.sub, "leaf", m.fifo, DT_FIFO, 1); }, of(&Made::sub),
       "twice"},
      {"entry of no inode", [](Editor& e, const Made& m) { e.add_entry(m.sub, "ghost", 4001, DT_REG); }, of(&Made::sub),
       "4001, which is not in use"},
      {"type of an entry",
       [](Editor& e, const Made&) {
         e.edit_record<media::DirectoryRecord>(e.inode(1).data, "fifo",
                                               [](media::DirectoryRecord& r) { r.type = DT_SOCK; });
       },
       fixed("inode 1"), "type"},
      {"name with a slash", [](Editor& e, const Made& m) { e.add_entry(m.sub, "a/b", m.fifo, DT_FIFO); },
       of(&Made::sub), "valid name"},
      {"dot as a name", [](Editor& e, const Made& m) { e.add_entry(m.sub, ".", m.fifo, DT_FIFO); }, of(&Made::sub),
       "valid name"},
      {"directory with two names", [](Editor& e, const Made& m) { e.add_entry(1, "alias", m.sub, DT_DIR); },
       of(&Made::sub), "2 names"},
      {"nameless file", [](Editor& e, const Made&) { e.remove_entry(1, "fifo"); }, of(&Made::fifo), "unreachable"},
      {"directories in a circle",
       [](Editor& e, const Made& m) {
         e.remove_entry(1, "dir");
         e.edit_inode(1, [](media::Inode& i) { i.links = i.links - 1; });
         e.add_entry(m.sub, "dir", m.dir, DT_DIR);
         e.edit_inode(m.sub, [](media::Inode& i) { i.links = i.links + 1; });
         e.edit_inode(m.dir, [&](media::Inode& i) { i.parent = m.sub; });
       },
       of(&Made::dir), "lead back"},
      {"directory node",
       [](Editor& e, const Made& m) { e.flip(e.offset(e.leaf(e.inode(m.many).data.block, 1ull << 62)) + 900); },
       of(&Made::many), "checksum"},
      {"xattr key",
       [](Editor& e, const Made& m) {
         e.edit_named(e.inode(m.file).xattrs, "user.short",
                      [](Node& node, std::size_t slot) { node.set_key(slot, node.key(slot) ^ 0x100); });
       },
       of(&Made::file), "key"},
      {"xattr chain",
       [](Editor& e, const Made& m) {
         e.edit_record<media::XattrRecord>(e.inode(m.file).xattrs, "user.long",
                                           [](media::XattrRecord& r) { r.value_length = 4000; });
       },
       of(&Made::file), "xattr value"},
      {"xattr flags",
       [](Editor& e, const Made& m) {
         e.edit_record<media::XattrRecord>(e.inode(m.file).xattrs, "user.long",
                                           [](media::XattrRecord& r) { r.flags = 3; });
       },
       of(&Made::file), "flags"},
      {"value block index",
       [](Editor& e, const Made& m) {
         e.edit<media::ValueHeader>(e.inode(m.wordy).data.block, [](media::ValueHeader& h) { h.index = 5; });
       },
       of(&Made::wordy), "index"},
      {"chain in a circle",
       [](Editor& e, const Made& m) {
         const std::uint64_t first = e.inode(m.wordy).data.block;
         e.edit<media::ValueHeader>(first, [&](media::ValueHeader& h) { h.next = first; });
       },
       [](const Editor& e, const Made& m) { return "block " + std::to_string(e.inode(m.wordy).data.block); },
       "owned twice"},
      {"ACL",
       [](Editor& e, const Made& m) {
         struct Record {
           media::XattrRecord header;
           char name[acl::kDefaultName.size()];
           media::Le32 version;
         };
         e.edit_record<Record>(e.inode(m.dir).xattrs, acl::kDefaultName, [](Record& r) { r.version = 9; });
       },
       of(&Made::dir), "ACL"},
  });
}

TEST_CASE("check: what a crash leaves of a superblock or a journal header is no problem on memory", "[core][check]") {
  const auto device = crash_device(pmem::DeviceKind::kMemory, kDeviceBytes);
  must(Volume::format(*device, fixed_format(kBlockSize)));
  World(*device).create("file");  // dies
  Editor editor(*device);
  const std::uint64_t header = editor.superblock().media().journal_start;
  SECTION("superblock copy with the new count and the old checksum") {
    const media::Le64 count(1);
    editor.store(65536 + offsetof(media::Superblock, unsafe_shutdowns), bytes_of(count));
    CHECK(checked(*device).problems_total == 0);
  }
  SECTION("anything else in a superblock") {
    editor.flip(65536 + 60);
    CHECK(names(checked(*device), "superblock copy 2", "checksum"));
  }
  SECTION("journal header with a new epoch and the old checksum") {
    editor.flip(header + media::kJournalHeaderStride +
                offsetof(media::JournalHeader, epoch));  // the next to be written
    CHECK(checked(*device).problems_total == 0);
  }
  SECTION("the same in the header that counts, which no crash leaves: there are records behind it") {
    editor.flip(header + offsetof(media::JournalHeader, epoch));
    CHECK(names(checked(*device), "journal", "the newer header is damaged"));
    const auto mounted = Volume::mount(*device, quiet_mount());
    CHECK(code_of(mounted) == EUCLEAN);
  }
  SECTION("anything else in a journal header") {
    editor.flip(header + offsetof(media::JournalHeader, reserved1));
    CHECK(names(checked(*device), "journal header 1", "checksum"));
  }
}

TEST_CASE("check: a damaged directory is one problem, not one for each name in it", "[core][check]") {
  pmem::CrashDevice device(sample().image, {.kind = pmem::DeviceKind::kCached});
  Editor editor(device);
  editor.flip(editor.inode_offset(sample().made.many) + 33);
  const CheckReport report = checked(device);
  INFO(text_of(report));
  CHECK(names(report, inode_name(sample().made.many), "checksum"));
  CHECK(names(report, "directories", "1500 inodes have fewer names than links"));
  CHECK(names(report, "bitmap", "allocated blocks have no owner"));
  CHECK(report.problems_total < 6);
}

TEST_CASE("check: any damage ends in a report", "[core][check][random]") {
  const std::uint64_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  pmem::CrashDevice device(sample().image, {.kind = pmem::DeviceKind::kCached});
  Editor editor(device);
  // Blocks of metadata, whatever they are; the trees of the sample lie between its data.
  std::vector<std::uint64_t> metadata;
  for (std::uint64_t block = editor.superblock().media().state_block; block < editor.blocks(); ++block) {
    const Bytes bytes = editor.block(block);
    media::BlockHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    const std::string_view magic(reinterpret_cast<const char*>(bytes.data()), 4);
    if (header.block == block || magic == "IND1" || block == editor.inode_block(1)) metadata.push_back(block);
  }
  REQUIRE(metadata.size() > 100);
  for (int round = 0; round < 1500; ++round) {
    const std::uint64_t block = metadata[random() % metadata.size()];
    const Bytes before = editor.block(block);
    Bytes bytes = before;
    for (std::uint64_t n = 1 + random() % 3; n > 0; --n) {
      // A field that means something is more likely near the front; values that look like others go deepest.
      const std::size_t at = (random() % 2 == 0 ? random() % 160 : random() % bytes.size()) & ~std::size_t{1};
      std::uint64_t value = random() % 4 == 0 ? random() : random() % (2 * editor.blocks());
      if (random() % 4 == 0) value = metadata[random() % metadata.size()];
      std::memcpy(bytes.data() + at, &value, std::min<std::size_t>(1 + random() % 8, bytes.size() - at));
    }
    media::BlockHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.block == block) {
      media::seal_block(bytes);
    } else {
      for (std::size_t at = 0; at < bytes.size(); at += sizeof(media::Inode))
        media::seal_inode(*reinterpret_cast<media::Inode*>(bytes.data() + at));
    }
    editor.store(editor.offset(block), bytes);
    const auto report = check_volume(device, {});
    REQUIRE(report.has_value());
    // Some rounds pile up on the others.
    if (random() % 8 != 0) editor.store(editor.offset(block), before);
  }
}

TEST_CASE("check: progress ends at the end", "[core][check]") {
  pmem::CrashDevice device(sample().image, {.kind = pmem::DeviceKind::kCached});
  CheckOptions options;
  options.zeros = true;
  std::vector<std::string> phases;
  options.progress = [&](std::uint64_t done, std::uint64_t total, std::string_view phase) {
    CHECK(done <= total);
    if (phases.empty() || phases.back() != phase) phases.emplace_back(phase);
  };
  REQUIRE(must(check_volume(device, options)).problems_total == 0);
  CHECK(phases == std::vector<std::string>{"inodes", "directories", "zeros"});
}

}  // namespace plumb::test
