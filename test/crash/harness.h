// Crashes a workload everywhere, and looks at what is left.
//
// A workload runs once on a recording machine; after each step a snapshot of what a user sees is taken (model.h). Then
// for each fence and each reply in the logs, images are made that the fault model allows, and each image must
//   - check clean before anybody mounts it (free blocks zero included), and mount;
//   - show a state that the model allows at that moment;
//   - go on working: a file is created, written, read, renamed and deleted; for a sample every kind of change, reclaim,
//     unmount, and check clean;
//   - show the same after a crash in its recovery (a sample).
// An image that was seen at a moment that allows the same is not tried again, nor one that recovery cannot tell from
// it.
//
// Everything is determined by the seed, which is printed at the end and with each violation, together with a line that
// makes the same image again.
//   PLUMB_CRASH_SEED=N       takes that seed
//   PLUMB_CRASH_STATES=N     makes about N times as many images (default 1); PLUMBFS_QUICK=1 a small part of them
//   PLUMB_CRASH_REPLAY=...   only that image, or that workload
//   PLUMB_CRASH_KEEP=DIR     writes the devices of a violating image to files there
//
// Thread safety: none; one exploration at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "test/crash/client.h"
#include "test/crash/model.h"

namespace plumb::test {

/// A world with open files, and with clients of the direct path.
class Actor : public World {
 public:
  Actor(Machine& machine, const Setting& setting)
      : World(machine.members(), setting.mount_options()), machine_(machine), setting_(setting) {}

  [[nodiscard]] const Setting& setting() const { return setting_; }
  FileHandle& open_as(const std::string& name, std::string_view path, int flags = O_RDWR) {
    return *(handles_[name] = World::open(path, flags));
  }
  FileHandle& handle(const std::string& name) { return *handles_.at(name); }
  [[nodiscard]] bool has_handle(const std::string& name) const { return handles_.contains(name); }
  InodeRef& inode(const std::string& name) { return inodes_[name]; }
  [[nodiscard]] bool has_inode(const std::string& name) const { return inodes_.contains(name); }
  /// What is open, whether it has a name or not.
  [[nodiscard]] std::vector<InodeRef> held() const {
    std::vector<InodeRef> all;
    for (const auto& [name, handle] : handles_) all.push_back(handle->inode);
    for (const auto& [name, inode] : inodes_) all.push_back(inode);
    for (const auto& [name, client] : *clients_)
      if (!client.is_stale()) all.push_back(client.inode());
    return all;
  }
  /// Leases do not end by this: clients are as after a session that was cut off.
  void close_all() {
    handles_.clear();
    inodes_.clear();
    for (auto& [name, client] : *clients_) client.lose_session();
  }

  /// By name; those that are stale live on until their entry goes.
  [[nodiscard]] std::map<std::string, Client>& clients() { return *clients_; }
  void note(std::vector<ClientChange> changes) { changes_.insert(changes_.end(), changes.begin(), changes.end()); }
  /// What clients have done since the last call.
  [[nodiscard]] std::vector<ClientChange> take_client_changes() { return std::exchange(changes_, {}); }
  /// The daemon dies and is started again. `between` does something to the devices that nobody has mounted.
  void die_and_mount(const std::function<void(Machine&)>& between = {}) {
    close_all();
    die();
    if (between) between(machine_);
    MountOptions options = setting_.mount_options();
    options.has_stale_clients = [weak = std::weak_ptr(clients_)](std::uint64_t) {
      const auto all = weak.lock();
      return all && std::any_of(all->begin(), all->end(), [](const auto& c) { return c.second.is_stale(); });
    };
    static_cast<World&>(*this) = World(machine_.members(), options);
  }

 private:
  Machine& machine_;
  const Setting& setting_;
  std::map<std::string, std::unique_ptr<FileHandle>> handles_;
  std::map<std::string, InodeRef> inodes_;
  std::shared_ptr<std::map<std::string, Client>> clients_ = std::make_shared<std::map<std::string, Client>>();
  std::vector<ClientChange> changes_;
};

[[nodiscard]] inline Step step(std::string name, std::function<void(Actor&)> run) {
  return {.name = std::move(name), .run = std::move(run)};
}
[[nodiscard]] inline Step in_parts(std::string name, std::function<void(Actor&)> run) {
  return {.name = std::move(name), .run = std::move(run), .is_in_parts = true};
}
[[nodiscard]] Step sync_step();
[[nodiscard]] Step fsync_step(const std::string& path);
[[nodiscard]] Step fdatasync_step(const std::string& path);
[[nodiscard]] Step reclaim_step();
[[nodiscard]] Step unmount_step();

/// How much to make of each crash point; before scaling.
struct Effort {
  std::size_t exhaustive_stores = 4;
  std::size_t systematic = 20;
  std::size_t random = 3;
  std::size_t torn = 1;
  std::size_t work_on_each = 9;   // every so many images get the whole round of work
  std::size_t nested_each = 60;   // every so many images crash again in recovery
  std::size_t nested_points = 6;  // of a recovery
  bool crashes_mount = false;     // also the mount before the first step
  std::size_t most_points = 50;   // above it, points are sampled
};

/// A formatted and prepared file system: unmounted, all durable.
[[nodiscard]] MachineImage prepared_image(const Setting& setting, const std::function<void(Actor&)>& prepare);

/// As requests are served: a drain does nothing for what another thread has flushed.
void in_own_thread(const std::function<void()>& work);

/// The mount and each step run in threads of their own.
[[nodiscard]] Recording record(Machine& machine, const Setting& setting, const Workload& workload);

/// Looks at images of one recorded workload.
class Trial {
 public:
  Trial(const Setting& setting, const Workload& workload, const Recording& recording, const Effort& effort)
      : setting_(setting), workload_(workload), recording_(recording), effort_(effort) {}

  [[nodiscard]] Allowed allowed_at(std::uint64_t tick) const { return {tick, setting_, workload_, recording_}; }
  /// Empty, or what is wrong with it.
  [[nodiscard]] std::string look_at(const MachineImage& image, const Allowed& allowed) const;

 private:
  [[nodiscard]] std::string work_on(Machine& machine) const;
  [[nodiscard]] std::string crash_recovery(const MachineImage& image, const Snapshot& expected) const;
  [[nodiscard]] std::string same_after_mount(Machine& machine, const Snapshot& expected) const;

  const Setting& setting_;
  const Workload& workload_;
  const Recording& recording_;
  const Effort& effort_;
};

/// What changes the devices of a machine and can be cut short: a mount with its recovery, a repair. Throws if it fails.
using Subject = std::function<void(Machine&)>;
/// Empty, or what is wrong with the devices in words.
using Judge = std::function<std::string(Machine&)>;
/// Records `subject` on the image, crashes it at its fences and at its end (some of them: effort.nested_points), and
/// has each image judged; the judge runs the subject again, if that is what a user would do. Empty, or the first
/// violation.
[[nodiscard]] std::string crash_during(const Subject& subject, const MachineImage& image, const Setting& setting,
                                       const Effort& effort, const Judge& judge);

/// Records the workload on the image, and tries images of all its moments. Empty, or the first violation in words, with
/// the line that replays it.
[[nodiscard]] std::string crash_everywhere(const MachineImage& base, const Setting& setting, const Workload& workload,
                                           const Effort& effort = {});

/// Empty, or what check_volume() says; free blocks zero included.
[[nodiscard]] std::string check_text(Machine& machine);

/// Numbers for the last line of a run.
struct Totals {
  std::uint64_t points = 0;        // moments
  std::uint64_t images = 0;        // recovered and looked at
  std::uint64_t distinct = 0;      // of these: different in what recovery sees of them (recovery_view.h)
  std::uint64_t repeated = 0;      // left out: the same bytes, at a moment that allows the same
  std::uint64_t pruned = 0;        // left out: other bytes where recovery does not look
  std::uint64_t worked_on = 0;     // of the images: worked on at length
  std::uint64_t nested = 0;        // images of crashes in recovery
  std::uint64_t with_clients = 0;  // of the distinct ones: after stores of clients
  std::uint64_t violations = 0;
};
[[nodiscard]] Totals& totals();
/// Where states are entered that other processes may have seen: returns false if they have. Not set: this process is
/// the only one.
[[nodiscard]] std::function<bool(std::uint64_t)>& state_register();
/// The end of the line that replays a violation: the command and its arguments.
[[nodiscard]] std::string& replay_command();
/// The line that replays a place: "SETTING|WORKLOAD|TICK|IMAGE", or "SETTING|WORKLOAD" for all of them.
[[nodiscard]] std::string replay_line(const std::string& place);
[[nodiscard]] std::uint64_t mixed(std::uint64_t a, std::uint64_t b);
[[nodiscard]] std::uint64_t base_seed();
[[nodiscard]] bool is_quick();
[[nodiscard]] std::size_t scaled(std::size_t count);
/// Indexes of settings: all of these, or the few of a quick run.
[[nodiscard]] std::vector<std::size_t> chosen(std::vector<std::size_t> all, std::vector<std::size_t> quick);

}  // namespace plumb::test
