#include "pmem/crash_explorer.h"

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <unordered_set>
#include <utility>

namespace plumb::pmem {

Chooser everything_evicted() {
  return [](const UnitChoice& unit) { return unit.stores.size(); };
}

Chooser nothing_evicted() {
  return [](const UnitChoice&) { return std::size_t{0}; };
}

Chooser random_eviction(std::uint64_t seed, double latest_probability) {
  // Shared: std::function copies its target, and the copies go on with one sequence.
  auto random = std::make_shared<std::mt19937_64>(seed);
  const auto threshold = static_cast<std::uint64_t>(latest_probability * 65536.0);
  return [random, threshold](const UnitChoice& unit) -> std::size_t {
    const std::uint64_t value = (*random)();
    if (value % 65536 < threshold) return unit.stores.size();
    return (value >> 16) % (unit.stores.size() + 1);
  };
}

// --- one image ----------------------------------------------------------------------------------

void CrashExplorer::go_to(std::size_t event_index) {
  if (event_index == state_.position() && has_segments_) return;
  state_.seek(event_index);
  make_segments();
}

// Sweeps over the ends of all pending ranges: between two neighbours the set of stores is the same.
void CrashExplorer::make_segments() {
  segments_.clear();
  has_segments_ = true;
  struct End {
    std::uint64_t offset_bytes;
    bool opens;
    std::size_t store;
  };
  std::vector<End> ends;
  const std::vector<PendingStore>& pending = state_.pending();
  for (std::size_t i = 0; i < pending.size(); ++i) {
    for (const ByteRange& range : pending[i].ranges) {
      ends.push_back({range.offset_bytes, true, i});
      ends.push_back({range.end_bytes, false, i});
    }
  }
  std::sort(ends.begin(), ends.end(), [](const End& a, const End& b) { return a.offset_bytes < b.offset_bytes; });
  std::multiset<std::size_t> open;  // a store may end and begin again at one offset
  std::uint64_t begin = 0;
  for (const End& end : ends) {
    if (!open.empty() && end.offset_bytes > begin) {
      Segment& segment = segments_.emplace_back();
      segment.range = {begin, end.offset_bytes};
      segment.stores.assign(open.begin(), open.end());
      for (const std::size_t store : segment.stores) segment.events.push_back(pending[store].event);
    }
    begin = end.offset_bytes;
    if (end.opens) {
      open.insert(end.store);
    } else {
      open.erase(open.find(end.store));
    }
  }
}

void CrashExplorer::add_version(const Segment& segment, ByteRange range, std::size_t version, PatchList& patches) {
  if (version == 0) return;
  durable_scratch_.resize(range.length_bytes());
  state_.read_durable(range.offset_bytes, durable_scratch_);
  scratch_ = durable_scratch_;
  for (std::size_t i = 0; i < version; ++i) {
    CrashState::apply_store(state_.device().event(segment.events[i]), range.offset_bytes, scratch_);
  }
  if (scratch_ != durable_scratch_) patches.add(range.offset_bytes, scratch_);
}

CrashImage CrashExplorer::subset_image(const std::vector<bool>& present) {
  PatchList patches;
  for (const Segment& segment : segments_) {
    std::size_t version = segment.stores.size();
    while (version > 0 && !present[segment.stores[version - 1]]) --version;
    add_version(segment, segment.range, version, patches);
  }
  std::string text = where() + ", present:";
  std::size_t count = 0;
  for (std::size_t i = 0; i < present.size(); ++i) {
    if (!present[i] || ++count > 12) continue;
    text += " " + std::to_string(state_.pending()[i].event);
  }
  text += count > 12 ? " ... (" + std::to_string(count) + ")" : count == 0 ? " none" : "";
  return state_.make_image(std::move(patches), std::move(text));
}

CrashImage CrashExplorer::chosen_image(const Chooser& chooser, const std::string& how) {
  PatchList patches;
  const std::uint64_t unit_bytes = state_.unit_bytes();
  for (const Segment& segment : segments_) {
    // Neighbours that chose the same version are done in one go.
    ByteRange run{segment.range.offset_bytes, segment.range.offset_bytes};
    std::size_t run_version = 0;
    for (std::uint64_t at = segment.range.offset_bytes; at < segment.range.end_bytes; at += unit_bytes) {
      const std::size_t version = std::min(chooser({at, unit_bytes, segment.events}), segment.stores.size());
      if (version != run_version) {
        add_version(segment, run, run_version, patches);
        run = {at, at};
        run_version = version;
      }
      run.end_bytes = at + unit_bytes;
    }
    add_version(segment, run, run_version, patches);
  }
  return state_.make_image(std::move(patches), where() + ", " + how);
}

CrashImage CrashExplorer::torn_image(std::size_t store, std::uint64_t missing_offset_bytes, const std::string& which) {
  const std::size_t event = state_.pending()[store].event;
  const Chooser chooser = [&](const UnitChoice& unit) -> std::size_t {
    if (unit.offset_bytes != missing_offset_bytes) return unit.stores.size();
    const auto it = std::find(unit.stores.begin(), unit.stores.end(), event);
    return static_cast<std::size_t>(it - unit.stores.begin());  // the version before it
  };
  return chosen_image(chooser, "all present but the " + which + " unit of " + std::to_string(event));
}

std::string CrashExplorer::where() const {
  const CrashDevice& device = state_.device();
  std::string text =
      "after " + std::to_string(state_.position()) + " of " + std::to_string(device.event_count()) + " events";
  if (state_.position() < device.event_count()) {
    text += " (before " + device.event(state_.position()).describe() + ")";
  }
  return text + ", " + std::to_string(state_.pending().size()) + " stores pending";
}

const std::vector<PendingStore>& CrashExplorer::pending_at(std::size_t event_index) {
  go_to(event_index);
  return state_.pending();
}

std::vector<std::size_t> CrashExplorer::pending_stores(std::size_t event_index) {
  go_to(event_index);
  std::vector<std::size_t> events;
  for (const PendingStore& store : state_.pending()) events.push_back(store.event);
  return events;
}

CrashImage CrashExplorer::image_at(std::size_t event_index, const Chooser& chooser) {
  go_to(event_index);
  return chosen_image(chooser, "chosen");
}

CrashImage CrashExplorer::image_with(std::size_t event_index, std::span<const std::size_t> present) {
  go_to(event_index);
  std::vector<bool> flags(state_.pending().size());
  for (std::size_t i = 0; i < flags.size(); ++i) {
    flags[i] = std::find(present.begin(), present.end(), state_.pending()[i].event) != present.end();
  }
  return subset_image(flags);
}

std::vector<std::size_t> CrashExplorer::redundant_fences(const CrashDevice& device) {
  CrashState state(device, true);
  state.seek(device.event_count());
  return state.redundant_fences();
}

// --- many images --------------------------------------------------------------------------------

// One call of for_each_image: makes images, leaves out repeated ones, stops when told.
class ImageSeries {
 public:
  ImageSeries(CrashExplorer& explorer, const ImageLimits& limits, const std::function<bool(const CrashImage&)>& fn)
      : explorer_(explorer),
        limits_(limits),
        fn_(fn),
        random_(limits.seed),
        store_count_(explorer.state_.pending().size()) {}

  std::size_t run() {
    if (store_count_ <= limits_.exhaustive_stores) {
      all_subsets();
    } else {
      systematic_subsets();
      random_subsets();
    }
    torn_stores();
    random_torn();
    return made_;
  }

 private:
  bool give(const CrashImage& image) {
    if (stopped_) return false;
    if (!seen_.insert(image.patch_hash()).second) return true;
    ++made_;
    stopped_ = !fn_(image);
    return !stopped_;
  }

  bool give_subset(const std::vector<bool>& present) { return !stopped_ && give(explorer_.subset_image(present)); }

  void all_subsets() {
    std::vector<bool> present(store_count_);
    for (std::uint64_t mask = 0; mask < std::uint64_t{1} << store_count_ && !stopped_; ++mask) {
      for (std::size_t i = 0; i < store_count_; ++i) present[i] = (mask >> i & 1) != 0;
      give_subset(present);
    }
  }

  // Sampling that stays within a budget whatever the number of candidates.
  bool is_sampled(std::size_t candidates, std::size_t budget) {
    return candidates <= budget || random_() % candidates < budget;
  }

  void systematic_subsets() {
    const std::size_t n = store_count_;
    const std::vector<bool> none(n, false);
    const std::vector<bool> all(n, true);
    give_subset(none);
    give_subset(all);
    const std::size_t share = limits_.max_systematic / 3;
    prefixes(share);
    for (std::size_t i = 0; i < n && !stopped_; ++i) {
      if (is_sampled(2 * n, share)) flip_and_give(none, i, i);
      if (is_sampled(2 * n, share)) flip_and_give(all, i, i);
    }
    const std::size_t pairs = n * (n - 1) / 2;
    if (2 * pairs <= share) {
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = i + 1; j < n; ++j) {
          flip_and_give(none, i, j);
          flip_and_give(all, i, j);
        }
      }
      return;
    }
    for (std::size_t k = 0; k < share / 2 && !stopped_; ++k) {
      const std::size_t i = random_() % n;
      const std::size_t j = random_() % n;
      flip_and_give(none, i, j);
      flip_and_give(all, i, j);
    }
  }

  void flip_and_give(std::vector<bool> present, std::size_t i, std::size_t j) {
    present[i].flip();
    if (j != i) present[j].flip();
    give_subset(present);
  }

  // The states that a machine with strict ordering would have passed through.
  void prefixes(std::size_t budget) {
    std::vector<bool> present(store_count_, false);
    for (std::size_t i = 0; i + 1 < store_count_ && !stopped_; ++i) {
      present[i] = true;
      if (is_sampled(store_count_, budget)) give_subset(present);
    }
  }

  void random_subsets() {
    std::vector<bool> present(store_count_);
    for (std::size_t k = 0; k < limits_.random_subsets && !stopped_; ++k) {
      for (std::size_t i = 0; i < store_count_; ++i) present[i] = (random_() & 1) != 0;
      give_subset(present);
    }
  }

  void torn_stores() {
    const std::uint64_t unit = explorer_.state_.unit_bytes();
    std::vector<std::size_t> divisible;
    for (std::size_t i = 0; i < store_count_; ++i) {
      if (explorer_.state_.pending()[i].ranges.front().length_bytes() > unit) divisible.push_back(i);
    }
    std::shuffle(divisible.begin(), divisible.end(), random_);
    divisible.resize(std::min(divisible.size(), limits_.torn_stores));
    for (const std::size_t store : divisible) {
      const ByteRange range = explorer_.state_.pending()[store].ranges.front();
      const std::uint64_t middle = range.length_bytes() / unit / 2 * unit;
      const auto missing = [&](std::uint64_t offset_bytes, const char* which) {
        if (!stopped_) give(explorer_.torn_image(store, offset_bytes, which));
      };
      missing(range.offset_bytes, "first");
      missing(range.offset_bytes + middle, "middle");
      missing(range.end_bytes - unit, "last");
    }
  }

  void random_torn() {
    if (store_count_ == 0) return;
    constexpr double kLatestProbabilities[] = {0.0, 0.5, 0.95};
    for (std::size_t k = 0; k < limits_.random_torn && !stopped_; ++k) {
      const std::uint64_t seed = random_();
      const double latest = kLatestProbabilities[k % std::size(kLatestProbabilities)];
      give(explorer_.chosen_image(random_eviction(seed, latest), "torn at random, seed " + std::to_string(seed)));
    }
  }

  CrashExplorer& explorer_;
  const ImageLimits& limits_;
  const std::function<bool(const CrashImage&)>& fn_;
  std::mt19937_64 random_;
  const std::size_t store_count_;
  std::unordered_set<std::size_t> seen_;
  std::size_t made_ = 0;
  bool stopped_ = false;
};

std::size_t CrashExplorer::for_each_image(std::size_t event_index, const ImageLimits& limits,
                                          const std::function<bool(const CrashImage&)>& fn) {
  go_to(event_index);
  return ImageSeries(*this, limits, fn).run();
}

}  // namespace plumb::pmem
