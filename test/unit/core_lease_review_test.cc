// What could go wrong with leases at their edges: sessions that are cut off, programs that outlive a mount, failures in
// the middle, and requests that ask for too much.
#include <fcntl.h>
#include <time.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstddef>
#include <fstream>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

#include "fs/client/protocol.h"
#include "fs/core/leases.h"
#include "fs/core/volume.h"
#include "pmem/client_lock.h"
#include "test/unit/core_world.h"
#include "test/unit/pmem_temp_dir.h"

using namespace plumb;
using namespace plumb::test;

namespace {

constexpr std::uint64_t kSize = 64u << 20;
constexpr std::uint32_t kBlock = 4096;
constexpr std::uint64_t kChunk = 2u << 20;

std::unique_ptr<pmem::CrashDevice> formatted(pmem::DeviceKind kind, std::uint64_t size = kSize) {
  auto device = crash_device(kind, size);
  must(Volume::format({*device}, fixed_format(kBlock)));
  return device;
}

LeaseRequest request(std::uint64_t offset, std::uint64_t length, bool write = false, bool allocate = false,
                     bool map = false) {
  return {.offset_bytes = offset, .length_bytes = length, .write = write, .allocate = allocate, .map = map, .uid = 7};
}

// What a client does with a map of the device.
void store_directly(pmem::CrashDevice& device, const LeaseAnswer& answer, std::uint64_t offset, std::string_view text) {
  for (const LeaseAnswer::Piece& piece : answer.extents) {
    if (offset < piece.file_offset || offset + text.size() > piece.file_offset + piece.length) continue;
    must(device.store(piece.device_offset + (offset - piece.file_offset), std::as_bytes(std::span(text))));
    return;
  }
  throw std::runtime_error("not leased");
}

std::string device_bytes(pmem::CrashDevice& device, std::uint64_t at, std::size_t length) {
  const auto* bytes = reinterpret_cast<const char*>(device.view(at, length));
  return {bytes, length};
}

void say_stored(World& world, pmem::CrashDevice& device, const LeaseAnswer& answer, std::uint64_t nanoseconds) {
  const std::uint64_t slot = world->superblock().media().lease_start + answer.slot * protocol::kLeaseSlotBytes;
  must(device.store(slot + offsetof(protocol::LeaseSlot, write_time_ns), std::as_bytes(std::span(&nanoseconds, 1))));
}

std::uint64_t coarse_now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

TEST_CASE("a session that is cut off leaves leased blocks of a deleted file alone", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory);
  LeaseAnswer answer;
  {
    MountOptions options = quiet_mount();
    World world(Members{*device}, options);
    world.create("file");
    auto handle = world.open("file");
    world.write(*handle, 0, std::string(64 * kBlock, 'a'));
    answer = must(world->lease(*handle, request(0, 64 * kBlock, true, false, true), 640));
    world.unlink("file");
    // No release: the kernel side is gone. The daemon drops what it has, and its reclaim goes on for a moment.
    handle.reset();
    must(world->run_reclaim());
    store_directly(*device, answer, 0, "of the client");
    must(world->run_reclaim());
    CHECK(device_bytes(*device, answer.extents.front().device_offset, 13) == "of the client");
    world.unmount();
  }
  // The client lives, and stores.
  bool stale = true;
  MountOptions options = quiet_mount();
  options.has_stale_clients = [&](std::uint64_t) { return stale; };
  World world(Members{*device}, options);
  must(world->run_reclaim());
  store_directly(*device, answer, 0, "of the client");
  world.create("other");
  world.allocate("other", 0, 0, 32u << 20);
  CHECK(device_bytes(*device, answer.extents.front().device_offset, 13) == "of the client");
  CHECK(world->counters().stale_clients);
  stale = false;
  must(world->run_reclaim());
  CHECK_FALSE(world->counters().stale_clients);
  // What was given back reads as zeros for its next owner.
  CHECK(device_bytes(*device, answer.extents.front().device_offset, 13) == std::string(13, '\0'));
}

TEST_CASE("what was leased when a session was cut off is written back by the unmount", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kCached);
  World world(Members{*device});
  world.create("file");
  auto handle = world.open("file");
  world.write(*handle, 0, std::string(4 * kBlock, 'a'));
  must(world->sync());
  const LeaseAnswer answer = must(world->lease(*handle, request(0, 4 * kBlock, true), 640));
  store_directly(*device, answer, 100, "stored");
  handle.reset();
  const std::size_t recorded = device->event_count();
  world.unmount();
  const std::uint64_t at = answer.extents.front().device_offset + 100;
  bool flushed = false;
  for (std::size_t i = recorded; i < device->event_count(); ++i) {
    const pmem::CrashEvent& event = device->event(i);
    flushed = flushed || (event.type == pmem::CrashEvent::Type::kFlush && event.offset_bytes <= at &&
                          event.offset_bytes + event.length_bytes > at);
  }
  CHECK(flushed);
}

TEST_CASE("a lease does not fill the device for a range that does not fit", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory);
  World world(Members{*device});
  world.create("sparse");
  world.truncate("sparse", kMaxFileSize);
  auto handle = world.open("sparse");
  const std::uint64_t before = world.blocks_free();
  for (const std::uint64_t length : {std::uint64_t{1} << 40, ~std::uint64_t{0}})
    CHECK(code_of(world->lease(*handle, request(0, length, true, true), 640)) == ENOSPC);
  CHECK(world.blocks_free() == before);
  // What is there already needs no room.
  world.create("full");
  auto rest = world.open("full");
  while (const auto written = world.try_write(*rest, world.stat("full").size_bytes, std::string(1u << 20, 'f'))) {
    if (*written < (1u << 20)) break;
  }
  CHECK(code_of(world->lease(*rest, request(0, 1u << 20, true, true), 640)) == 0);
  world->end_lease(*rest);
}

TEST_CASE("aligning a file passes over holes of any size", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory, 128u << 20);
  World world(Members{*device});
  world.create("sparse");
  world.truncate("sparse", kMaxFileSize);
  auto handle = world.open("sparse");
  CHECK(must(world->align(*handle)) == 0);
  const std::uint64_t far = (std::uint64_t{1} << 60) + kChunk / 2;
  world.write(*handle, far, "far away");
  CHECK(must(world->align(*handle)) == kChunk);
  CHECK(world.read("sparse", far, 8) == "far away");
  CHECK(world.read("sparse", far - 8, 8) == std::string(8, '\0'));
}

TEST_CASE("aligning fills holes only of those who do not mind", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory, 128u << 20);
  World world(Members{*device});
  world.create("sparse");
  auto handle = world.open("sparse");
  world.write(*handle, 10 * kBlock, "near");
  world.write(*handle, kChunk - 3, "end");
  const std::uint64_t before = world.stat("sparse").sectors;
  CHECK(must(world->align(*handle, {.keep_holes = true})) == 0);
  CHECK(world.stat("sparse").sectors == before);
  CHECK(must(world->align(*handle)) == kChunk);
  CHECK(world.stat("sparse").sectors == kChunk / 512);
  CHECK(world.read("sparse", 10 * kBlock, 4) == "near");
  CHECK(world.read("sparse", kChunk - 3, 3) == "end");
}

TEST_CASE("a file is not moved while programs of an earlier mount may map it", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory, 128u << 20);
  bool stale = true;
  MountOptions options = quiet_mount();
  options.has_stale_clients = [&](std::uint64_t) { return stale; };
  World world(Members{*device}, options);
  world.create("file");
  auto handle = world.open("file");
  world.write(*handle, kBlock, std::string(kChunk, 'a'));
  CHECK(code_of(world->align(*handle)) == EBUSY);
  stale = false;
  CHECK(must(world->align(*handle)) == kChunk);
}

TEST_CASE("the end of a lease gives back what was cut off of a file without a name that gets one", "[lease]") {
  const bool name_first = GENERATE(true, false);
  const auto device = formatted(pmem::DeviceKind::kMemory);
  {
    World world(Members{*device});
    CreateRequest wanted;
    wanted.mode = S_IFREG | 0644;
    InodeRef root = world->root();
    InodeRef inode = must(world->create_unnamed(*root, wanted)).inode;
    auto handle = must(world->open(*inode, O_RDWR));
    world.write(*handle, 0, std::string(16 * kBlock, 'a'));
    (void)must(world->lease(*handle, request(0, 16 * kBlock), 640));
    SetAttributes cut;
    cut.size_bytes = 0;
    must(world->set_attributes(*inode, cut, Caller{}));
    if (!name_first) world->end_lease(*handle);
    must(world->link(*inode, *root, "named"));
    if (name_first) {
      SECTION("the daemon dies") {
        handle.reset();
        inode = root = InodeRef();
        world.die();
        World again(Members{*device});
        CHECK(again.stat("named").sectors == 0);
        return;
      }
      SECTION("the lease ends") {
        world->end_lease(*handle);
      }
    }
    CHECK(world.stat("named").sectors == 0);
  }
}

TEST_CASE("a new name tells the kernel not to keep the times of a file that programs store to", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory);
  World world(Members{*device});
  world.create("file");
  auto handle = world.open("file");
  world.write(*handle, 0, "text");
  (void)must(world->lease(*handle, request(0, 4, true), 640));
  CHECK(must(world->link(*handle->inode, *world->root(), "other")).changes_directly);
  CHECK(world.stat("file").changes_directly);
  world->end_lease(*handle);
  CHECK_FALSE(world.stat("file").changes_directly);
}

TEST_CASE("direct stores set the times as a write does", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory);
  World world(Members{*device});
  world.create("file");
  auto handle = world.open("file");
  world.write(*handle, 0, "text");
  const LeaseAnswer answer = must(world->lease(*handle, request(0, 4, true), 640));

  SECTION("an mtime in the future does not stay") {
    SetAttributes set;
    set.mtime = Timestamp{4'000'000'000, 0};
    world.change("file", set);
    CHECK(world.stat("file").mtime.seconds == 4'000'000'000);
    const std::uint64_t stored_at = coarse_now();
    say_stored(world, *device, answer, stored_at);
    CHECK(world.stat("file").mtime.seconds == static_cast<std::int64_t>(stored_at / 1'000'000'000));
  }
  SECTION("utimes after the store counts") {
    say_stored(world, *device, answer, coarse_now());
    SetAttributes set;
    set.mtime = Timestamp{5, 6};
    world.change("file", set);
    CHECK(world.stat("file").mtime == Timestamp{5, 6});
  }
  SECTION("a store in the same tick of the clock as one before utimes counts") {
    const std::uint64_t tick = coarse_now();
    say_stored(world, *device, answer, tick);
    SetAttributes set;
    set.mtime = Timestamp{5, 6};
    world.change("file", set);
    say_stored(world, *device, answer, tick);
    CHECK(world.stat("file").mtime.seconds == static_cast<std::int64_t>(tick / 1'000'000'000));
  }
  SECTION("a client that says the future is not believed") {
    say_stored(world, *device, answer, ~std::uint64_t{0});
    const Attributes after = world.stat("file");
    CHECK(after.mtime.seconds <= static_cast<std::int64_t>(coarse_now() / 1'000'000'000));
  }
  SECTION("a store that is heard of late does not turn back what came after it") {
    world.write(*handle, 0, "next");
    const Attributes before = world.stat("file");
    say_stored(world, *device, answer, 1'000'000'000);
    CHECK(world.stat("file").mtime == before.mtime);
    CHECK(world.stat("file").ctime == before.ctime);
  }
  world->end_lease(*handle);
}

TEST_CASE("ranges that are punched while leased stay bounded, and what was allocated since is left out", "[lease]") {
  LeasedRanges punched(LeasedRanges::Overflow::kForget);
  punched.add(0, 1u << 30);
  for (std::uint64_t i = 0; i < 4 * LeasedRanges::kMost; ++i) punched.remove(i * 8192, i * 8192 + 4096);
  CHECK(punched.all().size() <= LeasedRanges::kMost);
  std::uint64_t taken = 0;
  for (std::uint64_t i = 0; i < 4 * LeasedRanges::kMost; ++i) {
    for (const auto& [begin, end] : punched.all()) taken += end > i * 8192 && begin < i * 8192 + 4096 ? 1 : 0;
  }
  CHECK(taken == 0);

  LeasedRanges stored(LeasedRanges::Overflow::kJoin);
  for (std::uint64_t i = 0; i < 4 * LeasedRanges::kMost; ++i) stored.add(i * 100, i * 100 + 10);
  CHECK(stored.all().size() == LeasedRanges::kMost);
  std::uint64_t covered = 0;
  for (std::uint64_t i = 0; i < 4 * LeasedRanges::kMost; ++i) {
    const auto after = stored.all().upper_bound(i * 100);
    if (after != stored.all().begin() && std::prev(after)->second >= i * 100 + 10) ++covered;
  }
  CHECK(covered == 4 * LeasedRanges::kMost);
}

TEST_CASE("a new mount takes the slots from clients of the last one", "[lease]") {
  const auto device = formatted(pmem::DeviceKind::kMemory);
  std::uint64_t slot = 0;
  {
    World world(Members{*device});
    world.create("file");
    auto handle = world.open("file");
    world.write(*handle, 0, "text");
    const LeaseAnswer answer = must(world->lease(*handle, request(0, 4, true), 640));
    slot = world->superblock().media().lease_start + answer.slot * protocol::kLeaseSlotBytes;
    handle.reset();
    world.die();
  }
  const std::size_t recorded = device->event_count();
  World world(Members{*device});
  CHECK(device_bytes(*device, slot, 64) == std::string(64, '\0'));
  // Whoever sees another word cleared sees the epoch cleared.
  std::size_t first_of_slot = 0;
  for (std::size_t i = recorded; i < device->event_count() && first_of_slot == 0; ++i) {
    const auto& event = device->event(i);
    if (event.is_store() && event.offset_bytes < slot + 64 && event.offset_bytes + event.length_bytes > slot) {
      first_of_slot = i;
      CHECK(event.offset_bytes == slot + offsetof(protocol::LeaseSlot, epoch));
      CHECK(event.length_bytes == 8);
    }
  }
  CHECK(first_of_slot != 0);
}

TEST_CASE("locks of clients tell who outlived a mount", "[lease]") {
  const testing::TempDir directory;
  const std::string path = (directory.path() / "device").string();
  std::ofstream(path).put('x');
  const auto locks = must(pmem::ClientLocks::open(path));
  CHECK_FALSE(locks->any());
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  struct flock lock {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(pmem::client_lock_offset(77));
  lock.l_len = 1;
  REQUIRE(::fcntl(fd, F_OFD_SETLK, &lock) == 0);
  CHECK(locks->any());
  CHECK_FALSE(locks->others_than(77));
  CHECK(locks->others_than(76));
  CHECK(locks->others_than(78));
  ::close(fd);
  CHECK_FALSE(locks->any());
}
