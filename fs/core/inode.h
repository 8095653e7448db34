// An inode in core, and the table that finds, creates and frees inodes.
//
// Inode: `media` is a copy of the committed inode; an operation changes a copy of it in its transaction
// (InodeTable::put) and takes the copy over after commit. Everything below "guarded" needs the inode's lock: shared to
// read, exclusive to change. The lock may be held across a transaction. Only a holder of the volume's namespace lock
// holds two inode locks.
//
// InodeTable: number -> block through a B+tree (and an index of it in DRAM, rebuilt at mount); inode blocks come when
// needed and go when their last inode goes. Allocation is lowest number first, so that a file system that shrinks gives
// blocks back. Everything that changes the table runs inside a transaction (its lock guards the index).
//
// InodeCache: one Inode object for a number while somebody holds a reference or it has dirty ranges.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "fs/core/leases.h"
#include "fs/core/mutex.h"
#include "fs/core/store.h"
#include "fs/core/types.h"
#include "fs/core/volume.h"
#include "pmem/dirty_ranges.h"

namespace plumb {

class InodeCache;

/// Extents of a file in DRAM: file block -> place.
struct Extent {
  std::uint64_t device_block = 0;
  std::uint64_t length = 0;  // blocks
};
using ExtentMap = absl::btree_map<std::uint64_t, Extent>;

/// Bytes beyond the end of a file, in blocks it has, that may not be zero, or not durably so: those in [from, upto).
/// All others are. Offsets in the file.
struct UnknownTail {
  std::uint64_t from = 0;
  std::uint64_t upto = ~std::uint64_t{0};  // so it is when the inode was read from the medium
  [[nodiscard]] bool empty() const { return from >= upto; }
  void clear() { from = upto = 0; }
  void add(std::uint64_t begin, std::uint64_t end) {
    if (begin >= end) return;
    *this = empty() ? UnknownTail{begin, end} : UnknownTail{std::min(from, begin), std::max(upto, end)};
  }
};

class Inode {
 public:
  Inode(InodeCache& cache, const media::Inode& from)
      : media(from), number_(from.number), generation_(from.generation), cache_(cache) {}

  [[nodiscard]] InodeNumber number() const { return number_; }
  [[nodiscard]] std::uint64_t generation() const { return generation_; }
  /// Another reference; the caller holds one.
  [[nodiscard]] InodeRef share() {
    references_.fetch_add(1, std::memory_order_relaxed);
    return InodeRef(this);
  }
  /// The flags as of now, for decisions that need no lock.
  [[nodiscard]] std::uint32_t flags_hint() {
    SharedLock guard(lock);
    return media.flags;
  }

  /// There are leases whose stores an fsync has to flush.
  [[nodiscard]] bool is_stored_through_leases() {
    SharedLock guard(lock);
    return leases != nullptr && leases->has_stores();
  }

  SharedMutex lock;
  // guarded by lock
  media::Inode media;
  ExtentMap extents;
  bool extents_loaded = false;
  UnknownTail tail;                     // an extension zeroes it first
  std::unique_ptr<InodeLeases> leases;  // of the direct path; null: none
  // end of guarded

  /// Stored on a device of the table and not durable. By device, as the realtime flag may change while a walk runs.
  [[nodiscard]] pmem::DirtyRanges& dirty(DeviceRole role) { return dirty_[index_of(role)]; }
  [[nodiscard]] bool is_clean() const { return dirty_[0].empty() && dirty_[1].empty(); }
  [[nodiscard]] std::uint64_t dirty_bytes() const { return dirty_[0].bytes() + dirty_[1].bytes(); }
  Mutex writeback_mutex;  // one walk of the dirty ranges at a time; rank: above the journal's force lock, below inode
                          // locks
  std::atomic<std::uint64_t> last_sequence{0};       // of the last record about this inode
  std::atomic<std::uint64_t> last_data_sequence{0};  // of the last record that fdatasync needs
  std::atomic<std::uint64_t> error_count{0};         // writeback errors so far (errseq)
  std::atomic<std::uint64_t> reported_errors{0};     // as many of them some handle has reported
  /// Somebody could store past the kernel while this object has been in core: pages that it keeps may be old.
  std::atomic<bool> was_stored_directly{false};
  /// Open file descriptions that go through the page cache of the kernel. More only with the exclusive lock.
  std::atomic<std::uint32_t> page_cached_handles{0};

 private:
  friend class InodeCache;
  friend class InodeRef;
  const InodeNumber number_;
  const std::uint64_t generation_;
  InodeCache& cache_;
  std::array<pmem::DirtyRanges, media::kMaxDevices> dirty_;
  std::atomic<std::uint64_t> references_{0};
  bool dying_ = false;  // queued for deletion; guarded by the cache's mutex
};

class InodeTable {
 public:
  explicit InodeTable(Store& store) : store_(store) {}

  /// Mount: builds the index. EUCLEAN/EBADMSG on a damaged table.
  [[nodiscard]] Status load();

  /// ESTALE if the number is not in use. The transaction is for its lock.
  [[nodiscard]] Result<media::Inode> read(Transaction& t, InodeNumber number);
  /// A free number; its slot in the block is there to be put().
  [[nodiscard]] Result<InodeNumber> allocate(Transaction& t);
  /// Writes the inode (and seals it). The inode's `number` says where.
  [[nodiscard]] Status put(Transaction& t, media::Inode& inode);
  /// Clears the slot; the block goes when it was the last one.
  [[nodiscard]] Status free(Transaction& t, InodeNumber number);

  // The orphan list: inodes without a name, and inodes in the middle of a truncate. It is linked through the inodes on
  // the medium; put() leaves these links alone, so that nobody needs the lock of a neighbour. One change a transaction.
  [[nodiscard]] Status add_orphan(Transaction& t, InodeNumber number);
  [[nodiscard]] Status remove_orphan(Transaction& t, InodeNumber number);
  [[nodiscard]] bool is_orphan(Transaction&, InodeNumber number) const { return orphans_.contains(number.value); }
  [[nodiscard]] std::vector<InodeNumber> orphans(Transaction&) const;

  [[nodiscard]] std::uint64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  struct InodeBlock {
    BlockNumber block;
    std::bitset<media::kMaxBlockSize / media::kInodeBytes> used;
  };
  [[nodiscard]] Status new_block(Transaction& t, std::uint64_t index);
  [[nodiscard]] Result<BufferRef> buffer_of(InodeNumber number);
  [[nodiscard]] Status load_orphans(Transaction& t);
  // The inode in its block, to change; the caller seals it.
  [[nodiscard]] Result<media::Inode*> in_place(Transaction& t, InodeNumber number);
  [[nodiscard]] Status link_orphan(Transaction& t, InodeNumber number, std::uint64_t next, bool listed);

  Store& store_;
  // Under the transaction lock.
  std::map<std::uint64_t, InodeBlock> index_;
  std::set<std::uint64_t> with_room_;
  struct OrphanLinks {
    std::uint64_t previous = 0, next = 0;
  };
  absl::flat_hash_map<std::uint64_t, OrphanLinks> orphans_;
  std::atomic<std::uint64_t> used_{0};
};

class InodeCache {
 public:
  /// `on_unlinked` gets the only reference to an inode whose last link and last other reference are gone.
  InodeCache(Store& store, InodeTable& table, std::function<void(InodeRef)> on_unlinked)
      : store_(store), table_(table), on_unlinked_(std::move(on_unlinked)) {}
  ~InodeCache();

  /// ESTALE if there is no such inode. Takes the transaction lock: not inside a transaction.
  [[nodiscard]] Result<InodeRef> get(InodeNumber number);
  /// A new inode that was just committed.
  [[nodiscard]] InodeRef add(const media::Inode& media);
  [[nodiscard]] std::size_t size() const;
  /// The inode is freed on the medium: its number may come again. Under the transaction lock of that commit; the object
  /// goes with its last reference.
  void detach(Inode& inode);
  /// No more on_unlinked calls: the volume is going.
  void shut_down();

 private:
  friend class InodeRef;
  void release(InodeNumber number, Inode* object);

  Store& store_;
  InodeTable& table_;
  std::function<void(InodeRef)> on_unlinked_;
  mutable Mutex mutex_;
  absl::flat_hash_map<std::uint64_t, Inode*> map_ PLUMB_GUARDED_BY(mutex_);
  absl::flat_hash_set<Inode*> detached_ PLUMB_GUARDED_BY(mutex_);
  bool shut_down_ PLUMB_GUARDED_BY(mutex_) = false;
};

/// What stat shows of an inode as stored.
[[nodiscard]] Attributes attributes_of(const media::Inode& inode, std::uint32_t block_size);

inline media::Time to_media(Timestamp t) {
  media::Time out;
  out.seconds = static_cast<std::uint64_t>(t.seconds);
  out.nanoseconds = t.nanoseconds;
  return out;
}

}  // namespace plumb
