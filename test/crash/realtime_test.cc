// Operations on files of the realtime device, crashed at every fence of either device and every reply: one device may
// be ahead of the other in either order.
#include <linux/falloc.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <vector>

#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;

constexpr int kKeep = FALLOC_FL_KEEP_SIZE;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kZero = FALLOC_FL_ZERO_RANGE;
constexpr std::uint64_t kUnit = 64u << 10;  // the larger of the extent sizes that are used

// Files on both devices, and on both blocks that a deleted file filled with 'S'.
void make_realtime_tree(Actor& a) {
  a.mkdir("rt");
  a.set_flags("rt", kInodeRtInherit);
  a.mkdir("rt/d");
  a.create("rt/f");
  a.write("rt/f", 0, pattern('f', 6000));
  a.create("rt/g");
  a.write("rt/g", 0, pattern('g', 70'000));
  a.create("rt/scattered");
  for (std::uint64_t i = 0; i < 5; ++i) a.write("rt/scattered", i * 2 * kUnit, pattern('c', 5000));
  a.create("rt/unused");
  a.create("main");
  a.write("main", 0, pattern('m', 6000));
  a.create("unused");
  for (const char* secret : {"rt/secret", "secret"}) {
    a.create(secret);
    a.write(secret, 0, std::string(200'000, 'S'));
    a.unlink(secret);
  }
  must(a->run_reclaim());
}

Workload steps(std::string name, std::vector<Step> list) {
  if (!list.back().is_unmount) list.push_back(reclaim_step());
  return {.name = std::move(name), .steps = std::move(list)};
}

Workload one(std::string name, std::function<void(Actor&)> run) {
  return steps(name, {step(name, std::move(run))});
}

Workload one_in_parts(std::string name, std::function<void(Actor&)> run) {
  return steps(name, {in_parts(name, std::move(run))});
}

std::vector<Workload> realtime_workloads() {
  return {
      steps("create, write, fsync",
            {step("create", [](Actor& a) { a.create("rt/new"); }),
             step("write", [](Actor& a) { a.write("rt/new", 0, pattern('n', 9000)); }), fsync_step("rt/new"),
             step("overwrite", [](Actor& a) { a.write("rt/new", 500, pattern('N', 5000)); }), sync_step()}),
      one("overwrite", [](Actor& a) { a.write("rt/f", 1000, pattern('w', 2000)); }),
      one("append", [](Actor& a) { a.write("rt/f", 6000, pattern('a', 5000)); }),
      one("overwrite and extend over a unit", [](Actor& a) { a.write("rt/f", 5000, pattern('x', 63'000)); }),
      one("write into a hole", [](Actor& a) { a.write("rt/scattered", kUnit + 3000, pattern('h', 12'000)); }),
      one("write far beyond the end", [](Actor& a) { a.write("rt/f", 300'000, pattern('b', 100)); }),
      steps("truncate down and up",
            {step("down", [](Actor& a) { a.truncate("rt/g", 2500); }),
             step("up", [](Actor& a) { a.truncate("rt/g", 69'000); }), reclaim_step(), fsync_step("rt/g")}),
      steps("truncate to nothing, write again",
            {step("cut", [](Actor& a) { a.truncate("rt/g", 0); }), reclaim_step(),
             step("write", [](Actor& a) { a.write("rt/g", 1000, pattern('2', 4000)); }), sync_step()}),
      one("truncate up", [](Actor& a) { a.truncate("rt/f", 150'000); }),
      one_in_parts("punch hole", [](Actor& a) { a.allocate("rt/g", kPunch, 500, 68'000); }),
      one_in_parts("zero range", [](Actor& a) { a.allocate("rt/g", kZero, 500, 90'000); }),
      one_in_parts("fallocate", [](Actor& a) { a.allocate("rt/f", 0, 0, 140'000); }),
      steps("fallocate, keep size; then grow over it",
            {in_parts("fallocate", [](Actor& a) { a.allocate("rt/f", kKeep, 0, 140'000); }),
             step("write", [](Actor& a) { a.write("rt/f", 20'000, pattern('k', 1000)); }),
             step("truncate up", [](Actor& a) { a.truncate("rt/f", 139'000); })}),
      one("unlink", [](Actor& a) { a.unlink("rt/g"); }),
      steps("unlink while open",
            {step("open", [](Actor& a) { a.open_as("h", "rt/g"); }), step("unlink", [](Actor& a) { a.unlink("rt/g"); }),
             step("write", [](Actor& a) { a.write(a.handle("h"), 0, std::string(5000, 'S')); }), reclaim_step(),
             step("close", [](Actor& a) { a.close_all(); }), reclaim_step(), sync_step()}),
      one("rename over a realtime file", [](Actor& a) { a.rename("main", "rt/g"); }),
      one("rename over a file of the main device", [](Actor& a) { a.rename("rt/f", "main"); }),
      steps("set the flag, write; take it away, write",
            {step("set", [](Actor& a) { a.set_flags("unused", kInodeRealtime); }),
             step("write", [](Actor& a) { a.write("unused", 0, pattern('s', 5000)); }), fsync_step("unused"),
             step("clear", [](Actor& a) { a.set_flags("rt/unused", 0); }),
             step("write", [](Actor& a) { a.write("rt/unused", 0, pattern('c', 5000)); }), sync_step()}),
      steps("both devices, fsync of one file",
            {step("write main", [](Actor& a) { a.write("main", 3000, pattern('1', 6000)); }),
             step("write rt", [](Actor& a) { a.write("rt/f", 3000, pattern('2', 6000)); }), fsync_step("rt/f"),
             step("write rt", [](Actor& a) { a.write("rt/f", 9000, pattern('3', 6000)); }), fsync_step("main"),
             step("write main", [](Actor& a) { a.write("main", 0, pattern('4', 6000)); }), sync_step()}),
      steps("copy from device to device", {step("copy",
                                                [](Actor& a) {
                                                  const auto from = a.open("rt/g");
                                                  const auto to = a.open("main");
                                                  (void)must(a->copy_range(*from, 100, *to, 2000, 9000,
                                                                           Caller{.may_keep_setid = true}));
                                                }),
                                           fsync_step("main")}),
      steps("the daemon dies in between",
            {step("write", [](Actor& a) { a.write("rt/g", 0, pattern('1', 5000)); }),
             step("die and mount", [](Actor& a) { a.die_and_mount(); }),
             step("write", [](Actor& a) { a.write("rt/g", 69'000, pattern('2', 5000)); }), fsync_step("rt/g"),
             step("unlink", [](Actor& a) { a.unlink("rt/g"); }), reclaim_step(), unmount_step()}),
  };
}

}  // namespace

TEST_CASE("crash: two devices", "[crash][realtime]") {
  const Setting& setting = realtime_settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4, 5, 6}, {0, 2, 3, 4})))];
  const MachineImage base = prepared_image(setting, make_realtime_tree);
  Effort effort;
  effort.work_on_each = 12;
  effort.most_points = 40;
  for (const Workload& workload : realtime_workloads()) {
    effort.crashes_mount = workload.name == "overwrite";
    const std::string problem = crash_everywhere(base, setting, workload, effort);
    INFO(problem);
    CHECK(problem.empty());
  }
}
