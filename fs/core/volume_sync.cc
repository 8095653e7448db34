// fsync, sync, the writeback interval and the commit interval: all of them end in write_back().
#include <chrono>

#include "fs/core/volume_impl.h"

namespace plumb {

void VolumeImpl::mark_dirty(Inode& inode) {
  MutexLock lock(dirty_mutex_);
  dirty_inodes_.insert(inode.number().value);
}

// A store adds its range first and the inode to the list then: what is added after the look comes with an entry of its
// own.
void VolumeImpl::forget_if_clean(Inode& inode) {
  SharedLock shared(inode.lock);  // a lease for stores comes with an entry too
  if (inode.leases != nullptr && inode.leases->has_stores()) return;
  MutexLock lock(dirty_mutex_);
  if (inode.is_clean()) dirty_inodes_.erase(inode.number().value);
}

std::uint64_t VolumeImpl::dirty_bytes(DeviceRole role) {
  std::vector<std::uint64_t> numbers;
  {
    MutexLock lock(dirty_mutex_);
    numbers.assign(dirty_inodes_.begin(), dirty_inodes_.end());
  }
  std::uint64_t bytes = 0;
  for (const std::uint64_t number : numbers)
    if (const auto inode = cache.get(InodeNumber(number))) bytes += (*inode)->dirty(role).bytes();
  return bytes;
}

// Data ranges of each device that this inode dirtied, then the log. The device comes from the table of the superblock;
// a device that the inode did not dirty is not touched.
Status VolumeImpl::write_back(Inode& inode, FsyncMode mode) {
  Status data = add_leased_ranges(inode);
  // Without room for the times the data is written back all the same.
  const Status times = mode == FsyncMode::kFull ? refresh_times(inode) : Status{};
  {
    // A second fsync of this inode waits here for the first: what that one took is durable when this one returns.
    MutexLock walk(inode.writeback_mutex);
    for (const DeviceRole role : store.roles()) {
      const Status status =
          write_back_ranges(superblock.device(role), inode.dirty(role), &writeback_counters[index_of(role)]);
      // One device's error does not keep the other's ranges from being written back.
      if (!status && data) data = status;
    }
    if (!data) {
      inode.error_count.fetch_add(1, std::memory_order_acq_rel);
      return data;
    }
  }
  forget_if_clean(inode);
  // Not an early return: the data is durable, now the metadata that says where it is and how long the file is.
  const auto& needed = mode == FsyncMode::kDataOnly ? inode.last_data_sequence : inode.last_sequence;
  PLUMB_TRY(store.journal().force(Sequence(needed.load(std::memory_order_acquire))));
  return times;
}

Status VolumeImpl::write_back_all() {
  // A second caller waits: what the first one took out of the list must be durable when either returns.
  MutexLock walk(walk_mutex_);
  absl::flat_hash_set<std::uint64_t> numbers;
  {
    MutexLock lock(dirty_mutex_);
    numbers.swap(dirty_inodes_);
  }
  Status first;
  for (const std::uint64_t number : numbers) {
    const auto inode = cache.get(InodeNumber(number));
    if (!inode) continue;  // deleted meanwhile: nobody will read it
    const Status status = write_back(**inode, FsyncMode::kFull);
    // One file's error does not keep the others from being written back.
    if (!status && first) first = status;
    if (!(*inode)->is_clean() || (*inode)->is_stored_through_leases()) mark_dirty(**inode);
  }
  const Status log = store.journal().force_all();
  return first ? log : first;
}

void VolumeImpl::timer_loop() {
  using Clock = std::chrono::steady_clock;
  auto last_data = Clock::now();
  auto last_log = last_data;
  while (true) {
    {
      MutexLock lock(queue_mutex_);
      if (stop_) return;
      lock.wait_for(timer_condition_, std::chrono::milliseconds(500));
      if (stop_) return;
    }
    const auto now = Clock::now();
    // On a page-cached device the kernel writes back by itself; six times the interval is its own default of 30 s, and
    // bounds how many dirty inodes stay in core.
    bool cached = false;
    bool deferred = false;
    for (const DeviceRole role : store.roles()) {
      cached = cached || !store.device(role).is_memory();
      deferred = deferred || (store.device(role).is_memory() && options.writeback == Writeback::kDeferred);
    }
    const std::chrono::seconds interval(deferred ? options.interval_seconds : 6 * options.interval_seconds);
    if (options.interval_seconds != 0 && (cached || deferred) && now - last_data >= interval) {
      (void)write_back_all();  // errors are kept for the next fsync of each file
      last_data = now;
    }
    if (options.commit_seconds != 0 && now - last_log >= std::chrono::seconds(options.commit_seconds)) {
      (void)store.journal().force_all();  // a failure makes the journal read-only, which everybody sees
      last_log = now;
    }
  }
}

Status Volume::fsync_inode(Inode& inode, FsyncMode mode) {
  return impl_->write_back(inode, mode);
}

Status Volume::fsync(FileHandle& handle, FsyncMode mode) {
  Inode& inode = *handle.inode;
  const Status status = impl_->write_back(inode, mode);
  // Once to each open file, whoever's walk it was that failed.
  const std::uint64_t errors = inode.error_count.load(std::memory_order_acquire);
  inode.reported_errors.store(errors, std::memory_order_release);
  if (handle.seen_error.exchange(errors, std::memory_order_acq_rel) != errors)
    return status ? fail(EIO, "an earlier writeback of this file failed") : status;
  return status;
}

Status Volume::sync() {
  return impl_->write_back_all();
}

}  // namespace plumb
