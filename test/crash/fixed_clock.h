// The time of day of the crash tests. This program's clock_gettime(2) answers with it, so that a workload makes the
// same log every time and an image can be made again.
//
// Thread safety: all functions.
#pragma once

namespace plumb::test {

/// Back to the same moment for every recording.
void reset_clock();
/// One tick of the kernel's coarse clock: what is done now has other times than what was done before.
void tick_clock();

}  // namespace plumb::test
