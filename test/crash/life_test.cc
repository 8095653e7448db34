// Crashes in the life of a file system: mkfs, mount, unmount, the log going round, the zeroed mark, the death of the
// daemon.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "fs/core/repair.h"
#include "fs/core/volume_impl.h"
#include "fs/media/layout.h"
#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::CrashImage;

const Setting& any_setting() {
  return settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 2, 4})))];
}

MachineImage garbage(std::size_t bytes, std::size_t realtime_bytes = 0) {
  const std::string text(std::max(bytes, realtime_bytes), '\xa5');
  const std::span<const std::byte> all = std::as_bytes(std::span(text));
  MachineImage image{CrashImage(all.first(bytes)), {}};
  if (realtime_bytes != 0) image.realtime = CrashImage(all.first(realtime_bytes));
  return image;
}

void require_none(const std::string& problem) {
  INFO(problem);
  CHECK(problem.empty());
}

const Setting& setting_of(std::size_t number) {
  return number < settings().size() ? settings()[number] : realtime_settings()[number - settings().size()];
}

// What a write had stored that never came to its record: the last block of each window that a dead daemon left.
void dirty_windows(Machine& machine) {
  const Superblock superblock = must(Superblock::read(machine.members()));
  const std::uint64_t block_size = superblock.block_size();
  media::State state;
  must(machine.main().load(superblock.media().state_block * block_size, std::as_writable_bytes(std::span(&state, 1))));
  std::size_t dirtied = 0;
  for (const media::WindowSlot& slot : state.windows) {
    if (slot.length_blocks == 0) continue;
    pmem::Device& device = superblock.device(static_cast<DeviceRole>(slot.device));
    const std::uint64_t at = (slot.start_block + slot.length_blocks - 1) * block_size;
    REQUIRE(must(device.is_zero(at, block_size)));
    must(device.store(at, std::vector<std::byte>(block_size, std::byte{'S'})));
    ++dirtied;
  }
  REQUIRE(dirtied >= superblock.device_count());
}

// Where the next record goes. Empties the log.
std::uint64_t head_offset(World& world, std::uint64_t& ring_bytes) {
  Store& store = world->impl().store;
  must(store.checkpoint());
  const media::Superblock& sb = store.superblock().media();
  ring_bytes = sb.journal_bytes - media::kJournalRingOffset;
  media::JournalHeader best;
  for (std::uint64_t i = 0; i < 2; ++i) {
    media::JournalHeader header;
    must(store.superblock()
             .device(DeviceRole::kMain)
             .load(sb.journal_start + i * media::kJournalHeaderStride, std::as_writable_bytes(std::span(&header, 1))));
    if (header.update > best.update) best = header;
  }
  return best.tail_offset;
}

// Moves the head of the log to at most `most` bytes before the end of the ring.
void approach_end_of_ring(World& world, std::uint64_t most) {
  std::uint64_t ring = 0;
  while (true) {
    const std::uint64_t left = ring == 0 ? ~std::uint64_t{0} : ring - head_offset(world, ring);
    if (left <= most) return;
    if (left > most + 100'000) {
      world.set_xattr("d", "user.big", pattern('B', 65536));
    } else {
      must(world->set_flags(*world.find("f"), world.stat("f").flags ^ kInodeNodump));
    }
    must(world->run_reclaim());
    (void)head_offset(world, ring);
  }
}

// Fills the log with live records until the next large one needs a checkpoint.
void fill_ring(World& world, std::uint64_t leave) {
  std::uint64_t ring = 0;
  (void)head_offset(world, ring);
  const Journal& journal = world->impl().store.journal();
  const std::uint64_t start = journal.counters().bytes;
  for (int i = 0;; ++i) {
    const std::uint64_t used = journal.counters().bytes - start;
    if (used + leave >= ring) return;
    if (used + leave + 150'000 < ring)
      world.set_xattr("d", "user.big" + std::to_string(i % 8), pattern('B', 65536));
    else
      must(world->set_flags(*world.find("f"), world.stat("f").flags ^ kInodeNodump));
  }
}

}  // namespace

TEST_CASE("crash: mkfs leaves the old file system, none, or the new one", "[crash][mkfs]") {
  const Setting& setting = setting_of(GENERATE(from_range(chosen({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {0, 2, 5, 7}))));
  const bool over_garbage = GENERATE(false, true);
  CAPTURE(setting.name, over_garbage, base_seed());
  const MachineImage base =
      over_garbage ? garbage(8u << 20, setting.has_realtime() ? 2u << 20 : 0) : prepared_image(setting, make_tree);
  const auto state_of = [&](Machine& machine) {
    Actor world(machine, setting);
    return take_snapshot(world);
  };
  Machine old_machine(base, setting.kinds);
  const Snapshot old_state = over_garbage ? Snapshot{} : state_of(old_machine);
  Machine machine(base, setting.kinds);
  FormatOptions options = fixed_format(setting.block_size_bytes == 1024 ? 4096 : 1024);
  options.uuid[0] = 99;
  options.realtime_uuid[0] = 98;
  options.realtime_extent_bytes = setting.realtime_extent_bytes;
  options.contents_are_zero = options.realtime_is_zero = false;
  must(Volume::format(machine.members(), options));
  const std::uint64_t replied = machine.mark("replied");
  Machine new_machine(machine.current_image(), setting.kinds);
  const Snapshot new_state = state_of(new_machine);
  std::size_t seen_old = 0, seen_none = 0, seen_new = 0;
  MachineExplorer explorer(machine);
  pmem::ImageLimits limits;
  limits.exhaustive_stores = 3;
  limits.max_systematic = scaled(12);
  limits.random_subsets = scaled(3);
  limits.random_torn = scaled(3);
  limits.torn_stores = 2;
  for (const std::uint64_t point : machine.crash_points()) {
    limits.seed = base_seed() + point;
    ++totals().points;
    explorer.for_each(point, limits, [&](const MachineImage& image) {
      ++totals().images;
      Machine after(image, setting.kinds);
      INFO(image.description());
      if (const auto volume = Volume::mount(after.members(), setting.mount_options()); !volume) {
        REQUIRE(point <= replied);
        // None: nobody takes it for the old one and tries to repair what is left of that.
        REQUIRE_FALSE(Superblock::read_main(after.main()).has_value());
        ++seen_none;
        return true;
      }
      const Snapshot seen = state_of(after);
      const bool is_new = metadata_difference(seen, new_state).empty();
      if (!is_new) {
        REQUIRE(point <= replied);
        REQUIRE(metadata_difference(seen, old_state).empty());
        REQUIRE(content_difference(seen, old_state).empty());
      }
      // Nobody has written any yet, and nothing else looks at them.
      const media::Superblock media = must(Superblock::read(after.members())).media();
      REQUIRE(must(after.main().is_zero(media.lease_start, media.lease_bytes)));
      ++(is_new ? seen_new : seen_old);
      REQUIRE(check_text(after).empty());
      return true;
    });
  }
  CHECK(seen_none != 0);
  CHECK(seen_new != 0);
  CHECK((seen_old != 0) == !over_garbage);
}

TEST_CASE("crash: mount, a little work, unmount, mount again", "[crash][recovery]") {
  const Setting& setting = any_setting();
  const MachineImage base = prepared_image(setting, make_tree);
  Effort effort;
  effort.crashes_mount = true;
  effort.nested_each = 25;
  const Workload workload{.name = "life",
                          .steps = {step("write", [](Actor& a) { a.write("g", 2000, pattern('1', 3000)); }),
                                    step("unlink", [](Actor& a) { a.unlink("f"); }), unmount_step()}};
  require_none(crash_everywhere(base, setting, workload, effort));
  const Workload idle{.name = "mount and unmount", .steps = {unmount_step()}};
  require_none(crash_everywhere(base, setting, idle, effort));
}

TEST_CASE("crash: recovery of what a dead daemon left", "[crash][recovery]") {
  const Setting& setting = setting_of(GENERATE(from_range(chosen({0, 1, 2, 3, 4, 5, 7}, {0, 2, 4, 5}))));
  // Many records to replay, orphans, a window with blocks nobody owns, a queue to work off.
  Machine machine(prepared_image(setting, make_tree), setting.kinds);
  {
    Actor world(machine, setting);
    world.open_as("h", "g");
    world.unlink("g");
    world.write(world.handle("h"), 0, std::string(30'000, 'S'));
    world.unlink("many");
    world.truncate("scattered", 100'000);
    world.set_xattr("d", "user.big", pattern('C', 60'000));
    if (setting.has_realtime()) {
      world.create("rt");
      world.set_flags("rt", kInodeRealtime);
      world.write("rt", 0, pattern('r', 5000));
    }
    must(world->sync());
    must(world->impl().store.checkpoint());  // so that the windows are where dirty_windows() looks
    world.rename("f", "n");
    world.close_all();
    world.die();
  }
  dirty_windows(machine);
  Effort effort;
  effort.crashes_mount = true;
  effort.work_on_each = 5;
  effort.nested_each = 30;
  const Workload workload{.name = "recovery", .steps = {reclaim_step(), unmount_step()}};
  require_none(crash_everywhere(machine.current_image(), setting, workload, effort));
}

TEST_CASE("crash: the ring wraps", "[crash][journal]") {
  const Setting& setting = any_setting();
  const MachineImage base = prepared_image(setting, make_tree);
  // The pad is as long as the record before it, or a little longer, or nothing at all.
  for (const std::uint64_t most : {600u, 1500u}) {
    const Workload workload{
        .name = "a ring that wraps, " + std::to_string(most) + " bytes before its end",
        .steps = {step("create", [](Actor& a) { a.create("new"); }),
                  step("write", [](Actor& a) { a.write("new", 0, pattern('n', 5000)); }),
                  step("rename", [](Actor& a) { a.rename("new", "g"); }), fsync_step("g"),
                  step("chmod", [](Actor& a) { set_owner(a, "f", 0600, 3); }), reclaim_step(), unmount_step()},
        .just_before = [most](Actor& a) { approach_end_of_ring(a, most); }};
    require_none(crash_everywhere(base, setting, workload));
  }
}

TEST_CASE("crash: the ring is full, and an operation makes room", "[crash][journal]") {
  const Setting& setting = any_setting();
  const MachineImage base = prepared_image(setting, make_tree);
  const Workload workload{
      .name = "a full ring",
      .steps = {step("set big xattr", [](Actor& a) { a.set_xattr("g", "user.big", pattern('n', 65536)); }),
                step("unlink", [](Actor& a) { a.unlink("f"); }),
                step("replace it", [](Actor& a) { a.set_xattr("g", "user.big", pattern('o', 65536)); }),
                reclaim_step()},
      .just_before = [](Actor& a) { fill_ring(a, 3000); }};
  Effort effort;
  effort.systematic = 14;
  effort.most_points = 40;
  require_none(crash_everywhere(base, setting, workload, effort));
}

TEST_CASE("crash: the zeroed mark moves over garbage", "[crash][space]") {
  const Setting& setting = setting_of(GENERATE(from_range(chosen({0, 1, 2, 3, 4, 5, 7}, {0, 2, 4, 5}))));
  Machine machine(garbage(9u << 20, setting.has_realtime() ? 9u << 20 : 0), setting.kinds);
  FormatOptions options = fixed_format(setting.block_size_bytes);
  options.realtime_uuid[0] = 98;
  options.realtime_extent_bytes = setting.realtime_extent_bytes;
  options.contents_are_zero = options.realtime_is_zero = false;
  must(Volume::format(machine.members(), options));
  {
    Actor world(machine, setting);
    world.create("f");
    if (setting.has_realtime()) world.set_flags("f", kInodeRealtime);
    world.unmount();
  }
  const Workload workload{
      .name = "the zeroed mark",
      .steps = {in_parts("fallocate", [](Actor& a) { a.allocate("f", 0, 0, 5u << 20); }),
                step("write", [](Actor& a) { a.write("f", 4u << 20, pattern('w', 5000)); }),
                step("truncate", [](Actor& a) { a.truncate("f", 0); }), reclaim_step(), unmount_step()}};
  Effort effort;
  effort.exhaustive_stores = 3;
  effort.systematic = 6;
  effort.random = 1;
  effort.most_points = 40;
  require_none(crash_everywhere(machine.current_image(), setting, workload, effort));
}

TEST_CASE("crash: an fsync after the death of the daemon covers what was written before it", "[crash][recovery]") {
  const Setting& setting = any_setting();
  const MachineImage base = prepared_image(setting, make_tree);
  const bool whole = GENERATE(false, true);
  // Behind a repair the file system is clean, and the mount does not know that anybody died.
  const bool is_repaired = GENERATE(false, true);
  const auto repair = [](Machine& machine) {
    (void)must(repair_volume(machine.members(), {.preen = false, .zeros = false, .progress = {}}));
  };
  const auto die = [=](Actor& a) { is_repaired ? a.die_and_mount(repair) : a.die_and_mount(); };
  const Workload workload{
      .name = std::string(whole ? "sync" : "fsync") + (is_repaired ? " after a repair" : " after a death"),
      .steps = {step("overwrite", [](Actor& a) { a.write("f", 0, pattern('1', 5000)); }),
                step("chmod", [](Actor& a) { set_owner(a, "g", 0600, 3); }), step("die and mount", die),
                whole ? sync_step() : fsync_step("f"),
                step("overwrite g", [](Actor& a) { a.write("g", 0, pattern('3', 3000)); })}};
  require_none(crash_everywhere(base, setting, workload));
}

TEST_CASE("crash: records that were not durable yet when the daemon died", "[crash][recovery]") {
  const Setting& setting = settings()[GENERATE(0u, 2u, 3u)];
  CAPTURE(setting.name, base_seed());
  const MachineImage base = prepared_image(setting, make_tree);
  // On memory only the last one may be, when the daemon dies within append.
  const auto die = [](Actor& a) {
    auto& device = dynamic_cast<pmem::CrashDevice&>(a->impl().store.device(DeviceRole::kMain));
    if (device.is_memory()) device.fail_drain_call(device.drain_calls(), EIO);
    if (a.try_rename("g", "d/h").has_value() == device.is_memory())
      throw std::runtime_error("a rename that does not end as it should");
    a.die_and_mount();
  };
  const Workload workload{.name = "death", .steps = {step("rename", die), unmount_step()}};
  Effort effort;
  effort.systematic = 120;
  effort.random = 30;
  require_none(crash_everywhere(base, setting, workload, effort));
}
