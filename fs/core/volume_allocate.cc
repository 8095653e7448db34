// fallocate; zeros in a file, and what lies behind its end.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "fs/core/extents.h"
#include "fs/core/file_bytes.h"
#include "fs/core/file_stores.h"
#include "fs/core/fresh_blocks.h"
#include "fs/core/volume_impl.h"

namespace plumb {
namespace {

constexpr std::uint64_t kAllocateStepBlocks = 16384;

}  // namespace

// ---- zeros ----

Status VolumeImpl::zero_file_range(Inode& inode, std::uint64_t offset_bytes, std::uint64_t end_bytes) {
  // Not beyond the end of the file: after a truncate whose record is not durable these bytes are still the file's, and
  // an extension zeroes them (UnknownTail).
  end_bytes = std::min<std::uint64_t>(end_bytes, inode.media.size_bytes);
  while (offset_bytes < end_bytes) {
    const std::uint64_t end = end_with_few_bad(inode, offset_bytes, end_bytes);
    PLUMB_ASSIGN(const std::vector<FileBadBlock> renewed, renew_bad_blocks(inode, offset_bytes, end));
    FileStores stores(*this, inode);
    PLUMB_TRY(stores.zero(offset_bytes, end));
    PLUMB_TRY(stores.finish());
    offset_bytes = end;
    if (renewed.empty()) continue;
    Transaction t(store);
    PLUMB_TRY(forget_bad_blocks(t, role_of(inode.media), renewed));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    // For fsync: until the record is durable a crash brings the entries back, and with them EIO.
    adopt(inode, inode.media, sequence, true);
  }
  return {};
}

Status VolumeImpl::zero_cut(Inode& inode, std::uint64_t from, std::uint64_t end) {
  if (from >= end) return {};
  // What a truncate cut off of a leased file reads as zeros through maps, as behind the end of any mapped file. Until
  // the record of the truncate is durable these bytes are the file's.
  PLUMB_TRY(store.journal().force(Sequence(inode.last_sequence.load(std::memory_order_acquire))));
  FileStores stores(*this, inode);
  const Status zeroed = stores.zero(from, end);
  PLUMB_TRY(stores.finish());
  // Poison there is nobody's loss; what is zero is not relied on (UnknownTail).
  return !zeroed && zeroed.error().code == EIO ? Status{} : zeroed;
}

Status VolumeImpl::prepare_extension(Inode& inode, std::uint64_t new_end_bytes) {
  UnknownTail& tail = inode.tail;
  if (tail.empty()) return {};
  const DeviceRole role = role_of(inode.media);
  pmem::Device& device = superblock.device(role);
  const std::uint64_t block_size = store.block_size();
  const std::uint64_t unit = superblock.unit_bytes(role);
  // Only as far as the file grows, in whole units: what is preallocated beyond stays unknown.
  const std::uint64_t begin = std::max<std::uint64_t>(inode.media.size_bytes, tail.from);
  const std::uint64_t limit = std::min((new_end_bytes + unit - 1) / unit * unit, tail.upto);
  if (begin >= limit) return {};
  PLUMB_TRY(load_extents(store, inode));
  bool touched = false;
  for (const FilePiece& piece : FilePieces(inode.extents, block_size, begin, limit)) {
    // These bytes are still part of the durable file until the record that cut them off is durable.
    if (!touched) PLUMB_TRY(store.journal().force(Sequence(inode.last_sequence.load())));
    // Stored also where it reads as zeros, on a page-cached device: after a failed msync the page counts as clean.
    PLUMB_ASSIGN(const bool zero, device.is_zero(piece.at, piece.length));
    if (!zero || !device.is_memory()) PLUMB_TRY(zero_file_bytes(device, piece.at, piece.length));
    // Flushed in any case: what reads as zeros may be newer than the medium.
    PLUMB_TRY(device.flush(piece.at, piece.length));
    touched = true;
  }
  // Zeros durable, on the device of the data, before the size record that shows them, which is on the main device.
  if (touched) PLUMB_TRY(device.drain());
  const bool all = allocated_end(inode.extents) * block_size <= limit;
  if (tail_stays_unknown(inode))
    tail = UnknownTail{};
  else if (all)
    tail.clear();
  else
    tail.from = limit;
  return {};
}

// ---- fallocate ----

bool VolumeImpl::has_room_for(const Inode& inode, std::uint64_t first, std::uint64_t end) {
  const DeviceRole role = role_of(inode.media);
  const Allocator& space = store.allocator(role);
  const std::uint64_t holes = holes_between(inode.extents, first, end);
  return holes == 0 || holes / superblock.unit_blocks(role) + space.reserve_blocks() <= space.free_blocks();
}

// Fills the holes of [first, end), in steps; each is one transaction.
Status VolumeImpl::allocate_blocks(Inode& inode, std::uint64_t first, std::uint64_t end, std::uint64_t file_bytes) {
  const DeviceRole role = role_of(inode.media);
  const std::uint64_t step = std::max(kAllocateStepBlocks, superblock.unit_blocks(role));
  while (first < end) {
    const std::uint64_t step_end = std::min(end, first + step);
    FreshBlocks fresh(store, role);
    PLUMB_ASSIGN(const std::uint64_t stopped, fresh.fill(inode.extents, first, step_end, file_bytes));
    if (!fresh.empty()) {
      Transaction t(store);
      media::Inode next = inode.media;
      auto build = [&]() -> Result<Sequence> {
        PLUMB_TRY(fresh.add_to(t, next, inode.extents));
        PLUMB_TRY(table.put(t, next));
        return t.commit();
      };
      const Result<Sequence> committed = build();
      if (!committed) {
        forget_extents(inode);
        return tl::unexpected(committed.error());
      }
      adopt(inode, next, *committed, true);
      fresh.commit();
    }
    first = stopped;  // ENOSPC shows on the next round, when nothing at all can be had
  }
  return {};
}

Status VolumeImpl::punch(Inode& inode, std::uint64_t offset, std::uint64_t end) {
  if (inode.leases != nullptr) {
    // Somebody may have the blocks mapped.
    PLUMB_TRY(zero_file_range(inode, offset, end));
    inode.leases->punched.add(offset, end);
    return {};
  }
  const std::uint64_t block_size = store.block_size();
  // Beyond the end of the file too: preallocated blocks go. The units at the edges are zeroed in place.
  const std::uint64_t unit = superblock.unit_blocks(role_of(inode.media));
  const std::uint64_t first = first_block_beyond(inode.media, offset);
  const std::uint64_t last = end / block_size / unit * unit;
  if (first > last || first * block_size > end) return zero_file_range(inode, offset, end);
  if (offset < first * block_size) PLUMB_TRY(zero_file_range(inode, offset, std::min(end, first * block_size)));
  if (last * block_size < end) PLUMB_TRY(zero_file_range(inode, last * block_size, end));
  return remove_blocks(inode, first, last);
}

Status VolumeImpl::remove_blocks(Inode& inode, std::uint64_t first, std::uint64_t last) {
  for (bool done = first >= last; !done;) {
    Transaction t(store, Transaction::Privilege::kMayUseReserve);
    media::Inode next = inode.media;
    auto step = [&]() -> Result<bool> {
      PLUMB_ASSIGN(const bool all, remove_extents(t, next, inode.extents, FileBlock(first), FileBlock(last), 256));
      PLUMB_TRY(settle_extents(t, next, inode.extents));
      PLUMB_TRY(table.put(t, next));
      return all;
    };
    const Result<bool> all = step();
    const Result<Sequence> committed = all ? t.commit() : Result<Sequence>(tl::unexpected(all.error()));
    if (!committed) {
      forget_extents(inode);
      return tl::unexpected(committed.error());
    }
    adopt(inode, next, *committed, true);
    done = *all;
  }
  return {};
}

// The last transaction of a fallocate: size and times.
Status VolumeImpl::finish_allocate(Inode& inode, std::uint64_t size_bytes, bool kill_setid) {
  Transaction t(store);
  media::Inode next = inode.media;
  const bool grows = size_bytes > next.size_bytes;
  if (grows) next.size_bytes = size_bytes;
  const Timestamp time = now();
  set_mtime(next, time);
  set_ctime(next, time);
  if (kill_setid) next.mode = without_setid(next.mode);
  PLUMB_TRY(drop_capability(t, next));
  PLUMB_TRY(table.put(t, next));
  PLUMB_ASSIGN(const Sequence sequence, t.commit());
  adopt(inode, next, sequence, grows);
  return {};
}

Status Volume::allocate(FileHandle& handle, int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                        const Caller& caller) {
  VolumeImpl& v = *impl_;
  Inode& inode = *handle.inode;
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const int kind = mode & ~FALLOC_FL_KEEP_SIZE;
  if (kind != 0 && kind != FALLOC_FL_PUNCH_HOLE && kind != FALLOC_FL_ZERO_RANGE) return fail(EOPNOTSUPP);
  if (kind == FALLOC_FL_PUNCH_HOLE && !keep_size) return fail(EOPNOTSUPP);
  if (length_bytes == 0) return fail(EINVAL);
  if (offset_bytes > kMaxFileSize || length_bytes > kMaxFileSize - offset_bytes) return fail(EFBIG);
  const std::uint64_t end = offset_bytes + length_bytes;
  const Status status = v.with_space([&]() -> Status {
    ExclusiveLock lock(inode.lock);
    if (!S_ISREG(inode.media.mode)) return fail(S_ISDIR(inode.media.mode) ? EISDIR : ENODEV);
    if ((inode.media.flags & kInodeImmutable) != 0) return fail(EPERM);
    if ((inode.media.flags & kInodeAppend) != 0 && kind != 0) return fail(EPERM);
    if (v.store.read_only()) return fail(EROFS);
    PLUMB_TRY(load_extents(v.store, inode));
    const std::uint64_t block_size = v.store.block_size();
    const bool grows = !keep_size && end > inode.media.size_bytes;
    if (grows) PLUMB_TRY(v.prepare_extension(inode, end));
    if (kind == FALLOC_FL_PUNCH_HOLE) {
      PLUMB_TRY(v.punch(inode, offset_bytes, end));
    } else {
      if (kind == FALLOC_FL_ZERO_RANGE) PLUMB_TRY(v.zero_file_range(inode, offset_bytes, end));
      const DeviceRole role = v.role_of(inode.media);
      const std::uint64_t unit = v.superblock.unit_blocks(role);
      const std::uint64_t first = offset_bytes / block_size / unit * unit;
      const std::uint64_t last = v.first_block_beyond(inode.media, end);
      // All or nothing, as far as can be known beforehand.
      if (!v.has_room_for(inode, first, last)) return fail(ENOSPC);
      PLUMB_TRY(v.allocate_blocks(inode, first, last, std::max<std::uint64_t>(end, inode.media.size_bytes)));
      if (inode.leases != nullptr) inode.leases->punched.remove(first * block_size, last * block_size);
    }
    return v.finish_allocate(inode, grows ? end : 0, !caller.may_keep_setid);
  });
  v.throttle_reclaim();
  const bool sync = handle.sync || handle.dsync || v.options.sync || (inode.flags_hint() & kInodeSync) != 0;
  if (status && sync) return fsync(handle, FsyncMode::kFull);
  return status;
}

}  // namespace plumb
