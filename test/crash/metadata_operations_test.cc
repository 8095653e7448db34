// Every operation, crashed at every fence and every reply, on both kinds of device.
//
// Each image that the fault model allows must mount, check clean with free blocks zero, show the state before or after the
// operation (page-cached: any state since the last sync, in order; bytes of files: one they had since then, or zero where a
// block was new), and go on working. For a sample the recovery itself is crashed the same way.
//
// PLUMB_CRASH_STATES=N scales the number of images for each point by N (default 1); PLUMBFS_QUICK=1 takes a sixth.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic ignored "-Warray-bounds"  // false positives on inlined std::string, GCC bug 105329
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#endif
#include <linux/falloc.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <functional>
#include <iostream>

#include "fs/core/check.h"
#include "pmem/crash_explorer.h"
#include "test/crash/visible_state.h"

namespace plumb::test {
namespace {

constexpr std::uint64_t kDeviceBytes = 8u << 20;

struct Setting {
  pmem::DeviceKind kind;
  std::uint32_t block_size_bytes;
  Writeback writeback;
  bool wrapped;  // the log has gone round before the operation
};

struct Operation {
  const char* name;
  std::function<void(World&)> run;
};

MountOptions mount_options(const Setting& setting) {
  MountOptions options = quiet_mount();
  options.writeback = setting.writeback;
  return options;
}

void prepare(World& world, bool wrapped) {
  world.mkdir("d");
  world.mkdir("d/sub");
  world.mkdir("empty");
  world.create("f");
  world.write("f", 0, pattern('f', 6000));
  world.create("g");
  world.write("g", 0, pattern('g', 3000));
  world.create("scattered");
  for (std::uint64_t i = 0; i < 12; ++i) world.write("scattered", i * 20000, pattern('c', 1500, i));
  world.create("secret");
  world.write("secret", 0, std::string(20000, 'S'));
  world.link("f", "d/f2");
  world.set_xattr("g", "user.old", std::string(2000, 'o'));
  world.symlink("l", "target");
  world.unlink("secret");
  if (wrapped) {
    for (int i = 0; i < 5000; ++i) {
      SetAttributes set;
      set.mode = i % 2 == 0 ? 0600 : 0644;
      world.change("f", set);
    }
  }
  must(world->run_reclaim());
  must(world->sync());
}

void set_mode(World& world, const char* path, std::uint32_t mode, std::uint32_t uid) {
  SetAttributes set;
  set.mode = mode;
  set.uid = uid;
  world.change(path, set);
}

std::vector<Operation> operations() {
  return {
      {"create", [](World& w) { w.create("new"); }},
      {"mkdir", [](World& w) { w.mkdir("d/newdir"); }},
      {"symlink short", [](World& w) { w.symlink("s", "short"); }},
      {"symlink long", [](World& w) { w.symlink("s", std::string(4000, 't')); }},
      {"mknod", [](World& w) { w.make("fifo", S_IFIFO | 0600); }},
      {"unlink last link", [](World& w) { w.unlink("g"); }},
      {"unlink one of two", [](World& w) { w.unlink("f"); }},
      {"rmdir", [](World& w) { w.rmdir("empty"); }},
      {"link", [](World& w) { w.link("g", "d/g2"); }},
      {"rename", [](World& w) { w.rename("g", "h"); }},
      {"rename over a file", [](World& w) { w.rename("f", "g"); }},
      {"rename over a directory", [](World& w) { w.rename("d/sub", "empty"); }},
      {"rename a directory to another", [](World& w) { w.rename("d/sub", "moved"); }},
      {"rename exchange", [](World& w) { w.rename("d", "g", {.exchange = true}); }},
      {"rename whiteout", [](World& w) { w.rename("g", "h", {.whiteout = true}); }},
      {"chmod and chown", [](World& w) { set_mode(w, "g", 0600, 7); }},
      {"set xattr", [](World& w) { w.set_xattr("f", "user.new", "value"); }},
      {"replace big xattr", [](World& w) { w.set_xattr("g", "user.old", std::string(60000, 'n')); }},
      {"remove xattr", [](World& w) { w.remove_xattr("g", "user.old"); }},
      {"flags", [](World& w) { must(w->set_flags(*w.find("f"), kInodeNodump)); }},
      {"write to a new file", [](World& w) { w.create("n"), w.write("n", 0, pattern('n', 9000)); }},
      {"overwrite", [](World& w) { w.write("f", 1000, pattern('w', 2000)); }},
      {"append", [](World& w) { w.write("f", 6000, pattern('a', 5000)); }},
      {"write into a hole", [](World& w) { w.write("scattered", 8000, pattern('h', 4000)); }},
      {"write beyond the end", [](World& w) { w.write("f", 30000, pattern('b', 100)); }},
      {"truncate down", [](World& w) { w.truncate("f", 2500); }},
      {"truncate down and up", [](World& w) { w.truncate("f", 100), w.truncate("f", 9000); }},
      {"truncate scattered", [](World& w) { w.truncate("scattered", 30000); }},
      {"truncate to nothing, write again", [](World& w) { w.truncate("g", 0), w.write("g", 0, pattern('2', 4000)); }},
      {"truncate up", [](World& w) { w.truncate("g", 50000); }},
      {"fallocate", [](World& w) { w.allocate("g", 0, 0, 40000); }},
      {"fallocate keep size", [](World& w) { w.allocate("g", FALLOC_FL_KEEP_SIZE, 0, 40000); }},
      {"punch hole", [](World& w) { w.allocate("f", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 500, 5000); }},
      {"zero range", [](World& w) { w.allocate("f", FALLOC_FL_ZERO_RANGE, 500, 9000); }},
      {"unnamed file, then a name",
       [](World& w) {
         CreateRequest request;
         request.mode = S_IFREG | 0644;
         const FoundEntry found = must(w->create_unnamed(*w->root(), request));
         must(w->link(*found.inode, *w->root(), "named"));
       }},
      {"unlink while open",
       [](World& w) {
         const auto handle = w.open("g");
         w.unlink("g");
         w.write(*handle, 0, pattern('o', 5000));
       }},
  };
}

// One run on a recording device: the states that were seen, and where in the log they were answered.
struct Recording {
  std::vector<VisibleState> states;         // states[0]: before
  std::vector<std::size_t> answered;        // event index of the reply to states[i + 1]
  std::size_t synced = ~std::size_t{0};     // event index from which on the last state is durable everywhere
};

Recording record(pmem::CrashDevice& device, const Setting& setting, const Operation& operation) {
  Recording recording;
  World world(device, mount_options(setting));
  recording.states.push_back(visible_state(world));
  operation.run(world);
  recording.answered.push_back(device.mark("answered"));
  recording.states.push_back(visible_state(world));
  must(world->sync());
  recording.synced = device.mark("synced");
  must(world->run_reclaim());
  world.unmount();
  return recording;
}

// Empty if `seen` is a state that may be seen; otherwise what is wrong.
std::string difference(const VisibleState& seen, const std::vector<const VisibleState*>& allowed, bool zeros_too) {
  const VisibleState* match = nullptr;
  for (const VisibleState* state : allowed)
    if (state->names == seen.names) match = state;
  if (match == nullptr) {
    std::string text = "names are neither of before nor of after:";
    for (const auto& [path, meta] : seen.names) {
      const auto it = allowed.back()->names.find(path);
      if (it == allowed.back()->names.end() || it->second != meta) text += "\n  " + path + ": " + meta.substr(0, 200);
    }
    return text;
  }
  for (const auto& [key, content] : seen.contents) {
    for (std::size_t i = 0; i < content.size(); ++i) {
      bool ok = zeros_too && content[i] == '\0';
      for (const VisibleState* state : allowed) {
        const auto it = state->contents.find(key);
        if (it != state->contents.end() && i < it->second.size() && it->second[i] == content[i]) ok = true;
      }
      if (!ok)
        return "inode " + std::to_string(key.first) + " byte " + std::to_string(i) + " is " +
               std::to_string(static_cast<int>(content[i]));
    }
  }
  return {};
}

std::string check_text(pmem::Device& device) {
  const auto report = check_volume(device, {.zeros = true, .progress = {}});
  if (!report) return "check: " + report.error().message();
  if (report->problems_total == 0) return {};
  return "check: " + report->problems.front().object + ": " + report->problems.front().what;
}

// Mounts what the crash left and looks at it; then works on it. Empty if all is well.
std::string try_image(const pmem::CrashImage& image, const Setting& setting,
                      const std::vector<const VisibleState*>& allowed, bool zeros_too, pmem::CrashDevice* recovery) {
  pmem::CrashDevice fresh(image, {.kind = setting.kind});
  pmem::CrashDevice& device = recovery != nullptr ? *recovery : fresh;
  if (std::string text = check_text(device); !text.empty()) return "before recovery, " + text;
  auto volume = Volume::mount(device, mount_options(setting));
  if (!volume) return "mount: " + volume.error().message();
  volume->reset();
  World world(device, mount_options(setting));
  if (std::string text = difference(visible_state(world), allowed, zeros_too); !text.empty()) return text;
  must(world->run_reclaim());
  world.create("afterwards");
  world.write("afterwards", 0, pattern('z', 12000));
  world.rename("afterwards", "later");
  if (world.read("later") != pattern('z', 12000)) return "a file written after recovery reads differently";
  world.unlink("later");
  must(world->run_reclaim());
  world.unmount();
  std::string text = check_text(device);
  return text.empty() ? text : "after working on it, " + text;
}

struct Totals {
  std::size_t images = 0, nested = 0, points = 0;
};

std::size_t scale() {
  const char* text = std::getenv("PLUMB_CRASH_STATES");
  return text == nullptr ? 1 : std::max<std::size_t>(1, std::strtoull(text, nullptr, 10));
}
bool quick() {
  const char* text = std::getenv("PLUMBFS_QUICK");
  return text != nullptr && *text == '1';
}

pmem::ImageLimits limits(std::uint64_t seed) {
  pmem::ImageLimits l;
  l.exhaustive_stores = quick() ? 2 : 4;
  l.max_systematic = (quick() ? 3 : 14) * scale();
  l.random_subsets = 2 * scale();
  l.torn_stores = 1 * scale();
  l.random_torn = 2 * scale();
  l.seed = seed;
  return l;
}

// The recovery of an image, crashed at each of its fences.
std::string crash_recovery(const pmem::CrashImage& image, const Setting& setting,
                           const std::vector<const VisibleState*>& allowed, bool zeros_too, Totals& totals) {
  pmem::CrashDevice recorded(image, {.kind = setting.kind});
  {
    auto volume = Volume::mount(recorded, mount_options(setting));
    if (!volume) return "mount: " + volume.error().message();
  }
  pmem::CrashExplorer explorer(recorded);
  std::string problem;
  pmem::ImageLimits few = limits(7);
  few.max_systematic = 3;
  few.random_subsets = few.random_torn = few.torn_stores = 1;
  for (const std::size_t point : recorded.crash_points()) {
    explorer.for_each_image(point, few, [&](const pmem::CrashImage& again) {
      ++totals.nested;
      problem = try_image(again, setting, allowed, zeros_too, nullptr);
      return problem.empty();
    });
    if (!problem.empty()) return "crashed again in recovery: " + problem;
  }
  return {};
}

// Empty, or the first violation.
std::string explore(const pmem::CrashDevice& device, const Setting& setting, const Recording& recording, Totals& totals) {
  const bool immediate = setting.kind == pmem::DeviceKind::kMemory && setting.writeback == Writeback::kImmediate;
  const bool metadata_at_reply = setting.kind == pmem::DeviceKind::kMemory;
  pmem::CrashExplorer explorer(device);
  std::string problem;
  for (const std::size_t point : device.crash_points()) {
    ++totals.points;
    const bool answered = point > recording.answered[0];
    const bool synced = point > recording.synced;
    std::vector<const VisibleState*> allowed;
    if (!synced && !(answered && metadata_at_reply)) allowed.push_back(&recording.states[0]);
    allowed.push_back(&recording.states[1]);
    // Operations of two calls have a state between them, which only these two list.
    const bool may_be_between = !synced && !(answered && metadata_at_reply);
    for (std::size_t i = 2; i < recording.states.size() && may_be_between; ++i) allowed.push_back(&recording.states[i]);
    const bool zeros_too = !immediate && !synced;
    std::vector<const VisibleState*> bytes = allowed;
    if (!immediate && !synced && allowed.size() == 1) bytes.insert(bytes.begin(), &recording.states[0]);
    explorer.for_each_image(point, limits(point), [&](const pmem::CrashImage& image) {
      ++totals.images;
      problem = try_image(image, setting, answered && metadata_at_reply && !immediate ? bytes : allowed, zeros_too,
                          nullptr);
      if (problem.empty() && totals.images % 40 == 0)
        problem = crash_recovery(image, setting, bytes, zeros_too, totals);
      if (!problem.empty())
        problem = "crash before event " + std::to_string(point) + " (" + image.description() + "): " + problem;
      return problem.empty();
    });
    if (!problem.empty()) return problem;
  }
  return {};
}

pmem::CrashImage base_image(const Setting& setting) {
  auto device = crash_device(setting.kind, kDeviceBytes);
  must(Volume::format(*device, fixed_format(setting.block_size_bytes)));
  World world(*device, mount_options(setting));
  prepare(world, setting.wrapped);
  world.unmount();
  return device->current_image();
}

// Operations that are two calls: the state between the two is legal as well.
std::vector<VisibleState> middle_states(const pmem::CrashImage& base, const Setting& setting, const Operation& operation) {
  const std::string name = operation.name;
  std::function<void(World&)> first;
  if (name == "write to a new file") first = [](World& w) { w.create("n"); };
  if (name == "truncate down and up") first = [](World& w) { w.truncate("f", 100); };
  if (name == "truncate to nothing, write again") first = [](World& w) { w.truncate("g", 0); };
  if (!first) return {};
  pmem::CrashDevice device(base, {.kind = setting.kind});
  World world(device, mount_options(setting));
  first(world);
  std::vector<VisibleState> states{visible_state(world)};
  world.die();
  return states;
}

void run_all(const Setting& setting) {
  const pmem::CrashImage base = base_image(setting);
  Totals totals;
  for (const Operation& operation : operations()) {
    INFO(operation.name);
    pmem::CrashDevice device(base, {.kind = setting.kind});
    Recording recording = record(device, setting, operation);
    for (VisibleState& state : middle_states(base, setting, operation)) recording.states.push_back(std::move(state));
    const std::string problem = explore(device, setting, recording, totals);
    INFO(problem);
    CHECK(problem.empty());
  }
  std::cout << "  " << totals.points << " points, " << totals.images << " crash images, " << totals.nested
            << " of crashes in recovery\n";
}

}  // namespace

TEST_CASE("crash: memory with 4 KiB blocks", "[crash]") {
  run_all({pmem::DeviceKind::kMemory, 4096, Writeback::kImmediate, false});
}
TEST_CASE("crash: memory with 1 KiB blocks and a wrapped log", "[crash]") {
  run_all({pmem::DeviceKind::kMemory, 1024, Writeback::kImmediate, true});
}
TEST_CASE("crash: memory with deferred writeback", "[crash]") {
  run_all({pmem::DeviceKind::kMemory, 4096, Writeback::kDeferred, false});
}
TEST_CASE("crash: page-cached with 4 KiB blocks", "[crash]") {
  run_all({pmem::DeviceKind::kCached, 4096, Writeback::kImmediate, false});
}
TEST_CASE("crash: page-cached with 1 KiB blocks and a wrapped log", "[crash]") {
  run_all({pmem::DeviceKind::kCached, 1024, Writeback::kImmediate, true});
}

TEST_CASE("crash: a store that is called durable without its drain is found out", "[crash][mutation]") {
  const Setting setting{pmem::DeviceKind::kMemory, 4096, Writeback::kImmediate, false};
  const pmem::CrashImage base = base_image(setting);
  const Operation operation{"append", [](World& w) { w.write("f", 6000, pattern('a', 5000)); }};
  std::size_t calls_at_mount = 0;
  std::size_t calls = 0;
  std::set<std::size_t> redundant;  // drain calls without which no image changes: nothing was stored before them
  {
    pmem::CrashDevice device(base, {.kind = setting.kind});
    {
      World world(device, mount_options(setting));
      calls_at_mount = device.drain_calls();
      operation.run(world);
      calls = device.drain_calls();
    }
    const std::vector<std::size_t> events = pmem::CrashExplorer::redundant_fences(device);
    std::size_t call = 0;
    for (std::size_t i = 0; i < device.event_count(); ++i) {
      if (device.event(i).type != pmem::CrashEvent::Type::kDrain) continue;
      if (std::find(events.begin(), events.end(), i) != events.end()) redundant.insert(call);
      ++call;
    }
  }
  REQUIRE(calls > calls_at_mount);
  std::size_t killed = 0;
  std::string survivors;
  for (std::size_t n = calls_at_mount; n < calls; ++n) {
    if (redundant.contains(n)) continue;
    pmem::CrashDevice device(base, {.kind = setting.kind});
    device.drop_drain_call(n);
    const Recording recording = record(device, setting, operation);
    Totals totals;
    if (explore(device, setting, recording, totals).empty())
      survivors += " " + std::to_string(n - calls_at_mount);
    else
      ++killed;
  }
  std::cout << "  drains of an append: " << calls - calls_at_mount << ", found missing: " << killed << "\n";
  CHECK(killed != 0);
  INFO("survivors, counted from the first drain of the write:" << survivors);
  CHECK(survivors.empty());
}

}  // namespace plumb::test
