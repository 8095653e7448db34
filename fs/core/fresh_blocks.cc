#include "fs/core/fresh_blocks.h"

#include <algorithm>

namespace plumb {
namespace {

constexpr std::uint64_t kBigFileBytes = media::kChunkBytes;
constexpr std::size_t kMaxFreshExtents = 512;

}  // namespace

FreshBlocks::~FreshBlocks() {
  for (const auto& [file_block, extent] : map_)
    store_.abandon_data(role_, {BlockNumber(extent.device_block), extent.length});
}

Result<std::uint64_t> FreshBlocks::fill(const ExtentMap& extents, std::uint64_t first, std::uint64_t end,
                                        std::uint64_t file_bytes) {
  std::uint64_t block = first;
  while (block < end) {
    const auto it = find_extent(extents, block);
    if (it != extents.end()) {
      block = it->first + it->second.length;
      continue;
    }
    const auto next = extents.upper_bound(block);
    const std::uint64_t hole_end = next == extents.end() ? end : std::min(end, next->first);
    Allocator::DataRequest request;
    request.file_block = block;
    request.blocks = hole_end - block;
    const bool big = block * store_.block_size() >= kBigFileBytes || file_bytes >= 2 * kBigFileBytes;
    request.size_class = big ? Allocator::Class::kBig : Allocator::Class::kSmall;
    request.goal = BlockNumber(goal(extents, block));
    const Result<BlockRange> range = store_.allocate_data(role_, request, map_.empty());
    if (!range) {
      const bool short_of = range.error().code == ENOSPC || range.error().code == EAGAIN;
      if (short_of && block > first) return block;
      return tl::unexpected(range.error());
    }
    map_.emplace(block, Extent{range->start.value, range->length});
    block += range->length;
    if (map_.size() >= kMaxFreshExtents) break;  // what one record can hold; the caller goes on from there
  }
  return std::min(block, end);
}

Status FreshBlocks::add_to(Transaction& t, media::Inode& next, ExtentMap& extents) const {
  if (map_.empty()) return {};
  for (const auto& [file_block, extent] : map_) {
    const BlockRange range{BlockNumber(extent.device_block), extent.length};
    PLUMB_TRY(t.set_bitmap(role_, range, true));
    PLUMB_TRY(insert_extent(t, next, extents, FileBlock(file_block), range));
  }
  return settle_extents(t, next, extents);
}

void FreshBlocks::commit() {
  for (const auto& [file_block, extent] : map_)
    store_.settle_data(role_, {BlockNumber(extent.device_block), extent.length});
  map_.clear();
}

std::uint64_t FreshBlocks::goal(const ExtentMap& extents, std::uint64_t block) const {
  if (block == 0) return 0;
  for (const ExtentMap* map : {&map_, &extents}) {
    const auto it = find_extent(*map, block - 1);
    if (it == map->end()) continue;
    return it->second.device_block + (block - it->first);
  }
  return 0;
}

}  // namespace plumb
