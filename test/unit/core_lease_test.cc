// Leases: blocks stay where they are, sizes are told, fsync covers stores, times are taken, limits hold.
#include <fcntl.h>
#include <linux/falloc.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "fs/client/protocol.h"
#include "fs/core/check.h"
#include "fs/core/volume_impl.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::CrashDevice;
using pmem::CrashEvent;
using pmem::DeviceKind;

constexpr std::size_t kMost = protocol::kLeaseExtentsMax;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

LeaseRequest reading(std::uint64_t offset, std::uint64_t length) {
  return {.offset_bytes = offset, .length_bytes = length};
}
LeaseRequest storing(std::uint64_t offset, std::uint64_t length, std::uint32_t uid = 0) {
  return {.offset_bytes = offset, .length_bytes = length, .write = true, .uid = uid};
}
LeaseRequest mapping(std::uint64_t offset, std::uint64_t length) {
  return {.offset_bytes = offset, .length_bytes = length, .write = true, .allocate = true, .map = true};
}

struct Fixture {
  explicit Fixture(DeviceKind kind = DeviceKind::kMemory, std::uint32_t block_size = 4096)
      : device(16u << 20, {.kind = kind, .name = "main"}) {
    must(Volume::format(device, fixed_format(block_size)));
    World w(device);
    w.create("f");
    w.write("f", 0, pattern('f', 20'000));
    w.unmount();
  }
  std::uint64_t word(World& w, const LeaseAnswer& lease, std::size_t member) {
    std::uint64_t value = 0;
    const std::uint64_t at = w->superblock().media().lease_start + lease.slot * protocol::kLeaseSlotBytes + member;
    must(device.load(at, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  void set_word(World& w, const LeaseAnswer& lease, std::size_t member, std::uint64_t value) {
    const std::uint64_t at = w->superblock().media().lease_start + lease.slot * protocol::kLeaseSlotBytes + member;
    must(device.store(at, std::as_bytes(std::span(&value, 1))));
  }
  std::uint64_t size_in_slot(World& w, const LeaseAnswer& lease) {
    return word(w, lease, offsetof(protocol::LeaseSlot, size_bytes));
  }
  // What a client's map shows at an offset of the file, and a client's store.
  std::string through(const LeaseAnswer& lease, std::uint64_t offset, std::size_t length) {
    std::string bytes(length, '?');
    for (const LeaseAnswer::Piece& piece : lease.extents)
      if (offset >= piece.file_offset && offset + length <= piece.file_offset + piece.length)
        must(device.load(piece.device_offset + (offset - piece.file_offset), std::as_writable_bytes(std::span(bytes))));
    return bytes;
  }
  void store(const LeaseAnswer& lease, std::uint64_t offset, std::string_view bytes) {
    for (const LeaseAnswer::Piece& piece : lease.extents)
      if (offset >= piece.file_offset && offset + bytes.size() <= piece.file_offset + piece.length)
        must(device.store(piece.device_offset + (offset - piece.file_offset), std::as_bytes(std::span(bytes))));
  }
  CrashDevice device;
};

bool is_sound(CrashDevice& device) {
  CheckOptions options;
  options.zeros = true;
  return must(check_volume(device, options)).problems_total == 0;
}

}  // namespace

TEST_CASE("lease: tells the extents of a range, and nothing behind the last block", "[core][lease]") {
  const std::uint32_t block = GENERATE(1024u, 4096u, 65536u);
  Fixture f(DeviceKind::kMemory, block);
  World w(f.device);
  const auto handle = w.open("f", O_RDONLY);
  const std::uint64_t rounded = (20'000 + block - 1) / block * block;
  const LeaseAnswer lease = must(w->lease(*handle, reading(5000, 1u << 30), kMost));
  CHECK(lease.offset_bytes == 5000 / block * block);
  CHECK(lease.offset_bytes + lease.length_bytes == rounded);
  CHECK(lease.size_bytes == 20'000);
  std::uint64_t at = lease.offset_bytes;
  for (const LeaseAnswer::Piece& piece : lease.extents) {
    CHECK(piece.file_offset == at);
    CHECK(piece.device_offset % block == 0);
    at += piece.length;
  }
  CHECK(at == rounded);
  const std::uint64_t first = lease.offset_bytes;
  CHECK(f.through(lease, first, 1000) ==
        pattern('f', 20'000).substr(first, std::min<std::uint64_t>(1000, 20'000 - first)));
  CHECK(f.size_in_slot(w, lease) == 20'000);
  CHECK(f.word(w, lease, offsetof(protocol::LeaseSlot, epoch)) == w->epoch());
  const LeaseAnswer beyond = must(w->lease(*handle, reading(rounded, 4096), kMost));
  CHECK(beyond.length_bytes == 0);
  CHECK(beyond.extents.empty());
  w->end_lease(*handle);
  CHECK(f.word(w, lease, offsetof(protocol::LeaseSlot, epoch)) == 0);
  CHECK(w->counters().leased_inodes == 0);
}

TEST_CASE("lease: what may not be asked", "[core][lease]") {
  Fixture f;
  World w(f.device);
  const auto reader = w.open("f", O_RDONLY);
  const auto writer = w.open("f");
  CHECK(code_of(w->lease(*reader, storing(0, 1), kMost)) == EBADF);
  CHECK(code_of(w->lease(*writer, reading(0, 0), kMost)) == EINVAL);
  CHECK(code_of(w->lease(*writer, reading(kMaxFileSize, 1), kMost)) == EINVAL);
  CHECK(code_of(w->lease(*writer, {.offset_bytes = 0, .length_bytes = 1, .map = true}, kMost)) == EINVAL);
  CHECK(w->lease(*writer, reading(kMaxFileSize - 1, ~std::uint64_t{0}), kMost).has_value());
  const struct {
    const char* what;
    std::uint32_t mode, flags;
  } refused[] = {{"set-uid", S_ISUID | 0755, 0}, {"set-gid", S_ISGID | 0755, 0}};
  for (const auto& c : refused) {
    INFO(c.what);
    SetAttributes set;
    set.mode = c.mode;
    w.change("f", set);
    CHECK(code_of(w->lease(*writer, storing(0, 1), kMost)) == EPERM);
    CHECK(w->lease(*writer, reading(0, 1), kMost).has_value());
  }
  SetAttributes plain;
  plain.mode = 0644;
  w.change("f", plain);
  w.set_xattr("f", "security.capability", "c");
  CHECK(code_of(w->lease(*writer, storing(0, 1), kMost)) == EPERM);
  w.remove_xattr("f", "security.capability");
  w.set_xattr("f", "user.x", "x");
  CHECK(w->lease(*writer, storing(0, 1), kMost).has_value());
}

TEST_CASE("lease: set-id bits, flags and capabilities that come later are told", "[core][lease]") {
  Fixture f;
  World w(f.device);
  const auto handle = w.open("f");
  const LeaseAnswer lease = must(w->lease(*handle, storing(0, 20'000), kMost));
  const auto by_kernel = [&] {
    return (f.word(w, lease, offsetof(protocol::LeaseSlot, state)) & protocol::kSlotWritesByKernel) != 0;
  };
  CHECK_FALSE(by_kernel());
  SetAttributes set;
  set.mode = S_ISUID | 0755;
  w.change("f", set);
  CHECK(by_kernel());
  set.mode = 0755;
  w.change("f", set);
  CHECK_FALSE(by_kernel());
  for (const std::uint32_t flag : {kInodeAppend, kInodeImmutable, kInodeSync}) {
    w.set_flags("f", flag);
    CHECK(by_kernel());
  }
  w.set_flags("f", 0);
  w.set_xattr("f", "security.capability", "c");
  CHECK(by_kernel());
}

TEST_CASE("lease: truncate zeroes in place, keeps the blocks, and gives them back at the end", "[core][lease]") {
  Fixture f(GENERATE(DeviceKind::kMemory, DeviceKind::kCached));
  World w(f.device);
  const std::uint64_t free_before = w.blocks_free();
  auto handle = w.open("f");
  const LeaseAnswer lease = must(w->lease(*handle, storing(0, 20'000), kMost));
  w.truncate("f", 100);
  CHECK(f.size_in_slot(w, lease) == 100);
  CHECK(f.through(lease, 4096, 4096) == std::string(4096, '\0'));
  CHECK(f.through(lease, 0, 100) == pattern('f', 100));
  must(w->run_reclaim());
  CHECK(w.blocks_free() == free_before);
  CHECK(w.stat("f").sectors == 8);
  // Stored behind the end, and then the file grows over it.
  f.store(lease, 5000, "old");
  w.truncate("f", 9000);
  CHECK(f.size_in_slot(w, lease) == 9000);
  CHECK(w.read("f", 100) == std::string(8900, '\0'));
  // The map is still right.
  f.store(lease, 5000, "new");
  CHECK(w.read("f", 5000, 3) == "new");
  w->end_lease(*handle);
  handle.reset();
  must(w->run_reclaim());
  CHECK(w.blocks_free() == free_before + 2);  // 3 of 5 blocks are left
  CHECK(w.read("f", 5000, 3) == "new");
  w.unmount();
  CHECK(is_sound(f.device));
}

TEST_CASE("lease: a cut file that dies with the daemon is trimmed by the next mount", "[core][lease]") {
  Fixture f;
  std::uint64_t free_before = 0;
  {
    World w(f.device);
    free_before = w.blocks_free();
    auto handle = w.open("f");
    (void)must(w->lease(*handle, storing(0, 20'000), kMost));
    w.truncate("f", 0);
    handle.reset();
    w.die();
  }
  World w(f.device);
  must(w->run_reclaim());
  CHECK(w.blocks_free() == free_before + 5);
  w.unmount();
  CHECK(is_sound(f.device));
}

TEST_CASE("lease: punch zeroes in place; at the end what is still zero becomes holes", "[core][lease]") {
  Fixture f;
  World w(f.device);
  const std::uint64_t free_before = w.blocks_free();
  auto handle = w.open("f");
  const LeaseAnswer lease = must(w->lease(*handle, storing(0, 20'000), kMost));
  w.allocate("f", kPunch, 0, 12'288);
  CHECK(f.through(lease, 0, 4096) == std::string(4096, '\0'));
  f.store(lease, 4096, "kept");
  must(w->run_reclaim());
  CHECK(w.blocks_free() == free_before);
  w->end_lease(*handle);
  must(w->run_reclaim());
  CHECK(w.blocks_free() == free_before + 2);
  CHECK(w.read("f", 4096, 4) == "kept");
  CHECK(must(w->seek(*handle->inode, 0, SEEK_DATA)) == 4096);
  handle.reset();
  w.unmount();
  CHECK(is_sound(f.device));
}

TEST_CASE("lease: what was preallocated again after a punch stays", "[core][lease]") {
  Fixture f;
  World w(f.device);
  const auto handle = w.open("f");
  (void)must(w->lease(*handle, storing(0, 20'000), kMost));
  w.allocate("f", kPunch, 0, 12'288);
  w.allocate("f", 0, 0, 8192);
  w->end_lease(*handle);
  CHECK(must(w->seek(*handle->inode, 0, SEEK_HOLE)) == 8192);
}

TEST_CASE("lease: an unlinked file keeps its blocks until it is closed", "[core][lease]") {
  Fixture f;
  World w(f.device);
  auto handle = w.open("f");
  const LeaseAnswer lease = must(w->lease(*handle, storing(0, 20'000), kMost));
  w.unlink("f");
  must(w->run_reclaim());
  f.store(lease, 0, "mine");
  w.create("other");
  w.write("other", 0, std::string(200'000, 'o'));
  CHECK(f.through(lease, 0, 4) == "mine");
  w->end_lease(*handle);
  handle.reset();
  must(w->run_reclaim());
  w.unmount();
  CHECK(is_sound(f.device));
}

TEST_CASE("lease: holes are filled for maps, and only there", "[core][lease]") {
  Fixture f;
  World w(f.device);
  w.truncate("f", 100'000);
  const auto handle = w.open("f");
  const LeaseAnswer holes = must(w->lease(*handle, storing(0, 100'000), kMost));
  std::uint64_t covered = 0;
  for (const auto& piece : holes.extents) covered += piece.length;
  CHECK(covered == 20'480);
  const LeaseAnswer filled = must(w->lease(*handle, mapping(0, 1u << 20), kMost));
  covered = 0;
  for (const auto& piece : filled.extents) covered += piece.length;
  CHECK(covered == 102'400);
  CHECK(filled.length_bytes == 102'400);
  CHECK(f.through(filled, 81'920, 4096) == std::string(4096, '\0'));
  CHECK(w.stat("f").size_bytes == 100'000);
}

TEST_CASE("lease: a file of more extents than fit is told in parts", "[core][lease]") {
  Fixture f;
  World w(f.device);
  w.create("many");
  for (std::uint64_t i = 0; i < 12; ++i) w.write("many", i * 8192, "m");
  const auto handle = w.open("many");
  std::uint64_t at = 0;
  std::size_t extents = 0, answers = 0;
  const std::uint64_t end = 12 * 8192 - 4096;
  while (at < end) {
    const LeaseAnswer part = must(w->lease(*handle, reading(at, end - at), 5));
    REQUIRE(part.length_bytes != 0);
    REQUIRE(part.extents.size() <= 5);
    at = part.offset_bytes + part.length_bytes;
    extents += part.extents.size();
    ++answers;
  }
  CHECK(extents == 12);
  CHECK(answers == 3);
}

TEST_CASE("lease: fsync flushes what is stored through maps, by anyone, and after the end", "[core][lease]") {
  const DeviceKind kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  Fixture f(kind);
  World w(f.device);
  const auto handle = w.open("f");
  const auto flushed_by = [&](const auto& what) {
    const std::uint64_t before = f.device.counters().flushed_bytes;
    what();
    return f.device.counters().flushed_bytes - before;
  };
  const auto fsync = [&] { must(w->fsync_inode(*handle->inode, FsyncMode::kDataOnly)); };
  (void)must(w->lease(*handle, storing(0, 20'000), kMost));
  must(w->sync());
  // Direct writes are durable when they return, but for the page cache.
  CHECK(flushed_by(fsync) == (kind == DeviceKind::kMemory ? 0 : 20'480));
  (void)must(w->lease(*handle, mapping(4096, 8192), kMost));
  CHECK(flushed_by(fsync) == (kind == DeviceKind::kMemory ? 8192 : 20'480));
  CHECK(flushed_by(fsync) == (kind == DeviceKind::kMemory ? 8192 : 20'480));
  CHECK(flushed_by([&] { must(w->sync()); }) >= (kind == DeviceKind::kMemory ? 8192 : 20'480));
  w->end_lease(*handle);
  CHECK(flushed_by(fsync) == (kind == DeviceKind::kMemory ? 8192 : 20'480));
  CHECK(flushed_by(fsync) == 0);
}

TEST_CASE("lease: stores through maps are flushed after the daemon's death, though the next one dies too",
          "[core][lease]") {
  Fixture f;
  std::uint64_t stored_at = 0;
  {
    World w(f.device);
    auto handle = w.open("f");
    const LeaseAnswer lease = must(w->lease(*handle, mapping(0, 20'000), kMost));
    stored_at = lease.extents.at(0).device_offset + 4096;
    f.store(lease, 4096, "stored through a map");
    handle.reset();
    w.die();
  }
  // The place among the flushes since event `from` of the one of what was stored; -1: there is none.
  const auto find_flush = [&](const CrashDevice& device, std::size_t from) {
    int flushes = -1;
    for (std::size_t i = from; i < device.event_count(); ++i) {
      const CrashEvent& event = device.event(i);
      if (event.type != CrashEvent::Type::kFlush) continue;
      ++flushes;
      if (event.offset_bytes <= stored_at && stored_at < event.offset_bytes + event.length_bytes) return flushes;
    }
    return -1;
  };
  // The daemon that comes next ends with it.
  CrashDevice twin(f.device.current_image(), {.kind = DeviceKind::kMemory, .name = "twin"});
  World(twin).unmount();
  const int place = find_flush(twin, 0);
  REQUIRE(place >= 0);
  f.device.fail_flush_call(f.device.flush_calls() + static_cast<std::uint64_t>(place), EIO);
  const std::size_t first = f.device.event_count();
  CHECK(code_of(Volume::mount(f.device, quiet_mount())) == EIO);
  CHECK(find_flush(f.device, first) == place);
  f.device.clear_faults();

  const std::size_t second = f.device.event_count();
  World(f.device).unmount();
  CHECK(find_flush(f.device, second) >= 0);
  // Not after a clean end.
  const std::size_t third = f.device.event_count();
  World(f.device).unmount();
  CHECK(find_flush(f.device, third) == -1);
}

TEST_CASE("lease: the time of the last direct store becomes mtime and ctime", "[core][lease]") {
  Fixture f;
  World w(f.device);
  const auto handle = w.open("f");
  const LeaseAnswer lease = must(w->lease(*handle, storing(0, 20'000), kMost));
  constexpr std::size_t kWritten = offsetof(protocol::LeaseSlot, write_time_ns);
  SetAttributes past;
  past.mtime = Timestamp{1'000'000'000, 0};
  past.ctime = Timestamp{1'000'000'000, 0};
  w.change("f", past);
  f.set_word(w, lease, kWritten, 1'100'000'000'000'000'007);
  CHECK(w.stat("f").mtime == Timestamp{1'100'000'000, 7});
  CHECK(w.stat("f").ctime == Timestamp{1'100'000'000, 7});
  CHECK(f.word(w, lease, offsetof(protocol::LeaseSlot, seen_time_ns)) == 1'100'000'000'000'000'007);
  // Times that are set come after the stores before them.
  f.set_word(w, lease, kWritten, 1'200'000'000'000'000'000);
  w.change("f", past);
  CHECK(w.stat("f").mtime == Timestamp{1'000'000'000, 0});
  // Nobody stores in the future.
  f.set_word(w, lease, kWritten, ~std::uint64_t{0});
  CHECK(w.stat("f").mtime <= VolumeImpl::now());
  CHECK(w.stat("f").mtime > Timestamp{1'200'000'000, 0});
  // The end of the lease takes the last one.
  w.change("f", past);
  f.set_word(w, lease, kWritten, 1'300'000'000'000'000'000);
  w->end_lease(*handle);
  CHECK(w.stat("f").mtime == Timestamp{1'300'000'000, 0});
}

TEST_CASE("lease: not beside descriptions that go through the page cache, nor these beside a lease", "[core][lease]") {
  Fixture f;
  World w(f.device);
  const auto handle = w.open("f", O_RDWR);
  auto cached = w.open("f", O_RDONLY);
  auto second = w.open("f", O_RDONLY);
  REQUIRE(w->use_page_cache(*cached));
  REQUIRE(w->use_page_cache(*second));
  CHECK(code_of(w->lease(*handle, reading(0, 4096), kMost)) == EOPNOTSUPP);
  cached.reset();
  CHECK(code_of(w->lease(*handle, storing(0, 4096), kMost)) == EOPNOTSUPP);
  second.reset();
  must(w->lease(*handle, storing(0, 4096), kMost));
  const auto later = w.open("f", O_RDONLY);
  CHECK_FALSE(w->use_page_cache(*later));
  w->end_lease(*handle);
  CHECK(w->use_page_cache(*later));
}

TEST_CASE("lease: limits of a user and of the file system", "[core][lease]") {
  Fixture f;
  World w(f.device);
  const std::uint32_t slots = w->lease_slots();
  REQUIRE(slots == 1024);
  std::vector<std::unique_ptr<FileHandle>> handles;
  for (std::uint32_t i = 0; i < slots / 2; ++i) {
    handles.push_back(w.open("f"));
    REQUIRE(w->lease(*handles.back(), storing(0, 1, 7), kMost).has_value());
  }
  const auto one_more = w.open("f");
  CHECK(code_of(w->lease(*one_more, storing(0, 1, 7), kMost)) == EMFILE);
  CHECK(w->lease(*one_more, storing(0, 1, 8), kMost).has_value());
  CHECK(w->lease(*handles.front(), storing(0, 1, 7), kMost).has_value());  // it has one already
  w->end_lease(*handles.front());
  CHECK(w->lease(*handles.front(), storing(0, 1, 7), kMost).has_value());
  CHECK(w->counters().leased_inodes == 1);
}

TEST_CASE("lease: programs of an earlier mount hold reclaim up, and nothing else", "[core][lease]") {
  Fixture f;
  bool stale = true;
  std::vector<std::string> notices;
  MountOptions options = quiet_mount();
  options.has_stale_clients = [&](std::uint64_t) { return stale; };
  options.on_notice = [&](const std::string& line) { notices.push_back(line); };
  World w(f.device, options);
  CHECK(notices.size() == 1);
  CHECK(w->counters().stale_clients);
  const auto before = std::string(pattern('f', 20'000));
  w.unlink("f");
  must(w->run_reclaim());
  const std::uint64_t pending = w->counters().reclaim_pending_blocks;
  CHECK(pending >= 5);
  const FsStatistics held_up = w->statistics();
  w.create("g");
  w.write("g", 0, pattern('g', 50'000));
  CHECK(w.read("g") == pattern('g', 50'000));
  const FsStatistics with_file = w->statistics();
  stale = false;
  // What waits is free, and available when it can be had.
  const FsStatistics later = w->statistics();
  CHECK(later.blocks_free == with_file.blocks_free);
  CHECK(later.blocks_available == with_file.blocks_available + pending);
  CHECK(held_up.blocks_available < held_up.blocks_free);
  must(w->run_reclaim());
  CHECK(w->counters().reclaim_pending_blocks == 0);
  CHECK_FALSE(w->counters().stale_clients);
  CHECK(notices.size() == 2);
  w.unmount();
  CHECK(is_sound(f.device));
}

TEST_CASE("lease: an unmount with leases leaves their blocks alone", "[core][lease]") {
  Fixture f;
  LeaseAnswer lease;
  {
    World w(f.device);
    auto handle = w.open("f");
    lease = must(w->lease(*handle, storing(0, 20'000), kMost));
    w.unlink("f");
    handle.reset();
    w.unmount();
  }
  CHECK(f.through(lease, 0, 4096) == pattern('f', 4096));
  CHECK(is_sound(f.device));
  World w(f.device);
  must(w->run_reclaim());
  CHECK(w->counters().reclaim_pending_blocks == 0);
  w.unmount();
  CHECK(is_sound(f.device));
}

TEST_CASE("lease: a mount clears the slots of the one before", "[core][lease]") {
  Fixture f;
  std::uint64_t epoch = 0;
  LeaseAnswer lease;
  {
    World w(f.device);
    auto handle = w.open("f");
    lease = must(w->lease(*handle, storing(0, 20'000), kMost));
    epoch = w->epoch();
    handle.reset();
    w.die();
  }
  World w(f.device);
  CHECK(w->epoch() != epoch);
  CHECK(f.word(w, lease, offsetof(protocol::LeaseSlot, epoch)) == 0);
}

TEST_CASE("align: a file moves into aligned chunks, and not while it is leased", "[core][lease]") {
  Fixture f(GENERATE(DeviceKind::kMemory, DeviceKind::kCached));
  World w(f.device);
  w.create("big");
  std::string contents;
  {
    const auto handle = w.open("big");
    for (std::uint64_t at = 0; at < media::kChunkBytes + 50'000; at += 300'000) {
      w.write(*handle, at, pattern('b', 300'000, at));
      w.write("f", 20'000 + at / 64, pattern('f', 5000));
    }
    contents = w.read("big");
    const auto other = w.open("big", O_RDONLY);
    (void)must(w->lease(*other, reading(0, 1), kMost));
    CHECK(code_of(w->align(*handle)) == EBUSY);
    w->end_lease(*other);
    CHECK(code_of(w->align(*other)) == EBADF);
    CHECK(must(w->align(*handle)) == media::kChunkBytes);
    const LeaseAnswer lease = must(w->lease(*handle, reading(0, media::kChunkBytes), kMost));
    REQUIRE(lease.extents.size() == 1);
    CHECK(lease.extents[0].device_offset % media::kChunkBytes == 0);
    // Nothing is left to move: nobody is in the way.
    CHECK(must(w->align(*handle)) == media::kChunkBytes);
    w->end_lease(*handle);
    CHECK(must(w->align(*handle)) == media::kChunkBytes);
  }
  CHECK(w.read("big") == contents);
  must(w->run_reclaim());
  w.unmount();
  CHECK(is_sound(f.device));
}

TEST_CASE("align: ends when the pieces are few enough", "[core][lease]") {
  Fixture f(DeviceKind::kMemory);
  World w(f.device);
  w.create("big");
  const auto handle = w.open("big");
  constexpr std::uint64_t kChunks = 2;
  constexpr std::uint64_t kStep = 300'000;
  for (std::uint64_t at = 0; at < kChunks * media::kChunkBytes; at += kStep) {
    // By turns, so that no two of the first chunk's are neighbours.
    w.write(*handle, at, pattern('b', kStep, at));
    w.write("f", 20'000 + at, pattern('f', 5000));
  }
  const std::string contents = w.read("big");
  const auto pieces = [&] {
    const LeaseAnswer lease = must(w->lease(*handle, reading(0, kChunks * media::kChunkBytes), kMost));
    w->end_lease(*handle);
    return lease.extents.size();
  };
  const std::size_t before = pieces();
  REQUIRE(before > 4);
  CHECK(must(w->align(*handle, {.most_pieces = before})) == 0);
  CHECK(pieces() == before);
  CHECK(must(w->align(*handle, {.most_pieces = before - 1})) == media::kChunkBytes);
  const std::size_t after = pieces();
  CHECK(after < before);
  CHECK(must(w->align(*handle)) == kChunks * media::kChunkBytes);
  CHECK(pieces() <= kChunks);
  CHECK(w.read("big") == contents);
}

TEST_CASE("leased ranges: joined, cut, and never more than the most", "[core][lease]") {
  LeasedRanges ranges(LeasedRanges::Overflow::kJoin);
  ranges.add(10, 20);
  ranges.add(30, 40);
  ranges.add(20, 30);
  CHECK(ranges.all() == std::map<std::uint64_t, std::uint64_t>{{10, 40}});
  ranges.remove(15, 20);
  CHECK(ranges.all() == std::map<std::uint64_t, std::uint64_t>{{10, 15}, {20, 40}});
  ranges.remove(0, 100);
  CHECK(ranges.empty());
  for (std::uint64_t i = 0; i < 1000; ++i) ranges.add(i * 100 + i % 7, i * 100 + 50);
  CHECK(ranges.all().size() == LeasedRanges::kMost);
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const auto it = std::prev(ranges.all().upper_bound(i * 100 + 10));
    REQUIRE(it->second >= i * 100 + 50);
  }
}
