// read, write, lseek, copy_file_range.
//
// A write within allocated blocks and the old size that changes no time takes the inode's lock shared and no other.
// Anything else is: allocate out of a durable window, store the data, make it durable (immediate), and one transaction
// that makes it part of the file.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "fs/core/extents.h"
#include "fs/core/file_stores.h"
#include "fs/core/fresh_blocks.h"
#include "fs/core/volume_impl.h"
#include "fs/core/xattr.h"
#include "pmem/sigbus_guard.h"

namespace plumb {
namespace {

constexpr std::uint64_t kCopyStepBytes = 1u << 20;

std::uint64_t total_bytes(std::span<const iovec> data) {
  std::uint64_t sum = 0;
  for (const iovec& v : data) sum += v.iov_len;
  return sum;
}

bool times_are(const media::Inode& inode, Timestamp t) {
  const auto seconds = static_cast<std::uint64_t>(t.seconds);
  return inode.mtime == seconds && inode.mtime_ns == t.nanoseconds && inode.ctime == seconds &&
         inode.ctime_ns == t.nanoseconds;
}
}  // namespace

void VolumeImpl::mark_stored(Inode& inode, DeviceRole role, std::uint64_t at, std::uint64_t length) {
  if (immediate(superblock.device(role))) return;
  inode.dirty(role).add(at, length);
  mark_dirty(inode);
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
  return holes_between(inode.extents, offset / block_size, (offset + length + block_size - 1) / block_size) == 0;
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
    PLUMB_TRY(fresh.add_to(t, next, inode.extents));
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
