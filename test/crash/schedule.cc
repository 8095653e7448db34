#include "test/crash/schedule.h"

#include <algorithm>
#include <random>

#include "test/crash/setting.h"

namespace plumb::test {
namespace {

constexpr std::size_t kPairsForEachTriple = 6;
constexpr std::size_t kPairsForEachRandom = 40;
constexpr std::size_t kPairsForEachLeases = 20;
constexpr std::size_t kPairsForEachWrapping = 200;

std::string joined(const std::vector<std::string>& parts) {
  std::string name;
  for (const std::string& part : parts) name += (name.empty() ? "" : "; ") + part;
  return name;
}

void add_singles(const std::vector<std::size_t>& settings, std::vector<Unit>& units) {
  for (const Operation& operation : operations()) {
    std::vector<std::string> ends{"reclaim", "unmount"};
    for (const std::string& sync : syncs_after(operation)) ends.push_back(sync);
    for (const std::size_t setting : settings) {
      units.push_back({setting, SequenceKind::kOne, operation.name});
      for (const std::string& end : ends) {
        if (operation.name == end) continue;
        // Two operations by name: it is crashed from the second on, and so is reclaim by what it has to do.
        const SequenceKind kind = kind_of(joined({operation.name, end}));
        units.push_back({setting, kind, joined({operation.name, end})});
      }
    }
  }
}

// With the sync number `place`: none, one of three after the first, one of three after the second.
std::string pair_name(const Operation& first, const Operation& second, std::size_t place) {
  std::vector<std::string> parts{first.name};
  if (place >= 1 && place <= 3) parts.push_back(syncs_after(first)[place - 1]);
  parts.push_back(second.name);
  if (place >= 4) parts.push_back(syncs_after(second)[place - 4]);
  return joined(parts);
}

}  // namespace

const std::vector<Setting>& explored_settings() {
  static const std::vector<Setting> all = [] {
    std::vector<Setting> list = settings();
    list.insert(list.end(), realtime_settings().begin(), realtime_settings().end());
    return list;
  }();
  return all;
}

std::vector<Unit> schedule(const std::vector<std::size_t>& settings, std::uint64_t seed, bool shuffled) {
  constexpr std::size_t kPlaces = 7;
  std::mt19937_64 random(seed);
  std::vector<Unit> units;
  add_singles(settings, units);
  const auto all = operations();
  const auto any_operation = [&]() -> const Operation& { return all[random() % all.size()]; };
  const auto any_setting = [&] { return settings[random() % settings.size()]; };
  std::vector<std::size_t> pairs(all.size() * all.size());
  for (std::size_t i = 0; i < pairs.size(); ++i) pairs[i] = i;
  std::size_t count = 0;
  for (std::size_t round = 0; round < settings.size(); ++round) {
    std::shuffle(pairs.begin(), pairs.end(), random);
    for (const std::size_t pair : pairs) {
      const Operation& first = all[pair / all.size()];
      const Operation& second = all[pair % all.size()];
      units.push_back({settings[(pair + round) % settings.size()], SequenceKind::kTwo,
                       pair_name(first, second, (pair + round) % kPlaces)});
      ++count;
      if (count % kPairsForEachTriple == 0) {
        std::string name = pair_name(any_operation(), any_operation(), random() % kPlaces);
        units.push_back({any_setting(), SequenceKind::kThree, joined({std::move(name), any_operation().name})});
      }
      if (count % kPairsForEachRandom == 0)
        units.push_back({any_setting(), SequenceKind::kRandom, "random " + std::to_string(random() % 1'000'000)});
      if (count % kPairsForEachLeases == 0)
        units.push_back({any_setting(), SequenceKind::kLeases, "leases " + std::to_string(random() % 1'000'000)});
      if (count % kPairsForEachWrapping == 0)
        units.push_back({any_setting(), SequenceKind::kWrapping, "wrapping " + std::to_string(random() % 1'000'000)});
    }
  }
  if (shuffled) std::shuffle(units.begin(), units.end(), random);
  return units;
}

}  // namespace plumb::test
