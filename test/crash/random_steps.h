// Random sequences of operations, with fsyncs, syncs and deaths of the daemon among them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "test/crash/harness.h"

namespace plumb::test {

/// What random_steps() begin on.
void make_random_tree(Actor& a);

/// The same steps for the same seed.
[[nodiscard]] std::vector<Step> random_steps(std::uint64_t seed, std::size_t count);

}  // namespace plumb::test
