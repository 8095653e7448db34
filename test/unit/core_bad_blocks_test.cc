// Blocks that cannot be read: who is told, what is listed, what is used again.
#include <linux/falloc.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <string>
#include <vector>

#include "fs/core/bad_block_report.h"
#include "fs/core/check.h"
#include "fs/core/volume_impl.h"
#include "pmem/sigbus_guard.h"
#include "test/unit/core_world.h"
#include "test/unit/volume_editor.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::CrashDevice;
using pmem::DeviceKind;
using Poison = CrashDevice::Poison;

constexpr std::uint64_t kBytes = 16u << 20;
constexpr std::uint64_t kPage = 4096;  // of poison

void require_sound(const Members& members) {
  const CheckReport report = must(check_volume(members, {.zeros = true, .progress = {}}));
  for (const Problem& problem : report.problems) UNSCOPED_INFO(problem.object << ": " << problem.what);
  REQUIRE(report.problems_total == 0);
}

// Where a byte of a file lies on its device.
std::uint64_t place_of(World& world, std::string_view path, std::uint64_t offset) {
  const InodeRef inode = world.find(path);
  const ReadPin pin = must(world->read(*inode, offset, 1));
  for (const DeviceRole role : world->impl().store.roles())
    if (const auto at = world->impl().store.device(role).offset_of(pin.iov.at(0).iov_base)) return *at;
  FAIL("a hole");
  return 0;
}

// What a request does that copies from the mapping: 0 or an errno.
int read_error(World& world, std::string_view path, std::uint64_t offset, std::uint64_t length) {
  const InodeRef inode = world.find(path);
  const auto pin = world->read(*inode, offset, length);
  if (!pin) return pin.error().code;
  std::vector<std::byte> buffer(length);
  for (const iovec& piece : pin->iov) {
    if (!pmem::guarded_copy(buffer.data(), piece.iov_base, piece.iov_len)) {
      world->note_unreadable(*pin);
      return EIO;
    }
  }
  return 0;
}

int write_error(World& world, std::string_view path, std::uint64_t offset, std::string_view bytes) {
  const auto handle = world.open(path);
  return code_of(world.try_write(*handle, offset, bytes));
}

std::vector<BadBlockReport> reports(World& world) {
  return must(world->report_bad_blocks(0, 1000)).reports;
}

std::uint64_t listed(World& world) {
  std::uint64_t count = 0;
  for (const DeviceStatistics& device : world->counters().devices) count += device.bad_blocks;
  return count;
}

struct Fixture {
  explicit Fixture(DeviceKind kind = DeviceKind::kMemory, std::uint32_t block_size = 4096)
      : device(kBytes, {.kind = kind, .name = "main"}) {
    must(Volume::format(device, fixed_format(block_size)));
  }
  CrashDevice device;
};

}  // namespace

TEST_CASE("bad blocks: poison is EIO to that request, and listed once", "[core][poison]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const std::uint32_t block_size = GENERATE(1024u, 4096u, 16384u);
  CAPTURE(static_cast<int>(kind), block_size);
  Fixture f(kind, block_size);
  World w(f.device);
  w.create("f");
  w.mkdir("d");
  w.link("f", "d/g");
  w.write("f", 0, pattern('f', 20 * kPage));
  // Small blocks need not lie in the page as the file's bytes do.
  std::uint64_t offset = 8 * kPage;
  offset += (kPage - place_of(w, "f", offset) % kPage) % kPage;
  const std::uint64_t at = place_of(w, "f", offset);
  f.device.poison(at, 1);
  CHECK(read_error(w, "f", offset, kPage) == EIO);
  CHECK(listed(w) == 0);  // not by the request itself
  must(w->run_reclaim());
  const std::uint64_t blocks = std::max<std::uint64_t>(1, kPage / block_size);
  CHECK(listed(w) == blocks);
  CHECK(read_error(w, "f", 0, 20 * kPage) == EIO);
  const std::uint64_t begin = offset / block_size * block_size;
  const std::uint64_t end = begin + blocks * block_size;
  CHECK(w.read("f", 0, begin) == pattern('f', begin));
  CHECK(w.read("f", end, 1000) == pattern('f', 1000, end));
  must(w->run_reclaim());
  CHECK(listed(w) == blocks);

  const auto report = reports(w);
  REQUIRE(report.size() == 1);
  CHECK(report[0].use == BadBlockUse::kFile);
  CHECK(report[0].offset_bytes == at / block_size * block_size);
  CHECK(report[0].length_bytes == blocks * block_size);
  CHECK(report[0].file_offset == begin);
  CHECK(report[0].inode == w.find("f").number());
  CHECK((report[0].path == "/f" || report[0].path == "/d/g"));

  SECTION("it is there after unmount and after a crash") {
    const bool clean = GENERATE(true, false);
    if (clean) {
      w.unmount();
    } else {
      must(w->sync());
      w.die();
    }
    require_sound(f.device);
    World again(f.device);
    CHECK(listed(again) == blocks);
    CHECK(read_error(again, "f", offset, 1) == EIO);
  }
  SECTION("older programs see a feature that they can only read") {
    CHECK(must(Superblock::read(f.device)).media().ro_compat == media::kRoCompatBadBlocks);
  }
}

TEST_CASE("bad blocks: nothing is listed that can be read again", "[core][poison]") {
  Fixture f;
  World w(f.device);
  w.create("f");
  w.write("f", 0, pattern('f', 4 * kPage));
  f.device.poison(place_of(w, "f", kPage), 1, Poison::kClearedByStore);
  CHECK(read_error(w, "f", kPage, 1) == EIO);
  CHECK(write_error(w, "f", kPage, pattern('n', kPage)) == 0);
  must(w->run_reclaim());
  CHECK(listed(w) == 0);
  CHECK(w.read("f", kPage, kPage) == pattern('n', kPage));
  CHECK(must(Superblock::read(f.device)).media().ro_compat == 0);
}

TEST_CASE("bad blocks: a block of a file is usable again when all of it is written", "[core][poison]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  CAPTURE(static_cast<int>(kind));
  Fixture f(kind);
  World w(f.device);
  w.create("f");
  // The last page has 100 bytes of the file.
  w.write("f", 0, pattern('f', 4 * kPage + 100));
  const bool clears = GENERATE(true, false);
  const auto poison = clears ? Poison::kClearedByStore : Poison::kForGood;
  for (const std::uint64_t page : {1, 4}) f.device.poison(place_of(w, "f", page * kPage), 1, poison);
  for (const std::uint64_t page : {1, 4}) CHECK(read_error(w, "f", page * kPage, 1) == EIO);
  must(w->run_reclaim());
  REQUIRE(listed(w) == 2);
  // A part of it never; nor anything else of such a write.
  CHECK(write_error(w, "f", kPage - 10, std::string(kPage, 'x')) == EIO);
  CHECK(w.read("f", kPage - 10, 10) == pattern('f', 10, kPage - 10));
  CHECK(write_error(w, "f", 4 * kPage + 50, "x") == EIO);
  CHECK(code_of(w.try_allocate("f", FALLOC_FL_ZERO_RANGE, kPage + 1, 10)) == EIO);
  CHECK(code_of(w.try_allocate("f", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 4 * kPage + 1, 99)) == EIO);
  SECTION("write") {
    CHECK(write_error(w, "f", kPage, pattern('n', kPage)) == (clears ? 0 : EIO));
    // All that the file has of its last block, and more.
    CHECK(write_error(w, "f", 4 * kPage, pattern('t', 200)) == (clears ? 0 : EIO));
    CHECK(listed(w) == (clears ? 0 : 2));
    if (clears) {
      CHECK(w.read("f", kPage, kPage) == pattern('n', kPage));
      CHECK(w.read("f", 4 * kPage) == pattern('t', 200));
      w.truncate("f", 5 * kPage);
      CHECK(w.read("f", 4 * kPage + 200) == std::string(kPage - 200, '\0'));
    }
  }
  SECTION("zero range") {
    CHECK(code_of(w.try_allocate("f", FALLOC_FL_ZERO_RANGE, 0, 4 * kPage + 100)) == (clears ? 0 : EIO));
    if (clears) CHECK(w.read("f") == std::string(4 * kPage + 100, '\0'));
  }
  if (clears && kind == DeviceKind::kMemory) {
    // What was answered is there, and can be read, after a crash.
    const std::string before = w.read("f");
    const std::uint64_t left = listed(w);
    w.die();
    World again(f.device);
    CHECK(again.read("f") == before);
    CHECK(listed(again) == left);
  } else {
    w.unmount();
  }
  require_sound(f.device);
}

TEST_CASE("bad blocks: a deleted file leaves its bad block to the list, and the rest is free", "[core][poison]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const bool is_known = GENERATE(true, false);  // before the file is deleted
  const bool clears = GENERATE(true, false);
  CAPTURE(static_cast<int>(kind), is_known, clears);
  Fixture f(kind);
  World w(f.device);
  const std::uint64_t first_free = w.blocks_free();
  w.create("f");
  w.write("f", 0, pattern('f', 100 * kPage));
  const std::uint64_t at = place_of(w, "f", 50 * kPage);
  f.device.poison(at, 1, clears ? Poison::kClearedByStore : Poison::kForGood);
  if (is_known) {
    CHECK(read_error(w, "f", 50 * kPage, 1) == EIO);
    must(w->run_reclaim());
    CHECK(listed(w) == 1);
  }
  const bool is_punched = GENERATE(false, true);
  if (is_punched) w.allocate("f", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 40 * kPage, 20 * kPage);
  w.unlink("f");
  must(w->run_reclaim());
  CHECK(w->counters().reclaim_pending_blocks <= 1);  // a node of the queue
  if (clears) {
    CHECK(listed(w) == 0);
    CHECK(w.blocks_free() == first_free);
  } else {
    REQUIRE(reports(w).size() == 1);
    CHECK(reports(w)[0].use == BadBlockUse::kFree);
    CHECK(reports(w)[0].offset_bytes == at);
    // The block, and the leaf of the list.
    CHECK(w.blocks_free() == first_free - 2);
  }
  must(w->sync());
  if (GENERATE(true, false))
    w.die();
  else
    w.unmount();
  require_sound(f.device);
  // It is not handed out: every other block is.
  World again(f.device);
  again.create("all");
  const auto handle = again.open("all");
  std::uint64_t written = 0;
  while (again.try_write(*handle, written, pattern('a', kPage))) written += kPage;
  CHECK(written > kBytes / 2);
  for (std::uint64_t offset = 0; offset < written; offset += kPage)
    if (place_of(again, "all", offset) == at) CHECK(clears);
}

TEST_CASE("bad blocks: free ones are found by writes, recovery and the zeroed mark, and never owned",
          "[core][poison]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  CAPTURE(static_cast<int>(kind));
  CrashDevice device(80u << 20, {.kind = kind, .name = "main"});
  FormatOptions format = fixed_format(4096);
  format.contents_are_zero = false;
  must(Volume::format(device, format));
  std::uint64_t next = 0;
  {
    World w(device);
    w.create("f");
    w.write("f", 0, pattern('f', kPage));
    next = place_of(w, "f", 0) + kPage;
    w.unmount();
  }
  SECTION("by a write") {
    World w(device);
    device.poison(next, 1);
    CHECK(write_error(w, "f", kPage, pattern('g', 4 * kPage)) == EIO);
    CHECK(w.stat("f").size_bytes == kPage);
    must(w->run_reclaim());
    REQUIRE(reports(w).size() == 1);
    CHECK(reports(w)[0].use == BadBlockUse::kFree);
    CHECK(reports(w)[0].offset_bytes == next);
    // Only that request: the next one gets other blocks.
    CHECK(write_error(w, "f", kPage, pattern('g', 4 * kPage)) == 0);
    CHECK(w.read("f", kPage) == pattern('g', 4 * kPage));
    w.unmount();
  }
  SECTION("by recovery of a window") {
    {
      World w(device);
      w.write("f", kPage, pattern('g', kPage));
      must(w->sync());
      next += kPage;
      w.die();
    }
    device.poison(next, 1);
    World w(device);
    REQUIRE(reports(w).size() == 1);
    CHECK(reports(w)[0].use == BadBlockUse::kFree);
    CHECK(reports(w)[0].offset_bytes == next);
    w.unmount();
  }
  SECTION("by the zeroed mark") {
    // More than one transaction takes.
    for (std::uint64_t i = 0; i < 40; ++i) device.poison((70u << 20) + i * 2 * kPage, 1);
    World w(device);
    w.allocate("f", 0, 0, 70u << 20);
    CHECK(listed(w) == 40);
    CHECK(w.read("f", kPage, 66u << 20) == std::string(66u << 20, '\0'));
    for (std::uint64_t offset = 66u << 20; offset < 70u << 20; offset += kPage)
      REQUIRE(read_error(w, "f", offset, kPage) == 0);
    w.unmount();
  }
  require_sound(device);
  World again(device);
  again.unmount();
}

TEST_CASE("bad blocks: metadata is not put where nothing can be read", "[core][poison]") {
  Fixture f;
  World w(f.device);
  const std::uint64_t start = w->impl().superblock.entry(DeviceRole::kMain).data_start;
  // The block that the next directory entries would go to.
  std::uint64_t next = start;
  while (w->impl().store.allocator(DeviceRole::kMain).is_used(BlockNumber(next))) ++next;
  f.device.poison(next * kPage, 1);
  w.mkdir("d");
  for (int i = 0; i < 100; ++i) w.create("d/file with a long name " + std::to_string(i));
  must(w->run_reclaim());
  REQUIRE(reports(w).size() == 1);
  CHECK(reports(w)[0].use == BadBlockUse::kFree);
  CHECK(reports(w)[0].offset_bytes == next * kPage);
  w.unmount();
  require_sound(f.device);
}

TEST_CASE("bad blocks: metadata that cannot be read is EIO with its place, and mount says so", "[core][poison]") {
  Fixture f;
  std::uint64_t node = 0;
  {
    World w(f.device);
    w.create("f");
    w.mkdir("d");
    w.create("d/x");
    w.unmount();
    Editor editor{Members(f.device)};
    World again(f.device);
    node = editor.inode(again.find("d").number().value).data.block;
    again.unmount();
  }
  SECTION("of a directory") {
    f.device.poison(node * kPage, 1);
    World w(f.device);
    const auto found = w->lookup(*w.find("d"), "x");
    REQUIRE_FALSE(found);
    CHECK(found.error().code == EIO);
    CHECK(found.error().offset_bytes == node * kPage);
    CHECK(found.error().message().find("metadata block " + std::to_string(node)) != std::string::npos);
    CHECK(w.exists("f"));
    must(w->run_reclaim());
    REQUIRE(reports(w).size() == 1);
    CHECK(reports(w)[0].use == BadBlockUse::kMetadata);
    w.unmount();
  }
  SECTION("of the volume") {
    const Superblock sb = must(Superblock::read(f.device));
    f.device.poison(sb.entry(DeviceRole::kMain).bitmap_start * kPage, 1);
    const auto mounted = Volume::mount(f.device, quiet_mount());
    REQUIRE_FALSE(mounted);
    CHECK(mounted.error().code == EIO);
    CHECK(mounted.error().offset_bytes == sb.entry(DeviceRole::kMain).bitmap_start * kPage);
  }
}

TEST_CASE("bad blocks: clearing frees what the list owns, and only when it can be read", "[core][poison]") {
  const bool clears = GENERATE(true, false);
  Fixture f;
  World w(f.device);
  const std::uint64_t first_free = w.blocks_free();
  w.create("f");
  w.create("kept");
  w.write("f", 0, pattern('f', 100 * kPage));
  w.write("kept", 0, pattern('k', 10 * kPage));
  const std::uint64_t at = place_of(w, "f", 50 * kPage);
  const std::uint64_t kept_at = place_of(w, "kept", 5 * kPage);
  f.device.poison(at, 1);
  f.device.poison(kept_at, 1, Poison::kClearedByStore);
  w.unlink("f");
  CHECK(read_error(w, "kept", 5 * kPage, 1) == EIO);
  must(w->run_reclaim());
  CHECK(listed(w) == 2);
  // The medium has been repaired.
  if (clears) f.device.poison(at, 1, Poison::kClearedByStore);
  CHECK(must(w->clear_bad_blocks()) == (clears ? 1 : 0));
  CHECK(listed(w) == (clears ? 1 : 2));
  CHECK(read_error(w, "kept", 5 * kPage, 1) == EIO);  // its contents are gone, whatever the medium says
  w.unlink("kept");
  must(w->run_reclaim());
  CHECK(listed(w) == (clears ? 0 : 1));
  if (clears) CHECK(w.blocks_free() == first_free);
  w.unmount();
  require_sound(f.device);
}

TEST_CASE("bad blocks: many at once, more than a transaction takes", "[core][poison]") {
  const bool clears = GENERATE(true, false);
  Fixture f;
  World w(f.device);
  w.create("f");
  w.write("f", 0, pattern('f', 400 * kPage));
  for (std::uint64_t i = 0; i < 100; ++i)
    f.device.poison(place_of(w, "f", i * 4 * kPage), 1, clears ? Poison::kClearedByStore : Poison::kForGood);
  for (std::uint64_t i = 0; i < 100; ++i) CHECK(read_error(w, "f", i * 4 * kPage, kPage) == EIO);
  must(w->run_reclaim());
  CHECK(listed(w) == 100);
  CHECK(reports(w).size() == 100);
  const BadBlocksPart part = must(w->report_bad_blocks(0, 30));
  REQUIRE(part.next);
  CHECK(must(w->report_bad_blocks(*part.next, 1000)).reports.size() == 70);
  if (clears) {
    CHECK(write_error(w, "f", 0, pattern('n', 200 * kPage)) == 0);
    CHECK(w.read("f", 0, 200 * kPage) == pattern('n', 200 * kPage));
    CHECK(listed(w) == 50);
  }
  w.unlink("f");
  must(w->run_reclaim());
  CHECK(listed(w) == (clears ? 0 : 100));
  for (const BadBlockReport& report : reports(w)) CHECK(report.use == BadBlockUse::kFree);
  w.unmount();
  require_sound(f.device);
}

TEST_CASE("bad blocks: on a realtime device a bad block keeps its extent", "[core][poison][realtime]") {
  CrashDevice main(kBytes, {.kind = DeviceKind::kMemory, .name = "main"});
  CrashDevice realtime(kBytes, {.kind = DeviceKind::kMemory, .name = "realtime"});
  const Members members{main, &realtime};
  FormatOptions format = fixed_format(1024);
  format.realtime_extent_bytes = 256u << 10;
  must(Volume::format(members, format));
  World w(members);
  w.create("rt");
  w.set_flags("rt", kInodeRealtime);
  const InodeRef rt = w.find("rt");
  const std::uint64_t first_free = w->statistics(rt.get()).blocks_free;
  w.write("rt", 0, pattern('r', 1u << 20));
  realtime.poison(place_of(w, "rt", 300'000), 1);
  // More than the list takes of one extent.
  realtime.poison(place_of(w, "rt", 600'000), 100'000);
  CHECK(read_error(w, "rt", 300'000, 1) == EIO);
  for (std::uint64_t at = 600'000; at < 700'000; at += kPage) CHECK(read_error(w, "rt", at, 1) == EIO);
  must(w->run_reclaim());
  CHECK(w->counters().devices[0].bad_blocks == 0);
  CHECK(w->counters().devices[1].bad_blocks == 4 + BadBlocks::kMaxPerUnit);
  CHECK(w.read("rt", 0, 256u << 10) == pattern('r', 256u << 10));
  CHECK(read_error(w, "rt", 699'000, 1) == EIO);
  w.truncate("rt", 0);
  must(w->run_reclaim());
  CHECK(w->statistics(rt.get()).blocks_free == first_free - 2 * 256);
  for (const BadBlockReport& report : reports(w)) CHECK(report.use == BadBlockUse::kFree);
  must(w->sync());
  w.die();
  require_sound(members);
  {
    World again(members);
    CHECK(must(again->clear_bad_blocks()) == 0);
    CHECK(again->counters().devices[1].bad_blocks == 4 + BadBlocks::kMaxPerUnit);
    again.unmount();
  }
  require_sound(members);
}

TEST_CASE("bad blocks: copying out of one fails, and it is listed", "[core][poison]") {
  Fixture f;
  World w(f.device);
  w.create("from");
  w.create("to");
  w.write("from", 0, pattern('f', 4 * kPage));
  f.device.poison(place_of(w, "from", 2 * kPage), 1);
  const auto from = w.open("from");
  const auto to = w.open("to");
  for (int round = 0; round < 2; ++round) {
    const auto copied = w->copy_range(*from, 0, *to, 0, 4 * kPage, Caller{});
    CHECK(code_of(copied) == EIO);
    must(w->run_reclaim());
    CHECK(listed(w) == 1);
  }
}

TEST_CASE("bad blocks: who listens is told, of blocks and of a log that fails", "[core][poison]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  Fixture f(kind);
  std::vector<std::string> lines;
  MountOptions options = quiet_mount();
  options.on_notice = [&](const std::string& line) { lines.push_back(line); };
  World w(f.device, options);
  w.create("f");
  w.write("f", 0, pattern('f', 4 * kPage));
  const std::uint64_t at = place_of(w, "f", kPage);
  f.device.poison(at, 1);
  CHECK(read_error(w, "f", kPage, 1) == EIO);
  must(w->run_reclaim());
  must(w->run_reclaim());
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("main: block " + std::to_string(at / kPage)) == 0);
  lines.clear();
  // Where the next record goes.
  const media::Superblock& sb = w->impl().superblock.media();
  f.device.poison(sb.journal_start + media::kJournalRingOffset, sb.journal_bytes - media::kJournalRingOffset);
  CreateRequest request;
  request.mode = S_IFREG | 0644;
  CHECK_FALSE(w->create(*w->root(), "g", request));
  CHECK(w->read_only());
  CHECK(code_of(w->create(*w->root(), "h", request)) == EROFS);
  CHECK(w.read("f", 0, kPage) == pattern('f', kPage));
  w->impl().report_failed_log();
  w->impl().report_failed_log();
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].find("read-only until it is mounted again") != std::string::npos);
}

TEST_CASE("bad blocks: deferred data that is lost is told once, and the mount after a crash goes around it",
          "[core][poison]") {
  Fixture f;
  MountOptions options = quiet_mount();
  options.writeback = Writeback::kDeferred;
  World w(f.device, options);
  w.create("f");
  w.write("f", 0, pattern('f', 4 * kPage));
  w.fsync("f");
  const auto handle = w.open("f");
  const std::uint64_t at = place_of(w, "f", kPage);
  w.write(*handle, 0, pattern('n', 4 * kPage));
  f.device.poison(at, 1);
  CHECK(code_of(w->fsync(*handle, FsyncMode::kFull)) == EIO);
  CHECK(code_of(w->fsync(*handle, FsyncMode::kFull)) == 0);
  CHECK(w->counters().devices[0].dirty_bytes == 0);
  must(w->run_reclaim());
  CHECK(listed(w) == 1);
  w.die();
  World again(f.device, options);
  CHECK(listed(again) == 1);
  CHECK(again.read("f", 0, kPage) == pattern('n', kPage));
  again.unmount();
  require_sound(f.device);
}
