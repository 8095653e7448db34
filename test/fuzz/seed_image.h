// Seed images, the structures on them, and changes to those.
//
// A seed is made once, by mkfs and a mount: trees with several levels, chains, realtime files, orphans, entries of the
// reclaim queue, live journal records. Its structures are listed, so that an input can name "the third directory node".
//
// Thread safety: none.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "fs/media/layout.h"
#include "pmem/crash_image.h"
#include "test/fuzz/fuzz_device.h"
#include "test/fuzz/input.h"

namespace plumb::fuzz {

enum class StructureKind : std::uint8_t {
  kSuperblock,
  kLabel,
  kState,
  kBitmap,
  kJournalHeader,
  kRecord,
  kInodeTableNode,
  kReclaimNode,
  kExtentNode,
  kDirectoryNode,
  kXattrNode,
  kValue,
  kInode,
};
inline constexpr std::size_t kStructureKinds = 13;

struct Structure {
  std::uint64_t offset_bytes = 0;
  std::uint32_t length_bytes = 0;
  std::uint64_t owner = 0;  // inode number of nodes, values and inodes
};

struct SeedImage {
  std::uint32_t block_size = 0;
  std::uint64_t journal_start = 0, journal_bytes = 0;
  std::optional<pmem::CrashImage> main, realtime;
  std::array<std::vector<Structure>, kStructureKinds> structures;

  [[nodiscard]] std::vector<Structure>& of(StructureKind kind) { return structures[static_cast<std::size_t>(kind)]; }
  [[nodiscard]] const std::vector<Structure>& of(StructureKind kind) const {
    return structures[static_cast<std::size_t>(kind)];
  }
};

inline constexpr std::size_t kSeedImages = 4;
/// Made when it is first asked for.
[[nodiscard]] const SeedImage& seed_image(std::size_t index);

/// One change of kEditBytes of input: which structure of the allowed kinds, where in it, how, to what. Makes its
/// checksum right again, unless the edit says not to.
void apply_edit(const SeedImage& seed, std::span<const StructureKind> kinds, Input& input, FuzzDevice& main,
                FuzzDevice* realtime);

/// Gives the live records of the journal the checksums that follow from its headers, in order.
void seal_records(const SeedImage& seed, FuzzDevice& main);

}  // namespace plumb::fuzz
