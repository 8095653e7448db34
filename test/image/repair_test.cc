// Repair of images with damage at random: afterwards the check engine, which shares nothing with repair but the format,
// finds nothing, a second repair has nothing to do, and the volume can be used.
//
// PLUMB_REPAIR_ROUNDS: images for each seed image (default 150). PLUMB_REPAIR_SEED: of the first; printed when a round
// fails.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "fs/core/repair.h"
#include "test/image/damage.h"
#include "test/unit/core_world.h"

namespace plumb::test {
namespace {

constexpr unsigned kSecondsPerRound = 60;  // a hang is ended

std::string text_of(const CheckReport& report) {
  std::string text;
  for (const Problem& problem : report.problems) text += problem.object + ": " + problem.what + "\n";
  return text;
}

std::string text_of(const RepairReport& report) {
  std::string text;
  for (const Repair& repair : report.repairs) text += repair.object + ": " + repair.what + "\n";
  return text;
}

// Bits that flip: checksums are wrong afterwards. Not in the superblock; anywhere else in the first half of the device,
// where everything is.
void flip(Random& random, pmem::Device& main) {
  for (std::uint64_t n = 1 + below(random, 4); n != 0; --n) {
    const std::uint64_t offset = 131072 + below(random, kMainBytes / 2 - 131072);
    std::array<std::byte, 1> byte;
    must(main.load(offset, byte));
    byte[0] ^= static_cast<std::byte>(1u << below(random, 8));
    must(main.store(offset, byte));
  }
}

// A whole page is gone.
void lose_page(Random& random, pmem::Device& main) {
  const std::vector<std::byte> nothing(4096, below(random, 2) == 0 ? std::byte{0} : std::byte{0xff});
  must(main.store((32 + below(random, kMainBytes / 4096 / 2 - 32)) * 4096, nothing));
}

struct Counts {
  std::uint64_t damaged = 0, refused = 0;
};

void round(const SeedImage& seed_image, std::uint64_t seed, Counts& counts) {
  Random random(seed);
  const auto kind = below(random, 2) == 0 ? pmem::DeviceKind::kMemory : pmem::DeviceKind::kCached;
  pmem::CrashDevice main(seed_image.main, {.kind = kind});
  pmem::CrashDevice second(seed_image.second, {.kind = kind});
  const Members members = seed_image.realtime ? Members(main, &second) : Members(main);
  for (std::uint64_t n = 1 + below(random, 3); n != 0; --n) {
    switch (below(random, 8)) {
      case 0:
        damage_journal(random, main);
        break;
      case 1:
        flip(random, main);
        break;
      case 2:
        lose_page(random, main);
        break;
      default:
        damage_block(random, main, seed_image.block_size);
    }
  }
  const auto before = check_volume(members, {.zeros = true, .progress = {}});
  REQUIRE(before.has_value());
  if (before->problems_total != 0) ++counts.damaged;
  const auto preened = repair_volume(members, {.preen = true, .zeros = true, .progress = {}});
  REQUIRE(preened.has_value());
  INFO("found:\n" << text_of(*before));
  if (preened->needs_more) {
    ++counts.refused;
    const auto repaired = repair_volume(members, {.preen = false, .zeros = true, .progress = {}});
    if (!repaired) FAIL(repaired.error().message());
    INFO("repaired:\n" << text_of(*repaired));
    REQUIRE(text_of(repaired->left) == "");
  } else {
    INFO("repaired:\n" << text_of(*preened));
    REQUIRE(text_of(preened->left) == "");
  }
  const auto again = repair_volume(members, {.preen = false, .zeros = true, .progress = {}});
  REQUIRE(again.has_value());
  REQUIRE(text_of(*again) == "");
  {
    World world(members);
    // Unless the flags of the root, which nothing contradicts, forbid it.
    if ((world->attributes(*world->root()).flags & (kInodeImmutable | kInodeAppend)) == 0) {
      world.create("new file");
      world.write("new file", 0, pattern('n', 30'000));
      CHECK(world.read("new file") == pattern('n', 30'000));
      world.unlink("new file");
    }
    world.unmount();
  }
  CHECK(text_of(must(check_volume(members, {.zeros = true, .progress = {}}))) == "");
}

}  // namespace

TEST_CASE("image: what is damaged at random is sound after a repair", "[image][repair]") {
  const std::uint64_t rounds = environment("PLUMB_REPAIR_ROUNDS", 150);
  const std::uint64_t first = environment("PLUMB_REPAIR_SEED", 1);
  const std::array<SeedImage, 4> seeds = {make_seed(1024, false, true), make_seed(1024, true, false),
                                          make_seed(4096, true, true), make_seed(4096, false, false)};
  for (const SeedImage& seed_image : seeds) {
    Counts counts;
    for (std::uint64_t seed = first; seed < first + rounds; ++seed) {
      CAPTURE(seed_image.block_size, seed_image.realtime, seed_image.clean, seed);
      ::alarm(kSecondsPerRound);
      round(seed_image, seed, counts);
      ::alarm(0);
    }
    std::cout << "repair of images of " << seed_image.block_size << " byte blocks: " << rounds << ", " << counts.damaged
              << " with problems, " << counts.refused << " beyond what -p repairs\n";
    CHECK((rounds < 100 || (counts.damaged > rounds / 3 && counts.refused > rounds / 10)));
  }
}

TEST_CASE("image: a sound volume is not changed by a repair", "[image][repair]") {
  for (const std::uint32_t block_size : {1024u, 4096u}) {
    for (const bool clean : {true, false}) {
      const SeedImage seed_image = make_seed(block_size, true, clean);
      pmem::CrashDevice main(seed_image.main, {});
      pmem::CrashDevice second(seed_image.second, {});
      const Members members(main, &second);
      const auto report = must(repair_volume(members, {.preen = false, .zeros = clean, .progress = {}}));
      CHECK(text_of(report).empty());
      CHECK(text_of(report.left).empty());
    }
  }
}

}  // namespace plumb::test
