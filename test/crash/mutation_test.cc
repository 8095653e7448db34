// Leaves out one flush or drain at a time and demands that the crash tests find it.
//
// A program does not see whether a flush did anything, so its log without the call is the log with the call, less what
// that made durable: a workload runs once, and the images are made as if the call had not been there. They are chosen
// for what they can show: what the call would have made durable is missing while what came later is there.
//
// Not demanded, because no image changes: calls with nothing left to make durable (CrashExplorer::redundant_fences),
// and drains of a page-cached device. A call that nothing finds is tried with every subset of pending stores at every
// moment until a later call has made up for it; if all are legal, it was redundant there. Calls of one purpose (flushes
// of the journal header during reclaim, say) must be found at least once in the workloads, or be among kUnderstood,
// with the reason.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "test/crash/recovery_view.h"
#include "test/crash/tree.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::CrashEvent;

// Calls that are left out together, and what they are called in the list: the same for calls of the same purpose.
struct Site {
  std::vector<Fence> fences;
  std::uint64_t tick = 0;
  std::string name;
};

enum class Verdict { kFound, kRedundant, kSurvived };

void prepare(Actor& a) {
  a.create("m");
  a.write("m", 0, pattern('m', 2000));
  if (a.setting().has_realtime()) a.set_flags("", kInodeRtInherit);
  a.create("f");
  a.write("f", 0, pattern('f', 6000));
  a.create("g");
  a.write("g", 0, pattern('g', 3000));
  a.set_xattr("g", "user.big", pattern('x', 5000));
  a.create("h");
  a.write("h", 0, pattern('h', 3000));
}

Step die() {
  return step("mount", [](Actor& a) { a.die_and_mount(); });
}

Workload ordinary_life() {
  return {.name = "ordinary life",
          .steps = {step("create", [](Actor& a) { a.create("n"); }),
                    step("write", [](Actor& a) { a.write("n", 0, pattern('n', 5000)); }), fsync_step("n"),
                    step("overwrite", [](Actor& a) { a.write("f", 1000, pattern('o', 2000)); }), fsync_step("f"),
                    step("truncate", [](Actor& a) { a.truncate("g", 1000); }),
                    step("extend", [](Actor& a) { a.truncate("g", 2900); }),
                    step("set xattr", [](Actor& a) { a.set_xattr("f", "user.b", pattern('x', 5000)); }),
                    step("unlink", [](Actor& a) { a.unlink("n"); }), reclaim_step(),
                    step("write", [](Actor& a) { a.write("g", 2900, pattern('2', 9000)); }), die(), sync_step(),
                    step("chmod", [](Actor& a) { set_owner(a, "f", 0600, 3); }), unmount_step()}};
}

// No window covers the blocks: nothing but the zeroing itself keeps their old bytes from showing.
Workload deletion() {
  return {.name = "deletion",
          .steps = {step("remove xattr", [](Actor& a) { a.remove_xattr("g", "user.big"); }), reclaim_step(),
                    step("unlink", [](Actor& a) { a.unlink("f"); }), reclaim_step(),
                    step("truncate", [](Actor& a) { a.truncate("g", 100); }),
                    step("extend", [](Actor& a) { a.truncate("g", 2900); }), sync_step(),
                    step("truncate", [](Actor& a) { a.truncate("m", 50); }),
                    step("write", [](Actor& a) { a.write("m", 1500, pattern('M', 500)); }),
                    step("truncate", [](Actor& a) { a.truncate("h", 50); }),
                    step("write", [](Actor& a) { a.write("h", 1500, pattern('H', 500)); }), unmount_step()}};
}

// Nor does one cover what a daemon that died had stored and not made durable.
Workload death() {
  return {.name = "death",
          .steps = {step("overwrite", [](Actor& a) { a.write("g", 0, pattern('1', 2000)); }),
                    step("overwrite", [](Actor& a) { a.write("m", 0, pattern('2', 2000)); }), die(), fsync_step("g"),
                    fsync_step("m"), step("chmod", [](Actor& a) { set_owner(a, "f", 0600, 3); }),
                    step("unlink", [](Actor& a) { a.unlink("h"), a.unlink("m"); }), unmount_step()}};
}

// Begins with a mount that has something to recover.
Workload after_a_crash() {
  return {.name = "after a crash",
          .steps = {step("extend", [](Actor& a) { a.truncate("f", 9000); }), sync_step(),
                    step("write", [](Actor& a) { a.write("g", 3000, pattern('3', 9000)); }),
                    step("remove xattr", [](Actor& a) { a.remove_xattr("g", "user.big"); }), reclaim_step(),
                    unmount_step()}};
}

// The power went in the middle of a write: durable records that are not homed, and its bytes in free blocks.
MachineImage crashed_image(const Setting& setting) {
  Machine machine(prepared_image(setting, prepare), setting.kinds);
  const Workload workload{.name = "before the crash",
                          .steps = {step("chmod", [](Actor& a) { set_owner(a, "g", 0600, 3); }), sync_step(),
                                    step("write", [](Actor& a) { a.write("f", 9000, std::string(30'000, 'S')); })}};
  const Recording recording = record(machine, setting, workload);
  MachineExplorer explorer(machine);
  std::optional<MachineImage> last;
  for (const std::uint64_t tick : machine.crash_points()) {
    if (tick <= recording.begun.back() || tick > recording.answered.back()) continue;
    MachineImage image = explorer.image_of(tick, [](const CrashEvent& event) { return event.length_bytes >= 4096; });
    Machine after(image, setting.kinds);
    Actor world(after, setting);
    if (world.stat("f").size_bytes == 6000) last = std::move(image);
  }
  REQUIRE(last);
  return *last;
}

struct Case {
  Workload workload;
  std::function<MachineImage(const Setting&)> base;
};

std::vector<Case> cases() {
  const auto prepared = [](const Setting& setting) { return prepared_image(setting, prepare); };
  return {{ordinary_life(), prepared}, {deletion(), prepared}, {death(), prepared}, {after_a_crash(), crashed_image}};
}

// What a range of the main device holds. Of the realtime device there is data only.
std::string content_of(const media::Superblock& sb, const CrashEvent& range) {
  const std::uint64_t at = range.offset_bytes;
  if (range.length_bytes >= 1u << 20 && at == 0) return "whole device";
  if (at < media::kReservedHeadBytes) return "superblock";
  if (at >= sb.journal_start && at < sb.journal_start + media::kJournalRingOffset) return "journal header";
  if (at >= sb.journal_start && at < sb.journal_start + sb.journal_bytes) return "log";
  return "blocks";
}

std::string moment_of(const Allowed& allowed) {
  const std::string moment = allowed.moment();
  return moment == "before the first step" ? "during mount" : moment;
}

bool is_fence(const CrashEvent& event, const pmem::CrashDevice& device) {
  return event.type == CrashEvent::Type::kFlush || (event.type == CrashEvent::Type::kDrain && device.is_memory());
}

// Each flush and each drain that made something durable.
std::vector<Site> single_calls(const Machine& machine, const Trial& trial) {
  std::vector<Site> sites;
  const media::Superblock sb = must(Superblock::read(machine.members())).media();
  for (pmem::CrashDevice* device : {&machine.main(), machine.realtime()}) {
    if (device == nullptr) continue;
    const std::vector<std::size_t> redundant = pmem::CrashExplorer::redundant_fences(*device);
    const CrashEvent* last = nullptr;
    for (std::size_t i = 0; i < device->event_count(); ++i) {
      const CrashEvent& event = device->event(i);
      if (event.is_store()) last = &event;
      if (!is_fence(event, *device) || std::binary_search(redundant.begin(), redundant.end(), i)) continue;
      const bool is_flush = event.type == CrashEvent::Type::kFlush;
      const CrashEvent& range = is_flush || last == nullptr ? event : *last;
      std::string name = moment_of(trial.allowed_at(event.tick));
      name.append(is_flush ? ": flush of " : ": drain after ");
      name.append(device == &machine.main() ? content_of(sb, range) : "realtime blocks");
      if (!is_flush && last != nullptr) name.append(last->type == CrashEvent::Type::kZero ? " zeroed" : " stored");
      sites.push_back({{{device != &machine.main(), i}}, event.tick, std::move(name)});
    }
  }
  return sites;
}

// At most this many calls of each name, evenly: a recovery that zeroes windows flushes thousands of ranges, all alike.
constexpr std::size_t kMostOfAName = 24;

void thin_out(std::vector<Site>& sites) {
  std::map<std::string, std::size_t> all, seen;
  for (const Site& site : sites) ++all[site.name];
  std::erase_if(sites, [&](const Site& site) {
    const std::size_t number = seen[site.name]++;
    const std::size_t count = all[site.name];
    return count > kMostOfAName && number * kMostOfAName % count >= kMostOfAName;
  });
}

// The realtime device is forgotten throughout a step, as if its flushes and drains had gone to the other device.
std::vector<Site> wrong_device(const Machine& machine, const Recording& recording, const Workload& workload) {
  std::vector<Site> sites;
  const pmem::CrashDevice& device = *machine.realtime();
  const std::vector<std::size_t> redundant = pmem::CrashExplorer::redundant_fences(device);
  for (std::size_t i = 0; i < workload.steps.size(); ++i) {
    Site site{{}, 0, "during " + workload.steps[i].name};
    for (std::size_t event = device.events_before(recording.begun[i]);
         event < device.events_before(recording.answered[i]); ++event) {
      const CrashEvent& e = device.event(event);
      if (!is_fence(e, device) || std::binary_search(redundant.begin(), redundant.end(), event)) continue;
      site.fences.push_back({true, event});
      if (site.tick == 0) site.tick = e.tick;
    }
    if (!site.fences.empty()) sites.push_back(std::move(site));
  }
  return sites;
}

// Looks at images, once at each that recovery can tell from the others at moments that allow the same: without one call
// or another a log leads to the same images again and again.
class Judgement {
 public:
  Judgement(const Machine& machine, const Trial& trial) : trial_(trial), view_(machine) {}

  bool is_legal(const MachineImage& image, const Allowed& allowed) {
    const auto [it, is_new] = legal_.try_emplace(mixed(view_.hash(image), allowed.number()));
    if (is_new) it->second = trial_.look_at(image, allowed).empty();
    return it->second;
  }
  [[nodiscard]] const Trial& trial() const { return trial_; }

 private:
  const Trial& trial_;
  RecoveryView view_;
  std::unordered_map<std::uint64_t, bool> legal_;
};

// How many moments after the call are looked at.
constexpr std::size_t kMostPoints = 40;
constexpr std::size_t kMostStores = 9;

Verdict judge(const Machine& machine, Judgement& judgement, const Site& site) {
  MachineExplorer complete(machine);
  MachineExplorer without(machine, site.fences);
  std::vector<std::uint64_t> affected;
  bool is_found = false;
  bool is_made_up_for = false;
  const auto look = [&](const Allowed& allowed) {
    return [&is_found, &judgement, allowed](const MachineImage& image) {
      is_found = !judgement.is_legal(image, allowed);
      return !is_found;
    };
  };
  for (const std::uint64_t tick : machine.crash_points()) {
    if (tick <= site.tick) continue;
    if (affected.size() == kMostPoints) break;
    const bool differs =
        without.for_each_without(tick, complete, 6, base_seed() + tick, look(judgement.trial().allowed_at(tick)));
    if (is_found) return Verdict::kFound;
    // A flush counts from the next drain on.
    is_made_up_for = !differs && !affected.empty();
    if (is_made_up_for) break;
    if (differs) affected.push_back(tick);
  }
  if (!is_made_up_for && affected.size() == kMostPoints) return Verdict::kSurvived;
  for (const std::uint64_t tick : affected) {
    if (!without.for_each_subset(tick, kMostStores, look(judgement.trial().allowed_at(tick))))
      return Verdict::kSurvived;
    if (is_found) return Verdict::kFound;
  }
  return Verdict::kRedundant;
}

struct Tally {
  std::size_t found = 0, redundant = 0, survived = 0;
};

// By name: a call that survives in one workload may be found in another, where nothing else makes up for it.
using Tallies = std::map<std::string, Tally>;

void leave_out(const Setting& setting, const Case& which, bool all_of_realtime, Tallies& tallies) {
  Machine machine(which.base(setting), setting.kinds);
  const Recording recording = record(machine, setting, which.workload);
  const Effort effort{.work_on_each = 3, .nested_each = ~std::size_t{0}};
  const Trial trial(setting, which.workload, recording, effort);
  std::vector<Site> sites =
      all_of_realtime ? wrong_device(machine, recording, which.workload) : single_calls(machine, trial);
  thin_out(sites);
  Judgement judgement(machine, trial);
  for (const Site& site : sites) {
    Tally& tally = tallies[site.name];
    switch (judge(machine, judgement, site)) {
      case Verdict::kFound:
        ++tally.found;
        break;
      case Verdict::kRedundant:
        ++tally.redundant;
        break;
      case Verdict::kSurvived:
        ++tally.survived;
        break;
    }
  }
}

struct Reason {
  std::string_view name;
  bool is_cached;  // on a page-cached main device only
  std::string_view why;
};

// Calls that need not be found.
constexpr Reason kUnderstood[] = {
    {"during write: drain after blocks zeroed", false,
     "what is zeroed beyond the end is drained again with the data, by the same thread, before the record"},
    {"during write: drain after realtime blocks zeroed", false, "likewise, on the other device"},
    {"during reclaim: drain after journal header stored", false,
     "the drain of the zeros, of the same thread, comes before any of the blocks can be used"},
    {"during mount: flush of log", true,
     "that the windows are forgotten is forced again with the next window, before anything relies on it"},
    {"during mount: flush of superblock", true, "what changes lies in one sector, so no copy is ever torn"},
};

bool is_understood(const std::string& name, const Setting& setting) {
  return std::any_of(std::begin(kUnderstood), std::end(kUnderstood), [&](const Reason& reason) {
    return reason.name == name && (!reason.is_cached || !setting.has_memory_log());
  });
}

// Prints what came of them; returns those that nothing has found and that are not understood.
std::string never_found(const Setting& setting, const Tallies& tallies) {
  Tally sum;
  std::string list;
  for (const auto& [name, tally] : tallies) {
    sum.found += tally.found;
    sum.redundant += tally.redundant;
    sum.survived += tally.survived;
    if (tally.found != 0 || is_understood(name, setting)) continue;
    list.append("\n    ").append(name).append(", ").append(std::to_string(tally.redundant)).append(" redundant, ");
    list.append(std::to_string(tally.survived)).append(" survived");
  }
  std::cout << "mutation, " << setting.name << ": " << tallies.size() << " kinds of calls; " << sum.found
            << " calls found missing, " << sum.redundant << " redundant where they are, " << sum.survived
            << " made up for by others; never found:" << list << "\n";
  return list;
}

}  // namespace

TEST_CASE("mutation: any flush or drain that is left out is found out", "[crash][mutation]") {
  const Setting& setting = settings()[GENERATE(from_range(chosen({0, 2, 3}, {0, 3})))];
  Tallies tallies;
  for (const Case& which : cases()) leave_out(setting, which, false, tallies);
  const std::string list = never_found(setting, tallies);
  INFO(list);
  CHECK(list.empty());
}

TEST_CASE("mutation: two devices, any flush or drain that is left out is found out", "[crash][mutation][realtime]") {
  const Setting& setting = realtime_settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {3})))];
  Tallies tallies;
  for (const Case& which : cases()) leave_out(setting, which, false, tallies);
  const std::string list = never_found(setting, tallies);
  INFO(list);
  CHECK(list.empty());
}

// Not with writeback=deferred: the model takes bytes that were cut off since the last sync, and zeroed where the file
// grew again, for data that was not written back yet, and allows either.
TEST_CASE("mutation: writeback of the wrong device is found out", "[crash][mutation][realtime]") {
  const Setting& setting = realtime_settings()[GENERATE(from_range(chosen({0, 2, 3, 4}, {0, 2, 4})))];
  Tallies tallies;
  for (const Case& which : cases()) leave_out(setting, which, true, tallies);
  const std::string list = never_found(setting, tallies);
  INFO(list);
  CHECK(list.empty());
}
