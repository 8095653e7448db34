// Leases of the direct path: which inodes have some, their slots on the main device, and who may have how many.
//
// A leased inode keeps every block that it has, where it is, until its last lease ends: truncate and punch zero in
// place and remember, hole -> block is the only change (volume_lease.cc has the rules). What a client has to know at
// any moment, the size, is in a slot of 64 bytes on the main device; its layout is the wire's (fs/client/protocol.h).
// Slots are shared memory and nothing else: no crash needs them, a mount clears them all.
//
// InodeLeases belongs to its inode and is guarded by that inode's lock. LeaseTable: all functions from any thread; its
// mutex is a leaf.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fs/core/mutex.h"
#include "fs/core/superblock.h"
#include "fs/core/types.h"
#include "fs/media/layout.h"
#include "pmem/result.h"

namespace plumb {

class LeaseTable;

/// Ranges of bytes, sorted, without overlap, at most kMost of them. With more, those with the smallest gap between them
/// are joined (what may be stored to must not be missed), or the smallest one is forgotten (what was not punched must
/// not be taken for it).
class LeasedRanges {
 public:
  static constexpr std::size_t kMost = 256;
  enum class Overflow : std::uint8_t { kJoin, kForget };
  explicit LeasedRanges(Overflow overflow) : overflow_(overflow) {}
  void add(std::uint64_t begin, std::uint64_t end);
  void remove(std::uint64_t begin, std::uint64_t end);
  void clear() { ranges_.clear(); }
  [[nodiscard]] bool empty() const { return ranges_.empty(); }
  [[nodiscard]] const std::map<std::uint64_t, std::uint64_t>& all() const { return ranges_; }  // begin -> end

 private:
  void limit();

  Overflow overflow_;
  std::map<std::uint64_t, std::uint64_t> ranges_;
};

/// What one open file description has leased. Guarded by the inode's lock.
struct HandleLease {
  bool held = false;
  bool write = false;
  std::uint32_t uid = 0;  // whom it counts for
  // File offsets that may be stored to and are not durable when stored.
  LeasedRanges stored{LeasedRanges::Overflow::kJoin};
};

/// The leases of an inode.
struct InodeLeases {
  explicit InodeLeases(LeaseTable& of) : table(of) {}
  LeaseTable& table;
  std::uint32_t slot = 0;
  /// Kept alive here too: a session that is cut off drops its handles, and what they leased stays leased.
  std::vector<std::shared_ptr<HandleLease>> holders;
  /// Punched while leased: what is still zero when the last lease ends becomes holes.
  LeasedRanges punched{LeasedRanges::Overflow::kForget};
  /// Cut by a truncate while leased: the extents beyond the end go when the last lease ends; until then the inode is
  /// on the orphan list.
  bool cut = false;
  bool has_capability = false;  // the file has one, or had when somebody looked
  [[nodiscard]] bool has_writers() const;
  [[nodiscard]] bool has_stores() const;
  /// Tells clients what the inode is like now: size, and whether they may store.
  void publish(const media::Inode& inode);
  void publish_state(const media::Inode& inode);
  /// False: a store has more to do than bytes (set-id bits or a file capability to clear, a writeback), or may not
  /// happen at all.
  [[nodiscard]] bool may_store(const media::Inode& inode) const;
};

class LeaseTable {
 public:
  explicit LeaseTable(const Superblock& superblock) : superblock_(superblock) {}

  /// Mount, not read-only: clears the slots. Without it, or if the area cannot be used, there are no leases (ENFILE).
  /// `is_sync`: every write is followed by a writeback (-o sync), so none is direct.
  void open(std::uint64_t epoch, bool is_sync);
  [[nodiscard]] bool is_sync() const { return is_sync_; }

  /// A slot for an inode, and one more lease of the user. EMFILE: the user has as many as one may; ENFILE: all slots
  /// are taken.
  [[nodiscard]] Result<std::uint32_t> take(std::uint32_t uid, InodeNumber inode, std::uint64_t size_bytes,
                                           std::uint64_t state);
  /// One more lease of the user, on an inode that has a slot. EMFILE.
  [[nodiscard]] Status add_holder(std::uint32_t uid);
  void drop_holder(std::uint32_t uid);
  /// The inode has no lease any more.
  void release(std::uint32_t slot);

  void publish_size(std::uint32_t slot, std::uint64_t size_bytes);
  void publish_state(std::uint32_t slot, std::uint64_t state);
  /// What clients say about their last direct store, and what was taken of it.
  [[nodiscard]] std::uint64_t write_time(std::uint32_t slot) const;
  [[nodiscard]] std::uint64_t seen_time(std::uint32_t slot) const;
  void publish_seen_time(std::uint32_t slot, std::uint64_t nanoseconds);
  /// The next direct store is news, even in the same tick of the coarse clock as the last one.
  void forget_write_time(std::uint32_t slot);

  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
  [[nodiscard]] std::uint32_t slot_count() const { return slot_count_; }
  [[nodiscard]] std::uint64_t leased_inodes() const;
  /// Leases that one user may hold: half of the slots.
  [[nodiscard]] std::uint32_t most_of_a_user() const { return slot_count_ / 2; }

 private:
  [[nodiscard]] std::uint64_t offset_of(std::uint32_t slot, std::size_t word) const;
  void store_word(std::uint32_t slot, std::size_t word, std::uint64_t value);
  [[nodiscard]] std::uint64_t load_word(std::uint32_t slot, std::size_t word) const;

  const Superblock& superblock_;
  std::uint64_t epoch_ = 0;
  bool is_sync_ = false;
  std::uint32_t slot_count_ = 0;
  mutable Mutex mutex_;  // leaf
  std::vector<std::uint32_t> free_ PLUMB_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::uint32_t, std::uint32_t> of_user_ PLUMB_GUARDED_BY(mutex_);
};

}  // namespace plumb
