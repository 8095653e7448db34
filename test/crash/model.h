// What may be seen after a crash: the states that a workload went through, and which of them the durability contract
// allows at a moment.
//
//   memory      every step that was answered is there, the one in flight is there or not, nothing in between;
//   page-cached the steps in order up to any one since the last fsync or sync that was answered;
//   bytes       of a file whose device is memory, immediate: as in the state shown; else each byte one that the file
//               held since it was last made durable, or zero where its block was new: so never one of another file.
//   clients     what one has stored past the daemon is old or new, each aligned word whole on a memory device, until
//               it is made durable: by the client, in whatever mode, or by an fsync, a sync, the unmount; bytes beside
//               it are as above (client_bytes.h).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "test/crash/client_bytes.h"
#include "test/crash/setting.h"
#include "test/crash/snapshot.h"

namespace plumb::test {

class Actor;

/// One call of the volume.
struct Step {
  std::string name;
  std::function<void(Actor&)> run;
  // What the answer promises beyond the kind of device: everything; or the bytes of one file, and all metadata so far.
  bool syncs_all = false;
  std::string syncs_file = {};
  std::string syncs_data_of = {};  // the bytes of one file, and all metadata up to its size
  // Made of several transactions: fallocate and its kin, which are not metadata operations.
  bool is_in_parts = false;
  bool is_unmount = false;
  bool is_same_tick = false;  // the clock stands still: an overwrite needs no record then
};

struct Workload {
  std::string name;
  std::vector<Step> steps;
  // Runs on the mounted volume before recording begins, and leaves it as it is: the mount is not recorded then.
  std::function<void(Actor&)> just_before = nullptr;
  // Crashes before this step begins are those of a shorter workload, and left to it.
  std::size_t from_step = 0;
};

struct Recording {
  std::vector<Snapshot> states;                           // states[0] before, states[i + 1] after step i
  std::vector<std::uint64_t> begun;                       // tick when step i was called
  std::vector<std::uint64_t> answered;                    // and when it returned
  std::vector<std::vector<ClientChange>> client_changes;  // of step i
  std::uint64_t unsafe_shutdowns = 0;
};

/// What may be seen at one moment.
class Allowed {
 public:
  Allowed(std::uint64_t tick, const Setting& setting, const Workload& workload, const Recording& recording);

  /// Empty, or what is wrong in words.
  [[nodiscard]] std::string wrong_state(const Snapshot& seen) const;
  /// The step that this is in, for messages.
  [[nodiscard]] std::string moment() const;
  /// Moments with the same number allow the same.
  [[nodiscard]] std::uint64_t number() const { return 2 * answered_ + (in_flight_ != nullptr ? 1 : 0); }
  /// Something was stored past the daemon before this moment.
  [[nodiscard]] bool has_client_stores() const { return has_client_stores_; }
  [[nodiscard]] bool is_unmounted() const { return answered_ != 0 && workload_.steps[answered_ - 1].is_unmount; }

 private:
  [[nodiscard]] std::string wrong_bytes(const Snapshot& seen, std::size_t shown) const;
  [[nodiscard]] std::string wrong_bytes_of(InodeKey key, const VisibleInode& inode, std::size_t shown,
                                           bool is_record_empty) const;

  void promise_path(const std::string& path, std::size_t steps, bool data_only);
  void promise_file(InodeKey key, std::size_t steps, bool data_only);
  void follow_clients(std::size_t step, const std::vector<ClientChange>& changes);

  const Setting& setting_;
  const Workload& workload_;
  std::span<const Snapshot> states_;
  std::size_t least_ = 0, most_ = 0;  // metadata: any state of [least, most]
  std::size_t answered_ = 0;          // steps that were answered
  const Step* in_flight_ = nullptr;
  std::map<InodeKey, std::size_t> durable_;  // bytes of a file are durable as of this state; else of durable_all_
  std::size_t durable_all_ = 0;
  ClientBytes client_bytes_;
  bool has_client_stores_ = false;
};

}  // namespace plumb::test
