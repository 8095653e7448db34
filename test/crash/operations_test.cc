// Every operation, crashed at every fence and every reply.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "test/crash/tree.h"

namespace {

using namespace plumb::test;

void crash_all(const Setting& setting, const std::vector<Workload>& workloads) {
  const MachineImage base = prepared_image(setting, make_tree);
  for (const Workload& workload : workloads) {
    const std::string problem = crash_everywhere(base, setting, workload);
    INFO(problem);
    CHECK(problem.empty());
  }
}

}  // namespace

TEST_CASE("crash: names", "[crash]") {
  crash_all(settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 2, 4})))], namespace_workloads());
}
TEST_CASE("crash: data", "[crash]") {
  crash_all(settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 2, 4})))], data_workloads());
}
TEST_CASE("crash: attributes", "[crash]") {
  crash_all(settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 2, 4})))], attribute_workloads());
}
