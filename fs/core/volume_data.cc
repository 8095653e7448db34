// read, write, fallocate, lseek, copy_file_range.
//
// A write within allocated blocks and the old size that changes no time takes the inode's lock shared and no other.
// Anything else is: allocate out of a durable window, store the data, make it durable (immediate), and one transaction
// that makes it part of the file.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "fs/core/extents.h"
#include "fs/core/file_bytes.h"
#include "fs/core/volume_impl.h"
#include "fs/core/xattr.h"
#include "pmem/sigbus_guard.h"

namespace plumb {
namespace {

constexpr std::uint64_t kBigFileBytes = media::kChunkBytes;
constexpr std::uint64_t kCopyStepBytes = 1u << 20;
constexpr std::uint64_t kAllocateStepBlocks = 16384;
constexpr std::size_t kMaxFreshExtents = 512;

// Walks the bytes of an iovec.
class Source {
 public:
  Source(std::span<const iovec> data, std::uint64_t skip_bytes) : data_(data) {
    while (skip_bytes != 0) skip_bytes -= take(skip_bytes).size();
  }
  // The next piece, at most `most` bytes; advances past it.
  std::span<const std::byte> take(std::uint64_t most) {
    while (data_[index_].iov_len == within_) ++index_, within_ = 0;
    const std::size_t count = std::min<std::uint64_t>(most, data_[index_].iov_len - within_);
    const std::span<const std::byte> piece(static_cast<const std::byte*>(data_[index_].iov_base) + within_, count);
    within_ += count;
    return piece;
  }

 private:
  std::span<const iovec> data_;
  std::size_t index_ = 0, within_ = 0;
};

std::uint64_t total_bytes(std::span<const iovec> data) {
  std::uint64_t sum = 0;
  for (const iovec& v : data) sum += v.iov_len;
  return sum;
}

bool covered(const ExtentMap& extents, std::uint64_t first, std::uint64_t end) {
  while (first < end) {
    const auto it = find_extent(extents, first);
    if (it == extents.end()) return false;
    first = it->first + it->second.length;
  }
  return true;
}

// Blocks of [first, end) that no extent covers.
std::uint64_t holes_between(const ExtentMap& extents, std::uint64_t first, std::uint64_t end) {
  std::uint64_t holes = end - first;
  auto it = extents.upper_bound(first);
  if (it != extents.begin()) --it;
  for (; it != extents.end() && it->first < end; ++it) {
    const std::uint64_t from = std::max(first, it->first);
    const std::uint64_t to = std::min(end, it->first + it->second.length);
    if (from < to) holes -= to - from;
  }
  return holes;
}

std::uint32_t without_setid(std::uint32_t mode) {
  mode &= ~static_cast<std::uint32_t>(S_ISUID);
  if ((mode & S_IXGRP) != 0) mode &= ~static_cast<std::uint32_t>(S_ISGID);
  return mode;
}

bool times_are(const media::Inode& inode, Timestamp t) {
  const auto seconds = static_cast<std::uint64_t>(t.seconds);
  return inode.mtime == seconds && inode.mtime_ns == t.nanoseconds && inode.ctime == seconds &&
         inode.ctime_ns == t.nanoseconds;
}

// Blocks taken for an operation and not yet part of a file. What is left when it goes is zeroed and given back.
class FreshBlocks {
 public:
  FreshBlocks(Store& store, DeviceRole role) : store_(store), role_(role) {}
  FreshBlocks(const FreshBlocks&) = delete;
  FreshBlocks& operator=(const FreshBlocks&) = delete;
  ~FreshBlocks() {
    for (const auto& [file_block, extent] : map_)
      store_.abandon_data(role_, {BlockNumber(extent.device_block), extent.length});
  }

  // Fills [first, end) of the file, whole units, where `extents` has holes, as far as there is space; returns where it
  // stopped.
  Result<std::uint64_t> fill(const ExtentMap& extents, std::uint64_t first, std::uint64_t end,
                             std::uint64_t file_bytes) {
    std::uint64_t block = first;
    while (block < end) {
      const auto it = find_extent(extents, block);
      if (it != extents.end()) {
        block = it->first + it->second.length;
        continue;
      }
      const auto next = extents.upper_bound(block);
      const std::uint64_t hole_end = next == extents.end() ? end : std::min(end, next->first);
      Allocator::DataRequest request;
      request.file_block = block;
      request.blocks = hole_end - block;
      const bool big = block * store_.block_size() >= kBigFileBytes || file_bytes >= 2 * kBigFileBytes;
      request.size_class = big ? Allocator::Class::kBig : Allocator::Class::kSmall;
      request.goal = BlockNumber(goal(extents, block));
      const Result<BlockRange> range = store_.allocate_data(role_, request, map_.empty());
      if (!range) {
        const bool short_of = range.error().code == ENOSPC || range.error().code == EAGAIN;
        if (short_of && block > first) return block;
        return tl::unexpected(range.error());
      }
      map_.emplace(block, Extent{range->start.value, range->length});
      block += range->length;
      if (map_.size() >= kMaxFreshExtents) break;  // what one record can hold; the caller goes on from there
    }
    return std::min(block, end);
  }

  [[nodiscard]] const ExtentMap& map() const { return map_; }
  [[nodiscard]] bool empty() const { return map_.empty(); }

  // They belong to the file: the transaction that says so is committed.
  void commit() {
    for (const auto& [file_block, extent] : map_)
      store_.settle_data(role_, {BlockNumber(extent.device_block), extent.length});
    map_.clear();
  }

 private:
  // The block behind the one before, so that extents grow.
  [[nodiscard]] std::uint64_t goal(const ExtentMap& extents, std::uint64_t block) const {
    if (block == 0) return 0;
    for (const ExtentMap* map : {&map_, &extents}) {
      const auto it = find_extent(*map, block - 1);
      if (it == map->end()) continue;
      return it->second.device_block + (block - it->first);
    }
    return 0;
  }

  Store& store_;
  const DeviceRole role_;
  ExtentMap map_;
};

// Stores bytes of a file into its blocks: what is allocated already, and what is fresh.
class FileStores {
 public:
  FileStores(VolumeImpl& v, Inode& inode)
      : v_(v),
        inode_(inode),
        role_(v.role_of(inode.media)),
        device_(v.superblock.device(role_)),
        streaming_(v.immediate(device_) || !device_.is_memory()) {}

  Status store(const ExtentMap& fresh, std::uint64_t offset, std::uint64_t length, Source source) {
    const std::uint64_t block_size = v_.store.block_size();
    while (length != 0) {
      const std::uint64_t block = offset / block_size;
      const ExtentMap* map = &inode_.extents;
      auto it = find_extent(*map, block);
      if (it == map->end()) {
        map = &fresh;
        it = find_extent(*map, block);
        if (it == map->end()) return fail(EUCLEAN, "write: block is not allocated");
      }
      const std::uint64_t in_extent = offset - it->first * block_size;
      std::uint64_t room = std::min(length, it->second.length * block_size - in_extent);
      const std::uint64_t start = it->second.device_block * block_size + in_extent;
      const std::uint64_t count = room;
      Status status;
      for (std::uint64_t at = start; room != 0 && status;) {
        const std::span<const std::byte> piece = source.take(room);
        status = store_file_bytes(device_, at, piece, streaming_);
        at += piece.size();
        room -= piece.size();
        offset += piece.size();
        length -= piece.size();
      }
      // After the store: a walk that took the range before it would not have flushed it.
      v_.mark_stored(inode_, role_, start, count);
      PLUMB_TRY(status);
    }
    return {};
  }

  // Zeroes what is allocated in [offset, end).
  Status zero(std::uint64_t offset, std::uint64_t end) {
    const std::uint64_t block_size = v_.store.block_size();
    auto it = inode_.extents.upper_bound(offset / block_size);
    if (it != inode_.extents.begin()) --it;
    for (; it != inode_.extents.end() && it->first * block_size < end; ++it) {
      const std::uint64_t start = it->first * block_size;
      const std::uint64_t from = std::max(offset, start);
      const std::uint64_t to = std::min(end, start + it->second.length * block_size);
      if (from >= to) continue;
      const std::uint64_t at = it->second.device_block * block_size + (from - start);
      const Status status = zero_file_bytes(device_, at, to - from);
      v_.mark_stored(inode_, role_, at, to - from);
      PLUMB_TRY(status);
    }
    return {};
  }

  // Immediate: what was stored is durable. Deferred and page-cached: it is in the inode's dirty ranges.
  // Streaming stores of this thread are drained here in any case: no other thread's drain covers them.
  Status finish() { return device_.is_memory() ? device_.drain() : Status{}; }

 private:
  VolumeImpl& v_;
  Inode& inode_;
  const DeviceRole role_;
  pmem::Device& device_;
  const bool streaming_;
};

}  // namespace

void VolumeImpl::mark_stored(Inode& inode, DeviceRole role, std::uint64_t at, std::uint64_t length) {
  if (immediate(superblock.device(role))) return;
  inode.dirty(role).add(at, length);
  mark_dirty(inode);
}

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
  auto it = inode.extents.upper_bound(begin / block_size);
  if (it != inode.extents.begin()) --it;
  bool touched = false;
  bool all = true;
  for (; it != inode.extents.end(); ++it) {
    const std::uint64_t start = it->first * block_size;
    const std::uint64_t extent_end = start + it->second.length * block_size;
    const std::uint64_t from = std::max(start, begin);
    const std::uint64_t end = std::min(extent_end, limit);
    if (extent_end > limit) all = false;
    if (end <= from) continue;
    // These bytes are still part of the durable file until the record that cut them off is durable.
    if (!touched) PLUMB_TRY(store.journal().force(Sequence(inode.last_sequence.load())));
    const std::uint64_t at = it->second.device_block * block_size + (from - start);
    // Stored also where it reads as zeros, on a page-cached device: after a failed msync the page counts as clean.
    PLUMB_ASSIGN(const bool zero, device.is_zero(at, end - from));
    if (!zero || !device.is_memory()) PLUMB_TRY(zero_file_bytes(device, at, end - from));
    // Flushed in any case: what reads as zeros may be newer than the medium.
    PLUMB_TRY(device.flush(at, end - from));
    touched = true;
  }
  // Zeros durable, on the device of the data, before the size record that shows them, which is on the main device.
  if (touched) PLUMB_TRY(device.drain());
  if (tail_stays_unknown(inode))
    tail = UnknownTail{};
  else if (all)
    tail.clear();
  else
    tail.from = limit;
  return {};
}

// ---- read ----

Result<ReadPin> Volume::read(Inode& inode, std::uint64_t offset_bytes, std::uint64_t length_bytes, bool keep_atime) {
  VolumeImpl& v = *impl_;
  if (length_bytes != 0 && !keep_atime) (void)v.touch_atime(inode);  // a full log does not fail a read
  {
    SharedLock lock(inode.lock);
    if (!S_ISREG(inode.media.mode)) return fail(S_ISDIR(inode.media.mode) ? EISDIR : EINVAL);
    if (inode.extents_loaded) return v.read_locked(inode, offset_bytes, length_bytes);
  }
  {
    ExclusiveLock lock(inode.lock);
    PLUMB_TRY(load_extents(v.store, inode));
    return v.read_locked(inode, offset_bytes, length_bytes);
  }
}

Result<ReadPin> VolumeImpl::read_locked(Inode& inode, std::uint64_t offset, std::uint64_t length) {
  ReadPin pin;
  const std::uint64_t size = inode.media.size_bytes;
  if (offset >= size || length == 0) return pin;
  length = std::min(length, size - offset);
  // Not even a copy by the kernel is to touch what is known to be poison.
  if (const auto bad = bad_blocks_of(inode, offset, offset + length); !bad.empty())
    return bad_block_error(role_of(inode.media), bad.front().device_block);
  pin.length_bytes = length;
  attach(pin, store.epochs().pin());
  pmem::Device& device = superblock.data_device(inode.media.flags);
  const std::uint64_t block_size = store.block_size();
  auto it = inode.extents.upper_bound(offset / block_size);
  if (it != inode.extents.begin()) --it;
  while (length != 0) {
    while (it != inode.extents.end() && (it->first + it->second.length) * block_size <= offset) ++it;
    const std::uint64_t extent_start = it == inode.extents.end() ? kMaxFileSize + 1 : it->first * block_size;
    std::uint64_t count = 0;
    const std::byte* from = nullptr;
    if (extent_start > offset) {
      count = std::min({length, extent_start - offset, Store::kZeroBytes});
      from = store.zeros();
    } else {
      const std::uint64_t within = offset - extent_start;
      count = std::min(length, it->second.length * block_size - within);
      from = device.view(it->second.device_block * block_size + within, count);
    }
    pin.iov.push_back({const_cast<std::byte*>(from), count});
    offset += count;
    length -= count;
  }
  return pin;
}

// ---- write ----

// True if nothing but bytes changes: no allocation, no size, no times, no mode.
bool VolumeImpl::write_is_plain(const Inode& inode, std::uint64_t offset, std::uint64_t length, bool kill_setid) {
  if (!inode.extents_loaded || offset + length > inode.media.size_bytes) return false;
  if (kill_setid && without_setid(inode.media.mode) != inode.media.mode) return false;
  if (inode.media.xattrs.block != 0 && read_xattr(store, inode.media, kCapabilityName)) return false;
  if (!times_are(inode.media, now())) return false;
  if (!bad_blocks_of(inode, offset, offset + length).empty()) return false;  // they change the list
  const std::uint64_t block_size = store.block_size();
  return covered(inode.extents, offset / block_size, (offset + length + block_size - 1) / block_size);
}

Result<std::uint64_t> VolumeImpl::write_exclusive(Inode& inode, std::uint64_t offset, std::uint64_t length,
                                                  std::span<const iovec> data, std::uint64_t skip_bytes,
                                                  bool kill_setid) {
  PLUMB_TRY(load_extents(store, inode));
  const std::uint64_t block_size = store.block_size();
  length = end_with_few_bad(inode, offset, offset + length) - offset;
  PLUMB_ASSIGN(std::vector<FileBadBlock> renewed, renew_bad_blocks(inode, offset, offset + length));
  if (offset + length > inode.media.size_bytes) PLUMB_TRY(prepare_extension(inode, offset + length));
  const UnknownTail tail_before = inode.tail;
  const DeviceRole role = role_of(inode.media);
  const std::uint64_t unit = superblock.unit_blocks(role);
  FreshBlocks fresh(store, role);
  const std::uint64_t first = offset / block_size / unit * unit;
  const std::uint64_t last = first_block_beyond(inode.media, offset + length);
  const std::uint64_t file_bytes = std::max<std::uint64_t>(inode.media.size_bytes, offset + length);
  PLUMB_ASSIGN(const std::uint64_t stopped, fresh.fill(inode.extents, first, last, file_bytes));
  if (stopped < last)
    length = std::min(length, stopped * block_size - offset);  // a short write: what there was space for
  // What the write does not come to stays on the list.
  std::erase_if(renewed, [&](const FileBadBlock& bad) { return bad.file_block * block_size >= offset + length; });
  const bool grows = offset + length > inode.media.size_bytes;
  // Until the commit, stores beyond the end are bytes beyond the end.
  if (grows) inode.tail.add(inode.media.size_bytes, offset + length);
  FileStores stores(*this, inode);
  PLUMB_TRY(stores.store(fresh.map(), offset, length, Source(data, skip_bytes)));
  // Data durable (immediate) before the record that makes it part of the file.
  PLUMB_TRY(stores.finish());

  Transaction t(store);
  media::Inode next = inode.media;
  auto build = [&]() -> Result<Sequence> {
    for (const auto& [file_block, extent] : fresh.map()) {
      const BlockRange range{BlockNumber(extent.device_block), extent.length};
      PLUMB_TRY(t.set_bitmap(role, range, true));
      PLUMB_TRY(insert_extent(t, next, inode.extents, FileBlock(file_block), range));
    }
    if (!fresh.empty()) PLUMB_TRY(settle_extents(t, next, inode.extents));
    PLUMB_TRY(forget_bad_blocks(t, role, renewed));
    if (grows) next.size_bytes = offset + length;
    const Timestamp time = now();
    set_mtime(next, time);
    set_ctime(next, time);
    if (kill_setid) next.mode = without_setid(next.mode);
    PLUMB_TRY(drop_capability(t, next));
    PLUMB_TRY(table.put(t, next));
    return t.commit();
  };
  const Result<Sequence> committed = build();
  if (!committed) {
    forget_extents(inode);
    return tl::unexpected(committed.error());
  }
  adopt(inode, next, *committed, grows || !fresh.empty() || !renewed.empty());
  fresh.commit();
  if (grows) inode.tail = tail_before;
  return length;
}

Result<std::uint64_t> Volume::write(FileHandle& handle, std::uint64_t offset_bytes, std::span<const iovec> data,
                                    const Caller& caller, bool from_page_cache) {
  VolumeImpl& v = *impl_;
  Inode& inode = *handle.inode;
  std::uint64_t length = total_bytes(data);
  if (length == 0) return 0;
  if (v.store.read_only()) return fail(EROFS);
  const bool append = handle.append && !from_page_cache;
  const bool kill_setid = !caller.may_keep_setid && !from_page_cache;
  if (!append) {
    if (offset_bytes >= kMaxFileSize) return fail(EFBIG);
    length = std::min(length, kMaxFileSize - offset_bytes);
  }
  Result<std::uint64_t> written = std::uint64_t{0};
  {
    SharedLock lock(inode.lock);
    if (!S_ISREG(inode.media.mode)) return fail(EINVAL);
    if (!append && v.write_is_plain(inode, offset_bytes, length, kill_setid)) {
      FileStores stores(v, inode);
      PLUMB_TRY(stores.store({}, offset_bytes, length, Source(data, 0)));
      // Durable before the reply (immediate).
      PLUMB_TRY(stores.finish());
      written = length;
    }
  }
  // In as many transactions as it takes: one, but for a fragmented or nearly full file system.
  std::uint64_t done = *written;
  std::uint64_t start = offset_bytes;
  while (done < length) {
    const Result<std::uint64_t> step = v.with_space([&]() -> Result<std::uint64_t> {
      ExclusiveLock lock(inode.lock);
      if (append && done == 0) {
        start = inode.media.size_bytes;
        if (start >= kMaxFileSize) return fail(EFBIG);
        length = std::min(length, kMaxFileSize - start);
      }
      return v.write_exclusive(inode, start + done, length - done, data, done, kill_setid);
    });
    if (!step && done == 0) return step;
    if (!step) break;  // a short write
    done += *step;
  }
  written = done;
  const bool sync = handle.sync || handle.dsync || v.options.sync || (inode.flags_hint() & kInodeSync) != 0;
  // As fsync of this handle: an error that is told here is not told again.
  if (sync && !from_page_cache) PLUMB_TRY(fsync(handle, handle.dsync ? FsyncMode::kDataOnly : FsyncMode::kFull));
  return written;
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
        for (const auto& [file_block, extent] : fresh.map()) {
          const BlockRange range{BlockNumber(extent.device_block), extent.length};
          PLUMB_TRY(t.set_bitmap(role, range, true));
          PLUMB_TRY(insert_extent(t, next, inode.extents, FileBlock(file_block), range));
        }
        PLUMB_TRY(settle_extents(t, next, inode.extents));
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

// ---- lseek, copy_file_range, open ----

Result<std::uint64_t> Volume::seek(Inode& inode, std::uint64_t offset_bytes, int whence) {
  VolumeImpl& v = *impl_;
  ExclusiveLock lock(inode.lock);
  if (!S_ISREG(inode.media.mode)) return fail(EINVAL);
  PLUMB_TRY(load_extents(v.store, inode));
  const std::uint64_t size = inode.media.size_bytes;
  if (offset_bytes >= size) return fail(ENXIO);
  const std::uint64_t block_size = v.store.block_size();
  const ExtentMap& extents = inode.extents;
  std::uint64_t block = offset_bytes / block_size;
  auto it = find_extent(extents, block);
  if (whence == SEEK_DATA) {
    if (it != extents.end()) return offset_bytes;
    it = extents.upper_bound(block);
    if (it == extents.end() || it->first * block_size >= size) return fail(ENXIO);
    return it->first * block_size;
  }
  if (whence != SEEK_HOLE) return fail(EINVAL);
  if (it == extents.end()) return offset_bytes;
  while (it != extents.end()) {
    block = it->first + it->second.length;
    it = find_extent(extents, block);
  }
  return std::min(block * block_size, size);
}

Result<std::uint64_t> Volume::copy_range(FileHandle& from, std::uint64_t from_offset_bytes, FileHandle& to,
                                         std::uint64_t to_offset_bytes, std::uint64_t length_bytes,
                                         const Caller& caller) {
  std::uint64_t copied = 0;
  std::vector<std::byte> bounce;
  while (copied < length_bytes) {
    {
      // Copied out first: a pin is never held while a write waits for space or a lock.
      PLUMB_ASSIGN(const ReadPin pin,
                   read(*from.inode, from_offset_bytes + copied, std::min(kCopyStepBytes, length_bytes - copied)));
      if (pin.length_bytes == 0) break;
      bounce.resize(pin.length_bytes);
      std::size_t at = 0;
      for (const iovec& piece : pin.iov) {
        if (!pmem::guarded_copy(bounce.data() + at, piece.iov_base, piece.iov_len)) {
          note_unreadable(pin);
          return fail(EIO, "inode " + std::to_string(from.inode->number().value) + ": data cannot be read");
        }
        at += piece.iov_len;
      }
    }
    const iovec piece{bounce.data(), bounce.size()};
    // copy_file_range(2) has offsets of its own; the kernel refuses O_APPEND before it comes here.
    const Result<std::uint64_t> written = write(to, to_offset_bytes + copied, std::span(&piece, 1), caller);
    if (!written) {
      if (copied != 0) break;
      return written;
    }
    copied += *written;
    if (*written < bounce.size()) break;
  }
  return copied;
}

Result<std::unique_ptr<FileHandle>> Volume::open(Inode& inode, int flags) {
  auto handle = std::make_unique<FileHandle>();
  const int access = flags & O_ACCMODE;
  handle->writable = access != O_RDONLY;
  handle->append = (flags & O_APPEND) != 0;
  handle->sync = (flags & O_SYNC) == O_SYNC;
  handle->dsync = !handle->sync && (flags & O_DSYNC) != 0;
  {
    SharedLock lock(inode.lock);
    const bool changes = handle->writable || (flags & O_TRUNC) != 0;
    if (changes && (inode.media.flags & kInodeImmutable) != 0) return fail(EPERM);
    if (changes && (inode.media.flags & kInodeAppend) != 0 && (!handle->append || (flags & O_TRUNC) != 0))
      return fail(EPERM);
    if (handle->writable && impl_->store.read_only()) return fail(EROFS);
  }
  // An error that nobody has been told yet is told to who opens the file after it, too.
  handle->seen_error = inode.reported_errors.load(std::memory_order_acquire);
  handle->inode = impl_->reference(inode);
  return handle;
}

}  // namespace plumb
