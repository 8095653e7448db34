// What a run of plumb_crash_tests says of itself: the numbers after the last test, and how a violation is replayed.
#include <catch2/catch_test_case_info.hpp>
#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>
#include <chrono>
#include <iostream>

#include "test/crash/harness.h"

namespace {

using plumb::test::Totals;

class Summary : public Catch::EventListenerBase {
 public:
  using Catch::EventListenerBase::EventListenerBase;
  void testRunStarting(const Catch::TestRunInfo&) override { start_ = std::chrono::steady_clock::now(); }
  void testCaseStarting(const Catch::TestCaseInfo& test) override {
    plumb::test::replay_command() = "plumb_crash_tests \"" + test.name + "\"";
  }
  void testRunEnded(const Catch::TestRunStats&) override {
    const Totals& t = plumb::test::totals();
    if (t.images == 0) return;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    const std::uint64_t all = t.images + t.nested;
    std::cout << "crash states: " << all << " (" << t.points << " points, " << t.images << " different images, "
              << t.repeated << " repeated ones and " << t.pruned << " that recovery cannot tell apart left out, "
              << t.worked_on << " worked on at length, " << t.nested << " of crashes in recovery), "
              << static_cast<std::uint64_t>(static_cast<double>(all) / seconds)
              << " a second; violations: " << t.violations << "; seed " << plumb::test::base_seed() << "\n";
  }

 private:
  std::chrono::steady_clock::time_point start_;
};
CATCH_REGISTER_LISTENER(Summary)

}  // namespace
