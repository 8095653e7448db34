#include "test/crash/machine.h"

#include <algorithm>
#include <random>
#include <set>
#include <unordered_set>

namespace plumb::test {
namespace {

std::set<std::size_t> events_of(const std::vector<Fence>& fences, bool of_realtime) {
  std::set<std::size_t> events;
  for (const Fence& fence : fences)
    if (fence.of_realtime == of_realtime) events.insert(fence.event);
  return events;
}

pmem::CrashDeviceOptions options_of(pmem::DeviceKind kind, const char* name,
                                    const std::shared_ptr<pmem::CrashClock>& clock) {
  return {.kind = kind, .name = name, .clock = clock};
}

}  // namespace

std::string MachineImage::description() const {
  return realtime ? "main " + main.description() + "; realtime " + realtime->description() : main.description();
}

std::uint64_t MachineImage::content_hash_but(std::uint64_t main_change) const {
  const std::uint64_t hash = main.content_hash() ^ main_change;
  return realtime ? hash * 0x9E3779B97F4A7C15U + realtime->content_hash() : hash;
}

Machine::Machine(const MachineImage& image, MachineKinds kinds)
    : main_(std::make_unique<pmem::CrashDevice>(image.main, options_of(kinds.main, "main", clock_))) {
  if (image.realtime)
    realtime_ = std::make_unique<pmem::CrashDevice>(*image.realtime, options_of(*kinds.realtime, "realtime", clock_));
  for (const std::uint64_t offset : kinds.poison) main_->poison(offset, 1);
}

Machine::Machine(std::uint64_t main_bytes, std::uint64_t realtime_bytes, MachineKinds kinds)
    : main_(std::make_unique<pmem::CrashDevice>(main_bytes, options_of(kinds.main, "main", clock_))) {
  if (kinds.realtime)
    realtime_ = std::make_unique<pmem::CrashDevice>(realtime_bytes, options_of(*kinds.realtime, "realtime", clock_));
}

std::uint64_t Machine::mark(const std::string& text) {
  return main_->event(main_->mark(text)).tick;
}

std::vector<std::uint64_t> Machine::crash_points() const {
  std::vector<std::uint64_t> ticks;
  std::uint64_t end = 0;
  for (const pmem::CrashDevice* device : {main_.get(), realtime_.get()}) {
    if (device == nullptr) continue;
    for (const std::size_t event : device->crash_points()) {
      if (event < device->event_count()) ticks.push_back(device->event(event).tick);
    }
    if (device->event_count() != 0) end = std::max(end, device->event(device->event_count() - 1).tick + 1);
  }
  ticks.push_back(end);
  std::sort(ticks.begin(), ticks.end());
  ticks.erase(std::unique(ticks.begin(), ticks.end()), ticks.end());
  return ticks;
}

MachineImage Machine::current_image() const {
  MachineImage image{main_->current_image(), {}};
  if (realtime_) image.realtime = realtime_->current_image();
  return image;
}

void Machine::forget_history() {
  main_->forget_history();
  if (realtime_) realtime_->forget_history();
}

MachineExplorer::MachineExplorer(const Machine& machine, const std::vector<Fence>& left_out)
    : machine_(machine), main_(machine.main(), events_of(left_out, false)) {
  if (machine.realtime() != nullptr) realtime_.emplace(*machine.realtime(), events_of(left_out, true));
}

void MachineExplorer::for_each(std::uint64_t tick, const pmem::ImageLimits& limits, const Visit& visit) {
  const std::size_t main_at = main_events(tick);
  if (!realtime_) {
    main_.for_each_image(main_at, limits, [&](const pmem::CrashImage& image) { return visit({image, {}}); });
    return;
  }
  const std::size_t realtime_at = realtime_events(tick);
  const std::vector<std::size_t> main_pending = main_.pending_stores(main_at);
  const std::vector<std::size_t> realtime_pending = realtime_->pending_stores(realtime_at);
  std::unordered_set<std::uint64_t> seen;
  bool go_on = true;
  const auto give = [&](const pmem::CrashImage& main, const pmem::CrashImage& realtime) {
    const MachineImage image{main, realtime};
    if (go_on && seen.insert(image.content_hash()).second) go_on = visit(image);
    return go_on;
  };
  const pmem::CrashImage mains[] = {main_.image_with(main_at, {}), main_.image_with(main_at, main_pending)};
  const pmem::CrashImage realtimes[] = {realtime_->image_with(realtime_at, {}),
                                        realtime_->image_with(realtime_at, realtime_pending)};
  for (const auto& [main, realtime] : {std::pair{1, 0}, {0, 1}, {0, 0}, {1, 1}}) give(mains[main], realtimes[realtime]);
  std::mt19937_64 random(limits.seed);
  pmem::ImageLimits half = limits;
  half.max_systematic = (limits.max_systematic + 1) / 2;
  half.exhaustive_stores = std::max<std::size_t>(limits.exhaustive_stores, 2) - 1;
  if (!main_pending.empty() && go_on) {
    main_.for_each_image(main_at, half, [&](const pmem::CrashImage& main) {
      const std::uint64_t which = random() % 3;
      return give(
          main, which < 2 ? realtimes[which] : realtime_->image_at(realtime_at, pmem::random_eviction(random(), 0.5)));
    });
  }
  if (!realtime_pending.empty() && go_on) {
    realtime_->for_each_image(realtime_at, half, [&](const pmem::CrashImage& realtime) {
      const std::uint64_t which = random() % 3;
      return give(which < 2 ? mains[which] : main_.image_at(main_at, pmem::random_eviction(random(), 0.5)), realtime);
    });
  }
}

std::vector<MachineExplorer::Pending> MachineExplorer::pending(std::uint64_t tick) {
  std::vector<Pending> all;
  for (const pmem::PendingStore& store : main_.pending_at(main_events(tick)))
    all.push_back({false, machine_.main().event(store.event).tick, store});
  if (realtime_) {
    for (const pmem::PendingStore& store : realtime_->pending_at(realtime_events(tick)))
      all.push_back({true, machine_.realtime()->event(store.event).tick, store});
  }
  std::sort(all.begin(), all.end(), [](const Pending& a, const Pending& b) { return a.tick < b.tick; });
  return all;
}

MachineImage MachineExplorer::image_with(std::uint64_t tick, const std::vector<Pending>& all,
                                         const std::vector<bool>& present) {
  std::vector<std::size_t> main_present, realtime_present;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (present[i]) (all[i].of_realtime ? realtime_present : main_present).push_back(all[i].store.event);
  }
  MachineImage image{main_.image_with(main_events(tick), main_present), {}};
  if (realtime_) image.realtime = realtime_->image_with(realtime_events(tick), realtime_present);
  return image;
}

MachineImage MachineExplorer::torn_image(std::uint64_t tick, std::uint64_t seed, double latest_probability) {
  MachineImage image{main_.image_at(main_events(tick), pmem::random_eviction(seed, latest_probability)), {}};
  if (realtime_)
    image.realtime = realtime_->image_at(realtime_events(tick), pmem::random_eviction(seed + 1, latest_probability));
  return image;
}

MachineImage MachineExplorer::image_of(std::uint64_t tick,
                                       const std::function<bool(const pmem::CrashEvent&)>& is_present) {
  const std::vector<Pending> all = pending(tick);
  std::vector<bool> present;
  for (const Pending& p : all) {
    const pmem::CrashDevice& device = p.of_realtime ? *machine_.realtime() : machine_.main();
    present.push_back(is_present(device.event(p.store.event)));
  }
  return image_with(tick, all, present);
}

bool MachineExplorer::for_each_without(std::uint64_t tick, MachineExplorer& complete, std::size_t random_images,
                                       std::uint64_t seed, const Visit& visit) {
  const std::vector<Pending> all = pending(tick);
  const std::vector<Pending> others = complete.pending(tick);
  // Missing: what the call would have made durable, or the part of a store that it would have.
  std::vector<bool> is_extra(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    is_extra[i] = std::none_of(others.begin(), others.end(), [&](const Pending& other) {
      return other.tick == all[i].tick && other.store.ranges == all[i].store.ranges;
    });
  }
  const auto count = static_cast<std::size_t>(std::count(is_extra.begin(), is_extra.end(), true));
  if (count == 0) return false;
  bool go_on = true;
  std::unordered_set<std::uint64_t> seen;
  const auto give = [&](const MachineImage& image) {
    if (go_on && seen.insert(image.content_hash()).second) go_on = visit(image);
  };
  std::vector<bool> without(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) without[i] = !is_extra[i];
  const std::vector<bool> none(all.size(), false);
  give(image_with(tick, all, without));
  give(image_with(tick, all, none));
  std::mt19937_64 random(seed);
  // Each alone missing; each of the others alone there. Sampled where there are many.
  constexpr std::size_t kMostOfAKind = 8;
  for (std::size_t i = 0; i < all.size() && go_on; ++i) {
    const std::size_t of_kind = is_extra[i] ? count : all.size() - count;
    if (of_kind > kMostOfAKind && random() % of_kind >= kMostOfAKind) continue;
    std::vector<bool> present = is_extra[i] ? std::vector<bool>(all.size(), true) : none;
    present[i] = !is_extra[i];
    give(image_with(tick, all, present));
  }
  for (std::size_t i = 0; i < random_images && go_on; ++i) {
    constexpr double kLatest[] = {0.5, 0.5, 0.1, 0.5, 0.9};
    give(torn_image(tick, random(), kLatest[i % std::size(kLatest)]));
  }
  return true;
}

bool MachineExplorer::for_each_subset(std::uint64_t tick, std::size_t most, const Visit& visit) {
  const std::vector<Pending> all = pending(tick);
  if (all.size() > most) return false;
  std::vector<bool> present(all.size());
  bool go_on = true;
  for (std::uint64_t mask = 0; mask < std::uint64_t{1} << all.size() && go_on; ++mask) {
    for (std::size_t i = 0; i < all.size(); ++i) present[i] = (mask >> i & 1) != 0;
    go_on = visit(image_with(tick, all, present));
  }
  return true;
}

}  // namespace plumb::test
