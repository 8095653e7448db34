#include "fs/core/superblock.h"

#include <cstring>
#include <optional>
#include <span>

#include "fs/core/volume.h"
#include "fs/media/verify.h"

namespace plumb {

Result<Superblock> Superblock::read(pmem::Device& main) {
  if (main.size_bytes() < media::kMinDeviceBytes)
    return fail(EUCLEAN, main.info().path + ": too small to hold a plumbfs (" + std::to_string(main.size_bytes()) +
                             " bytes)");
  Superblock chosen;
  bool have = false;
  std::optional<Error> first_error;
  for (const std::uint64_t offset : media::kSuperblockOffsets) {
    media::Superblock copy;
    Status status = main.load(offset, std::as_writable_bytes(std::span<media::Superblock, 1>(&copy, 1)));
    if (status) status = media::verify_superblock(copy, main.size_bytes());
    if (!status) {
      if (!first_error) first_error = Error{status.error().code, main.info().path + ": " + status.error().detail, offset};
      continue;
    }
    if (!have || copy.update > chosen.media_.update) chosen.media_ = copy;
    have = true;
  }
  if (!have) return tl::unexpected(*first_error);
  chosen.block_size_ = chosen.media_.block_size_bytes;
  chosen.devices_[0] = &main;
  if (chosen.media_.device_count > 1)
    return fail(ENXIO, main.info().path + ": the file system has a second device; this version cannot use it");
  return chosen;
}

Status Superblock::write(pmem::Device& main, media::Superblock& media) {
  media.update = media.update + 1;
  media::seal_superblock(media);
  for (const std::uint64_t offset : media::kSuperblockOffsets) {
    PLUMB_TRY(main.store(offset, std::as_bytes(std::span<const media::Superblock, 1>(&media, 1))));
    // Separates the copies: the second is touched only when the first is whole again.
    PLUMB_TRY(main.persist(offset, media::kSuperblockBytes));
  }
  return {};
}

Status Superblock::count_unsafe_shutdown() {
  media_.unsafe_shutdowns = media_.unsafe_shutdowns + 1;
  return write(*devices_[0], media_);
}

DeviceRole Superblock::data_role(std::uint32_t inode_flags) const {
  return (inode_flags & kInodeRealtime) != 0 && device_count() > 1 ? DeviceRole::kRealtime : DeviceRole::kMain;
}

}  // namespace plumb
