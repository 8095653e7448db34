// Metadata blocks in DRAM.
//
// Every metadata block that is read or changed has one Buffer, and the Buffer is the truth: homes on the device follow
// the journal (journal.h). A buffer may be dropped only when its home has caught up with its last record.
//
// Blocks are verified when they are loaded, with the type under which they are asked for; the same block asked for as
// two types is a damaged file system (EUCLEAN), never confusion.
//
// Thread safety: the pool is safe for all threads (rank: leaf). The bytes of a buffer belong to whoever holds the lock
// of the structure it is part of: the inode's lock for its trees and values, the transaction lock for everything else;
// bytes are changed only with both inside a transaction.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "fs/core/mutex.h"
#include "fs/core/types.h"
#include "fs/media/layout.h"
#include "pmem/device.h"

namespace plumb {

enum class BufferType : std::uint8_t {
  kState,
  kBitmap,
  kInodes,
  kValue,
  kNodeInodeTable,
  kNodeReclaim,
  kNodeBadBlocks,
  kNodeExtents,
  kNodeDirectory,
  kNodeXattrs,
};
BufferType node_buffer_type(media::TreeKind kind);

struct Buffer {
  BlockNumber block;
  BufferType type = BufferType::kValue;
  std::unique_ptr<std::byte[]> bytes;
  std::unique_ptr<std::byte[]> before;          // contents at the start of the transaction that is changing it
  bool created = false;                         // by that transaction: `before` is zeros
  bool verified = false;                        // as `type`; an overlaid block is verified by its first user
  std::atomic<std::uint64_t> last_sequence{0};  // of the last record that changed it; ~0: never drop (overlay)
};
using BufferRef = std::shared_ptr<Buffer>;

class BufferPool {
 public:
  BufferPool(pmem::Device& device, std::uint32_t block_size, std::uint64_t blocks, std::uint64_t first_block);

  [[nodiscard]] std::uint32_t block_size() const { return block_size_; }
  /// The block, loaded and verified. EUCLEAN/EBADMSG: damaged; EIO: the medium.
  [[nodiscard]] Result<BufferRef> get(BlockNumber block, BufferType type);
  /// A block that was free: zeros, whatever was cached under the number before.
  [[nodiscard]] BufferRef create(BlockNumber block, BufferType type);
  void drop(BlockNumber block);
  /// Recovery without writing: changes the block in DRAM for good (its home stays behind).
  [[nodiscard]] Status overlay(std::uint64_t home_offset_bytes, std::span<const std::byte> bytes);
  /// Drops buffers that nobody holds and whose home is up to date, when there are more than `keep`. Transaction lock
  /// held.
  void trim(Sequence homed, std::size_t keep);
  [[nodiscard]] std::size_t size() const { return count_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::size_t kShards = 32;
  struct Shard {
    Mutex mutex;
    absl::flat_hash_map<std::uint64_t, BufferRef> map;
  };
  Shard& shard(BlockNumber block) { return shards_[block.value % kShards]; }
  [[nodiscard]] Status verify(std::span<const std::byte> bytes, BlockNumber block, BufferType type) const;

  pmem::Device& device_;
  std::uint32_t block_size_;
  std::uint64_t blocks_;
  std::uint64_t first_block_;
  std::atomic<std::size_t> count_{0};
  std::uint64_t trimmed_at_ = 0;  // under the transaction lock: nothing new can go before homes move on
  std::array<Shard, kShards> shards_;
};

}  // namespace plumb
