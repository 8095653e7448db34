// Every operation of the crash tests, with a failure at its first, second, third ... step of a kind, until none is met
// any more.
//
//   no space    the operation fails whole: what a user sees is as before, nothing leaks, and it works when it is done
//               again
//   I/O error   what a user sees is before or after, and so is what a daemon finds that is started again
//   no memory   the daemon ends; the next one finds before or after
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <iostream>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "fs/core/check.h"
#include "fs/core/volume_impl.h"
#include "test/crash/fixed_clock.h"
#include "test/crash/memory_faults.h"
#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;

// Exit statuses of the process that runs out of memory.
constexpr int kOutOfMemory = 3, kNotSaved = 4;
constexpr std::uint64_t kMostSteps = 5000;  // of one kind in one operation; more is a loop that does not end

struct Tally {
  std::uint64_t operations = 0, failures = 0, survived = 0;
};

std::string text_of(const Setting& setting, const Workload& workload, const Step& s, std::uint64_t k) {
  return std::string(setting.name) + ", " + workload.name + ", " + s.name + ", failure " + std::to_string(k);
}

// What is free when nothing waits any more.
std::uint64_t settled_free(Actor& a) {
  must(a->run_reclaim());
  return a.blocks_free();
}

void check_sound(Machine& machine) {
  const CheckReport report = must(check_volume(machine.members(), {.zeros = true, .progress = {}}));
  for (const Problem& problem : report.problems) UNSCOPED_INFO(problem.object << ": " << problem.what);
  CHECK(report.problems_total == 0);
}

// A write that stored a part is answered with less than was asked for: the rest of the file is as it was.
bool is_short_write(const std::exception& e) {
  return std::string_view(e.what()) == "short write";
}

enum class Outcome : std::uint8_t { kDone, kFailed, kInPart };

template <typename Run>
Outcome outcome_of(const Step& s, const Run& run) {
  try {
    run();
    return Outcome::kDone;
  } catch (const std::runtime_error& e) {
    return s.is_in_parts || is_short_write(e) ? Outcome::kInPart : Outcome::kFailed;
  }
}

std::string difference(const Snapshot& seen, const Snapshot& expected) {
  const std::string metadata = metadata_difference(seen, expected);
  return metadata.empty() ? content_difference(seen, expected) : metadata;
}

void run_out_after(Actor& a, std::uint64_t grants) {
  for (const DeviceRole role : a->impl().store.roles()) a->impl().store.allocator(role).run_out_after(grants);
}
void end_shortage(Actor& a) {
  run_out_after(a, std::numeric_limits<std::uint64_t>::max());
}

// Blocks run out at the k-th request and stay so; k grows until the operation does not notice.
void run_out_of_space(const MachineImage& base, const Setting& setting, const Workload& workload, Tally& tally) {
  reset_clock();
  Machine machine(base, setting.kinds);
  Actor a(machine, setting);
  if (workload.just_before) workload.just_before(a);
  for (const Step& s : workload.steps) {
    if (s.is_unmount || s.name == "die and mount") continue;
    ++tally.operations;
    tick_clock();
    Snapshot before = take_snapshot(a, a.held());
    std::uint64_t free_before = settled_free(a);
    for (std::uint64_t k = 0;; ++k) {
      INFO(text_of(setting, workload, s, k));
      REQUIRE(k < kMostSteps);
      run_out_after(a, k);
      const Outcome outcome = outcome_of(s, [&] { s.run(a); });
      end_shortage(a);
      if (outcome == Outcome::kDone) break;
      ++tally.failures;
      const std::uint64_t free_now = settled_free(a);
      const Snapshot now = take_snapshot(a, a.held());
      if (outcome == Outcome::kInPart) {
        before = now;  // what was done stays, and is counted
        free_before = free_now;
        continue;
      }
      CHECK(difference(now, before) == "");
      CHECK(free_now == free_before);
    }
  }
  a.close_all();
  a.unmount();
  check_sound(machine);
}

enum class Call : std::uint8_t { kStore, kFlush, kDrain };
constexpr std::size_t kCalls = 3;

pmem::CrashDevice& device_of(const Machine& machine, bool of_realtime) {
  return of_realtime ? *machine.realtime() : machine.main();
}

void fail_call(pmem::CrashDevice& device, Call call, std::uint64_t after) {
  switch (call) {
    case Call::kStore:
      return device.fail_store_call(device.store_calls() + after, EIO);
    case Call::kFlush:
      return device.fail_flush_call(device.flush_calls() + after, EIO);
    case Call::kDrain:
      return device.fail_drain_call(device.drain_calls() + after, EIO);
  }
}
std::uint64_t calls_of(const pmem::CrashDevice& device, Call call) {
  if (call == Call::kStore) return device.store_calls();
  return call == Call::kFlush ? device.flush_calls() : device.drain_calls();
}

// Names and metadata are those of before or after; each byte of a file is one of before or after, or zero.
std::string neither(const Snapshot& seen, const Step& s, const Snapshot& before, const Snapshot& after) {
  std::size_t shown = 0;
  // Of many extents, a truncate too is made of several transactions; after a restart the orphan list finishes it.
  if (s.is_in_parts || s.name == "truncate many extents") {
    const std::string parts = step_difference(seen, before, after);
    if (!parts.empty()) return parts;
  } else if (!metadata_difference(seen, before).empty()) {
    shown = 1;
    const std::string from_after = metadata_difference(seen, after);
    if (!from_after.empty()) return metadata_difference(seen, before) + "; and " + from_after;
  }
  const Snapshot versions[] = {before, after};
  for (const auto& [key, inode] : seen.inodes) {
    const std::string foreign = foreign_byte(
        inode.content, key, {.versions = versions, .shown = shown, .unborn_is_zero = true}, 0, inode.content.size());
    if (!foreign.empty()) return foreign;
  }
  return {};
}

// What a daemon finds that is started again, and that it can work with it.
void found_by_the_next(const MachineImage& image, const Setting& setting, const Step& s, const Snapshot& before,
                       const Snapshot& after) {
  Machine again(image, setting.kinds);
  Actor a(again, setting);
  const Snapshot found = take_snapshot(a);
  CHECK(neither(found, s, before, after) == "");
  a.create("afterwards");
  a.unmount();
  check_sound(again);
}

// The one step of a workload without a failure: what it leads to, and the calls of the devices on the way.
struct Expected {
  Snapshot after;
  std::array<std::array<std::uint64_t, kCalls>, media::kMaxDevices> calls{};  // by device and Call
};

Expected expected_of(const MachineImage& base, const Setting& setting, const Workload& workload) {
  reset_clock();
  Machine machine(base, setting.kinds);
  Actor a(machine, setting);
  tick_clock();
  Expected expected;
  const auto count = [&](bool begins) {
    for (const bool of_realtime : {false, true}) {
      if (of_realtime && !setting.has_realtime()) continue;
      for (std::size_t call = 0; call < kCalls; ++call) {
        std::uint64_t& calls = expected.calls[of_realtime ? 1 : 0][call];
        const std::uint64_t now = calls_of(device_of(machine, of_realtime), static_cast<Call>(call));
        calls = begins ? now : now - calls;
      }
    }
  };
  count(true);
  workload.steps.front().run(a);
  count(false);
  expected.after = take_snapshot(a, a.held());
  return expected;
}

// Runs the step in a process of its own, which ends where its k-th operator new would fail. What is then on the
// devices; nothing if the step was through before.
std::optional<MachineImage> image_of_death(Actor& a, const Machine& machine, const Step& s, std::uint64_t k) {
  const int file = ::memfd_create("devices", MFD_CLOEXEC);
  REQUIRE(file >= 0);
  const std::uint64_t main_bytes = machine.main().size_bytes();
  const std::uint64_t realtime_bytes = machine.realtime() != nullptr ? machine.realtime()->size_bytes() : 0;
  const pid_t child = ::fork();
  if (child == 0) {
    const auto save = [&](const pmem::CrashDevice& device, std::uint64_t at) {
      const std::byte* bytes = device.view(0, device.size_bytes());
      for (std::uint64_t done = 0; done < device.size_bytes();) {
        const ssize_t count = ::pwrite(file, bytes + done, device.size_bytes() - done, static_cast<off_t>(at + done));
        if (count <= 0) ::_exit(kNotSaved);
        done += static_cast<std::uint64_t>(count);
      }
    };
    const MemoryFault fault(k, [&] {
      save(machine.main(), 0);
      if (machine.realtime() != nullptr) save(*machine.realtime(), main_bytes);
      ::_exit(kOutOfMemory);
    });
    s.run(a);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) != kNotSaved);
  std::optional<MachineImage> image;
  if (WEXITSTATUS(status) == kOutOfMemory) {
    std::vector<std::byte> bytes(main_bytes + realtime_bytes);
    REQUIRE(::pread(file, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
    image = MachineImage{pmem::CrashImage(std::span(bytes).first(main_bytes)), {}};
    if (realtime_bytes != 0) image->realtime.emplace(std::span(bytes).subspan(main_bytes));
  } else {
    REQUIRE(WEXITSTATUS(status) == 0);
  }
  ::close(file);
  return image;
}

// The daemon ends at the k-th operator new (fs/DESIGN.md, "Failures in the middle"). `k` goes on in steps of `stride`
// until the one step of the workload is through.
void run_out_of_memory(const MachineImage& base, const Setting& setting, const Workload& workload,
                       const Expected& expected, std::uint64_t stride, Tally& tally) {
  const Step& s = workload.steps.front();
  ++tally.operations;
  reset_clock();
  Machine machine(base, setting.kinds);
  Actor a(machine, setting);
  const Snapshot before = take_snapshot(a);
  tick_clock();
  for (std::uint64_t k = 0;; k += stride) {
    INFO(text_of(setting, workload, s, k));
    REQUIRE(k < kMostSteps);
    const std::optional<MachineImage> image = image_of_death(a, machine, s, k);
    if (!image) return;
    ++tally.failures;
    found_by_the_next(*image, setting, s, before, expected.after);
  }
}

// The k-th store, flush or drain of a device fails, once, in the one step of the workload.
void device_fails(const MachineImage& base, const Setting& setting, const Workload& workload, const Expected& expected,
                  Call call, bool of_realtime, Tally& tally) {
  const Step& s = workload.steps.front();
  ++tally.operations;
  const std::uint64_t calls = expected.calls[of_realtime ? 1 : 0][static_cast<std::size_t>(call)];
  for (std::uint64_t k = 0; k < calls; ++k) {
    INFO(text_of(setting, workload, s, k) << " of calls of kind " << static_cast<int>(call));
    reset_clock();
    Machine machine(base, setting.kinds);
    pmem::CrashDevice& device = device_of(machine, of_realtime);
    std::optional<Snapshot> before;
    {
      Actor a(machine, setting);
      before = take_snapshot(a);
      tick_clock();
      fail_call(device, call, k);
      const Outcome outcome = outcome_of(s, [&] { s.run(a); });
      device.clear_faults();
      ++tally.failures;
      const Snapshot now = take_snapshot(a, a.held());
      CHECK(neither(now, s, *before, expected.after) == "");
      if (outcome == Outcome::kDone) {
        ++tally.survived;
        CHECK(metadata_difference(now, expected.after) == "");
      }
    }
    found_by_the_next(machine.current_image(), setting, s, *before, expected.after);
  }
}

std::vector<Workload> all_workloads(const Setting& setting) {
  std::vector<Workload> all = namespace_workloads();
  for (const auto& more : {data_workloads(), attribute_workloads()}) all.insert(all.end(), more.begin(), more.end());
  // It takes the realtime flag away, which a file with data keeps.
  if (setting.has_realtime()) std::erase_if(all, [](const Workload& w) { return w.name == "flags"; });
  return all;
}

const Setting& setting_of(std::size_t i) {
  return i < settings().size() ? settings()[i] : realtime_settings()[i - settings().size()];
}

void make_realtime_tree(Actor& a) {
  a.set_flags("", kInodeRtInherit);
  make_tree(a);
}

MachineImage base_of(const Setting& setting) {
  return prepared_image(setting, setting.has_realtime() ? make_realtime_tree : make_tree);
}

void report(const char* what, const Setting& setting, const Tally& tally) {
  std::cout << what << ", " << setting.name << ": " << tally.operations << " operations, " << tally.failures
            << " failures, of which " << tally.survived << " did not matter\n";
}

}  // namespace

TEST_CASE("failure: no space at any request of any operation", "[failure]") {
  const Setting& setting = setting_of(GENERATE(from_range(chosen({0, 1, 4, 6}, {1, 6}))));
  const MachineImage base = base_of(setting);
  Tally tally;
  for (const Workload& workload : all_workloads(setting)) run_out_of_space(base, setting, workload, tally);
  report("no space", setting, tally);
  CHECK(tally.failures > tally.operations / 2);
}

TEST_CASE("failure: no memory at any allocation of any operation", "[failure]") {
  const Setting& setting = setting_of(GENERATE(from_range(chosen({1, 4, 6}, {1}))));
  const MachineImage base = base_of(setting);
  Tally tally;
  for (const Workload& workload : all_workloads(setting)) {
    const Expected expected = expected_of(base, setting, workload);
    run_out_of_memory(base, setting, workload, expected, is_quick() ? 29 : 7, tally);
  }
  report("no memory", setting, tally);
  CHECK(tally.failures > tally.operations);
}

TEST_CASE("failure: an I/O error at any store, flush or drain of any operation", "[failure]") {
  const Setting& setting = setting_of(GENERATE(from_range(chosen({1, 4, 6}, {1}))));
  const MachineImage base = base_of(setting);
  std::array<Tally, media::kMaxDevices> tallies;
  for (const Workload& workload : all_workloads(setting)) {
    const Expected expected = expected_of(base, setting, workload);
    for (const bool of_realtime : {false, true})
      for (std::size_t call = 0; call < kCalls; ++call)
        device_fails(base, setting, workload, expected, static_cast<Call>(call), of_realtime,
                     tallies[of_realtime ? 1 : 0]);
  }
  report("I/O errors of the main device", setting, tallies[0]);
  CHECK(tallies[0].failures != 0);
  if (!setting.has_realtime()) return;
  report("I/O errors of the realtime device", setting, tallies[1]);
  CHECK(tallies[1].failures != 0);
}
