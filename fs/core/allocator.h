// Which blocks of one device are free, and which of them data may be stored into right now.
//
// The bitmap on the medium is the truth about committed blocks; this is its image in DRAM plus what operations in
// flight have taken. Three rules make "free blocks read as zeros" hold across a crash:
//   windows      data is stored only into blocks of chunks (2 MiB, aligned) that lie in a window recorded durably
//   before.
//                Recovery zeroes what is free inside the recorded windows. Metadata needs no window: its homes change
//                only after their record is committed.
//   zeroed_upto  blocks from that mark on were never written by plumbfs; they are not available until the mark has
//   passed
//                them (Store::extend_zeroed).
//   give_back    blocks of an aborted operation are zeroed durably by the caller before they come back.
//
// Placement: small files are packed from low addresses; the data of big files goes to whole free chunks, at the
// position in the chunk that the file offset has in its own 2 MiB, so that huge pages can map it; a goal (the block
// after the previous extent) wins when it is free.
//
// The reserve keeps unlink, truncate and reclaim possible on a full file system: ordinary requests leave it alone.
//
// Thread safety: all functions from any thread; rank: below the transaction lock, leaf.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "fs/core/mutex.h"
#include "fs/core/types.h"
#include "fs/media/layout.h"
#include "pmem/result.h"

namespace plumb {

struct BlockRange {
  BlockNumber start;
  std::uint64_t length = 0;
};

class Allocator {
 public:
  enum class Class : std::uint8_t { kSmall, kBig };

  struct DataRequest {
    BlockNumber goal;              // 0: none
    std::uint64_t file_block = 0;  // for the position in the chunk
    std::uint64_t blocks = 0;      // wanted; at least 1
    Class size_class = Class::kSmall;
    bool privileged = false;  // may use the reserve
    bool any_window = false;  // the last resort: out of windows of the other class too
  };
  enum class Shortage : std::uint8_t { kNone, kNeedWindow, kNeedZeroed, kNoSpace };
  struct DataResult {
    BlockRange range;  // length 0: see shortage
    Shortage shortage = Shortage::kNone;
  };

  /// What one device is like. "Block" here is the unit of allocation: a block of the main device, a realtime extent.
  struct Geometry {
    std::uint64_t blocks = 0;
    std::uint64_t chunk_blocks = 0;  // unit of windows
    std::uint64_t data_start = 0;    // first block to give out
    std::uint64_t reserve_blocks = 0;
    std::uint64_t window_chunks = 16;                         // chunks in a window
    std::size_t first_slot = 0, slots = media::kWindowSlots;  // its share of the window slots
  };
  explicit Allocator(const Geometry& geometry);

  /// Mount: the committed state.
  void load_used(BlockNumber start, std::uint64_t length);
  void load_zeroed_upto(std::uint64_t blocks);
  /// The blocks up to the new mark are zeros, durably and on record.
  void advance_zeroed(std::uint64_t blocks);

  /// Takes a run of blocks for data out of an open window. kNeedWindow: open one (choose_window) and try again.
  [[nodiscard]] DataResult take_data(const DataRequest& request);
  /// The operation that took data blocks committed them to a file.
  void settle(BlockRange range);
  /// The operation failed; the caller has zeroed them durably.
  void give_back(BlockRange range);

  /// One block for metadata. No value: kNoSpace, or kNeedZeroed space.
  [[nodiscard]] std::optional<BlockNumber> take_metadata(bool privileged);
  /// Takes a free block out of circulation, wherever it lies. False: it is in use, or in flight.
  [[nodiscard]] bool withdraw(BlockNumber block);
  /// Committed free (reclaim) or an aborted metadata allocation, whose home was never touched.
  void release(BlockRange range);

  /// Where a window for this request should be; nothing if no chunk has what it takes.
  [[nodiscard]] std::optional<BlockRange> choose_window(const DataRequest& request);
  /// A slot to put a new window in: free, or the least recently used one without blocks in flight. Its blocks cannot be
  /// taken any more from now on.
  [[nodiscard]] std::optional<std::size_t> retire_slot();
  void open_window(std::size_t slot, BlockRange range, Class size_class);
  void close_windows();

  /// Tests: after so many requests, of data or metadata, every one finds no space, privileged or not.
  void run_out_after(std::uint64_t requests) {
    MutexLock lock(mutex_);
    requests_left_ = requests;
  }

  [[nodiscard]] bool is_used(BlockNumber block) const {
    MutexLock lock(mutex_);
    return used(block.value);
  }
  [[nodiscard]] std::uint64_t blocks() const { return blocks_; }
  [[nodiscard]] std::uint64_t free_blocks() const;
  [[nodiscard]] std::uint64_t reserve_blocks() const { return reserve_; }
  [[nodiscard]] std::uint64_t zeroed_upto() const;
  /// Blocks that are free and below the zeroed mark.
  [[nodiscard]] std::uint64_t available_now() const;

 private:
  struct Window {
    std::uint64_t first_chunk = 0, chunks = 0;  // 0 chunks: closed
    Class size_class = Class::kSmall;
    std::uint64_t in_flight = 0;
    std::uint64_t last_use = 0;
    std::uint64_t cursor = 0;  // chunk to look in first
  };

  // False: the injected shortage has begun. Under the lock.
  [[nodiscard]] bool may_take() { return requests_left_ != 0 && requests_left_-- != 0; }
  [[nodiscard]] bool used(std::uint64_t block) const { return (used_[block / 64] >> (block % 64) & 1) != 0; }
  void mark(std::uint64_t start, std::uint64_t length, bool value);
  [[nodiscard]] std::uint64_t free_between(std::uint64_t from, std::uint64_t to) const;
  [[nodiscard]] std::uint64_t run_length(std::uint64_t start, std::uint64_t limit) const;
  [[nodiscard]] std::uint64_t chunk_end(std::uint64_t chunk) const;
  [[nodiscard]] std::uint64_t chunk_size(std::uint64_t chunk) const;
  [[nodiscard]] bool wholly_free(std::uint64_t chunk) const { return chunk_free_[chunk] == chunk_size(chunk); }
  [[nodiscard]] BlockRange take_at(std::uint64_t block, std::uint64_t wanted);
  [[nodiscard]] BlockRange take_in_window(Window& window, const DataRequest& request);
  [[nodiscard]] std::optional<std::uint64_t> find_run(std::uint64_t chunk, std::uint64_t wanted) const;

  const std::uint64_t blocks_, chunk_blocks_, data_start_, reserve_, window_chunks_;
  const std::size_t first_slot_, slots_;
  mutable Mutex mutex_;
  std::vector<std::uint64_t> used_;         // bit 1: not available
  std::vector<std::uint32_t> chunk_free_;   // free blocks of a chunk
  std::vector<std::uint8_t> chunk_window_;  // window slot + 1, 0: none
  std::array<Window, media::kWindowSlots> windows_;
  std::uint64_t free_ = 0;
  std::uint64_t zeroed_upto_ = 0;
  std::uint64_t free_above_mark_ = 0;
  std::uint64_t clock_ = 0;
  std::uint64_t metadata_cursor_ = 0;                // block
  std::uint64_t big_cursor_ = 0;                     // chunk
  std::uint64_t requests_left_ = ~std::uint64_t{0};  // until the injected shortage; never reached without one
};

}  // namespace plumb
