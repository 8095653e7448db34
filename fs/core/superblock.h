// The superblock in core: the format's constants and the device table.
//
// Writeback, zeroing and reads ask it for the device of an inode; nobody derives a device from an address or a mapping.
// Immutable after mount but for the unsafe-shutdown count (written before anything else runs) and ro_compat, with the
// update count and the checksum, which nobody but its writer looks at. Safe for all threads.
#pragma once

#include <array>
#include <cstdint>

#include "fs/core/types.h"
#include "fs/media/layout.h"
#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb {

/// The devices of a file system, opened and claimed by the caller, who keeps them until the volume is gone.
struct Members {
  pmem::Device& main;
  pmem::Device* realtime = nullptr;
  // NOLINTNEXTLINE(google-explicit-constructor): most file systems have one device
  Members(pmem::Device& only) : main(only) {}
  Members(pmem::Device& first, pmem::Device* second) : main(first), realtime(second) {}
};

class Superblock {
 public:
  /// Reads both copies from the main device, takes the valid one with the higher update count, and checks that the
  /// other member is the one the device table names. The error is that of the first copy; ENXIO: a member is missing,
  /// or not the one with the uuid looked for.
  [[nodiscard]] static Result<Superblock> read(const Members& members);
  /// The main device alone, for who looks for the others: device(kRealtime) must not be asked for.
  [[nodiscard]] static Result<Superblock> read_main(pmem::Device& main);

  /// Writes both copies, the second only after the first is durable: one of them is always whole.
  [[nodiscard]] static Status write(pmem::Device& main, media::Superblock& media);

  /// Makes a copy that is not whole, or older, like the one that counts: before anything rewrites that one, or a crash
  /// in the middle of it would leave none. Nothing to do is the rule.
  [[nodiscard]] Status mend_copies();
  /// Counts a mount that found the file system not unmounted.
  [[nodiscard]] Status count_unsafe_shutdown();
  /// Sets feature bits durably, before the first thing that needs them. Serialised by the caller; readers of other
  /// fields are not disturbed.
  [[nodiscard]] Status set_ro_compat(std::uint64_t bits);

  [[nodiscard]] const media::Superblock& media() const { return media_; }
  [[nodiscard]] std::uint32_t block_size() const { return block_size_; }
  [[nodiscard]] std::uint64_t offset_of(BlockNumber block) const { return block.value * block_size_; }

  /// The device table, by role. Only roles below device_count().
  [[nodiscard]] pmem::Device& device(DeviceRole role) const { return *devices_[static_cast<std::size_t>(role)]; }
  [[nodiscard]] std::size_t device_count() const { return media_.device_count; }
  [[nodiscard]] const media::DeviceEntry& entry(DeviceRole role) const {
    return media_.devices[static_cast<std::size_t>(role)];
  }
  /// Where the data of an inode with these flags (kInodeRealtime) lives.
  [[nodiscard]] DeviceRole data_role(std::uint32_t inode_flags) const;
  [[nodiscard]] pmem::Device& data_device(std::uint32_t inode_flags) const { return device(data_role(inode_flags)); }

  [[nodiscard]] std::uint64_t blocks(DeviceRole role) const { return entry(role).size_bytes / block_size_; }
  /// Blocks that are allocated together: 1 on the main device, the realtime extent on the other. A power of two.
  [[nodiscard]] std::uint64_t unit_blocks(DeviceRole role) const {
    return role == DeviceRole::kMain ? 1 : entry(role).extent_bytes / block_size_;
  }
  [[nodiscard]] std::uint64_t unit_bytes(DeviceRole role) const { return unit_blocks(role) * block_size_; }
  [[nodiscard]] std::uint64_t chunk_blocks() const { return media::kChunkBytes / block_size_; }
  [[nodiscard]] std::uint64_t bits_per_bitmap_block() const { return (block_size_ - sizeof(media::BitmapHeader)) * 8; }
  [[nodiscard]] std::uint64_t inodes_per_block() const { return block_size_ / media::kInodeBytes; }

  /// The label of a member that is not the main device, of a valid copy.
  [[nodiscard]] static Result<media::MemberLabel> read_label(const pmem::Device& device);

 private:
  [[nodiscard]] Status attach_realtime(pmem::Device* device);

  media::Superblock media_;
  std::uint32_t block_size_ = 0;
  std::array<pmem::Device*, media::kMaxDevices> devices_{};
};

}  // namespace plumb
