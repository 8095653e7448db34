#include "fs/core/superblock.h"

#include <cstring>
#include <optional>
#include <span>

#include "fs/core/volume.h"
#include "fs/media/uuid_text.h"
#include "fs/media/verify.h"

namespace plumb {

Result<Superblock> Superblock::read(const Members& members) {
  PLUMB_ASSIGN(Superblock superblock, read_main(members.main));
  PLUMB_TRY(superblock.attach_realtime(members.realtime));
  return superblock;
}

Result<Superblock> Superblock::read_main(pmem::Device& main) {
  if (main.size_bytes() < media::kMinDeviceBytes)
    return fail(EUCLEAN,
                main.info().path + ": too small to hold a plumbfs (" + std::to_string(main.size_bytes()) + " bytes)");
  Superblock chosen;
  bool have = false;
  std::optional<Error> first_error;
  for (const std::uint64_t offset : media::kSuperblockOffsets) {
    media::Superblock copy;
    Status status = main.load(offset, std::as_writable_bytes(std::span<media::Superblock, 1>(&copy, 1)));
    if (status) status = media::verify_superblock(copy, main.size_bytes());
    if (!status) {
      if (!first_error)
        first_error = Error{status.error().code, main.info().path + ": " + status.error().detail, offset};
      continue;
    }
    if (!have || copy.update > chosen.media_.update) chosen.media_ = copy;
    have = true;
  }
  if (!have) return tl::unexpected(*first_error);
  chosen.block_size_ = chosen.media_.block_size_bytes;
  chosen.devices_[0] = &main;
  return chosen;
}

Result<media::MemberLabel> Superblock::read_label(const pmem::Device& device) {
  if (device.size_bytes() < media::kReservedHeadBytes)
    return fail(EUCLEAN, device.info().path + ": too small to be a member of a plumbfs");
  std::optional<Error> first_error;
  for (const std::uint64_t offset : media::kSuperblockOffsets) {
    media::MemberLabel label;
    Status status = device.load(offset, std::as_writable_bytes(std::span<media::MemberLabel, 1>(&label, 1)));
    if (status) status = media::verify_member_label(label);
    if (status) return label;
    if (!first_error)
      first_error = Error{status.error().code, device.info().path + ": " + status.error().detail, offset};
  }
  return tl::unexpected(*first_error);
}

Status Superblock::attach_realtime(pmem::Device* device) {
  const std::string& main = devices_[0]->info().path;
  if (device_count() < 2) {
    if (device == nullptr) return {};
    return fail(EINVAL, main + ": has no realtime device; " + device->info().path + " is not needed");
  }
  const media::DeviceEntry& wanted = entry(DeviceRole::kRealtime);
  const std::string looked_for = "the realtime device of " + main + ", uuid " + media::uuid_text(wanted.uuid);
  if (device == nullptr) return fail(ENXIO, looked_for + ", is missing");
  const std::string& path = device->info().path;
  const auto label = read_label(*device);
  if (!label) return fail(ENXIO, path + " is not " + looked_for + ": " + label.error().detail);
  if (label->uuid != wanted.uuid || label->filesystem_uuid != media_.uuid)
    return fail(ENXIO, path + " is not " + looked_for + ": it has uuid " + media::uuid_text(label->uuid) +
                           " and belongs to the file system " + media::uuid_text(label->filesystem_uuid));
  if (label->size_bytes != wanted.size_bytes || label->extent_bytes != wanted.extent_bytes ||
      label->block_size_bytes != media_.block_size_bytes)
    return fail(EUCLEAN, path + ": its label does not agree with the device table of " + main);
  if (device->size_bytes() < wanted.size_bytes)
    return fail(EUCLEAN, path + ": the file system uses " + std::to_string(wanted.size_bytes) +
                             " bytes of it, it has only " + std::to_string(device->size_bytes()) + "; is it cut off?");
  devices_[1] = device;
  return {};
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

Status Superblock::mend_copies() {
  pmem::Device& main = *devices_[0];
  for (const std::uint64_t offset : media::kSuperblockOffsets) {
    media::Superblock copy;
    const Status loaded = main.load(offset, std::as_writable_bytes(std::span<media::Superblock, 1>(&copy, 1)));
    if (loaded && std::memcmp(&copy, &media_, sizeof copy) == 0) continue;
    const Status stored = main.store(offset, std::as_bytes(std::span<const media::Superblock, 1>(&media_, 1)));
    if (!stored && !loaded) continue;  // memory that can be neither read nor written: the other copy is enough
    PLUMB_TRY(stored);
    // Durable before the other copy may be rewritten: at every instant one is whole.
    PLUMB_TRY(main.persist(offset, media::kSuperblockBytes));
  }
  return {};
}

Status Superblock::count_unsafe_shutdown() {
  media_.unsafe_shutdowns = media_.unsafe_shutdowns + 1;
  return write(*devices_[0], media_);
}

Status Superblock::set_ro_compat(std::uint64_t bits) {
  if ((media_.ro_compat & bits) == bits) return {};
  const std::uint64_t before = media_.ro_compat;
  media_.ro_compat = before | bits;
  const Status written = write(*devices_[0], media_);
  if (!written) media_.ro_compat = before;  // one copy may have them already, which is as legal
  return written;
}

DeviceRole Superblock::data_role(std::uint32_t inode_flags) const {
  return (inode_flags & kInodeRealtime) != 0 && device_count() > 1 ? DeviceRole::kRealtime : DeviceRole::kMain;
}

}  // namespace plumb
