#include "test/crash/fixed_clock.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace {

constexpr std::uint64_t kStartSeconds = 1'600'000'000;
constexpr std::uint64_t kTickNanoseconds = 4'000'000;
std::atomic<std::uint64_t> ticks{0};

}  // namespace

// In place of the C library's, for this program.
extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)
    return static_cast<int>(syscall(SYS_clock_gettime, clock, time));
  const std::uint64_t nanoseconds = ticks.load() * kTickNanoseconds;
  time->tv_sec = static_cast<time_t>(kStartSeconds + nanoseconds / 1'000'000'000);
  time->tv_nsec = static_cast<long>(nanoseconds % 1'000'000'000);
  return 0;
}

namespace plumb::test {

void reset_clock() {
  ticks = 0;
}
void tick_clock() {
  ticks.fetch_add(1);
}

}  // namespace plumb::test
