// The devices of a test, and every content that a crash could leave on them.
//
// Invariant: the devices of a machine share one clock; a moment is a tick of it.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/core/superblock.h"
#include "pmem/crash_explorer.h"

namespace plumb::test {

/// What lies on the devices.
struct MachineImage {
  pmem::CrashImage main;
  std::optional<pmem::CrashImage> realtime;

  [[nodiscard]] std::string description() const;
  [[nodiscard]] std::uint64_t content_hash() const { return content_hash_but(0); }
  /// Without what some bytes of the main device contribute (pmem::content_hash_change() from before to now).
  [[nodiscard]] std::uint64_t content_hash_but(std::uint64_t main_change) const;
};

struct MachineKinds {
  pmem::DeviceKind main = pmem::DeviceKind::kMemory;
  std::optional<pmem::DeviceKind> realtime;
  std::vector<std::uint64_t> poison = {};  // offsets of pages of the main device: bad for good, in every image too
};

class Machine {
 public:
  Machine(const MachineImage& image, MachineKinds kinds);
  /// Zeros.
  Machine(std::uint64_t main_bytes, std::uint64_t realtime_bytes, MachineKinds kinds);

  [[nodiscard]] pmem::CrashDevice& main() const { return *main_; }
  [[nodiscard]] pmem::CrashDevice* realtime() const { return realtime_.get(); }
  [[nodiscard]] Members members() const { return {*main_, realtime_.get()}; }
  /// Returns the tick of the mark.
  std::uint64_t mark(const std::string& text);
  /// Fences and marks of any device, and the end: the moments where images differ in what they must show.
  [[nodiscard]] std::vector<std::uint64_t> crash_points() const;
  [[nodiscard]] MachineImage current_image() const;
  void forget_history();

 private:
  std::shared_ptr<pmem::CrashClock> clock_ = std::make_shared<pmem::CrashClock>();
  std::unique_ptr<pmem::CrashDevice> main_, realtime_;
};

/// A flush or drain of a machine, by its place in the log of its device.
struct Fence {
  bool of_realtime = false;
  std::size_t event = 0;
};

class MachineExplorer {
 public:
  using Visit = std::function<bool(const MachineImage&)>;

  /// `left_out`: as if those calls had not been made.
  explicit MachineExplorer(const Machine& machine, const std::vector<Fence>& left_out = {});

  /// Images of all devices at a moment, until `visit` returns false. With two devices: everything on one and nothing on
  /// the other, both ways; then subsets of each with the other behind, ahead, or torn.
  void for_each(std::uint64_t tick, const pmem::ImageLimits& limits, const Visit& visit);

  /// What is durable, and of the rest the stores that are chosen.
  [[nodiscard]] MachineImage image_of(std::uint64_t tick,
                                      const std::function<bool(const pmem::CrashEvent&)>& is_present);
  [[nodiscard]] MachineImage nothing(std::uint64_t tick) {
    return image_of(tick, [](const pmem::CrashEvent&) { return false; });
  }

  /// What shows that left out calls were needed: what they would have made durable is missing, entirely or in part,
  /// while what came after it is there, or some of that. `complete` is an explorer of the same machine with all calls.
  /// Returns false if nothing is pending that would not be anyway.
  bool for_each_without(std::uint64_t tick, MachineExplorer& complete, std::size_t random, std::uint64_t seed,
                        const Visit& visit);

  /// All subsets of pending stores of both devices, if they are no more than `most` in number. Returns false if they
  /// are more.
  bool for_each_subset(std::uint64_t tick, std::size_t most, const Visit& visit);

 private:
  struct Pending {
    bool of_realtime;
    std::uint64_t tick;
    pmem::PendingStore store;
  };
  [[nodiscard]] std::vector<Pending> pending(std::uint64_t tick);
  [[nodiscard]] MachineImage image_with(std::uint64_t tick, const std::vector<Pending>& all,
                                        const std::vector<bool>& present);
  [[nodiscard]] MachineImage torn_image(std::uint64_t tick, std::uint64_t seed, double latest_probability);
  [[nodiscard]] std::size_t main_events(std::uint64_t tick) const { return machine_.main().events_before(tick); }
  [[nodiscard]] std::size_t realtime_events(std::uint64_t tick) const {
    return machine_.realtime()->events_before(tick);
  }

  const Machine& machine_;
  pmem::CrashExplorer main_;
  std::optional<pmem::CrashExplorer> realtime_;
};

}  // namespace plumb::test
