// Random sequences of operations, crashed anywhere.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "test/crash/random_steps.h"

using namespace plumb::test;

TEST_CASE("crash: random sequences", "[crash][random]") {
  const std::size_t which = GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 2, 4})));
  const Setting& setting = settings()[which];
  const auto base = prepared_image(setting, make_random_tree);
  for (std::size_t round = 0; round < scaled(12); ++round) {
    Workload workload{.name = "random sequence " + std::to_string(round),
                      .steps = random_steps(base_seed() * 1000 + which * 100 + round, 24)};
    if (round % 3 == 0) workload.steps.push_back(unmount_step());
    Effort effort;
    effort.exhaustive_stores = 3;
    effort.systematic = 6;
    effort.random = 2;
    effort.most_points = 25;
    std::string problem = crash_everywhere(base, setting, workload, effort);
    if (!problem.empty()) {
      problem += "\n    steps:";
      for (const Step& s : workload.steps) problem += " " + s.name + ";";
    }
    INFO(problem);
    REQUIRE(problem.empty());
  }
}
