#include "test/crash/harness.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <exception>
#include <random>
#include <thread>
#include <unordered_set>

#include "fs/core/check.h"
#include "test/crash/fixed_clock.h"
#include "test/crash/recovery_view.h"

namespace plumb::test {
namespace {

constexpr std::uint64_t kDeviceBytes = 8u << 20;
constexpr std::uint64_t kRealtimeBytes = 4u << 20;

std::string text_from(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? std::string() : std::string(text);
}

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const std::string text = text_from(variable);
  std::uint64_t number = otherwise;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

std::size_t scale() {
  static const std::size_t times = std::max<std::size_t>(1, number_from("PLUMB_CRASH_STATES", 1));
  return times;
}

// One image of a run, or all of a workload: what PLUMB_CRASH_REPLAY names.
struct Place {
  std::string setting, workload;
  bool is_whole_workload = false;
  std::uint64_t tick = 0;
  std::size_t image = 0;  // of those of the tick, from 0

  [[nodiscard]] std::string text() const {
    std::string out = setting;
    out.append("|").append(workload).append("|").append(std::to_string(tick));
    return out.append("|").append(std::to_string(image));
  }
};

const std::optional<Place>& replayed_place() {
  static const std::optional<Place> place = []() -> std::optional<Place> {
    std::vector<std::string> fields{""};
    for (const char c : text_from("PLUMB_CRASH_REPLAY")) {
      if (c == '|')
        fields.emplace_back();
      else
        fields.back() += c;
    }
    if (fields.size() == 2) return Place{.setting = fields[0], .workload = fields[1], .is_whole_workload = true};
    if (fields.size() != 4) return {};
    return Place{fields[0], fields[1], false, std::strtoull(fields[2].c_str(), nullptr, 10),
                 std::strtoull(fields[3].c_str(), nullptr, 10)};
  }();
  return place;
}

void keep(const MachineImage& image) {
  const std::string directory = text_from("PLUMB_CRASH_KEEP");
  if (directory.empty()) return;
  must(image.main.write_file(directory + "/main.img"));
  if (image.realtime) must(image.realtime->write_file(directory + "/realtime.img"));
}

pmem::ImageLimits limits(const Effort& effort, std::uint64_t tick) {
  pmem::ImageLimits l;
  l.exhaustive_stores = is_quick() ? std::min<std::size_t>(effort.exhaustive_stores, 2) : effort.exhaustive_stores;
  l.max_systematic = scaled(effort.systematic);
  l.random_subsets = scaled(effort.random);
  l.torn_stores = scaled(effort.torn);
  l.random_torn = scaled(effort.random);
  l.seed = mixed(base_seed(), tick);
  return l;
}

void require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}

// Of a volume that was mounted: slots of an earlier mount would be believed.
std::string slot_text(World& world) {
  const media::Superblock& sb = world->superblock().media();
  return must(world->superblock().device(DeviceRole::kMain).is_zero(sb.lease_start, sb.lease_bytes))
             ? ""
             : "a lease slot of the mount before is still there";
}

// Of a volume that was unmounted: whatever had no name is gone.
std::string orphan_text(Machine& machine) {
  const media::Superblock sb = must(Superblock::read(machine.members())).media();
  media::State state;
  must(machine.main().load(sb.state_block * sb.block_size_bytes, std::as_writable_bytes(std::span(&state, 1))));
  if (state.orphan_head == 0) return {};
  return "inode " + std::to_string(state.orphan_head.get()) + " is still an orphan after reclaim and unmount";
}

// What every image must be good for.
void work_a_little(Actor& world) {
  const std::string bytes = pattern('z', 9000);
  for (const bool on_realtime : {false, true}) {
    if (on_realtime && !world.setting().has_realtime()) continue;
    world.create("afterwards");
    if (on_realtime) world.set_flags("afterwards", kInodeRealtime);
    world.write("afterwards", 0, bytes);
    world.rename("afterwards", "later");
    require(world.read("later") == bytes, "a file written after recovery reads differently");
    world.unlink("later");
  }
}

void work_in(Actor& world, const std::string& directory) {
  const std::string f = directory + "/f";
  world.create(f);
  world.write(f, 0, pattern('z', 30'000));
  world.allocate(f, 0, 60'000, 40'000);
  const std::string expected = pattern('z', 30'000) + std::string(70'000, '\0');
  require(world.read(f) == expected, "a file allocated after recovery reads differently");
  world.set_xattr(f, "user.x", pattern('x', 5000));
  world.symlink(directory + "/s", std::string(1000, 's'));
  world.truncate(f, 5000);
  world.rename(f, directory + "/g");
  world.unlink(directory + "/g");
  world.unlink(directory + "/s");
}

// Every file that is there can be changed.
void extend_all_below(Actor& world, const std::string& directory) {
  for (const std::string& entry : world.names(directory)) {
    const std::string name = directory.empty() ? entry : directory + "/" + entry;
    const Attributes a = world.stat(name);
    if (S_ISDIR(a.mode)) extend_all_below(world, name);
    if (!S_ISREG(a.mode) || (a.flags & (kInodeImmutable | kInodeAppend)) != 0) continue;
    const std::string old = content_of(world, *world.find(name));
    if (old.find(kUnreadable) != std::string::npos) continue;  // its end may be what is bad
    world.write(name, a.size_bytes + 3000, "end");
    require(world.read(name) == old + std::string(3000, '\0') + "end",
            "extending " + name + " shows bytes that were never written");
    world.truncate(name, a.size_bytes);
  }
}

void work_a_lot(Actor& world) {
  must(world->run_reclaim());
  world.mkdir("afterwards");
  work_in(world, "afterwards");
  extend_all_below(world, "");
  if (world.setting().has_realtime()) {
    world.set_flags("afterwards", kInodeRtInherit);
    work_in(world, "afterwards");
  }
  world.rmdir("afterwards");
  must(world->run_reclaim());
}

// Which images of one workload need no second look.
class Sieve {
 public:
  Sieve(const Machine& recorded, const Setting& setting, const Workload& workload) : view_(recorded) {
    // Images have their hashes relative to where the log began.
    const std::hash<std::string> hash;
    base_ = mixed(hash(setting.name), workload.just_before ? hash(workload.name) : 0);
  }

  bool is_new(const MachineImage& image, const Allowed& allowed) {
    if (!images_.insert(mixed(image.content_hash(), allowed.number())).second) {
      ++totals().repeated;
      return false;
    }
    const std::uint64_t hash = view_.hash(image);
    if (!views_.insert(mixed(hash, allowed.number())).second) {
      ++totals().pruned;
      return false;
    }
    const bool is_distinct = state_register() ? state_register()(mixed(hash, base_)) : distinct_.insert(hash).second;
    if (is_distinct) ++totals().distinct;
    if (is_distinct && allowed.has_client_stores()) ++totals().with_clients;
    return true;
  }

 private:
  RecoveryView view_;
  std::uint64_t base_ = 0;
  std::unordered_set<std::uint64_t> images_, views_, distinct_;
};

}  // namespace

std::uint64_t mixed(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9E3779B97F4A7C15U + b;
  x = (x ^ x >> 31) * 0xD6E8FEB86659FD93U;
  return x ^ x >> 29;
}

std::function<bool(std::uint64_t)>& state_register() {
  static std::function<bool(std::uint64_t)> insert;
  return insert;
}

std::string& replay_command() {
  static std::string command;
  return command;
}

std::string replay_line(const std::string& place) {
  std::string line = "PLUMB_CRASH_SEED=";
  line.append(std::to_string(base_seed())).append(" PLUMBFS_QUICK=").append(is_quick() ? "1" : "0");
  line.append(" PLUMB_CRASH_STATES=").append(std::to_string(scale()));
  line.append(" PLUMB_CRASH_REPLAY='").append(place).append("' ");
  return line.append(replay_command());
}

void in_own_thread(const std::function<void()>& work) {
  std::exception_ptr problem;
  std::thread thread([&] {
    try {
      work();
    } catch (...) {
      problem = std::current_exception();
    }
  });
  thread.join();
  if (problem) std::rethrow_exception(problem);
}

Step sync_step() {
  return {.name = "sync", .run = [](Actor& a) { must(a->sync()); }, .syncs_all = true};
}
Step fsync_step(const std::string& path) {
  return {.name = "fsync " + path, .run = [path](Actor& a) { a.fsync(path); }, .syncs_file = path};
}
Step fdatasync_step(const std::string& path) {
  return {.name = "fdatasync " + path,
          .run = [path](Actor& a) { a.fsync(path, FsyncMode::kDataOnly); },
          .syncs_data_of = path};
}
Step reclaim_step() {
  return step("reclaim", [](Actor& a) { must(a->run_reclaim()); });
}
Step unmount_step() {
  return {.name = "unmount",
          .run =
              [](Actor& a) {
                a.close_all();
                a.unmount();
              },
          .syncs_all = true,
          .is_unmount = true};
}

std::string check_text(Machine& machine) {
  const auto report = check_volume(machine.members(), {.zeros = true, .progress = {}});
  if (!report) return "check: " + report.error().message();
  if (report->problems_total == 0) return {};
  const Problem& first = report->problems.front();
  return "check: " + std::to_string(report->problems_total) + " problems, " + first.object + ": " + first.what;
}

std::uint64_t base_seed() {
  static const std::uint64_t seed = number_from("PLUMB_CRASH_SEED", std::random_device{}());
  return seed;
}

bool is_quick() {
  static const bool quick = number_from("PLUMBFS_QUICK", 0) != 0;
  return quick;
}

std::size_t scaled(std::size_t count) {
  return std::max<std::size_t>(1, count * scale() / (is_quick() ? 6 : 1));
}

std::vector<std::size_t> chosen(std::vector<std::size_t> all, std::vector<std::size_t> quick) {
  return is_quick() ? quick : all;
}

Totals& totals() {
  static Totals all;
  return all;
}

MachineImage prepared_image(const Setting& setting, const std::function<void(Actor&)>& prepare) {
  reset_clock();
  Machine machine(kDeviceBytes, kRealtimeBytes, setting.kinds);
  FormatOptions options = fixed_format(setting.block_size_bytes);
  options.realtime_extent_bytes = setting.realtime_extent_bytes;
  must(Volume::format(machine.members(), options));
  Actor world(machine, setting);
  prepare(world);
  world.unmount();
  return machine.current_image();
}

Recording record(Machine& machine, const Setting& setting, const Workload& workload) {
  reset_clock();
  Recording recording;
  std::optional<Actor> mounted;
  in_own_thread([&] { mounted.emplace(machine, setting); });
  Actor& world = *mounted;
  if (workload.just_before) {
    workload.just_before(world);
    machine.forget_history();
  }
  recording.unsafe_shutdowns = world->counters().unsafe_shutdowns;
  recording.states.push_back(take_snapshot(world, world.held()));
  for (const Step& s : workload.steps) {
    if (!s.is_same_tick) tick_clock();
    recording.begun.push_back(machine.mark("call " + s.name));
    try {
      in_own_thread([&] { s.run(world); });
      recording.answered.push_back(machine.mark("answer " + s.name));
      // A step may be the death of the daemon, and a mount.
      if (!s.is_unmount) recording.unsafe_shutdowns = world->counters().unsafe_shutdowns;
      recording.states.push_back(s.is_unmount ? recording.states.back() : take_snapshot(world, world.held()));
      recording.client_changes.push_back(world.take_client_changes());
      for (const auto& [name, client] : world.clients())
        if (!s.is_unmount) client.check_blocks(world, recording.states.back(), world.held());
    } catch (const BrokenPromise& broken) {
      throw BrokenPromise(s.name + ": " + broken.what());
    } catch (const std::exception& error) {
      throw std::runtime_error(workload.name + ", " + s.name + ": " + error.what());
    }
  }
  return recording;
}

// --- one image ----------------------------------------------------------------------------------

std::string Trial::look_at(const MachineImage& image, const Allowed& allowed) const {
  ++totals().images;
  Machine machine(image, setting_.kinds);
  if (std::string text = check_text(machine); !text.empty()) return "before recovery, " + text;
  Snapshot seen;
  tick_clock();
  try {
    Actor world(machine, setting_);
    seen = take_snapshot(world);
    if (std::string text = allowed.wrong_state(seen); !text.empty()) return text;
    if (allowed.is_unmounted() && world->counters().unsafe_shutdowns != recording_.unsafe_shutdowns)
      return "unmounted, and yet not clean";
    if (std::string text = slot_text(world); !text.empty()) return text;
    work_a_little(world);
  } catch (const std::exception& error) {
    return std::string("mount, reading or working: ") + error.what();
  }
  const std::uint64_t lot = mixed(image.content_hash(), base_seed());
  const bool is_replayed = replayed_place() && !replayed_place()->is_whole_workload;
  if (is_replayed || lot % effort_.work_on_each == 0) {
    if (std::string text = work_on(machine); !text.empty()) return "working on it: " + text;
  }
  if (is_replayed || lot % effort_.nested_each == 0) return crash_recovery(image, seen);
  return {};
}

std::string Trial::work_on(Machine& machine) const {
  ++totals().worked_on;
  try {
    Actor world(machine, setting_);
    work_a_lot(world);
    world.unmount();
    if (std::string text = orphan_text(machine); !text.empty()) return text;
  } catch (const std::exception& error) {
    return error.what();
  }
  return check_text(machine);
}

// The same state, whatever was torn.
std::string Trial::crash_recovery(const MachineImage& image, const Snapshot& expected) const {
  const auto recover = [this](Machine& machine) {
    Actor world(machine, setting_);
    must(world->run_reclaim());
  };
  const std::string problem = crash_during(recover, image, setting_, effort_, [&](Machine& machine) {
    std::string text = check_text(machine);
    return text.empty() ? same_after_mount(machine, expected) : text;
  });
  return problem.empty() ? problem : "crashed again in recovery, " + problem;
}

std::string Trial::same_after_mount(Machine& machine, const Snapshot& expected) const {
  try {
    Actor world(machine, setting_);
    const Snapshot seen = take_snapshot(world);
    std::string text = metadata_difference(seen, expected);
    if (text.empty()) text = content_difference(seen, expected);
    return text;
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string crash_during(const Subject& subject, const MachineImage& image, const Setting& setting,
                         const Effort& effort, const Judge& judge) {
  Machine recorded(image, setting.kinds);
  try {
    subject(recorded);
  } catch (const std::exception& error) {
    return error.what();
  }
  MachineExplorer explorer(recorded);
  Effort few = effort;
  few.exhaustive_stores = 2;
  few.systematic = 3;
  few.random = 1;
  std::mt19937_64 random(mixed(image.content_hash(), base_seed()));
  std::string problem;
  const std::vector<std::uint64_t> points = recorded.crash_points();
  for (const std::uint64_t point : points) {
    if (random() % points.size() >= scaled(effort.nested_points)) continue;
    explorer.for_each(point, limits(few, point), [&](const MachineImage& again) {
      ++totals().nested;
      Machine machine(again, setting.kinds);
      problem = judge(machine);
      if (!problem.empty()) problem = again.description() + ": " + problem;
      return problem.empty();
    });
    if (!problem.empty()) return problem;
  }
  return {};
}

// --- all images of a workload -------------------------------------------------------------------

std::string crash_everywhere(const MachineImage& base, const Setting& setting, const Workload& workload,
                             const Effort& effort) {
  Place place{.setting = setting.name, .workload = workload.name};
  const Place* replayed = replayed_place() ? &*replayed_place() : nullptr;
  if (replayed != nullptr && (replayed->setting != place.setting || replayed->workload != place.workload)) return {};
  if (replayed != nullptr && replayed->is_whole_workload) replayed = nullptr;
  Machine machine(base, setting.kinds);
  Recording recording;
  try {
    recording = record(machine, setting, workload);
  } catch (const BrokenPromise& broken) {
    ++totals().violations;
    return place.setting + ", " + place.workload + ", " + broken.what() +
           "\n    replay: " + replay_line(place.setting + "|" + place.workload);
  }
  const Trial trial(setting, workload, recording, effort);
  std::vector<std::uint64_t> points = machine.crash_points();
  const std::uint64_t begin = recording.begun[workload.from_step];
  if (!effort.crashes_mount) std::erase_if(points, [&](std::uint64_t tick) { return tick < begin; });
  std::mt19937_64 random(base_seed());
  Sieve sieve(machine, setting, workload);
  MachineExplorer images(machine);
  for (const std::uint64_t tick : points) {
    const bool is_left_out = random() % points.size() >= scaled(effort.most_points);
    if (replayed != nullptr ? replayed->tick != tick : is_left_out) continue;
    ++totals().points;
    place.tick = tick;
    place.image = 0;
    const Allowed allowed = trial.allowed_at(tick);
    std::string problem;
    images.for_each(tick, limits(effort, tick), [&](const MachineImage& image) {
      const std::size_t number = place.image++;
      if (replayed != nullptr ? replayed->image != number : !sieve.is_new(image, allowed)) return true;
      problem = trial.look_at(image, allowed);
      if (problem.empty()) return true;
      keep(image);
      place.image = number;
      problem = image.description() + ": " + problem;
      return false;
    });
    if (problem.empty()) continue;
    ++totals().violations;
    std::string text = place.setting;
    text.append(", ").append(workload.name).append(", ").append(allowed.moment());
    return text.append("\n    ").append(problem).append("\n    ").append("replay: ").append(replay_line(place.text()));
  }
  return {};
}

}  // namespace plumb::test
