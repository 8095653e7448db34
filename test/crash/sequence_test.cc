// The names of sequences: a line with one replays it.
#include "test/crash/sequence.h"

#include <catch2/catch_test_macros.hpp>
#include <map>
#include <set>

#include "test/crash/schedule.h"

using namespace plumb::test;

TEST_CASE("crash sequences: a name says which steps, and from which one on it crashes", "[crash][sequence]") {
  const Workload workload = sequence("append to f; fdatasync f; rename f over g; sync");
  REQUIRE(workload.steps.size() == 4);
  CHECK(workload.from_step == 2);
  CHECK(workload.steps[1].syncs_data_of == "f");
  CHECK(workload.steps[3].syncs_all);
  CHECK(kind_of("append to f; sync") == SequenceKind::kOne);
  CHECK(kind_of("append to f; rename f over g; sync") == SequenceKind::kTwo);
  CHECK(kind_of("wrapping 3") == SequenceKind::kWrapping);
  CHECK(kind_of("leases 3") == SequenceKind::kLeases);
  CHECK_THROWS_AS(sequence("append to nothing"), std::runtime_error);
}

TEST_CASE("crash sequences: every operation is possible where all begin", "[crash][sequence]") {
  const Setting& setting = settings()[0];
  // Those that need another before them.
  const std::set<std::string> dependent{
      "link unnamed n",          "write n",         "write the open file", "write the unnamed file", "store again",
      "store again and persist", "persist the map", "fsync by the client"};
  for (const Operation& operation : operations()) {
    CAPTURE(operation.name);
    Machine machine(prepared_image(setting, make_small_tree), setting.kinds);
    Actor world(machine, setting);
    if (dependent.contains(operation.name))
      CHECK_THROWS_AS(operation.run(world), std::runtime_error);
    else
      CHECK_NOTHROW(operation.run(world));
  }
}

TEST_CASE("crash sequences: the schedule has every operation and every pair on every setting", "[crash][sequence]") {
  std::set<std::string> names;
  for (const Operation& operation : operations()) names.insert(operation.name);
  REQUIRE(names.size() == operations().size());
  std::map<std::size_t, std::set<std::string>> sequences;  // without syncs, by setting
  for (const Unit& unit : schedule({0, 3}, 1, false)) {
    if (unit.kind != SequenceKind::kOne && unit.kind != SequenceKind::kTwo && unit.kind != SequenceKind::kThree)
      continue;
    std::string plain;
    for (const Step& s : sequence(unit.workload).steps)
      if (names.contains(s.name)) plain += s.name + "; ";
    sequences[unit.setting].insert(plain);
  }
  CHECK(sequences.size() == 2);
  for (const std::size_t setting : {0u, 3u}) {
    for (const std::string& first : names) {
      CHECK(sequences[setting].contains(first + "; "));
      for (const std::string& second : names) CHECK(sequences[setting].contains(first + "; " + second + "; "));
    }
  }
}
