// Crashes while blocks that cannot be read are found, listed, and left behind by the file they were in. They are bad in
// every image.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <vector>

#include "fs/core/bad_block_report.h"
#include "fs/core/volume_impl.h"
#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;

constexpr std::uint64_t kBadOffset = 16'384;  // in the file

void make_tree_and_file(Actor& a) {
  make_tree(a);
  a.create("bad");
  a.write("bad", 0, pattern('b', 40'000));
}

std::uint64_t place_of(Actor& a, std::string_view path, std::uint64_t offset) {
  const InodeRef inode = a.find(path);
  const ReadPin pin = must(a->read(*inode, offset, 1));
  return a->impl().store.device(DeviceRole::kMain).offset_of(pin.iov.at(0).iov_base).value();
}

// The request that meets it.
Step read_step() {
  return step("read what is bad", [](Actor& a) {
    const InodeRef inode = a.find("bad");
    if (const auto pin = a->read(*inode, kBadOffset, 1)) a->note_unreadable(*pin);
  });
}

}  // namespace

TEST_CASE("crash: a bad block is found, listed, and its file deleted", "[crash][poison]") {
  Setting setting = settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 2})))];
  const MachineImage base = prepared_image(setting, make_tree_and_file);
  {
    Machine machine(base, setting.kinds);
    Actor world(machine, setting);
    setting.kinds.poison = {place_of(world, "bad", kBadOffset)};
  }
  const auto punch =
      in_parts("punch", [](Actor& a) { a.allocate("bad", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 16'384); });
  const auto unlink = step("unlink", [](Actor& a) { a.unlink("bad"); });
  const Workload workloads[] = {
      {.name = "found, then deleted", .steps = {read_step(), reclaim_step(), unlink, reclaim_step(), unmount_step()}},
      {.name = "deleted, then found", .steps = {unlink, reclaim_step(), unmount_step()}},
      {.name = "found, then punched", .steps = {read_step(), reclaim_step(), punch, reclaim_step(), sync_step()}},
  };
  Effort effort;
  effort.crashes_mount = true;
  effort.nested_each = 30;
  for (const Workload& workload : workloads) {
    const std::string problem = crash_everywhere(base, setting, workload, effort);
    INFO(problem);
    CHECK(problem.empty());
    // What was explored is what it says: the block has no owner but the list in the end.
    Machine machine(base, setting.kinds);
    (void)record(machine, setting, workload);
    Actor world(machine, setting);
    must(world->run_reclaim());
    const auto reports = must(world->report_bad_blocks(0, 100)).reports;
    REQUIRE_FALSE(reports.empty());
    for (const BadBlockReport& report : reports) CHECK(report.use == BadBlockUse::kFree);
  }
}

TEST_CASE("crash: a block on the list that can be read again is cleared, and reads as zeros", "[crash][poison]") {
  Setting setting = settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 4})))];
  const MachineImage sound = prepared_image(setting, make_tree_and_file);
  std::uint64_t bad = 0;
  {
    Machine machine(sound, setting.kinds);
    Actor world(machine, setting);
    bad = place_of(world, "bad", kBadOffset);
  }
  setting.kinds.poison = {bad};
  Machine machine(sound, setting.kinds);
  {
    Actor world(machine, setting);
    world.unlink("bad");
    must(world->run_reclaim());
    world.unmount();
  }
  setting.kinds.poison = {};  // the medium has been repaired
  Machine repaired(machine.current_image(), setting.kinds);
  constexpr std::uint64_t kPage = 4096;  // all of it was bad, and was the file's
  must(repaired.main().store(bad / kPage * kPage, std::vector<std::byte>(kPage, std::byte{'S'})));
  const MachineImage base = repaired.current_image();
  const Workload workload{
      .name = "clearing",
      .steps = {step("clear", [](Actor& a) { (void)must(a->clear_bad_blocks()); }), unmount_step()}};
  const std::string problem = crash_everywhere(base, setting, workload);
  INFO(problem);
  CHECK(problem.empty());
  Machine cleared(base, setting.kinds);
  (void)record(cleared, setting, workload);
  Actor world(cleared, setting);
  CHECK(must(world->report_bad_blocks(0, 100)).reports.empty());
}
