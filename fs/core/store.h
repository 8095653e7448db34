// The metadata store: buffers, journal, allocator, and the transactions that change them together.
//
// One transaction is built at a time, under the transaction lock: it takes microseconds, a request through FUSE takes
// tens of them, and in exchange nothing that is committed ever depends on something that may still be aborted. Commit
// diffs the changed blocks against what they were and publishes the difference as one journal record; abort restores
// them. So an operation cannot forget to log a byte, and may fail at any step.
//
// Lock order: inode locks, then the transaction lock, then leaves (buffer shards, allocator, journal's own).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fs/core/allocator.h"
#include "fs/core/bad_blocks.h"
#include "fs/core/buffer_pool.h"
#include "fs/core/epochs.h"
#include "fs/core/journal.h"
#include "fs/core/superblock.h"
#include "fs/core/types.h"

namespace plumb {

class Transaction;

class Store {
 public:
  Store(const Superblock& superblock, bool read_only);

  /// Recovers the journal, loads the bitmap, and zeroes what the recorded windows may hold. read_only: replays into
  /// DRAM.
  [[nodiscard]] Result<Journal::Recovery> open();

  [[nodiscard]] const Superblock& superblock() const { return superblock_; }
  /// For the mount, which mends it and counts in it.
  [[nodiscard]] Superblock& superblock() { return superblock_; }
  [[nodiscard]] pmem::Device& device(DeviceRole role) const { return superblock_.device(role); }
  [[nodiscard]] std::uint32_t block_size() const { return superblock_.block_size(); }
  [[nodiscard]] BufferPool& buffers() { return buffers_; }
  [[nodiscard]] Journal& journal() { return journal_; }
  /// Counts in units of the device (Superblock::unit_blocks): blocks of the main device, realtime extents.
  [[nodiscard]] Allocator& allocator(DeviceRole role) { return *allocators_[index_of(role)]; }
  [[nodiscard]] Epochs& epochs() { return epochs_; }
  [[nodiscard]] bool read_only() const { return read_only_ || journal_.failed(); }

  /// A run of blocks of a device that data may be stored into now: at least one unit, at most as much as asked for,
  /// whole units. The request is in blocks; its blocks, goal and file_block are multiples of the unit. ENOSPC. No
  /// transaction may be open in this thread. `may_wait`: the caller holds no blocks in flight; otherwise EAGAIN when
  /// every window is busy.
  [[nodiscard]] Result<BlockRange> allocate_data(DeviceRole role, const Allocator::DataRequest& request, bool may_wait);
  /// Zeroes blocks that were taken but not committed, on their device, and gives them back.
  void abandon_data(DeviceRole role, BlockRange range);
  /// They are part of a file now.
  void settle_data(DeviceRole role, BlockRange range) { allocator(role).settle(units_of(role, range)); }
  /// They are free: the record that says so is committed.
  void release_data(DeviceRole role, BlockRange range) { allocator(role).release(units_of(role, range)); }

  /// Blocks with data nobody owns are left in a window (a failed abandon_data): the windows must stay recorded.
  [[nodiscard]] bool unclean_windows();

  /// Moves the zeroed mark of a device on by a window's worth. False: nothing is left above it.
  [[nodiscard]] Result<bool> extend_zeroed(DeviceRole role);
  /// Empties the ring (for reclaim of former metadata blocks).
  [[nodiscard]] Status checkpoint();
  /// From now on data may be in the caches without being in the hands of a request, as with writeback=deferred: after
  /// an unclean end the next mount flushes it. Durable when it returns; once a mount. Takes the transaction lock.
  [[nodiscard]] Status defer_data();
  /// The end of a mount: checkpoint and the clean mark.
  [[nodiscard]] Status close();

  // --- store_bad_blocks.cc ---
  [[nodiscard]] BadBlocks& bad_blocks() { return bad_blocks_; }
  [[nodiscard]] const BadBlocks& bad_blocks() const { return bad_blocks_; }
  /// Before the first entry: older programs must not write to the file system any more. Durable when it returns.
  [[nodiscard]] Status allow_bad_blocks();
  /// Zeroes the blocks, flushed and not yet drained. Returns those that stay bad, ascending: what can neither be
  /// written nor read, and what is on the list and does not read as zeros afterwards. An error is that of the device as
  /// a whole.
  [[nodiscard]] Result<std::vector<BlockNumber>> zero_readable(DeviceRole role, BlockRange range);
  /// Puts blocks that cannot be read on the list: those of `blocks` that are not there yet. A unit that the bitmap says
  /// is free becomes the list's. What an operation has in flight right now, and what lies above the zeroed mark, is
  /// left out and returned. No transaction is open in this thread.
  [[nodiscard]] Result<std::vector<BlockNumber>> list_bad(DeviceRole role, std::span<const BlockNumber> blocks);
  /// Gives the list what abandon_data could not give back.
  [[nodiscard]] Status list_withdrawn();

  /// Zeros for holes: at least 1 MiB.
  [[nodiscard]] const std::byte* zeros() const { return zeros_.get(); }
  static constexpr std::uint64_t kZeroBytes = 1u << 20;

  struct Counters {
    std::atomic<std::uint64_t> transactions{0}, windows_opened{0};
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  /// Blocks of a device in the reclaim tree, and nodes of that tree: free as far as a user is concerned.
  [[nodiscard]] std::uint64_t pending_blocks(DeviceRole role) const {
    return pending_blocks_[index_of(role)].load(std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t reclaim_nodes() const { return reclaim_nodes_.load(std::memory_order_relaxed); }
  void add_pending(DeviceRole role, std::int64_t blocks) {
    pending_blocks_[index_of(role)].fetch_add(static_cast<std::uint64_t>(blocks));
  }
  /// Every member, main first.
  [[nodiscard]] std::span<const DeviceRole> roles() const {
    static constexpr std::array<DeviceRole, media::kMaxDevices> kRoles{DeviceRole::kMain, DeviceRole::kRealtime};
    return std::span(kRoles).first(superblock_.device_count());
  }
  /// Sequence of the record that freed a former metadata block; 0 if that was in an earlier mount. Under the
  /// transaction lock.
  [[nodiscard]] Sequence freed_in(BlockNumber block) const;
  void forget_freed(BlockNumber block) {
    freed_metadata_.erase(block.value);
    freed_metadata_count_.store(freed_metadata_.size(), std::memory_order_relaxed);
  }
  [[nodiscard]] std::size_t freed_metadata_count() const {
    return freed_metadata_count_.load(std::memory_order_relaxed);
  }

 private:
  friend class Transaction;
  [[nodiscard]] Status load_space();
  [[nodiscard]] Status load_bitmap(DeviceRole role);
  [[nodiscard]] Status recover_windows();
  [[nodiscard]] Result<bool> recover_window(const media::WindowSlot& slot, std::vector<BlockNumber>& bad);
  /// Makes the units around `bad`, which the bitmap says are free and which the caller has taken from the allocator,
  /// the list's, together with the entries.
  [[nodiscard]] Status own_bad_units(Transaction& t, DeviceRole role, std::span<const BlockNumber> bad);
  [[nodiscard]] Result<std::vector<BadBlock>> classify_bad(DeviceRole role, std::span<const BlockNumber> blocks,
                                                           std::vector<BlockNumber>& left);
  void give_back_unlisted(DeviceRole role, std::span<const BadBlock> entries);
  /// A unit that was taken from the allocator and turned out bad: it stays taken until it is the list's.
  struct Withdrawn {
    DeviceRole role = DeviceRole::kMain;
    BlockRange unit;               // in blocks
    std::vector<BlockNumber> bad;  // in it
    bool in_flight = false;        // it counts as such in its window
  };
  void withdraw(Withdrawn withdrawn);
  enum class WindowOutcome : std::uint8_t { kOpened, kNoChunk, kAllBusy };
  [[nodiscard]] Result<WindowOutcome> open_window(DeviceRole role, const Allocator::DataRequest& request);
  [[nodiscard]] Result<BlockRange> allocate_units(DeviceRole role, Allocator::DataRequest request, bool may_wait);
  [[nodiscard]] BlockRange units_of(DeviceRole role, BlockRange range) const {
    const std::uint64_t unit = superblock_.unit_blocks(role);
    return {BlockNumber(range.start.value / unit), range.length / unit};
  }
  [[nodiscard]] BlockRange blocks_of(DeviceRole role, BlockRange units) const {
    const std::uint64_t unit = superblock_.unit_blocks(role);
    return {BlockNumber(units.start.value * unit), units.length * unit};
  }

  Superblock superblock_;
  const bool read_only_;
  BufferPool buffers_;
  Journal journal_;
  std::array<std::unique_ptr<Allocator>, media::kMaxDevices> allocators_;
  Epochs epochs_;
  Mutex extend_mutex_;  // one move of the zeroed mark at a time; above the transaction lock
  Mutex transaction_mutex_;
  std::atomic<bool> unclean_windows_{false};
  BadBlocks bad_blocks_;
  Mutex feature_mutex_;    // one rewrite of the superblock at a time
  Mutex withdrawn_mutex_;  // leaf
  std::vector<Withdrawn> withdrawn_ PLUMB_GUARDED_BY(withdrawn_mutex_);
  absl::flat_hash_map<std::uint64_t, std::uint64_t> freed_metadata_;  // block -> sequence; under the transaction lock
  std::atomic<std::size_t> freed_metadata_count_{0};
  std::array<std::atomic<std::uint64_t>, media::kMaxDevices> pending_blocks_{};
  std::atomic<std::uint64_t> reclaim_nodes_{0};
  std::unique_ptr<std::byte[]> zeros_;
  Counters counters_;
};

class Transaction {
 public:
  enum class Privilege : std::uint8_t { kOrdinary, kMayUseReserve };

  explicit Transaction(Store& store, Privilege privilege = Privilege::kOrdinary);
  ~Transaction();  // aborts what was not committed
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  [[nodiscard]] Store& store() { return store_; }
  [[nodiscard]] std::uint32_t block_size() const { return store_.block_size(); }
  [[nodiscard]] Result<BufferRef> get(BlockNumber block, BufferType type) { return store_.buffers_.get(block, type); }
  /// The bytes of a block, to change.
  [[nodiscard]] std::byte* modify(const BufferRef& buffer);
  /// A new metadata block: zeros but for its header. ENOSPC.
  [[nodiscard]] Result<BufferRef> allocate(BufferType type, std::uint64_t owner);
  /// Gives a metadata block to reclaim when this commits.
  void free_metadata(BlockNumber block) { freed_.push_back(block); }
  /// Gives data blocks to reclaim when this commits.
  [[nodiscard]] Status free_data(DeviceRole role, BlockRange range);

  /// The state block, to read or to change.
  [[nodiscard]] Result<const media::State*> state();
  [[nodiscard]] Result<media::State*> modify_state();
  /// Sets or clears bits of the bitmap of a device, for whole units. EUCLEAN if one already has that value: double
  /// allocation or double free.
  [[nodiscard]] Status set_bitmap(DeviceRole role, BlockRange range, bool allocated);
  /// What the bitmap says about the unit around a block.
  [[nodiscard]] Result<bool> is_allocated(DeviceRole role, BlockNumber block);

  void on_commit(std::function<void()> action) { commit_actions_.push_back(std::move(action)); }
  void on_abort(std::function<void()> action) { abort_actions_.push_back(std::move(action)); }

  /// The number this transaction will have.
  [[nodiscard]] Sequence sequence() const { return store_.journal_.next_sequence(); }
  /// All or nothing. After an error everything is as it was.
  [[nodiscard]] Result<Sequence> commit();

 private:
  [[nodiscard]] Status queue_freed_metadata();
  void collect_ranges(std::vector<RedoRange>& ranges);
  void finish(Sequence sequence);
  void abort();

  Store& store_;
  MutexLock lock_;
  const bool privileged_;
  bool done_ = false;
  std::vector<BufferRef> changed_;
  std::vector<BlockNumber> freed_;
  std::vector<std::function<void()>> commit_actions_, abort_actions_;
  std::array<std::int64_t, media::kMaxDevices> pending_delta_{};
};

}  // namespace plumb
