// Crashes after writes that failed when their bytes were stored already: the blocks are free again, and read as zeros.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <limits>
#include <stdexcept>
#include <string>

#include "fs/core/volume_impl.h"
#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;

// Writes the n-th block of every second. There is space for data, and none for metadata. Returns the error.
int write_without_metadata(Actor& a, std::uint64_t n) {
  Store& store = a->impl().store;
  const auto handle = a.open("f");
  const DeviceRole role = store.superblock().data_role(a.stat("f").flags);
  store.allocator(DeviceRole::kMain).run_out_after(role == DeviceRole::kMain ? 1 : 0);
  const std::uint64_t unit = store.superblock().unit_bytes(role);
  const int error = code_of(a.try_write(*handle, 2 * n * unit, std::string(1000, 'S')));
  store.allocator(DeviceRole::kMain).run_out_after(std::numeric_limits<std::uint64_t>::max());
  return error;
}

void fail_to_write(Actor& a, std::uint64_t n) {
  if (write_without_metadata(a, n) != ENOSPC) throw std::runtime_error("a write that should have no space");
}

// The next extent of "f" needs a node.
std::uint64_t fill_node(Actor& a) {
  a.create("f");
  if (a.setting().has_realtime()) a.set_flags("f", kInodeRealtime);
  std::uint64_t n = 0;
  while (write_without_metadata(a, n) == 0) ++n;
  return n;
}

}  // namespace

TEST_CASE("crash: what a failed write had stored is gone", "[crash][space]") {
  const bool has_realtime = GENERATE(false, true);
  const Setting& setting = has_realtime ? realtime_settings()[0] : settings()[GENERATE(0u, 3u)];
  CAPTURE(setting.name, base_seed());
  std::uint64_t n = 0;
  const MachineImage base = prepared_image(setting, [&](Actor& a) { n = fill_node(a); });
  const Workload workload{.name = "a failed write",
                          .steps = {step("write", [n](Actor& a) { fail_to_write(a, n); }),
                                    step("create", [](Actor& a) { a.create("g"); }), unmount_step()}};
  const std::string problem = crash_everywhere(base, setting, workload);
  INFO(problem);
  CHECK(problem.empty());
}
