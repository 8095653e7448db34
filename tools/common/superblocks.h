// The two superblock copies of a device, as the tools show and judge them. Reads only.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "fs/media/layout.h"
#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb::tools {

struct SuperblockCopy {
  std::uint64_t offset_bytes = 0;
  media::Superblock superblock{};  // bytes as they are, whatever the status says
  Status status;                   // of media::verify_superblock, or of the load
  bool has_magic = false;          // it is, or was meant to be, a plumbfs superblock
};

struct SuperblockCopies {
  std::array<SuperblockCopy, media::kSuperblockOffsets.size()> copies;

  /// The copy that counts: valid, with the highest `update`. Null if no copy is valid.
  [[nodiscard]] const SuperblockCopy* current() const;
  /// The copy whose status explains best why there is no current one: a later version before damage before a foreign
  /// device.
  [[nodiscard]] const SuperblockCopy& most_telling() const;
  [[nodiscard]] bool any_magic() const;
};

/// Never fails as a whole: what cannot be read is in the status of the copy.
[[nodiscard]] SuperblockCopies read_superblocks(const pmem::Device& device);

/// Whether the journal says that the file system was unmounted. Nothing: neither of its headers can be read.
[[nodiscard]] std::optional<bool> was_unmounted(const pmem::Device& device, const media::Superblock& superblock);

}  // namespace plumb::tools
