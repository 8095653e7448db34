#include "fs/core/buffer_pool.h"

#include <cassert>
#include <cstring>
#include <string>

#include "fs/media/verify.h"

namespace plumb {

BufferType node_buffer_type(media::TreeKind kind) {
  switch (kind) {
    case media::TreeKind::kInodeTable:
      return BufferType::kNodeInodeTable;
    case media::TreeKind::kReclaim:
      return BufferType::kNodeReclaim;
    case media::TreeKind::kBadBlocks:
      return BufferType::kNodeBadBlocks;
    case media::TreeKind::kExtents:
      return BufferType::kNodeExtents;
    case media::TreeKind::kDirectory:
      return BufferType::kNodeDirectory;
    case media::TreeKind::kXattrs:
      return BufferType::kNodeXattrs;
  }
  return BufferType::kValue;
}

BufferPool::BufferPool(pmem::Device& device, std::uint32_t block_size, std::uint64_t blocks, std::uint64_t first_block)
    : device_(device), block_size_(block_size), blocks_(blocks), first_block_(first_block) {}

Status BufferPool::verify(std::span<const std::byte> bytes, BlockNumber block, BufferType type) const {
  switch (type) {
    case BufferType::kState:
      return media::verify_state(bytes, block.value);
    case BufferType::kBitmap:
      return media::verify_block(bytes, media::BlockMagic::kBitmap, block.value);
    case BufferType::kInodes:
      return {};  // each inode has a checksum of its own
    case BufferType::kValue: {
      PLUMB_TRY(media::verify_block(bytes, media::BlockMagic::kValue, block.value));
      media::ValueHeader header;
      std::memcpy(&header, bytes.data(), sizeof header);
      if (header.bytes > bytes.size() - sizeof header)
        return fail(EUCLEAN, "block " + std::to_string(block.value) + ": value bytes");
      return {};
    }
    case BufferType::kNodeInodeTable:
      return media::verify_node(bytes, block.value, media::TreeKind::kInodeTable);
    case BufferType::kNodeReclaim:
      return media::verify_node(bytes, block.value, media::TreeKind::kReclaim);
    case BufferType::kNodeBadBlocks:
      return media::verify_node(bytes, block.value, media::TreeKind::kBadBlocks);
    case BufferType::kNodeExtents:
      return media::verify_node(bytes, block.value, media::TreeKind::kExtents);
    case BufferType::kNodeDirectory:
      return media::verify_node(bytes, block.value, media::TreeKind::kDirectory);
    case BufferType::kNodeXattrs:
      return media::verify_node(bytes, block.value, media::TreeKind::kXattrs);
  }
  return {};
}

Result<BufferRef> BufferPool::get(BlockNumber block, BufferType type) {
  if (block.value < first_block_ || block.value >= blocks_)
    return fail(EUCLEAN, "metadata block number " + std::to_string(block.value) + " is outside the file system");
  Shard& s = shard(block);
  MutexLock lock(s.mutex);
  BufferRef& slot = s.map[block.value];
  if (slot && !slot->verified) {
    PLUMB_TRY(verify({slot->bytes.get(), block_size_}, block, type));
    slot->type = type;
    slot->verified = true;
  }
  if (slot) {
    if (slot->type != type)
      return fail(EUCLEAN, "block " + std::to_string(block.value) + ": used as two kinds of metadata");
    return slot;
  }
  auto buffer = std::make_shared<Buffer>();
  buffer->block = block;
  buffer->type = type;
  buffer->verified = true;
  buffer->bytes = std::make_unique_for_overwrite<std::byte[]>(block_size_);
  const std::span<std::byte> bytes(buffer->bytes.get(), block_size_);
  Status status = device_.load(block.value * block_size_, bytes);
  if (!status) status.error().detail = "metadata block " + std::to_string(block.value) + ": " + status.error().detail;
  if (status) status = verify(bytes, block, type);
  if (!status) {
    s.map.erase(block.value);
    status.error().offset_bytes = block.value * block_size_;
    return tl::unexpected(std::move(status).error());
  }
  slot = buffer;
  count_.fetch_add(1, std::memory_order_relaxed);
  return buffer;
}

BufferRef BufferPool::create(BlockNumber block, BufferType type) {
  auto buffer = std::make_shared<Buffer>();
  buffer->block = block;
  buffer->type = type;
  buffer->verified = true;
  buffer->bytes = std::make_unique<std::byte[]>(block_size_);
  buffer->created = true;
  Shard& s = shard(block);
  MutexLock lock(s.mutex);
  BufferRef& slot = s.map[block.value];
  if (!slot) count_.fetch_add(1, std::memory_order_relaxed);
  slot = buffer;
  return buffer;
}

void BufferPool::drop(BlockNumber block) {
  Shard& s = shard(block);
  MutexLock lock(s.mutex);
  if (s.map.erase(block.value) != 0) count_.fetch_sub(1, std::memory_order_relaxed);
}

Status BufferPool::overlay(std::uint64_t home_offset_bytes, std::span<const std::byte> bytes) {
  const BlockNumber block{home_offset_bytes / block_size_};
  const std::uint64_t within = home_offset_bytes % block_size_;
  assert(block.value < blocks_ && bytes.size() <= block_size_ - within);  // media::verify_redo_range
  Shard& s = shard(block);
  MutexLock lock(s.mutex);
  auto it = s.map.find(block.value);
  if (it == s.map.end()) {
    auto buffer = std::make_shared<Buffer>();
    buffer->block = block;
    buffer->bytes = std::make_unique_for_overwrite<std::byte[]>(block_size_);
    buffer->last_sequence = ~std::uint64_t{0};
    PLUMB_TRY(device_.load(block.value * block_size_, {buffer->bytes.get(), block_size_}));
    it = s.map.emplace(block.value, std::move(buffer)).first;
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  const BufferRef& slot = it->second;
  std::memcpy(slot->bytes.get() + within, bytes.data(), bytes.size());
  return {};
}

void BufferPool::trim(Sequence homed, std::size_t keep) {
  if (size() <= keep || homed.value == trimmed_at_) return;
  trimmed_at_ = homed.value;
  const std::size_t enough = keep / 8 * 7;
  for (Shard& s : shards_) {
    MutexLock lock(s.mutex);
    for (auto it = s.map.begin(); it != s.map.end() && size() > enough;) {
      const Buffer& buffer = *it->second;
      const bool idle = it->second.use_count() == 1 && buffer.before == nullptr && !buffer.created;
      if (idle && buffer.last_sequence.load(std::memory_order_relaxed) <= homed.value) {
        s.map.erase(it++);
        count_.fetch_sub(1, std::memory_order_relaxed);
      } else {
        ++it;
      }
    }
  }
}

}  // namespace plumb
