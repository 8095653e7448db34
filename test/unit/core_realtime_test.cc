// The realtime device: data of marked files lives there, metadata on the main device.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <random>
#include <string>
#include <vector>

#include "fs/core/check.h"
#include "fs/core/volume_impl.h"
#include "pmem/crash_explorer.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::CrashDevice;
using pmem::DeviceKind;

constexpr std::uint64_t kMainBytes = 16u << 20;
constexpr std::uint64_t kRealtimeBytes = 16u << 20;

struct Setting {
  DeviceKind main = DeviceKind::kMemory;
  DeviceKind realtime = DeviceKind::kMemory;
  std::uint32_t block_size_bytes = 4096;
  std::uint32_t extent_bytes = 64u << 10;
  Writeback writeback = Writeback::kImmediate;
};

const std::vector<Setting> kSettings = {
    {DeviceKind::kMemory, DeviceKind::kMemory, 4096, 64u << 10, Writeback::kImmediate},
    {DeviceKind::kMemory, DeviceKind::kMemory, 4096, 2u << 20, Writeback::kDeferred},
    {DeviceKind::kMemory, DeviceKind::kCached, 1024, 4096, Writeback::kImmediate},
    {DeviceKind::kCached, DeviceKind::kMemory, 1024, 64u << 10, Writeback::kImmediate},
    {DeviceKind::kCached, DeviceKind::kCached, 4096, 4096, Writeback::kImmediate},
    {DeviceKind::kCached, DeviceKind::kCached, 16384, 16384, Writeback::kImmediate},
};

class Pair {
 public:
  explicit Pair(const Setting& setting, std::uint64_t realtime_bytes = kRealtimeBytes)
      : main(kMainBytes, {.kind = setting.main, .name = "main"}),
        realtime(realtime_bytes, {.kind = setting.realtime, .name = "realtime"}) {
    FormatOptions format = fixed_format(setting.block_size_bytes);
    format.realtime_extent_bytes = setting.extent_bytes;
    must(Volume::format(members(), format));
  }
  [[nodiscard]] Members members() { return {main, &realtime}; }
  void check() {
    const CheckReport report = must(check_volume(members(), {.zeros = true, .progress = {}}));
    for (const Problem& problem : report.problems) UNSCOPED_INFO(problem.object << ": " << problem.what);
    REQUIRE(report.problems_total == 0);
  }

  CrashDevice main, realtime;
};

MountOptions options_of(const Setting& setting) {
  MountOptions options = quiet_mount();
  options.writeback = setting.writeback;
  return options;
}

/// Stores, flushes and drains of a device since it was asked last.
class Activity {
 public:
  explicit Activity(CrashDevice& device) : device_(device) { (void)take(); }
  struct Counts {
    std::uint64_t stores = 0, flushes = 0, drains = 0;
    friend bool operator==(const Counts&, const Counts&) = default;
  };
  Counts take() {
    const Counts now{device_.store_calls(), device_.flush_calls(), device_.drain_calls()};
    const Counts delta{now.stores - last_.stores, now.flushes - last_.flushes, now.drains - last_.drains};
    last_ = now;
    return delta;
  }

 private:
  CrashDevice& device_;
  Counts last_;
};

constexpr Activity::Counts kNothing{};

}  // namespace

TEST_CASE("realtime: contents are the model's, whatever is done to the file", "[realtime]") {
  const Setting setting = GENERATE(from_range(kSettings));
  CAPTURE(setting.block_size_bytes, setting.extent_bytes, static_cast<int>(setting.main),
          static_cast<int>(setting.realtime));
  Pair pair(setting);
  auto world = std::make_unique<World>(pair.members(), options_of(setting));
  (*world).set_flags("", kInodeRtInherit);
  std::mt19937_64 random(setting.extent_bytes + setting.block_size_bytes);
  constexpr std::uint64_t kLargest = 3u << 20;
  world->create("f");
  REQUIRE((world->stat("f").flags & kInodeRealtime) != 0);
  std::string model;
  auto pick = [&](std::uint64_t below) { return std::uniform_int_distribution<std::uint64_t>(0, below - 1)(random); };
  for (int step = 0; step < 400; ++step) {
    const std::uint64_t offset = pick(kLargest);
    const std::uint64_t length = 1 + pick(pick(4) == 0 ? 300'000 : 5'000);
    switch (pick(8)) {
      case 0:
      case 1:
      case 2: {
        const std::string bytes = pattern(static_cast<char>('a' + step % 26), length, offset);
        world->write("f", offset, bytes);
        if (model.size() < offset + length) model.resize(offset + length);
        model.replace(offset, length, bytes);
        break;
      }
      case 3: {
        const std::uint64_t size =
            pick(2) == 0 ? pick(kLargest) : std::min<std::uint64_t>(model.size() + length, kLargest);
        world->truncate("f", size);
        model.resize(size);
        break;
      }
      case 4:
      case 5: {
        const int mode =
            pick(2) == 0 ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
        world->allocate("f", mode, offset, length);
        if (offset < model.size()) {
          const std::size_t count = std::min<std::uint64_t>(length, model.size() - offset);
          model.replace(offset, count, std::string(count, '\0'));
        }
        break;
      }
      case 6:
        if (pick(2) == 0) {
          world->allocate("f", pick(2) == 0 ? 0 : FALLOC_FL_KEEP_SIZE, offset, length);
          // Mode 0 makes it longer; the size tells which one it was.
          model.resize(world->stat("f").size_bytes);
        } else {
          world->fsync("f");
        }
        break;
      default:
        must((*world)->run_reclaim());
        if (pick(4) == 0) {
          if (pick(2) == 0)
            world->unmount();
          else
            world->die();
          world = std::make_unique<World>(pair.members(), options_of(setting));
        }
    }
    REQUIRE(world->stat("f").size_bytes == model.size());
    if (step % 8 == 0) REQUIRE(world->read("f") == model);
  }
  REQUIRE(world->read("f") == model);
  world->unmount();
  pair.check();
}

TEST_CASE("realtime: data goes to its device, and statfs says which", "[realtime]") {
  Pair pair({});
  World world(pair.members());
  const std::uint64_t main_before = world.volume().statistics().blocks_free;
  InodeRef root = world->root();
  world.mkdir("d");
  world.set_flags("d", kInodeRtInherit);
  world.mkdir("d/below");
  CHECK((world.stat("d/below").flags & kInodeRtInherit) != 0);
  world.create("plain");
  InodeRef file = world.create("d/below/file");
  CHECK((world.stat("d/below/file").flags & kInodeRealtime) != 0);
  CHECK((world.stat("plain").flags & kInodeRealtime) == 0);

  const FsStatistics main = world->statistics(root.get());
  const FsStatistics realtime = world->statistics(file.get());
  CHECK(main.blocks * 4096 < kMainBytes);
  CHECK(realtime.blocks * 4096 == kRealtimeBytes - (128u << 10));
  CHECK(realtime.blocks_free == realtime.blocks);

  world.write("d/below/file", 0, pattern('r', 1u << 20));
  CHECK(world->statistics(file.get()).blocks_free == realtime.blocks_free - (1u << 20) / 4096);
  CHECK(world->statistics(root.get()).blocks_free + 16 > main_before);
  world.truncate("d/below/file", 1);
  must(world->run_reclaim());
  CHECK(world->statistics(file.get()).blocks_free == realtime.blocks_free - (64u << 10) / 4096);
  CHECK(world->statistics(world.find("d").get()).blocks == realtime.blocks);
  root = file = InodeRef();
  world.unmount();
  pair.check();
}

TEST_CASE("realtime: the flag is set while a file has no blocks", "[realtime]") {
  Pair pair({});
  World world(pair.members());
  world.create("f");
  world.write("f", 0, "data");
  const InodeRef f = world.find("f");
  CHECK(code_of(world->set_flags(*f, kInodeRealtime)) == EINVAL);
  world.truncate("f", 0);
  world.set_flags("f", kInodeRealtime);
  world.truncate("f", 100);  // longer, but still without blocks
  world.set_flags("f", 0);
  world.set_flags("f", kInodeRealtime);
  world.write("f", 0, "data");
  CHECK(code_of(world->set_flags(*f, 0)) == EINVAL);
  CHECK(code_of(world->set_flags(*f, kInodeRealtime | kInodeRtInherit)) == EINVAL);
  world.mkdir("d");
  const InodeRef d = world.find("d");
  CHECK(code_of(world->set_flags(*d, kInodeRealtime)) == EINVAL);
  CHECK(world.read("f") == "data" + std::string(96, '\0'));
}

TEST_CASE("realtime: without the device the flag is refused", "[realtime]") {
  const auto device = crash_device(DeviceKind::kMemory, kMainBytes);
  must(Volume::format(*device, fixed_format(4096)));
  World world(*device);
  world.create("f");
  const InodeRef f = world.find("f");
  CHECK(code_of(world->set_flags(*f, kInodeRealtime)) == EINVAL);
  CHECK(code_of(world->set_flags(*world->root(), kInodeRtInherit)) == EINVAL);
}

// The seed thread: a file's writeback goes to the file's device. A double for each device counts.
TEST_CASE("realtime: fsync drains the devices that the inode dirtied, and no other", "[realtime][writeback]") {
  Pair pair({.main = DeviceKind::kCached, .realtime = DeviceKind::kCached});
  World world(pair.members());
  world.create("main");
  world.create("rt");
  world.set_flags("rt", kInodeRealtime);
  world.write("main", 0, pattern('m', 300'000));
  world.write("rt", 0, pattern('r', 300'000));
  must(world->sync());
  Activity main(pair.main), realtime(pair.realtime);

  SECTION("nothing dirty: nothing at all") {
    world.fsync("rt");
    world.fsync("main");
    world.fsync("");
    CHECK(main.take() == kNothing);
    CHECK(realtime.take() == kNothing);
  }
  SECTION("data of the realtime device: one drain there, then the log on the main device") {
    const std::uint64_t drains = world->counters().devices[1].writeback_drains;
    world.write("rt", 4096, pattern('x', 4096));
    (void)main.take();
    (void)realtime.take();
    world.fsync("rt");
    CHECK(realtime.take() == Activity::Counts{0, 1, 1});
    const auto of_main = main.take();
    CHECK(of_main.drains <= 1);  // none where the write changed no time, so nothing is in the log
    CHECK(world->counters().devices[1].writeback_drains == drains + 1);
    world.write("rt", 1'000'000, "longer");
    (void)main.take();
    (void)realtime.take();
    world.fsync("rt");
    CHECK(realtime.take() == Activity::Counts{0, 1, 1});
    CHECK(main.take().drains == 1);
  }
  SECTION("data of the main device: the realtime device is not touched") {
    world.write("main", 0, pattern('y', 500'000));
    world.fsync("main");
    world.truncate("main", 10);
    world.unlink("main");
    must(world->sync());
    must(world->run_reclaim());
    CHECK(realtime.take() == kNothing);
    CHECK(main.take().drains > 0);
  }
  SECTION("sync covers both") {
    world.write("rt", 0, pattern('z', 5000));
    world.write("main", 0, pattern('z', 5000));
    (void)main.take();
    (void)realtime.take();
    must(world->sync());
    CHECK(realtime.take().drains == 1);
    CHECK(main.take().drains >= 1);
    CHECK(world->counters().devices[0].dirty_bytes == 0);
    CHECK(world->counters().devices[1].dirty_bytes == 0);
  }
}

TEST_CASE("realtime: an error of one device does not hide the other's writeback", "[realtime][writeback]") {
  Pair pair({.main = DeviceKind::kCached, .realtime = DeviceKind::kCached});
  World world(pair.members());
  world.create("main");
  world.create("rt");
  world.set_flags("rt", kInodeRealtime);
  world.write("main", 0, pattern('m', 8192));
  world.write("rt", 0, pattern('r', 8192));
  const auto handle = world.open("rt");
  pair.realtime.fail_flush_call(pair.realtime.flush_calls(), EIO);
  CHECK(code_of(world->sync()) == EIO);
  CHECK(world->counters().devices[0].dirty_bytes == 0);
  CHECK(world->counters().devices[1].dirty_bytes != 0);
  pair.realtime.clear_faults();
  // Once to the open file, then it is over.
  CHECK(code_of(world->fsync(*handle, FsyncMode::kFull)) == EIO);
  CHECK(code_of(world->fsync(*handle, FsyncMode::kFull)) == 0);
}

TEST_CASE("realtime: a device that fails keeps its pending blocks, and the other's are freed", "[realtime]") {
  Pair pair({});
  World world(pair.members());
  world.create("main");
  world.create("rt");
  world.set_flags("rt", kInodeRealtime);
  world.write("main", 0, pattern('m', 400'000));
  world.write("rt", 0, pattern('r', 400'000));
  world.unlink("main");
  world.unlink("rt");
  for (std::uint64_t i = 0; i < 8; ++i) pair.realtime.fail_store_call(pair.realtime.store_calls() + i, EIO);
  CHECK(code_of(world->run_reclaim()) == EIO);
  Store& store = world->impl().store;
  CHECK(store.pending_blocks(DeviceRole::kMain) < 10);  // its data is free; nodes of the queue may wait
  CHECK(store.pending_blocks(DeviceRole::kRealtime) * 4096 >= 400'000);
  pair.realtime.clear_faults();
  must(world->run_reclaim());
  CHECK(store.pending_blocks(DeviceRole::kRealtime) == 0);
  world.unmount();
  pair.check();
}

TEST_CASE("realtime: fills up, says ENOSPC, and comes back", "[realtime]") {
  const std::uint32_t extent = GENERATE(4096u, 64u << 10, 2u << 20);
  const bool zeroed = GENERATE(true, false);
  Setting setting{.extent_bytes = extent};
  Pair pair(setting);
  if (!zeroed) {
    FormatOptions format = fixed_format(4096);
    format.realtime_extent_bytes = extent;
    format.realtime_is_zero = false;
    std::vector<std::byte> junk(kRealtimeBytes, std::byte{0x5a});
    must(pair.realtime.store(0, junk));
    must(Volume::format(pair.members(), format));
  }
  World world(pair.members());
  world.set_flags("", kInodeRtInherit);
  const std::uint64_t before = world->statistics(world->root().get()).blocks_free;
  for (int round = 0; round < 3; ++round) {
    int files = 0;
    int error = 0;
    for (; error == 0; ++files) {
      const std::string name = "f" + std::to_string(files);
      world.create(name);
      const auto handle = world.open(name);
      const std::string bytes = pattern('f', 700'000);
      std::uint64_t done = 0;
      while (done < bytes.size() && error == 0) {
        const auto written = world.try_write(*handle, done, std::string_view(bytes).substr(done));
        error = code_of(written);
        if (written) done += *written;
      }
      CHECK(world.read(name) == bytes.substr(0, done));
    }
    CHECK(error == ENOSPC);
    CHECK(world->statistics(world->root().get()).blocks_free == 0);
    world.create("main-still-works");
    world.unlink("main-still-works");
    for (int i = 0; i < files; ++i) world.unlink("f" + std::to_string(i));
    must(world->run_reclaim());
    CHECK(world->statistics(world->root().get()).blocks_free == before);
  }
  world.unmount();
  pair.check();
}

TEST_CASE("realtime: a missing, foreign or swapped member is refused by uuid", "[realtime]") {
  Pair pair({});
  Pair other({});
  const std::string uuid = "09090909-0506-0708-090a-0b0c0d0e0f10";
  auto message = [](const auto& result) { return result ? std::string() : result.error().message(); };

  const auto missing = Volume::mount(pair.main, quiet_mount());
  CHECK(code_of(missing) == ENXIO);
  CHECK(message(missing).find(uuid) != std::string::npos);

  // The same uuid of the member, another file system.
  FormatOptions format = fixed_format(4096);
  format.uuid[0] = 77;
  format.realtime_uuid = {8};
  must(Volume::format(other.members(), format));
  const auto foreign = Volume::mount({pair.main, &other.realtime}, quiet_mount());
  CHECK(code_of(foreign) == ENXIO);
  CHECK(message(foreign).find(uuid) != std::string::npos);
  CHECK(message(foreign).find("08000000-0000-0000-0000-000000000000") != std::string::npos);

  CrashDevice empty(kRealtimeBytes, {.kind = DeviceKind::kMemory});
  CHECK(code_of(Volume::mount({pair.main, &empty}, quiet_mount())) == ENXIO);
  const auto swapped = Volume::mount({pair.realtime, &pair.main}, quiet_mount());
  CHECK(code_of(swapped) == EUCLEAN);
  CHECK(message(swapped).find("main device is the one to name") != std::string::npos);

  const auto single = crash_device(DeviceKind::kMemory, kMainBytes);
  must(Volume::format(*single, fixed_format(4096)));
  CHECK(code_of(Volume::mount({*single, &pair.realtime}, quiet_mount())) == EINVAL);

  // One copy of the label is enough.
  must(pair.realtime.zero(0, 4096));
  World world(pair.members());
}

TEST_CASE("realtime: format refuses what cannot be", "[realtime]") {
  CrashDevice main(kMainBytes, {});
  CrashDevice realtime(1u << 20, {});
  FormatOptions format = fixed_format(4096);
  for (const std::uint32_t extent : {0u, 2048u, 5000u, 12288u, 2u << 30, 2u << 20}) {
    format.realtime_extent_bytes = extent;
    CHECK(code_of(Volume::format({main, &realtime}, format)) == EINVAL);
  }
  format = fixed_format(65536);
  format.realtime_extent_bytes = 4096;
  CHECK(code_of(Volume::format({main, &realtime}, format)) == EINVAL);
  format.realtime_extent_bytes = 65536;
  CHECK(code_of(Volume::format({main, &realtime}, format)) == 0);
}

// The seed thread: sector zeroing must be told the device. Every edge that is zeroed in place, on a file of either
// device.
TEST_CASE("realtime: zeroing goes to the device of the file, at every edge", "[realtime][zeroing]") {
  const Setting setting = GENERATE(from_range(kSettings));
  const bool on_realtime = GENERATE(false, true);
  CAPTURE(setting.block_size_bytes, setting.extent_bytes, static_cast<int>(setting.main),
          static_cast<int>(setting.realtime), on_realtime);
  Pair pair(setting);
  World world(pair.members(), options_of(setting));
  world.create("other");
  if (!on_realtime) world.set_flags("other", kInodeRealtime);
  world.create("f");
  if (on_realtime) world.set_flags("f", kInodeRealtime);
  // Both files have data at the same offsets of their devices, so zeros on the wrong device would show.
  const std::string other = pattern('o', 1'000'000);
  std::string model = pattern('f', 1'000'000);
  world.write("other", 0, other);
  world.write("f", 0, model);
  must(world->sync());
  CrashDevice& wrong = on_realtime ? pair.main : pair.realtime;
  const std::vector<std::byte> before = [&] {
    std::vector<std::byte> bytes(wrong.size_bytes());
    must(wrong.load(0, bytes));
    return bytes;
  }();

  auto zero = [&model](std::uint64_t from, std::uint64_t length) {
    model.replace(from, length, std::string(length, '\0'));
  };
  world.allocate("f", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1001, 499'003);  // edges in the middle of a block
  zero(1001, 499'003);
  world.allocate("f", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 600'001, 77'777);
  zero(600'001, 77'777);
  world.truncate("f", 900'001);
  world.truncate("f", 950'003);  // what was cut off in the last block reads as zeros
  model.resize(900'001);
  model.resize(950'003);
  world.write("f", 990'001, "tail");
  model.resize(990'001);
  model += "tail";
  world.fsync("f");
  must(world->run_reclaim());
  CHECK(world.read("f") == model);
  CHECK(world.read("other") == other);
  if (on_realtime) {
    // The main device holds metadata and so changes; its data does not.
    CHECK(world->counters().devices[0].writeback_bytes <= 1'100'000);
  } else {
    std::vector<std::byte> after(wrong.size_bytes());
    must(wrong.load(0, after));
    CHECK(before == after);
  }
  world.unmount();
  pair.check();
}

// The seed thread: the dirty check comes before any look at block sizes; what is not dirty never fails.
TEST_CASE("writeback: an inode with nothing dirty succeeds, whatever the device would say", "[realtime][writeback]") {
  const std::uint32_t block_size = GENERATE(1024u, 4096u, 65536u);
  Setting setting{.main = DeviceKind::kCached,
                  .realtime = DeviceKind::kCached,
                  .block_size_bytes = block_size,
                  .extent_bytes = std::max(block_size, 4096u)};
  Pair pair(setting);
  World world(pair.members());
  world.mkdir("directory");
  world.create("empty");
  world.symlink("link", "target");
  world.make("fifo", S_IFIFO | 0600);
  world.create("clean");
  world.set_flags("clean", kInodeRealtime);
  world.write("clean", 0, pattern('c', 100));
  must(world->sync());
  for (std::uint64_t i = 0; i < 20; ++i) {
    pair.main.fail_flush_call(pair.main.flush_calls() + i, EIO);
    pair.main.fail_drain_call(pair.main.drain_calls() + i, EIO);
    pair.realtime.fail_flush_call(pair.realtime.flush_calls() + i, EIO);
    pair.realtime.fail_drain_call(pair.realtime.drain_calls() + i, EIO);
  }
  for (const char* path : {"", "directory", "empty", "link", "fifo", "clean"}) {
    CAPTURE(path);
    CHECK(code_of(world->fsync_inode(*world.find(path), FsyncMode::kFull)) == 0);
    CHECK(code_of(world->fsync_inode(*world.find(path), FsyncMode::kDataOnly)) == 0);
  }
  CHECK(code_of(world->sync()) == 0);
  pair.main.clear_faults();
  pair.realtime.clear_faults();
}

// The seed thread: after the data, the metadata; only an error returns early.
TEST_CASE("writeback: fsync goes on to the log when the data is written", "[realtime][writeback]") {
  const bool on_realtime = GENERATE(false, true);
  Pair pair({.main = DeviceKind::kCached, .realtime = DeviceKind::kCached});
  const std::string bytes = pattern('d', 123'457);
  {
    World world(pair.members());
    world.create("f");
    if (on_realtime) world.set_flags("f", kInodeRealtime);
    must(world->sync());
    world.write("f", 0, bytes);
    SetAttributes chmod;
    chmod.mode = 0600;
    world.change("f", chmod);
    world.fsync("f");
    world.die();
  }
  // The power fails, and nothing was written that was not asked for.
  pmem::CrashExplorer main_states(pair.main), realtime_states(pair.realtime);
  CrashDevice main(main_states.image_at(pair.main.event_count(), pmem::nothing_evicted()),
                   {.kind = DeviceKind::kCached});
  CrashDevice realtime(realtime_states.image_at(pair.realtime.event_count(), pmem::nothing_evicted()),
                       {.kind = DeviceKind::kCached});
  World after({main, &realtime});
  CHECK(after.read("f") == bytes);
  CHECK((after.stat("f").mode & 07777) == 0600);
}
