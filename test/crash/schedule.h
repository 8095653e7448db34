// What the explorer goes through, and in which order.
//
// Of one operation: every one on every setting, alone and with each sync behind it. Of two: every pair on every
// setting, with a sync at one of the places; which one goes round with the settings, so that each pair meets all of
// them. In rounds: the first round has every pair once, on some setting. Between them a sample of three, random
// sequences, those with clients of the direct path, and sequences whose log wraps, from the seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "test/crash/sequence.h"

namespace plumb::test {

/// One workload on one setting.
struct Unit {
  std::size_t setting = 0;  // in explored_settings()
  SequenceKind kind = SequenceKind::kOne;
  std::string workload;
};

/// One device, then two.
[[nodiscard]] const std::vector<Setting>& explored_settings();

/// For these settings. `shuffled`: everything in an order from the seed, for a run that ends early.
[[nodiscard]] std::vector<Unit> schedule(const std::vector<std::size_t>& settings, std::uint64_t seed, bool shuffled);

}  // namespace plumb::test
