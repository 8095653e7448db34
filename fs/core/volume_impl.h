// What a mounted volume is made of. Shared by the volume_*.cc files and the check engine; not part of the API.
//
// Locks, in the order they are taken (fs/DESIGN.md, "Locks"):
//   walk_mutex, deletion_mutex, reclaim_mutex -> namespace_mutex -> inode locks -> writeback_mutex of an inode ->
//   transaction lock -> leaves.
// Only the holder of namespace_mutex, or of an inode that nobody else can reach, holds two inode locks.
#pragma once

#include <array>
#include <condition_variable>
#include <deque>
#include <memory>
#include <thread>

#include "absl/container/flat_hash_set.h"
#include "fs/core/inode.h"
#include "fs/core/store.h"
#include "fs/core/volume.h"
#include "fs/core/writeback.h"

namespace plumb {

/// An entry of the reclaim queue that is being worked off.
struct PendingReclaim {
  DeviceRole role = DeviceRole::kMain;
  std::uint64_t block = 0;   // the first one
  std::uint64_t length = 0;  // blocks to free now
  std::uint64_t left = 0;    // blocks of the entry that stay
  media::ReclaimKind kind = media::ReclaimKind::kData;
  std::vector<BlockNumber> bad;  // of the blocks to free: cannot be zeroed
};

/// The lock of one more inode, for the holder of namespace_mutex: nobody else holds two, so their order is free. A
/// class of its own, and never inlined, because the thread sanitizer takes two orders for a deadlock whatever lock
/// keeps them apart: test/tsan.suppressions names it.
class ABSL_SCOPED_LOCKABLE OneMoreInodeLock {
 public:
  [[gnu::noinline]] explicit OneMoreInodeLock(SharedMutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_.lock();
  }
  ~OneMoreInodeLock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }
  OneMoreInodeLock(const OneMoreInodeLock&) = delete;
  OneMoreInodeLock& operator=(const OneMoreInodeLock&) = delete;

 private:
  SharedMutex& mutex_;
};

class VolumeImpl {
 public:
  VolumeImpl(const Superblock& superblock, const MountOptions& options);
  ~VolumeImpl();

  [[nodiscard]] Status open();
  [[nodiscard]] Status close();

  // --- helpers of the operations ---
  [[nodiscard]] static Timestamp now();
  static void set_mtime(media::Inode& inode, Timestamp t);
  static void set_ctime(media::Inode& inode, Timestamp t);
  static void set_atime(media::Inode& inode, Timestamp t);
  static void attach(ReadPin& pin, std::atomic<std::uint64_t>* token) { pin.token_ = token; }

  /// Takes `next` over as the committed state. `data`: fdatasync must force this record too.
  static void adopt(Inode& inode, const media::Inode& next, Sequence sequence, bool data);

  /// Runs `operation` again after making room, as long as it fails for lack of space and room could be made. No locks
  /// held.
  template <typename Operation>
  auto with_space(const Operation& operation) -> decltype(operation()) {
    for (int attempt = 0;; ++attempt) {
      auto result = operation();
      if (result || result.error().code != ENOSPC || attempt == 8 || !make_space()) return result;
    }
  }
  [[nodiscard]] bool make_space();

  // --- reclaim.cc ---
  void queue_deletion(InodeRef inode);
  [[nodiscard]] Status delete_inode(Inode& inode);
  [[nodiscard]] Result<bool> delete_step(Inode& inode);
  /// Deletes what is queued for deletion. Callers hold no locks.
  [[nodiscard]] Status run_deletions();
  /// Cuts extents beyond the size of an inode on the orphan list, and takes it off. Exclusive lock held.
  [[nodiscard]] Status finish_truncate(Inode& inode);
  [[nodiscard]] Status zero_pending(std::vector<PendingReclaim>& batch);
  [[nodiscard]] Status limit_bad(std::vector<PendingReclaim>& batch);
  [[nodiscard]] Status settle_bad(Transaction& t, const PendingReclaim& entry);
  [[nodiscard]] std::vector<BlockRange> good_units(const PendingReclaim& entry) const;
  [[nodiscard]] Result<bool> reclaim_batch(bool with_metadata);
  [[nodiscard]] Status run_reclaim();
  void reclaim_loop();
  void throttle_reclaim();

  // --- volume_bad_blocks.cc ---
  /// Puts on the list what requests have found to be unreadable. Callers hold no locks.
  [[nodiscard]] Status list_faults();
  [[nodiscard]] std::vector<BlockNumber> unreadable_around(DeviceRole role, const std::vector<std::uint64_t>& faults);
  void notify(const std::string& line) const;
  /// The unit that the list owns is free again, if all of it can be zeroed.
  [[nodiscard]] Result<bool> free_listed_unit(DeviceRole role, BlockRange unit);
  [[nodiscard]] Result<bool> forget_if_readable(const BadBlock& entry);
  /// Once, when the log has failed.
  void report_failed_log();
  /// A bad block of a file.
  struct FileBadBlock {
    std::uint64_t file_block = 0;
    BlockNumber device_block;
  };
  /// The bad blocks of the file in [offset, end), in its order. Lock held, extents loaded.
  [[nodiscard]] std::vector<FileBadBlock> bad_blocks_of(const Inode& inode, std::uint64_t offset,
                                                        std::uint64_t end) const;
  /// `end`, or less where the range has more bad blocks than one transaction lets go: the start of a block.
  [[nodiscard]] std::uint64_t end_with_few_bad(const Inode& inode, std::uint64_t offset, std::uint64_t end) const;
  /// Before the file's bytes [offset, end) are stored or zeroed: zeroes the bad blocks in there, as stores of the file.
  /// They leave the list with the transaction that follows (forget_bad_blocks). EIO, and nothing is changed, if one of
  /// them is not covered as far as the file has bytes in it; EIO if one cannot be read back. Exclusive lock held,
  /// extents loaded.
  [[nodiscard]] Result<std::vector<FileBadBlock>> renew_bad_blocks(Inode& inode, std::uint64_t offset,
                                                                   std::uint64_t end);
  [[nodiscard]] Status forget_bad_blocks(Transaction& t, DeviceRole role, const std::vector<FileBadBlock>& renewed);
  [[nodiscard]] tl::unexpected<Error> bad_block_error(DeviceRole role, BlockNumber block) const;

  // --- volume_sync.cc ---
  void mark_dirty(Inode& inode);
  void forget_if_clean(Inode& inode);
  [[nodiscard]] Status write_back(Inode& inode, FsyncMode mode);
  [[nodiscard]] Status write_back_all();
  [[nodiscard]] std::uint64_t dirty_bytes(DeviceRole role);
  void timer_loop();

  // --- volume_lease.cc ---
  /// Blocks that nobody owns any more may still be mapped by programs that this mount knows nothing about: they are not
  /// reclaimed.
  [[nodiscard]] bool clients_remain();
  /// Takes the time of the last direct store for mtime and ctime. Exclusive lock held.
  [[nodiscard]] Status take_write_time(Inode& inode);
  /// The same with no lock held, if there is one to take.
  [[nodiscard]] Status refresh_times(Inode& inode);
  /// What may be stored to through leases counts as dirty; an fsync is about to look. No locks held. An error: where
  /// the ranges lie cannot be read.
  [[nodiscard]] Status add_leased_ranges(Inode& inode);
  /// The device ranges of the allocated part of [begin, end) of the file. Lock held, extents loaded.
  void mark_range_dirty(Inode& inode, std::uint64_t begin, std::uint64_t end);
  /// Takes the lease from the handle. The leases of the inode, if that was the last one, and nothing else. Exclusive
  /// lock held.
  [[nodiscard]] std::unique_ptr<InodeLeases> drop_lease(FileHandle& handle);
  [[nodiscard]] Status settle_leases(Inode& inode, InodeLeases& ended);
  [[nodiscard]] Status fill_leased_holes(Inode& inode, std::uint64_t offset, std::uint64_t end);
  [[nodiscard]] Result<bool> align_chunk(Inode& inode, std::uint64_t first);
  /// Bytes beyond the end of the file may be stored at any time.
  [[nodiscard]] bool tail_stays_unknown(const Inode& inode) {
    return (inode.leases != nullptr && inode.leases->has_writers()) || stale_clients_.load(std::memory_order_acquire);
  }

  // --- volume_attr.cc ---
  /// What stat shows. Lock held.
  [[nodiscard]] Attributes attributes_now(const Inode& inode) const;
  static constexpr std::string_view kCapabilityName = "security.capability";
  /// File capabilities go with any change of contents or owner (capabilities(7)).
  [[nodiscard]] static Status drop_capability(Transaction& t, media::Inode& next);
  /// The mode after a change of contents or owner by somebody who may not keep the set-id bits.
  [[nodiscard]] static std::uint32_t without_setid(std::uint32_t mode);
  /// Sets atime by the rules of the mount and the inode, if they ask for it. No locks held.
  [[nodiscard]] Status touch_atime(Inode& inode);

  // --- volume_allocate.cc ---
  /// Zeroes the bytes of allocated blocks in the range, up to the end of the file, as stores of this file. Exclusive
  /// lock held.
  [[nodiscard]] Status zero_file_range(Inode& inode, std::uint64_t offset_bytes, std::uint64_t end_bytes);
  /// Zeroes what a truncate cut off of a leased file, [from, end) in bytes. Exclusive lock held.
  [[nodiscard]] Status zero_cut(Inode& inode, std::uint64_t from, std::uint64_t end);
  /// Zeroes, durably, what is allocated beyond the end of the file, when it may not be zero. Exclusive lock held.
  [[nodiscard]] Status prepare_extension(Inode& inode, std::uint64_t new_end_bytes);
  /// Whether there is room for the holes of [first, end), in blocks of the file; what is allocated in steps would fill
  /// the device first and fail then. Extents loaded.
  [[nodiscard]] bool has_room_for(const Inode& inode, std::uint64_t first, std::uint64_t end);
  [[nodiscard]] Status allocate_blocks(Inode& inode, std::uint64_t first, std::uint64_t end, std::uint64_t file_bytes);
  [[nodiscard]] Status punch(Inode& inode, std::uint64_t offset, std::uint64_t end);
  /// The part of a punch that gives blocks back: whole units, [first, last) in blocks of the file.
  [[nodiscard]] Status remove_blocks(Inode& inode, std::uint64_t first, std::uint64_t last);
  [[nodiscard]] Status finish_allocate(Inode& inode, std::uint64_t size_bytes, bool kill_setid);

  // --- volume_data.cc ---
  [[nodiscard]] DeviceRole role_of(const media::Inode& inode) const { return superblock.data_role(inode.flags); }
  /// The first block that a file of this size does not need: a whole unit of its device.
  [[nodiscard]] std::uint64_t first_block_beyond(const media::Inode& inode, std::uint64_t size_bytes) const {
    const std::uint64_t unit = superblock.unit_bytes(role_of(inode));
    return (size_bytes + unit - 1) / unit * superblock.unit_blocks(role_of(inode));
  }
  /// Bytes of the file were stored on a device: dirty, unless the caller drains before the reply (immediate).
  void mark_stored(Inode& inode, DeviceRole role, std::uint64_t at, std::uint64_t length);
  [[nodiscard]] Result<ReadPin> read_locked(Inode& inode, std::uint64_t offset, std::uint64_t length);
  [[nodiscard]] bool write_is_plain(const Inode& inode, std::uint64_t offset, std::uint64_t length, bool kill_setid);
  [[nodiscard]] Result<std::uint64_t> write_exclusive(Inode& inode, std::uint64_t offset, std::uint64_t length,
                                                      std::span<const iovec> data, std::uint64_t skip_bytes,
                                                      bool kill_setid);
  [[nodiscard]] static InodeRef reference(Inode& inode) { return inode.share(); }
  /// Data is durable when the operation returns.
  [[nodiscard]] bool immediate(const pmem::Device& device) const {
    return device.is_memory() && options.writeback == Writeback::kImmediate;
  }
  /// Truncate to a smaller size, and commits; exclusive lock held, extents loaded. `next` has the new attributes but
  /// for size and extents. False: extents are left, finish_truncate() goes on when the transaction is gone.
  [[nodiscard]] Result<bool> shrink(Transaction& t, Inode& inode, media::Inode next, std::uint64_t size_bytes);

  [[nodiscard]] Mutex& reclaim_mutex() { return reclaim_mutex_; }

  const MountOptions options;
  Store store;
  Superblock& superblock;  // the store's
  InodeTable table;
  LeaseTable leases;
  InodeCache cache;
  Mutex namespace_mutex;
  InodeRef root;
  std::array<WritebackCounters, media::kMaxDevices> writeback_counters;

 private:
  friend class Volume;
  void stop_threads();

  Mutex dirty_mutex_;
  absl::flat_hash_set<std::uint64_t> dirty_inodes_ PLUMB_GUARDED_BY(dirty_mutex_);

  // Offsets on each device: to be listed, but in flight when it was looked at. Under reclaim_mutex_.
  std::array<std::vector<std::uint64_t>, media::kMaxDevices> unlisted_;
  bool log_failure_told_ = false;  // of the reclaim thread

  Mutex walk_mutex_;      // one walk over all dirty inodes at a time
  Mutex reclaim_mutex_;   // one batch at a time
  Mutex deletion_mutex_;  // one inode is being deleted at a time
  Mutex queue_mutex_;
  std::condition_variable queue_condition_;
  std::deque<InodeRef> deletions_ PLUMB_GUARDED_BY(queue_mutex_);
  bool stop_ PLUMB_GUARDED_BY(queue_mutex_) = false;
  std::condition_variable timer_condition_;
  bool closed_ = false;
  std::atomic<bool> stale_clients_{false};
  // An inode went whose leases nobody has ended: the session was cut off, and programs map its blocks still.
  std::atomic<bool> left_leased_{false};

  std::thread reclaim_thread_, timer_thread_;
};

}  // namespace plumb
