// The direct path: stores that programs make themselves, crashed like any other, and what is put off while they may.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;

LeaseRequest to_store(std::uint64_t offset, std::uint64_t length, bool map) {
  return {.offset_bytes = offset, .length_bytes = length, .write = true, .allocate = map, .map = map, .uid = 0};
}

// What a client does with bytes: stores them into the blocks of its lease. `durable`: and flushes them, where that is
// done from a program.
void store_directly(Actor& a, FileHandle& handle, std::uint64_t offset, std::string_view bytes, bool map,
                    bool durable) {
  const LeaseAnswer lease = must(a->lease(handle, to_store(offset, bytes.size(), map), 640));
  pmem::Device& device = a->superblock().device(static_cast<DeviceRole>(lease.member));
  for (const LeaseAnswer::Piece& piece : lease.extents) {
    const std::uint64_t from = std::max(offset, piece.file_offset);
    const std::uint64_t to = std::min(offset + bytes.size(), piece.file_offset + piece.length);
    if (from >= to) continue;
    const std::string_view part = bytes.substr(from - offset, to - from);
    const std::uint64_t at = piece.device_offset + (from - piece.file_offset);
    must(device.store(at, std::as_bytes(std::span(part))));
    if (durable && device.is_memory()) must(device.flush(at, part.size()));
  }
  if (durable && device.is_memory()) must(device.drain());
}

void lease_as(Actor& a, std::string_view path) {
  (void)must(a->lease(a.open_as("h", path), to_store(0, 1, false), 640));
}
Step lease_step(const char* path) {
  return step("lease", [path](Actor& a) { lease_as(a, path); });
}
// pwrite(2): durable on memory when it returns.
Step direct_write(std::uint64_t offset, std::string bytes) {
  return step("direct write", [=](Actor& a) { store_directly(a, a.handle("h"), offset, bytes, false, true); });
}
// Stores through a map, flushed by the program.
Step map_and_msync(std::uint64_t offset, std::string bytes) {
  return in_parts("map, store, msync", [=](Actor& a) { store_directly(a, a.handle("h"), offset, bytes, true, true); });
}
// Stores through a map that nobody flushes but the fsync at the end.
Step map_and_fsync(std::uint64_t offset, std::string bytes) {
  return in_parts("map, store, fsync", [=](Actor& a) {
    store_directly(a, a.handle("h"), offset, bytes, true, false);
    must(a->fsync(a.handle("h"), FsyncMode::kFull));
  });
}
Step end_step() {
  return in_parts("end", [](Actor& a) { a->end_lease(a.handle("h")); });
}

Workload steps(std::string name, std::vector<Step> list) {
  return {.name = std::move(name), .steps = std::move(list)};
}

constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

Step truncate_step(const char* path, std::uint64_t size) {
  return step("truncate", [=](Actor& a) { a.truncate(path, size); });
}

std::vector<Workload> lease_workloads() {
  return {
      steps("direct writes", {lease_step("f"), direct_write(1000, pattern('d', 3000)),
                              direct_write(0, pattern('e', 5000)), fsync_step("f"), end_step(), sync_step()}),
      steps("a map, msync", {lease_step("f"), map_and_msync(500, pattern('m', 4000)), end_step(), fsync_step("f")}),
      steps("a map, fsync", {lease_step("f"), map_and_fsync(500, pattern('m', 4000)),
                             map_and_fsync(0, pattern('n', 4000)), end_step(), sync_step()}),
      steps("a map ends, fsync afterwards",
            {lease_step("f"), in_parts("store, end, fsync",
                                       [](Actor& a) {
                                         store_directly(a, a.handle("h"), 500, pattern('m', 4000), true, false);
                                         a->end_lease(a.handle("h"));
                                         a.fsync("f");
                                       })}),
      steps("a map over holes",
            {lease_step("scattered"), map_and_fsync(0, pattern('h', 20'000)), end_step(), reclaim_step()}),
      steps(
          "truncate under a lease, and up again",
          {lease_step("f"), direct_write(2000, pattern('1', 2000)), truncate_step("f", 2500), reclaim_step(),
           direct_write(0, pattern('2', 2500)), truncate_step("f", 9000), fsync_step("f"), end_step(), reclaim_step()}),
      steps("stores behind the end, then an extension",
            {lease_step("f"), truncate_step("f", 2500),
             step("store behind the end",
                  [](Actor& a) {
                    // A lease ends with the block of the end.
                    store_directly(a, a.handle("h"), 2500, std::string(1000, 'S'), false, true);
                  }),
             truncate_step("f", 5000), fsync_step("f"), end_step(), sync_step()}),
      steps("truncate to nothing under a lease, then unlink",
            {lease_step("g"), direct_write(0, pattern('1', 1000)), truncate_step("g", 0), reclaim_step(),
             step("unlink", [](Actor& a) { a.unlink("g"); }), reclaim_step(), end_step(),
             step("close", [](Actor& a) { a.close_all(); }), reclaim_step()}),
      steps("truncate many extents under a lease",
            {lease_step("many"), truncate_step("many", 4096), reclaim_step(), end_step(), reclaim_step()}),
      steps("punch under a lease", {lease_step("f"), direct_write(0, pattern('1', 3000)),
                                    in_parts("punch", [](Actor& a) { a.allocate("f", kPunch, 0, 8192); }),
                                    direct_write(0, pattern('2', 100)), end_step(), reclaim_step(), sync_step()}),
      steps("unlink under a lease",
            {lease_step("g"), direct_write(0, pattern('1', 1000)), step("unlink", [](Actor& a) { a.unlink("g"); }),
             reclaim_step(), direct_write(0, pattern('2', 1000)), end_step(),
             step("close", [](Actor& a) { a.close_all(); }), reclaim_step(), sync_step()}),
      steps("the daemon dies with leases",
            {lease_step("f"), truncate_step("f", 100), step("die and mount", [](Actor& a) { a.die_and_mount(); }),
             lease_step("f"), direct_write(0, pattern('2', 100)), end_step(), unmount_step()}),
      steps("unmount with leases", {lease_step("f"), truncate_step("f", 100), unmount_step()}),
      steps("move into aligned chunks", {in_parts("align",
                                                  [](Actor& a) {
                                                    const auto handle = a.open("big");
                                                    if (must(a->align(*handle)) != media::kChunkBytes)
                                                      throw std::runtime_error("nothing moved");
                                                  }),
                                         reclaim_step(), sync_step()}),
  };
}

// A file of one chunk and a bit, in several pieces that are not aligned.
void make_lease_tree(Actor& a) {
  make_tree(a);
  a.create("big");
  const auto handle = a.open("big");
  for (std::uint64_t at = 0; at < media::kChunkBytes + 5000; at += 512 << 10) {
    a.write(*handle, at, pattern('b', 512 << 10, at));
    a.write("g", 6000 + at / 64, pattern('g', 5000));
  }
}

}  // namespace

TEST_CASE("crash: leases", "[crash][lease]") {
  const Setting& setting = settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 2, 3})))];
  const MachineImage base = prepared_image(setting, make_lease_tree);
  for (const Workload& workload : lease_workloads()) {
    const std::string problem = crash_everywhere(base, setting, workload);
    INFO(problem);
    CHECK(problem.empty());
  }
}
