// One device as repair sees it.
#include <algorithm>
#include <cstring>

#include "fs/core/repair_impl.h"
#include "fs/media/verify.h"

namespace plumb::repairer {

Space::Space(const Superblock& superblock, DeviceRole role)
    : owned(superblock.blocks(role) / superblock.unit_blocks(role)),
      kept(superblock.blocks(role) / superblock.unit_blocks(role)),
      bits(superblock.blocks(role) / superblock.unit_blocks(role)),
      unknown(superblock.blocks(role) / superblock.unit_blocks(role)),
      taken(superblock.blocks(role) / superblock.unit_blocks(role)),
      superblock_(superblock),
      role_(role),
      unit_(superblock.unit_blocks(role)),
      units_(superblock.blocks(role) / unit_),
      data_start_(superblock.entry(role).data_start / unit_),
      cursors_{data_start_, data_start_} {}

void Space::load(const Image& image) {
  const media::DeviceEntry& entry = superblock_.entry(role_);
  const std::uint64_t per_block = superblock_.bits_per_bitmap_block();  // a multiple of 64
  std::vector<std::byte> bytes(image.block_size());
  for (std::uint64_t i = 0; i < entry.bitmap_blocks; ++i) {
    const std::uint64_t block = entry.bitmap_start + i;
    const std::uint64_t first = i * per_block;
    const std::uint64_t end = std::min(units_, first + per_block);
    Status status = image.load(block, bytes);
    if (status) status = media::verify_block(bytes, media::BlockMagic::kBitmap, block);
    if (!status) {
      damaged_.push_back(i);
      unknown.set(first, end);
      continue;
    }
    bool plain = true;
    for (std::uint64_t unit = first; unit < first + per_block; unit += 64) {
      media::Le64 word;
      std::memcpy(&word, bytes.data() + sizeof(media::BlockHeader) + (unit - first) / 8, sizeof word);
      const std::uint64_t here = unit >= end ? 0 : std::min<std::uint64_t>(64, end - unit);
      for_bit_runs(
          0, 64, [&word](std::uint64_t) { return word.get(); },
          [&](std::uint64_t from, std::uint64_t to) {
            plain = plain && to <= here;
            if (from < here) bits.set(unit + from, unit + std::min(to, here));
          });
    }
    media::BlockHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (!plain || header.owner != media::device_key(index_of(role_), i)) damaged_.push_back(i);
  }
}

bool Space::holds(std::uint64_t start_block, std::uint64_t blocks) const {
  if (start_block % unit_ != 0 || blocks % unit_ != 0 || blocks == 0) return false;
  const std::uint64_t start = start_block / unit_;
  return start >= data_start_ && start < units_ && blocks / unit_ <= units_ - start;
}

// When everything in sight is owned and only damaged parts of the bitmap are left: what nobody owns there is free.
std::optional<std::uint64_t> Space::take() {
  for (const bool doubtful : {false, true}) {
    std::uint64_t& cursor = cursors_[doubtful ? 1 : 0];
    for (; cursor < units_; ++cursor) {
      if (unknown.test(cursor) != doubtful || (!doubtful && bits.test(cursor)) || owned.test(cursor) ||
          kept.test(cursor))
        continue;
      owned.set(cursor, cursor + 1);
      taken.set(cursor, cursor + 1);
      return cursor++;
    }
  }
  return std::nullopt;
}

std::vector<std::byte> Space::bitmap_block(std::uint64_t index,
                                           absl::FunctionRef<std::uint64_t(std::uint64_t)> in_use) const {
  const std::uint64_t per_block = superblock_.bits_per_bitmap_block();
  std::vector<std::byte> bytes(superblock_.block_size());
  media::BlockHeader header;
  header.magic = static_cast<std::uint32_t>(media::BlockMagic::kBitmap);
  header.block = superblock_.entry(role_).bitmap_start + index;
  header.owner = media::device_key(index_of(role_), index);
  std::memcpy(bytes.data(), &header, sizeof header);
  const std::uint64_t first = index * per_block;
  for (std::uint64_t unit = first; unit < std::min(units_, first + per_block); unit += 64) {
    const media::Le64 word(in_use(unit / 64));
    std::memcpy(bytes.data() + sizeof header + (unit - first) / 8, &word, sizeof word);
  }
  media::seal_block(bytes);
  return bytes;
}

}  // namespace plumb::repairer
