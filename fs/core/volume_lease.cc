// Leases: programs that load and store a file's blocks themselves.
//
// The one rule: the blocks of a leased inode neither move nor leave it before its last lease ends. So a map is right
// for as long as it lives, and nobody has to be told of anything but the size (the slot, fs/core/leases.h).
//
//   truncate   commits the size, puts the inode on the orphan list if extents lie beyond it, and zeroes in place
//              what it has cut off, when its record is durable. The extents go with the last lease, or at the next
//              mount.
//   punch      zeroes in place, and remembers. What reads as zeros when the last lease ends becomes holes; after a
//              crash it stays allocated, and zero.
//   unlink     as ever: an open file keeps its inode.
//   extension  what lies beyond the end may be stored to at any moment, so it is zeroed before every extension
//              (UnknownTail never becomes known while there are write leases, or stale clients).
//
// Crash argument. A client stores only into blocks that its file owns by a committed record, and nothing else changes
// what these blocks are before the lease ends: a crash at any moment finds them in the file, or, cut off, behind the
// end of an inode on the orphan list. After the daemon's death its clients live on. Nothing of theirs is free, and
// nothing of theirs becomes free in a later mount: whatever leaves a file goes through the reclaim queue, and that
// stands still while programs of an earlier mount hold their lock (clients_remain()). Nothing else writes blocks that
// it does not own: windows have no committed blocks in them that recovery would zero, and new blocks come from free
// ones. A session may also be cut off (a lazy unmount, a signal), and its handles be dropped without an end of their
// leases: if an inode is deleted then, nothing is reclaimed for the rest of the mount; all others keep what they have.
//
// What a client has stored and not flushed is in the caches (memory) or in the page cache of the device's file, as
// after a store through any map. fsync, sync and the interval flush all that is leased for such stores; with the end of
// a lease it counts as dirty. After an unclean end the next mount flushes the devices, as nobody knows any more what
// was dirty: from the first lease for a map on, the journal's headers say "deferred" (Store::defer_data()).
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "fs/core/extents.h"
#include "fs/core/volume_impl.h"
#include "fs/core/xattr.h"

namespace plumb {
namespace {

constexpr std::uint64_t kNanoseconds = 1'000'000'000;

Timestamp to_timestamp(std::uint64_t nanoseconds) {
  return {static_cast<std::int64_t>(nanoseconds / kNanoseconds),
          static_cast<std::uint32_t>(nanoseconds % kNanoseconds)};
}

Timestamp mtime_of(const media::Inode& inode) {
  return {static_cast<std::int64_t>(inode.mtime.get()), inode.mtime_ns};
}
Timestamp ctime_of(const media::Inode& inode) {
  return {static_cast<std::int64_t>(inode.ctime.get()), inode.ctime_ns};
}

Status check_file(const media::Inode& inode) {
  if (S_ISREG(inode.mode)) return {};
  return fail(S_ISDIR(inode.mode) ? EISDIR : ENODEV);
}

}  // namespace

bool VolumeImpl::clients_remain() {
  if (left_leased_.load(std::memory_order_acquire)) return true;
  if (!stale_clients_.load(std::memory_order_acquire)) return false;
  if (options.has_stale_clients(leases.epoch())) return true;
  // No new ones can come: their daemon is gone.
  stale_clients_.store(false, std::memory_order_release);
  notify("the programs that mapped files of an earlier mount have ended: reclaim goes on");
  return false;
}

// ---- times ----

Status VolumeImpl::take_write_time(Inode& inode) {
  if (inode.leases == nullptr || store.read_only()) return {};
  const std::uint32_t slot = inode.leases->slot;
  const std::uint64_t said = leases.write_time(slot);
  if (said == leases.seen_time(slot)) return {};
  const Timestamp time = std::min(to_timestamp(said), now());  // whatever a client says, it was not in the future
  // Behind the last change it is the mtime, whatever utimes(2) has set, be it in the future.
  const bool last = time >= ctime_of(inode.media);
  const Timestamp mtime = last ? time : std::max(time, mtime_of(inode.media));
  if (mtime_of(inode.media) != mtime || (last && ctime_of(inode.media) != time)) {
    Transaction t(store, Transaction::Privilege::kMayUseReserve);
    media::Inode next = inode.media;
    set_mtime(next, mtime);
    if (last) set_ctime(next, time);
    PLUMB_TRY(table.put(t, next));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    adopt(inode, next, sequence, false);
  }
  leases.publish_seen_time(slot, said);
  return {};
}

Status VolumeImpl::refresh_times(Inode& inode) {
  if (!inode.was_stored_directly.load(std::memory_order_acquire)) return {};
  {
    SharedLock lock(inode.lock);
    if (inode.leases == nullptr) return {};
    if (leases.write_time(inode.leases->slot) == leases.seen_time(inode.leases->slot)) return {};
  }
  ExclusiveLock lock(inode.lock);
  return take_write_time(inode);
}

// ---- what fsync has to flush ----

void VolumeImpl::mark_range_dirty(Inode& inode, std::uint64_t begin, std::uint64_t end) {
  const DeviceRole role = role_of(inode.media);
  for (const FilePiece& piece : FilePieces(inode.extents, store.block_size(), begin, end))
    inode.dirty(role).add(piece.at, piece.length);
  mark_dirty(inode);
}

Status VolumeImpl::add_leased_ranges(Inode& inode) {
  if (!inode.was_stored_directly.load(std::memory_order_acquire)) return {};
  const auto add = [&]() -> Status {
    for (const auto& holder : inode.leases->holders)
      for (const auto& [begin, end] : holder->stored.all()) mark_range_dirty(inode, begin, end);
    return {};
  };
  {
    SharedLock lock(inode.lock);
    if (inode.leases == nullptr || !inode.leases->has_stores()) return {};
    if (inode.extents_loaded) return add();
  }
  ExclusiveLock lock(inode.lock);
  if (inode.leases == nullptr) return {};
  PLUMB_TRY(load_extents(store, inode));
  return add();
}

// ---- lease ----

Status VolumeImpl::fill_leased_holes(Inode& inode, std::uint64_t offset, std::uint64_t end) {
  const std::uint64_t block_size = store.block_size();
  const std::uint64_t unit = superblock.unit_blocks(role_of(inode.media));
  const std::uint64_t first = offset / block_size / unit * unit;
  const std::uint64_t last =
      std::min(first_block_beyond(inode.media, end), first_block_beyond(inode.media, inode.media.size_bytes));
  if (!has_room_for(inode, first, last)) return fail(ENOSPC);
  return allocate_blocks(inode, first, last, inode.media.size_bytes);
}

Result<LeaseAnswer> Volume::lease(FileHandle& handle, const LeaseRequest& request, std::size_t most) {
  VolumeImpl& v = *impl_;
  Inode& inode = *handle.inode;
  if (request.length_bytes == 0 || (!request.write && (request.allocate || request.map))) return fail(EINVAL);
  if (request.offset_bytes >= kMaxFileSize) return fail(EINVAL);
  if (request.write && !handle.writable) return fail(EBADF);
  const std::uint64_t wanted_end =
      request.offset_bytes + std::min(request.length_bytes, kMaxFileSize - request.offset_bytes);
  return v.with_space([&]() -> Result<LeaseAnswer> {
    ExclusiveLock lock(inode.lock);
    PLUMB_TRY(check_file(inode.media));
    if (inode.page_cached_handles.load(std::memory_order_relaxed) != 0) return fail(EOPNOTSUPP);
    if (request.write && v.store.read_only()) return fail(EROFS);
    PLUMB_TRY(load_extents(v.store, inode));
    InodeLeases probe(v.leases);
    InodeLeases& state = inode.leases ? *inode.leases : probe;
    if (request.write) {
      state.has_capability =
          inode.media.xattrs.block != 0 && read_xattr(v.store, inode.media, VolumeImpl::kCapabilityName).has_value();
      if (!state.may_store(inode.media)) return fail(EPERM);
    }

    const std::uint64_t block_size = v.store.block_size();
    const std::uint64_t size = inode.media.size_bytes;
    const DeviceRole role = v.role_of(inode.media);
    const std::uint64_t begin = request.offset_bytes / block_size * block_size;
    const std::uint64_t file_end = (size + block_size - 1) / block_size * block_size;
    std::uint64_t end = std::min((wanted_end + block_size - 1) / block_size * block_size, file_end);
    end = std::max(end, begin);
    if (end > begin && !v.bad_blocks_of(inode, begin, end).empty()) return fail(EIO);
    if (request.allocate && end > begin) PLUMB_TRY(v.fill_leased_holes(inode, begin, end));
    // Before the first store through a map: if this daemon dies, the next one has to flush what nobody knows of.
    if (request.map) PLUMB_TRY(v.store.defer_data());

    // From here on nothing fails but for want of slots.
    if (!handle.lease) handle.lease = std::make_shared<HandleLease>();
    HandleLease& held = *handle.lease;
    if (!held.held) {
      if (inode.leases == nullptr) {
        PLUMB_ASSIGN(probe.slot, v.leases.take(request.uid, inode.number(), size, 0));
        inode.leases = std::make_unique<InodeLeases>(std::move(probe));
      } else {
        PLUMB_TRY(v.leases.add_holder(request.uid));
      }
      held.held = true;
      held.uid = request.uid;
      inode.leases->holders.push_back(handle.lease);
    }
    InodeLeases& leases = *inode.leases;
    LeaseAnswer answer;
    if (request.write) {
      answer.first_writer = !leases.has_writers();
      held.write = true;
      inode.was_stored_directly.store(true, std::memory_order_release);
      inode.tail = UnknownTail{};
      // Stores of pwrite are durable when they return on a memory device; those through maps nowhere, and those into
      // the page cache neither.
      if (request.map || !v.superblock.device(role).is_memory()) held.stored.add(begin, end);
      if (!held.stored.empty()) v.mark_dirty(inode);
    }
    leases.publish(inode.media);

    answer.offset_bytes = begin;
    answer.size_bytes = size;
    answer.slot = leases.slot;
    answer.member = index_of(role);
    std::uint64_t upto = end;
    for (const FilePiece& piece : FilePieces(inode.extents, block_size, begin, end)) {
      if (answer.extents.size() == most) {
        upto = piece.offset;
        break;
      }
      answer.extents.push_back({piece.offset, piece.at, piece.length});
    }
    answer.length_bytes = upto - begin;
    return answer;
  });
}

// ---- the end ----

// What was put off for an inode whose last lease has ended. Exclusive lock held.
Status VolumeImpl::settle_leases(Inode& inode, InodeLeases& ended) {
  if (inode.leases != nullptr) {
    // Somebody was quicker: it is put off until that one ends.
    inode.leases->cut = inode.leases->cut || ended.cut;
    for (const auto& [begin, end] : ended.punched.all()) inode.leases->punched.add(begin, end);
    return {};
  }
  if (store.read_only()) return {};  // the orphan list has it
  if (ended.cut) PLUMB_TRY(finish_truncate(inode));
  ended.cut = false;
  if (inode.media.links == 0) return {};  // nearly always about to go as a whole
  PLUMB_TRY(load_extents(store, inode));
  const std::uint64_t block_size = store.block_size();
  const DeviceRole role = role_of(inode.media);
  const std::uint64_t unit = superblock.unit_blocks(role);
  pmem::Device& device = superblock.device(role);
  for (const auto& [begin, end] : ended.punched.all()) {
    const std::uint64_t last = end / block_size / unit * unit;
    std::uint64_t run = first_block_beyond(inode.media, begin);
    std::uint64_t block = run;
    const auto give_back = [&]() -> Status { return remove_blocks(inode, run, block); };
    while (block < last) {
      const auto it = find_extent(inode.extents, block);
      if (it != inode.extents.end()) {
        const std::uint64_t at = (it->second.device_block + (block - it->first)) * block_size;
        const Result<bool> zero = device.is_zero(at, unit * block_size);
        if (!zero || !*zero) {
          // Written since, by whomever: data.
          PLUMB_TRY(give_back());
          run = block + unit;
        }
        block += unit;
      } else {
        const auto next = inode.extents.lower_bound(block);
        block = next == inode.extents.end() ? last : std::min(last, next->first);
      }
    }
    PLUMB_TRY(give_back());
  }
  ended.punched.clear();
  return {};
}

std::unique_ptr<InodeLeases> VolumeImpl::drop_lease(FileHandle& handle) {
  Inode& inode = *handle.inode;
  const std::shared_ptr<HandleLease> held = std::move(handle.lease);
  if (!held || !held->held) return nullptr;
  (void)take_write_time(inode);  // with a full log the times stay as they were
  if (!held->stored.empty()) {
    if (load_extents(store, inode)) {
      for (const auto& [begin, end] : held->stored.all()) mark_range_dirty(inode, begin, end);
    } else {
      // What was stored and not flushed cannot be found any more: the next fsync says so.
      inode.error_count.fetch_add(1, std::memory_order_acq_rel);
    }
  }
  std::erase(inode.leases->holders, held);
  leases.drop_holder(held->uid);
  if (!inode.leases->holders.empty()) {
    inode.leases->publish(inode.media);
    return nullptr;
  }
  leases.release(inode.leases->slot);
  return std::move(inode.leases);
}

bool Volume::use_page_cache(FileHandle& handle) {
  Inode& inode = *handle.inode;
  ExclusiveLock lock(inode.lock);
  if (inode.leases != nullptr) return false;
  inode.page_cached_handles.fetch_add(1, std::memory_order_relaxed);
  handle.page_cached = true;
  return true;
}

FileHandle::~FileHandle() {
  if (page_cached) inode->page_cached_handles.fetch_sub(1, std::memory_order_relaxed);
}

void Volume::end_lease(FileHandle& handle) {
  VolumeImpl& v = *impl_;
  Inode& inode = *handle.inode;
  std::unique_ptr<InodeLeases> ended;
  // Under one lock, so that nobody comes between the end and what was put off, unless it needs space first. What fails
  // for want of it is finished by the next mount, or stays allocated and zero.
  (void)v.with_space([&]() -> Status {
    ExclusiveLock lock(inode.lock);
    if (handle.lease) ended = v.drop_lease(handle);
    if (!ended || (!ended->cut && ended->punched.empty())) return {};
    return v.settle_leases(inode, *ended);
  });
}

// ---- align ----

// Moves the chunk of the file that begins at block `first` to an aligned one of the device. False: no such chunk is
// free. Exclusive lock held, extents loaded, no leases.
//
// Crash argument: the copy is durable before the record that makes it the file's; the old blocks leave with the same
// record, and are reclaimed when it is durable. Before it the copy is data in free blocks of a window.
Result<bool> VolumeImpl::align_chunk(Inode& inode, std::uint64_t first) {
  const std::uint64_t block_size = store.block_size();
  const std::uint64_t chunk = superblock.chunk_blocks();
  const DeviceRole role = DeviceRole::kMain;
  pmem::Device& device = superblock.device(role);
  Allocator::DataRequest request;
  request.file_block = first;
  request.blocks = chunk;
  request.size_class = Allocator::Class::kBig;
  const Result<BlockRange> taken = store.allocate_data(role, request, true);
  if (!taken) {
    if (taken.error().code == ENOSPC) return false;
    return tl::unexpected(taken.error());
  }
  const BlockRange fresh = *taken;
  if (fresh.length != chunk || fresh.start.value % chunk != 0) {
    store.abandon_data(role, fresh);
    return false;
  }
  const auto move = [&]() -> Result<bool> {
    std::vector<std::byte> bounce;
    for (const FilePiece& piece :
         FilePieces(inode.extents, block_size, first * block_size, (first + chunk) * block_size)) {
      bounce.resize(piece.length);
      PLUMB_TRY(device.load(piece.at, bounce));
      const std::uint64_t target = fresh.start.value * block_size + (piece.offset - first * block_size);
      PLUMB_TRY(device.store_nt(target, bounce));
      PLUMB_TRY(device.flush_after_nt(target, bounce.size()));
    }
    // The copy, with `deferred` too: it may be of bytes that were durable where they were. Separates it from the record
    // that makes it the file's.
    PLUMB_TRY(device.drain());
    Transaction t(store, Transaction::Privilege::kOrdinary);
    media::Inode next = inode.media;
    PLUMB_TRY(t.set_bitmap(role, fresh, true));
    // A chunk of more pieces than one record takes stays where it is.
    PLUMB_ASSIGN(const bool all,
                 remove_extents(t, next, inode.extents, FileBlock(first), FileBlock(first + chunk), 512));
    if (!all) return false;
    PLUMB_TRY(insert_extent(t, next, inode.extents, FileBlock(first), fresh));
    PLUMB_TRY(settle_extents(t, next, inode.extents));
    PLUMB_TRY(table.put(t, next));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    adopt(inode, next, sequence, true);
    return true;
  };
  const Result<bool> moved = move();
  if (moved && *moved) {
    store.settle_data(role, fresh);
    return true;
  }
  forget_extents(inode);
  store.abandon_data(role, fresh);
  PLUMB_TRY(load_extents(store, inode));
  return moved;
}

Result<std::uint64_t> Volume::align(FileHandle& handle, const AlignRequest& request) {
  VolumeImpl& v = *impl_;
  Inode& inode = *handle.inode;
  if (!handle.writable) return fail(EBADF);
  const std::uint64_t chunk = v.superblock.chunk_blocks();
  const std::uint64_t block_size = v.store.block_size();
  std::uint64_t aligned = 0;
  for (std::uint64_t first = 0;; first += chunk) {
    // The lock is let go between chunks: a big file takes long.
    ExclusiveLock lock(inode.lock);
    PLUMB_TRY(check_file(inode.media));
    if (v.store.read_only()) return fail(EROFS);
    PLUMB_TRY(load_extents(v.store, inode));
    if (inode.extents.size() <= request.most_pieces) return aligned;
    // The next chunk that has a block: a file may have holes of any size.
    auto it = find_extent(inode.extents, first);
    if (it == inode.extents.end()) it = inode.extents.lower_bound(first);
    if (it == inode.extents.end()) return aligned;
    first = std::max(first, it->first / chunk * chunk);
    if ((first + chunk) * block_size > inode.media.size_bytes) return aligned;
    const bool whole = it->first <= first && it->first + it->second.length >= first + chunk;
    if (whole && (it->second.device_block + (first - it->first)) % chunk == 0) {
      aligned += media::kChunkBytes;
      continue;
    }
    if (request.keep_holes && holes_between(inode.extents, first, first + chunk) != 0) continue;
    if (inode.leases != nullptr) return fail(EBUSY, "the file is leased");
    if (v.clients_remain()) return fail(EBUSY, "programs of an earlier mount may map the file");
    // Realtime extents are where they are.
    if (v.role_of(inode.media) != DeviceRole::kMain) continue;
    if (!v.bad_blocks_of(inode, first * block_size, (first + chunk) * block_size).empty()) continue;
    PLUMB_ASSIGN(const bool moved, v.align_chunk(inode, first));
    if (moved) aligned += media::kChunkBytes;
  }
}

std::uint64_t Volume::epoch() {
  return impl_->store.journal().epoch();
}
std::uint32_t Volume::lease_slots() {
  return impl_->leases.slot_count();
}
const Superblock& Volume::superblock() const {
  return impl_->superblock;
}

}  // namespace plumb
