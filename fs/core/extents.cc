#include "fs/core/extents.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>

#include "fs/core/btree.h"

namespace plumb {
namespace {

constexpr std::uint64_t kMaxExtentBlocks = 0xffff'ffffULL;

media::ExtentRecord record_of(const Extent& extent) {
  media::ExtentRecord record;
  record.device_block = extent.device_block;
  record.length_blocks = static_cast<std::uint32_t>(extent.length);
  return record;
}

BTree tree_of(Store& store, const media::Inode& inode) {
  return {store, media::TreeKind::kExtents, inode.number};
}

Status put(Transaction& t, media::Inode& next, std::uint64_t file_block, const Extent& extent) {
  if (next.data.block == 0) return {};  // inline: settle_extents() writes all of them
  const media::ExtentRecord record = record_of(extent);
  return tree_of(t.store(), next).put(t, next.data, file_block, std::as_bytes(std::span(&record, 1)));
}

Status erase(Transaction& t, media::Inode& next, std::uint64_t file_block) {
  if (next.data.block == 0) return {};
  return tree_of(t.store(), next).erase(t, next.data, file_block);
}

Status check_extent(const Store& store, const media::Inode& inode, std::uint64_t end_of_previous,
                    std::uint64_t file_block, const Extent& extent) {
  const Superblock& sb = store.superblock();
  const DeviceRole role = sb.data_role(inode.flags);
  const std::uint64_t blocks = sb.blocks(role);
  const std::uint64_t unit = sb.unit_blocks(role);
  const bool whole = file_block % unit == 0 && extent.length % unit == 0 && extent.device_block % unit == 0;
  const bool sane = whole && extent.length != 0 && file_block >= end_of_previous &&
                    file_block <= kMaxFileSize / sb.block_size() &&
                    extent.length <= kMaxFileSize / sb.block_size() + 1 - file_block &&
                    extent.device_block >= sb.entry(role).data_start && extent.device_block < blocks &&
                    extent.length <= blocks - extent.device_block;
  if (sane) return {};
  return fail(EUCLEAN, "inode " + std::to_string(inode.number) + ": extent at file block " +
                           std::to_string(file_block) + " overlaps, is not whole, or lies outside the device");
}

}  // namespace

Status load_extents(Store& store, Inode& inode) {
  if (inode.extents_loaded) return {};
  ExtentMap extents;
  std::uint64_t end = 0;
  Status bad;
  auto add = [&](std::uint64_t file_block, const media::ExtentRecord& record) {
    const Extent extent{record.device_block, record.length_blocks};
    bad = check_extent(store, inode.media, end, file_block, extent);
    if (!bad) return false;
    extents.emplace_hint(extents.end(), file_block, extent);
    end = file_block + extent.length;
    return true;
  };
  if (inode.media.data.block == 0) {
    for (std::size_t i = 0; i < inode.media.inline_extents; ++i) {
      media::InlineExtent entry;
      std::memcpy(&entry, inode.media.inline_data.data() + i * sizeof entry, sizeof entry);
      if (!add(entry.file_block, entry.extent)) break;
    }
  } else {
    PLUMB_TRY(tree_of(store, inode.media)
                  .visit(inode.media.data, 0, [&](std::uint64_t key, std::span<const std::byte> bytes) {
                    media::ExtentRecord record;
                    std::memcpy(&record, bytes.data(), sizeof record);
                    return add(key, record);
                  }));
  }
  PLUMB_TRY(bad);
  inode.extents = std::move(extents);
  inode.extents_loaded = true;
  return {};
}

ExtentMap::const_iterator find_extent(const ExtentMap& extents, std::uint64_t file_block) {
  auto it = extents.upper_bound(file_block);
  if (it == extents.begin()) return extents.end();
  --it;
  return file_block < it->first + it->second.length ? it : extents.end();
}

std::uint64_t holes_between(const ExtentMap& extents, std::uint64_t first, std::uint64_t end) {
  std::uint64_t holes = end > first ? end - first : 0;
  for (const FilePiece& piece : FilePieces(extents, 1, first, end)) holes -= piece.length;
  return holes;
}

FilePieces::Iterator FilePieces::begin() const {
  if (begin_ >= end_) return end();
  auto it = extents_.upper_bound(begin_ / block_size_);
  if (it != extents_.begin()) {
    const auto before = std::prev(it);
    if ((before->first + before->second.length) * block_size_ > begin_) it = before;
  }
  return {*this, it};
}

FilePieces::Iterator FilePieces::end() const {
  if (begin_ >= end_) return {*this, extents_.end()};
  return {*this, extents_.lower_bound((end_ - 1) / block_size_ + 1)};
}

FilePiece FilePieces::Iterator::operator*() const {
  const std::uint64_t start = at_->first * pieces_.block_size_;
  const std::uint64_t from = std::max(pieces_.begin_, start);
  const std::uint64_t to = std::min(pieces_.end_, start + at_->second.length * pieces_.block_size_);
  return {from, at_->second.device_block * pieces_.block_size_ + (from - start), to - from};
}

Status insert_extent(Transaction& t, media::Inode& next, ExtentMap& extents, FileBlock file_block, BlockRange blocks) {
  std::uint64_t at = file_block.value;
  Extent extent{blocks.start.value, blocks.length};
  next.blocks = next.blocks + blocks.length;
  auto after = extents.lower_bound(at);
  if (after != extents.end() && at + extent.length == after->first &&
      extent.device_block + extent.length == after->second.device_block &&
      extent.length + after->second.length <= kMaxExtentBlocks) {
    PLUMB_TRY(erase(t, next, after->first));
    extent.length += after->second.length;
    after = extents.erase(after);
  }
  if (after != extents.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second.length == at &&
        before->second.device_block + before->second.length == extent.device_block &&
        before->second.length + extent.length <= kMaxExtentBlocks) {
      before->second.length += extent.length;
      return put(t, next, before->first, before->second);
    }
  }
  extents.emplace(at, extent);
  return put(t, next, at, extent);
}

Result<bool> remove_extents(Transaction& t, media::Inode& next, ExtentMap& extents, FileBlock from, FileBlock to,
                            std::size_t most) {
  const DeviceRole role = t.store().superblock().data_role(next.flags);
  for (std::size_t done = 0;; ++done) {
    auto it = extents.lower_bound(to.value);
    if (it == extents.begin()) return true;
    --it;
    const std::uint64_t start = it->first;
    const Extent extent = it->second;
    const std::uint64_t end = start + extent.length;
    if (end <= from.value) return true;
    if (done == most) return false;
    const std::uint64_t cut_from = std::max(start, from.value);
    const std::uint64_t cut_to = std::min(end, to.value);
    if (cut_from > start) {
      it->second.length = cut_from - start;
      PLUMB_TRY(put(t, next, start, it->second));
    } else {
      extents.erase(it);
      PLUMB_TRY(erase(t, next, start));
    }
    if (cut_to < end) {
      const Extent rest{extent.device_block + (cut_to - start), end - cut_to};
      extents.emplace(cut_to, rest);
      PLUMB_TRY(put(t, next, cut_to, rest));
    }
    next.blocks = next.blocks - (cut_to - cut_from);
    PLUMB_TRY(t.free_data(role, {BlockNumber(extent.device_block + (cut_from - start)), cut_to - cut_from}));
  }
}

Status settle_extents(Transaction& t, media::Inode& next, const ExtentMap& extents) {
  if (next.data.block != 0) return {};
  next.inline_data.fill(0);
  if (extents.size() <= media::kInlineExtents) {
    next.inline_extents = static_cast<std::uint8_t>(extents.size());
    std::size_t i = 0;
    for (const auto& [file_block, extent] : extents) {
      media::InlineExtent entry;
      entry.file_block = file_block;
      entry.extent = record_of(extent);
      std::memcpy(next.inline_data.data() + i++ * sizeof entry, &entry, sizeof entry);
    }
    return {};
  }
  next.inline_extents = 0;
  for (const auto& [file_block, extent] : extents) {
    const media::ExtentRecord record = record_of(extent);
    PLUMB_TRY(tree_of(t.store(), next).put(t, next.data, file_block, std::as_bytes(std::span(&record, 1))));
  }
  return {};
}

}  // namespace plumb
