// The direct path: stores that programs make themselves, crashed like any other, and what is put off while they may.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "test/crash/lease_steps.h"
#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;

Step lease_step(const char* path, Client::Use use = Client::Use::kWrite) {
  return in_parts("lease", [=](Actor& a) { lease(a, "A", path, use); });
}
Step map_step(const char* path) {
  return lease_step(path, Client::Use::kMap);
}
// pwrite(2): durable on memory when it returns.
Step direct_write(std::uint64_t offset, std::string bytes) {
  return in_parts("direct write", [=](Actor& a) { store(a, "A", offset, bytes, true); });
}
// Stores through a map, flushed by the program.
Step store_and_msync(std::uint64_t offset, std::string bytes) {
  return in_parts("store, msync", [=](Actor& a) { store(a, "A", offset, bytes, true); });
}
// Stores through a map that nobody flushes but the fsync at the end.
Step store_and_fsync(std::uint64_t offset, std::string bytes) {
  return in_parts("store, fsync", [=](Actor& a) {
    store(a, "A", offset, bytes, false);
    fsync_by(a, "A");
  });
}
Step end_step() {
  return in_parts("end", [](Actor& a) { end_lease(a, "A"); });
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
      steps("a map, msync", {map_step("f"), store_and_msync(500, pattern('m', 4000)), end_step(), fsync_step("f")}),
      steps("a map, fsync", {map_step("f"), store_and_fsync(500, pattern('m', 4000)),
                             store_and_fsync(0, pattern('n', 4000)), end_step(), sync_step()}),
      steps("a map ends, fsync afterwards",
            {map_step("f"), in_parts("store", [](Actor& a) { store(a, "A", 500, pattern('m', 4000), false); }),
             end_step(), fsync_step("f")}),
      steps("a map over holes",
            {map_step("scattered"), store_and_fsync(0, pattern('h', 20'000)), end_step(), reclaim_step()}),
      steps(
          "truncate under a lease, and up again",
          {lease_step("f"), direct_write(2000, pattern('1', 2000)), truncate_step("f", 2500), reclaim_step(),
           direct_write(0, pattern('2', 2500)), truncate_step("f", 9000), fsync_step("f"), end_step(), reclaim_step()}),
      steps("stores behind the end, then an extension",
            {map_step("f"), truncate_step("f", 2500),
             in_parts("store behind the end", [](Actor& a) { store(a, "A", 2500, std::string(3000, 'S'), true); }),
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
             step("the program ends", [](Actor& a) { end_all_leases(a); }), lease_step("f"),
             direct_write(0, pattern('2', 100)), end_step(), unmount_step()}),
      steps("the daemon dies, the program lives on",
            {map_step("f"), in_parts("store", [](Actor& a) { store(a, "A", 0, pattern('1', 6000), false); }),
             step("die and mount", [](Actor& a) { a.die_and_mount(); }), fsync_step("f"),
             step("unlink", [](Actor& a) { a.unlink("f"); }), step("unlink", [](Actor& a) { a.unlink("d/f2"); }),
             reclaim_step(), step("write", [](Actor& a) { a.write("g", 0, pattern('w', 20'000)); }),
             in_parts("store", [](Actor& a) { store(a, "A", 0, pattern('2', 6000), true); }),
             step("the program ends", [](Actor& a) { end_all_leases(a); }), reclaim_step(), unmount_step()}),
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
void make_big_tree(Actor& a) {
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
  const MachineImage base = prepared_image(setting, make_big_tree);
  for (const Workload& workload : lease_workloads()) {
    const std::string problem = crash_everywhere(base, setting, workload);
    INFO(problem);
    CHECK(problem.empty());
  }
}
