// Images to damage, and damage that has right checksums: for tests of whoever has to live with it.
//
// Thread safety: no state.
#pragma once

#include <cstdint>
#include <random>

#include "test/unit/core_world.h"

namespace plumb::test {

using Random = std::mt19937_64;

inline constexpr std::uint64_t kMainBytes = 8u << 20;
inline constexpr std::uint64_t kRealtimeBytes = 2u << 20;

/// In [0, limit).
[[nodiscard]] std::uint64_t below(Random& random, std::uint64_t limit);
/// A number in the environment.
[[nodiscard]] std::uint64_t environment(const char* name, std::uint64_t otherwise);

struct SeedImage {
  std::uint32_t block_size = 1024;
  bool realtime = false;
  bool clean = true;
  pmem::CrashImage main, second;
};

/// A small file system with a bit of everything; `clean`: unmounted.
[[nodiscard]] SeedImage make_seed(std::uint32_t block_size, bool realtime, bool clean);

// One structure of its kind, chosen at random, gets a few numbers that it should not have; its checksum is right.
void damage_superblock(Random& random, pmem::Device& main);
void damage_label(Random& random, pmem::Device& second);
/// A block with a header, or an inode.
void damage_block(Random& random, pmem::Device& main, std::uint32_t block_size);
/// A header, or a record behind the tail.
void damage_journal(Random& random, pmem::Device& main);

}  // namespace plumb::test
