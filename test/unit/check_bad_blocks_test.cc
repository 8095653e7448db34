// What the check engine says about the list of bad blocks.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <string>
#include <vector>

#include "fs/core/check.h"
#include "fs/core/volume_impl.h"
#include "test/unit/core_world.h"
#include "test/unit/volume_editor.h"

namespace plumb::test {
namespace {

struct Sample {
  pmem::CrashImage image;
  std::uint64_t in_file = 0, of_list = 0;  // blocks on the list
};

// A bad page in a file, and one that a deleted file has left.
Sample make_sample() {
  const auto device = crash_device(pmem::DeviceKind::kCached, 12u << 20);
  must(Volume::format(*device, fixed_format(kBlockSize)));
  World world(*device);
  Sample sample{device->current_image(), 0, 0};
  for (const char* name : {"kept", "gone"}) {
    world.create(name);
    world.write(name, 0, pattern('x', 40'000));
    const InodeRef inode = world.find(name);
    const ReadPin pin = must(world->read(*inode, 10'000, 1));
    const std::uint64_t at = device->offset_of(pin.iov.at(0).iov_base).value();
    device->poison(at, 1);
    (name[0] == 'k' ? sample.in_file : sample.of_list) = at / kBlockSize;
    world->note_unreadable(pin);
  }
  world.unlink("gone");
  must(world->run_reclaim());
  world.unmount();
  sample.image = device->current_image();
  return sample;
}

std::uint64_t leaf_of_list(const Editor& editor) {
  const std::uint64_t root = editor.state().bad_blocks.block;
  REQUIRE(root != 0);
  return editor.leaf(root, 0);
}

media::BadBlockRecord record_of(std::uint32_t length, std::uint8_t owner) {
  media::BadBlockRecord record{};
  record.length_blocks = length;
  record.owner = owner;
  return record;
}

void set_entry(Editor& editor, std::uint64_t key, const media::BadBlockRecord& record) {
  editor.edit_node(leaf_of_list(editor), [&](Node& node) {
    const std::size_t slot = node.lower_bound(key);
    if (slot < node.count() && node.key(slot) == key) node.remove(slot);
    node.insert(slot, key, bytes_of(record));
  });
}

}  // namespace

TEST_CASE("check: the list of bad blocks and its owners", "[core][check][poison]") {
  const Sample sample = make_sample();
  struct Damage {
    std::string name;
    std::function<void(Editor&)> apply;
    std::string object;  // empty: nothing is wrong
    std::string what;
  };
  const auto entry = [](std::uint64_t block) { return "entry of block " + std::to_string(block) + ": "; };
  const auto block = [](std::uint64_t number) { return "block " + std::to_string(number); };
  constexpr std::uint64_t kFree = (12u << 20) / kBlockSize - 3;  // Editor::free_block
  constexpr std::uint64_t kBeyond = (12u << 20) / kBlockSize;
  const std::string tree = "bad block tree";
  const std::vector<Damage> damages = {
      {"none", [](Editor&) {}, {}, {}},
      {"a device that is no member",
       [&](Editor& e) { set_entry(e, media::device_key(1, sample.in_file), record_of(1, 0)); }, tree,
       entry(sample.in_file) + "of a device that is no member"},
      {"beyond the device", [&](Editor& e) { set_entry(e, kBeyond, record_of(1, 0)); }, tree,
       entry(kBeyond) + "beyond the end"},
      {"length", [&](Editor& e) { set_entry(e, sample.in_file, record_of(2, 0)); }, tree,
       entry(sample.in_file) + "length is not 1"},
      {"owner", [&](Editor& e) { set_entry(e, sample.in_file, record_of(1, 2)); }, tree,
       entry(sample.in_file) + "unknown owner"},
      {"free, of somebody", [&](Editor& e) { set_entry(e, kFree, record_of(1, 0)); }, tree,
       entry(kFree) + "free in the bitmap"},
      {"free, of the list", [&](Editor& e) { set_entry(e, kFree, record_of(1, 1)); }, block(kFree),
       "free in the bitmap, but owned by bad block tree"},
      {"of a file, and the list says of itself", [&](Editor& e) { set_entry(e, sample.in_file, record_of(1, 1)); },
       block(sample.in_file), "owned twice"},
      {"of the list, which says it is not", [&](Editor& e) { set_entry(e, sample.of_list, record_of(1, 0)); },
       block(sample.of_list), "owned by nobody"},
      {"feature bit",
       [](Editor& e) {
         media::Superblock sb = e.superblock().media();
         sb.ro_compat = 0;
         media::seal_superblock(sb);
         for (const std::uint64_t offset : media::kSuperblockOffsets) e.store(offset, bytes_of(sb));
       },
       tree, "feature bit"},
  };
  for (const Damage& damage : damages) {
    INFO(damage.name);
    pmem::CrashDevice device(sample.image, {.kind = pmem::DeviceKind::kCached});
    Editor editor{Members(device)};
    damage.apply(editor);
    const CheckReport report = must(check_volume(device, {.zeros = true, .progress = {}}));
    for (const Problem& problem : report.problems) UNSCOPED_INFO(problem.object << ": " << problem.what);
    if (damage.object.empty()) {
      CHECK(report.problems_total == 0);
      continue;
    }
    CHECK(std::any_of(report.problems.begin(), report.problems.end(), [&](const Problem& problem) {
      return problem.object == damage.object && problem.what.find(damage.what) != std::string::npos;
    }));
  }
}

TEST_CASE("check: a crash while the feature bit of bad blocks is set is no problem", "[core][check][poison]") {
  const auto kind = pmem::DeviceKind::kMemory;
  const auto device = crash_device(kind, 12u << 20);
  must(Volume::format(*device, fixed_format(kBlockSize)));
  World world(*device);
  world.create("f");
  must(world->sync());
  const std::uint64_t first = device->store_calls();
  must(world->impl().store.allow_bad_blocks());
  REQUIRE(device->store_calls() == first + 2);
  const media::Superblock now = must(Superblock::read(*device)).media();
  media::Superblock before = now;
  before.ro_compat = 0;
  before.update = now.update - 1;
  media::seal_superblock(before);
  const pmem::CrashImage image = device->current_image();
  for (const std::size_t words : {0u, 1u, 2u, 13u, 512u}) {
    INFO(words << " words of the second copy are new");
    pmem::CrashDevice after(image, {.kind = kind});
    const std::span<const std::byte> old = bytes_of(before);
    must(after.store(media::kSuperblockOffsets[1] + words * 8, old.subspan(words * 8)));
    const CheckReport report = must(check_volume(after, {}));
    for (const Problem& problem : report.problems) UNSCOPED_INFO(problem.object << ": " << problem.what);
    CHECK(report.problems_total == 0);
    World again(after);
    again.unmount();
  }
}

}  // namespace plumb::test
