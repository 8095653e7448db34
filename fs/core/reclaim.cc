// Deleting unlinked inodes, and the reclaim queue: blocks that no file owns any more on their way to being free.
//
// A block in the queue is free only after
//   the record that queued it is durable        (or a crash would bring its old owner back, zeroed),
//   no reply that is being sent still reads it  (Epochs),
//   and, if it held metadata, the durable tail of the log has passed the last record about it (or replay would write
//   the
//                                                old bytes into its new owner);
// then it is zeroed durably and freed in the bitmap. A crash at any point leaves it in the queue.
#include <algorithm>
#include <array>
#include <vector>

#include "fs/core/btree.h"
#include "fs/core/extents.h"
#include "fs/core/value_chain.h"
#include "fs/core/volume_impl.h"
#include "fs/core/xattr.h"

#include <sys/stat.h>

namespace plumb {
namespace {

constexpr std::size_t kExtentsPerStep = 256;
constexpr std::size_t kXattrsPerStep = 2;
constexpr std::size_t kEntriesPerBatch = 256;
constexpr std::uint64_t kBytesPerBatch = 64u << 20;
constexpr std::uint64_t kManyPending = 4096;  // nodes of the queue: the deleting thread helps from here on

}  // namespace

void VolumeImpl::queue_deletion(InodeRef inode) {
  if (options.read_only) {
    // Nothing can be deleted; the next writable mount finds the inode on the orphan list.
    cache.detach(*inode);
    return;
  }
  {
    MutexLock lock(queue_mutex_);
    deletions_.push_back(std::move(inode));
  }
  queue_condition_.notify_one();
}

Status VolumeImpl::delete_inode(Inode& inode) {
  {
    SharedLock lock(inode.lock);
    if (inode.leases != nullptr) left_leased_.store(true, std::memory_order_release);
  }
  for (const DeviceRole role : store.roles()) (void)inode.dirty(role).take_snapshot();  // nobody will read it again
  for (bool done = false; !done;) {
    PLUMB_ASSIGN(done, delete_step(inode));
    // Between the steps nothing is locked: a long queue is worked off before it eats the reserve.
    if (!done) throttle_reclaim();
  }
  return {};
}

// One transaction of a deletion. True when the inode is gone.
Result<bool> VolumeImpl::delete_step(Inode& inode) {
  ExclusiveLock lock(inode.lock);
  const bool regular = S_ISREG(inode.media.mode);
  if (regular) PLUMB_TRY(load_extents(store, inode));
  Transaction t(store, Transaction::Privilege::kMayUseReserve);
  media::Inode next = inode.media;
  auto step = [&]() -> Result<bool> {
    bool done = true;
    if (regular) {
      PLUMB_ASSIGN(done,
                   remove_extents(t, next, inode.extents, FileBlock(0), FileBlock(~std::uint64_t{0}), kExtentsPerStep));
    }
    if (done) {
      PLUMB_ASSIGN(done, erase_some_xattrs(t, next, kXattrsPerStep));
    }
    if (!done) {
      if (regular) PLUMB_TRY(settle_extents(t, next, inode.extents));
      PLUMB_TRY(table.put(t, next));
      return false;
    }
    if (S_ISLNK(next.mode) && next.inline_target == 0) PLUMB_TRY(free_chain(t, next.data.block));
    PLUMB_TRY(table.remove_orphan(t, inode.number()));
    PLUMB_TRY(table.free(t, inode.number()));
    return true;
  };
  const Result<bool> done = step();
  const Result<Sequence> committed = done ? t.commit() : Result<Sequence>(tl::unexpected(done.error()));
  if (!committed) {
    forget_extents(inode);
    return tl::unexpected(committed.error());
  }
  inode.media = next;
  // Under the transaction lock still: nobody can have been given the number again.
  if (*done) cache.detach(inode);
  return *done;
}

Status VolumeImpl::finish_truncate(Inode& inode) {
  PLUMB_TRY(load_extents(store, inode));
  const std::uint64_t first = first_block_beyond(inode.media, inode.media.size_bytes);
  while (true) {
    Transaction t(store, Transaction::Privilege::kMayUseReserve);
    media::Inode next = inode.media;
    auto step = [&]() -> Result<bool> {
      PLUMB_ASSIGN(const bool done, remove_extents(t, next, inode.extents, FileBlock(first),
                                                   FileBlock(~std::uint64_t{0}), kExtentsPerStep));
      PLUMB_TRY(settle_extents(t, next, inode.extents));
      PLUMB_TRY(table.put(t, next));
      if (done && next.links != 0) PLUMB_TRY(table.remove_orphan(t, inode.number()));
      return done;
    };
    const Result<bool> done = step();
    Result<Sequence> committed = done ? t.commit() : Result<Sequence>(tl::unexpected(done.error()));
    if (!committed) {
      forget_extents(inode);
      return tl::unexpected(std::move(committed).error());
    }
    adopt(inode, next, *committed, true);
    if (*done) return {};
  }
}

// Zeroes, durably, each entry on its device. A device that fails does not keep the other's entries from being freed:
// they leave the batch. The error counts when nothing is left.
Status VolumeImpl::zero_pending(std::vector<PendingReclaim>& batch) {
  std::array<Status, media::kMaxDevices> outcome;
  std::array<bool, media::kMaxDevices> touched{};
  for (PendingReclaim& entry : batch) {
    const std::uint64_t blocks = superblock.blocks(entry.role);
    if (entry.block < superblock.entry(entry.role).data_start || entry.block >= blocks ||
        entry.length > blocks - entry.block)
      return fail(EUCLEAN, "reclaim queue: block " + std::to_string(entry.block) + " outside the data area");
    Status& status = outcome[index_of(entry.role)];
    if (!status) continue;
    touched[index_of(entry.role)] = true;
    auto bad = store.zero_readable(entry.role, {BlockNumber(entry.block), entry.length});
    if (bad)
      entry.bad = std::move(*bad);
    else
      status = tl::unexpected(bad.error());
  }
  Status first;
  for (const DeviceRole role : store.roles()) {
    Status& status = outcome[index_of(role)];
    // Zeros durable, on every device that has some, before the record that makes the blocks free.
    if (status && touched[index_of(role)]) status = store.device(role).drain();
    if (!status && first) first = status;
  }
  if (first) return {};
  std::erase_if(batch, [&](const PendingReclaim& entry) { return !outcome[index_of(entry.role)]; });
  return batch.empty() ? first : Status{};
}

// Puts what cannot be zeroed on the list, while it is still pending, and cuts the batch where it has more entries of
// the list in it than one transaction takes.
Status VolumeImpl::limit_bad(std::vector<PendingReclaim>& batch) {
  std::size_t room = BadBlocks::kMaxPerTransaction;
  for (std::size_t i = 0; i < batch.size(); ++i) {
    PendingReclaim& entry = batch[i];
    PLUMB_TRY(store.list_bad(entry.role, entry.bad));
    const auto listed = store.bad_blocks().in(entry.role, {BlockNumber(entry.block), entry.length});
    if (listed.size() > room) {
      // A unit never has more of them than fit: something of the first entry always stays.
      const std::uint64_t unit = superblock.unit_blocks(entry.role);
      const std::uint64_t fits = listed[room].block.value / unit * unit - entry.block;
      entry.left += entry.length - fits;
      entry.length = fits;
      std::erase_if(entry.bad, [&](BlockNumber block) { return block.value >= entry.block + fits; });
      batch.resize(fits == 0 ? i : i + 1);
      return {};
    }
    room -= listed.size();
  }
  return {};
}

// The list's entries in a range that is about to be freed: what is bad has no other owner from now on, what could be
// zeroed is good again.
Status VolumeImpl::settle_bad(Transaction& t, const PendingReclaim& entry) {
  const std::uint64_t unit = superblock.unit_blocks(entry.role);
  for (BadBlock listed : store.bad_blocks().in(entry.role, {BlockNumber(entry.block), entry.length})) {
    const auto same_unit = [&](BlockNumber block) { return block.value / unit == listed.block.value / unit; };
    const bool is_bad = std::binary_search(entry.bad.begin(), entry.bad.end(), listed.block);
    if (is_bad || std::any_of(entry.bad.begin(), entry.bad.end(), same_unit)) {
      listed.owner = media::BadBlockOwner::kList;
      PLUMB_TRY(store.bad_blocks().put(t, listed));
    } else {
      PLUMB_TRY(store.bad_blocks().erase(t, listed.role, listed.block));
    }
  }
  return {};
}

// What is left of an entry without the units that have bad blocks.
std::vector<BlockRange> VolumeImpl::good_units(const PendingReclaim& entry) const {
  const std::uint64_t unit = superblock.unit_blocks(entry.role);
  std::vector<BlockRange> good;
  std::uint64_t next = entry.block;
  for (const BlockNumber bad : entry.bad) {
    const std::uint64_t start = bad.value / unit * unit;
    if (start > next) good.push_back({BlockNumber(next), start - next});
    next = std::max(next, start + unit);
  }
  const std::uint64_t end = entry.block + entry.length;
  if (end > next) good.push_back({BlockNumber(next), end - next});
  return good;
}

Result<bool> VolumeImpl::reclaim_batch(bool with_metadata) {
  if (clients_remain()) return false;
  MutexLock one_at_a_time(reclaim_mutex_);
  const std::uint64_t block_size = store.block_size();
  BTree tree(store, media::TreeKind::kReclaim, static_cast<std::uint64_t>(media::TreeKind::kReclaim));
  std::vector<PendingReclaim> batch;
  Sequence newest_metadata;
  {
    Transaction t(store);  // for the lock; nothing changes
    PLUMB_ASSIGN(const media::State* state, t.state());
    std::uint64_t bytes = 0;
    const Sequence retired = store.journal().retired();
    PLUMB_TRY(tree.visit(state->reclaim, 0, [&](std::uint64_t key, std::span<const std::byte> bytes_of_record) {
      media::ReclaimRecord record;
      std::memcpy(&record, bytes_of_record.data(), sizeof record);
      const auto role = static_cast<DeviceRole>(media::device_of_key(key));  // checked when the queue was loaded
      PendingReclaim entry{
          role, media::number_of_key(key), record.length_blocks, 0, static_cast<media::ReclaimKind>(record.kind), {}};
      if (entry.kind == media::ReclaimKind::kMetadata) {
        const Sequence freed = store.freed_in(BlockNumber(entry.block));
        if (freed > retired && !with_metadata) return true;
        newest_metadata = std::max(newest_metadata, freed);
      }
      const std::uint64_t unit = superblock.unit_blocks(role);
      const std::uint64_t room = std::max(unit, (kBytesPerBatch - bytes) / block_size / unit * unit);
      if (entry.length > room) {
        entry.left = entry.length - room;
        entry.length = room;
      }
      bytes += entry.length * block_size;
      batch.push_back(entry);
      return batch.size() < kEntriesPerBatch && bytes < kBytesPerBatch;
    }));
  }
  if (batch.empty()) return false;
  // The records that queued the entries are durable before the blocks are zeroed.
  PLUMB_TRY(store.journal().force_all());
  // The tail passes the last record about a former metadata block before the block is zeroed.
  if (newest_metadata > store.journal().retired()) PLUMB_TRY(store.checkpoint());
  store.epochs().synchronize();
  PLUMB_TRY(zero_pending(batch));
  PLUMB_TRY(limit_bad(batch));

  Transaction t(store, Transaction::Privilege::kMayUseReserve);
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  for (const PendingReclaim& entry : batch) {
    const std::uint64_t key = media::device_key(index_of(entry.role), entry.block);
    PLUMB_TRY(tree.erase(t, state->reclaim, key));
    if (entry.left != 0) {
      media::ReclaimRecord rest{};
      rest.length_blocks = static_cast<std::uint32_t>(entry.left);
      rest.kind = static_cast<std::uint8_t>(entry.kind);
      PLUMB_TRY(tree.put(t, state->reclaim, key + entry.length, std::as_bytes(std::span(&rest, 1))));
    }
    PLUMB_TRY(settle_bad(t, entry));
    for (const BlockRange& good : good_units(entry)) PLUMB_TRY(t.set_bitmap(entry.role, good, false));
  }
  t.on_commit([this, &batch] {
    for (const PendingReclaim& entry : batch) {
      if (entry.kind == media::ReclaimKind::kMetadata) store.forget_freed(BlockNumber(entry.block));
      for (const BlockRange& good : good_units(entry)) store.release_data(entry.role, good);
      store.add_pending(entry.role, -static_cast<std::int64_t>(entry.length));
    }
  });
  PLUMB_TRY(t.commit());
  return true;
}

Status VolumeImpl::run_deletions() {
  if (store.read_only()) return {};
  MutexLock one_at_a_time(deletion_mutex_);
  for (int stuck = 0;;) {
    InodeRef inode;
    {
      MutexLock lock(queue_mutex_);
      if (deletions_.empty()) return {};
      inode = std::move(deletions_.front());
      deletions_.pop_front();
    }
    const Status status = delete_inode(*inode);
    if (status) {
      throttle_reclaim();  // many small deletions fill the queue as one big one does
      continue;
    }
    if (status.error().code == ENOSPC && ++stuck < 16) {
      // The queue itself needs blocks: move the zeroed mark or work some of it off, and try again.
      const auto extended = store.extend_zeroed(DeviceRole::kMain);
      const auto freed = reclaim_batch(true);
      if ((extended && *extended) || (freed && *freed)) {
        MutexLock lock(queue_mutex_);
        deletions_.push_back(std::move(inode));
        continue;
      }
    }
    cache.detach(*inode);  // the orphan list keeps it for the next mount
    return status;
  }
}

Status VolumeImpl::run_reclaim() {
  (void)list_faults();  // what cannot be listed now is tried again with the next call
  while (true) {
    PLUMB_TRY(run_deletions());
    PLUMB_ASSIGN(const bool more, reclaim_batch(true));
    if (!more) return {};
  }
}

// The deleting thread works off the queue itself when it grows too long for the blocks in reserve.
void VolumeImpl::throttle_reclaim() {
  const std::uint64_t limit =
      std::min<std::uint64_t>(kManyPending, store.allocator(DeviceRole::kMain).reserve_blocks() / 4);
  while (store.reclaim_nodes() > limit) {
    const auto more = reclaim_batch(true);
    if (!more || !*more) return;
  }
}

void VolumeImpl::reclaim_loop() {
  while (true) {
    {
      MutexLock lock(queue_mutex_);
      if (!stop_ && deletions_.empty()) lock.wait_for(queue_condition_, std::chrono::milliseconds(200));
      if (stop_) return;
    }
    report_failed_log();
    if (store.read_only()) continue;
    (void)list_faults();    // tried again with the next round
    (void)run_deletions();  // what fails stays on the orphan list
    throttle_reclaim();
    // A checkpoint for a handful of former metadata blocks is not worth it; with many of them it is.
    const bool with_metadata = store.freed_metadata_count() > 256;
    while (true) {
      const auto more = reclaim_batch(with_metadata);
      if (!more || !*more) break;
      MutexLock lock(queue_mutex_);
      if (stop_) return;
    }
  }
}

}  // namespace plumb
