// Crashes in what changes devices without a workload: recovery, and what is not as careful.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "fs/core/volume_impl.h"
#include "fs/media/verify.h"
#include "test/crash/sequence.h"

namespace {

using namespace plumb;
using namespace plumb::test;

// Every fence, and more of each than a nested crash gets.
Effort thorough() {
  Effort effort;
  effort.nested_points = 1000;
  return effort;
}

// A daemon that died with records to replay, an orphan, and a queue.
MachineImage dead_daemon(const Setting& setting) {
  Machine machine(prepared_image(setting, make_small_tree), setting.kinds);
  Actor world(machine, setting);
  world.open_as("h", "g");
  world.unlink("g");
  world.write("f", 5000, pattern('w', 9000));
  world.truncate("m", 100);
  must(world->sync());
  world.rename("f", "n");
  world.close_all();
  world.die();
  return machine.current_image();
}

}  // namespace

TEST_CASE("crash: recovery may be cut short anywhere, and is done again", "[crash][recovery]") {
  const Setting& setting = settings()[GENERATE(from_range(chosen({0, 1, 2, 3, 4}, {0, 3})))];
  CAPTURE(setting.name, base_seed());
  const MachineImage image = dead_daemon(setting);
  const auto recover = [&](Machine& machine) {
    Actor world(machine, setting);
    must(world->run_reclaim());
    world.unmount();
  };
  const auto look = [&](Machine& machine) {
    Actor world(machine, setting);
    return take_snapshot(world);
  };
  Machine undisturbed(image, setting.kinds);
  recover(undisturbed);
  const Snapshot expected = look(undisturbed);
  REQUIRE(expected.names.contains("n"));
  const std::uint64_t before = totals().nested;
  const std::string problem = crash_during(recover, image, setting, thorough(), [&](Machine& machine) {
    recover(machine);
    if (std::string text = check_text(machine); !text.empty()) return text;
    const Snapshot seen = look(machine);
    std::string difference = metadata_difference(seen, expected);
    return difference.empty() ? content_difference(seen, expected) : difference;
  });
  INFO(problem);
  CHECK(problem.empty());
  CHECK(totals().nested - before > 50);
}

TEST_CASE("crash: a change in place that a crash can split is found out", "[crash][recovery]") {
  const Setting& setting = settings()[GENERATE(0u, 3u)];
  const MachineImage image = prepared_image(setting, make_small_tree);
  // Moves the zeroed mark in the state block as no one may: the word first, its checksum later.
  const auto careless = [](Machine& machine) {
    const media::Superblock sb = must(Superblock::read(machine.members())).media();
    std::vector<std::byte> block(sb.block_size_bytes);
    const std::uint64_t at = sb.state_block * sb.block_size_bytes;
    must(machine.main().load(at, block));
    media::State state;
    std::memcpy(static_cast<void*>(&state), block.data(), sizeof state);
    state.zeroed_upto[0] = state.zeroed_upto[0] - 8;
    std::memcpy(block.data(), static_cast<const void*>(&state), sizeof state);
    const std::uint64_t word = offsetof(media::State, zeroed_upto);
    must(machine.main().store(at + word, std::span(block).subspan(word, sizeof(std::uint64_t))));
    must(machine.main().persist(at + word, sizeof(std::uint64_t)));
    media::seal_block(block);
    must(machine.main().store(at, std::span(block).first(sizeof(media::BlockHeader))));
    must(machine.main().persist(at, sizeof(media::BlockHeader)));
  };
  Machine undisturbed(image, setting.kinds);
  careless(undisturbed);
  REQUIRE(check_text(undisturbed).empty());
  const std::string problem =
      crash_during(careless, image, setting, thorough(), [](Machine& machine) { return check_text(machine); });
  CHECK(problem.find("checksum") != problem.npos);
}
