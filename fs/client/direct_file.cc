#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "fs/client/answers.h"
#include "fs/client/direct.h"
#include "fs/client/kernel.h"
#include "fs/client/own_descriptors.h"
#include "fs/client/registry_lock.h"

namespace plumb::client {
namespace {

// What open() asks for: more than any file has, and within what the kernel allows.
constexpr std::uint64_t kWholeFile = std::uint64_t{1} << 60;
// vm.max_map_count is 65530 by default, for the whole program.
constexpr std::size_t kMostPieces = 30000;
constexpr std::uint64_t kPageBytes = 4096;  // x86-64
// Pieces of one request that are looked up at a time.
constexpr std::size_t kBatch = 16;

std::uint64_t load(const std::uint64_t& word, std::memory_order order) {
  return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(word)).load(order);
}

std::uint64_t clock_ns() {
  timespec now = {};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

int fail(int error) {
  errno = error;
  return -1;
}

}  // namespace

// ---- Leases ----

int DirectFile::ask(protocol::Lease* lease, std::uint64_t offset, std::uint64_t length,
                    std::uint32_t flags) const noexcept {
  std::memset(lease, 0, offsetof(protocol::Lease, extents));
  lease->version = protocol::kVersion;
  lease->flags = flags;
  lease->offset_bytes = offset;
  lease->length_bytes = length;
  if (kernel::control(fd_.load(std::memory_order_relaxed), protocol::kIocLease, lease) != 0) return errno;
  return is_sound(*lease, offset, length, mount_->devices()) ? 0 : EPROTO;
}

int DirectFile::add(const protocol::Lease& lease) noexcept {
  // The inode and its slot never change while there is a lease; they do if the descriptor is another file's by now.
  if (lease.inode != inode_ || lease.slot != slot_number_ || lease.member != member_) return EPROTO;
  const RegistryLock lock;
  for (std::uint32_t i = 0; i < lease.extent_count; ++i) {
    if (const int error = extents_.add(lease.extents[i]); error != 0) return error;
  }
  return 0;
}

// The first lease: of what is allocated.
int DirectFile::start(bool writable) noexcept {
  auto* lease = static_cast<protocol::Lease*>(std::malloc(sizeof(protocol::Lease)));
  if (lease == nullptr) return ENOMEM;
  writable_ = writable;
  int error = ask(lease, 0, kWholeFile, writable ? protocol::kLeaseWrite : 0);
  if (writable && (error == EPERM || error == EROFS)) {
    // Writes are the kernel's to refuse, or to do with what belongs to them.
    writable_ = false;
    error = ask(lease, 0, kWholeFile, 0);
  }
  if (error == 0) {
    member_ = lease->member;
    is_memory_ = mount_->is_memory(member_);
    base_ = mount_->base(member_);
    epoch_ = lease->epoch;
    inode_ = lease->inode;
    slot_number_ = lease->slot;
    slot_ = mount_->slot(slot_number_);
    error = add(*lease);
  }
  const std::uint64_t known = lease->offset_bytes + lease->length_bytes;
  const bool is_cut = error == 0 && lease->extent_count == protocol::kLeaseExtentsMax && known > 0;
  std::free(lease);
  // More of them than one answer holds.
  if (is_cut && learn(known, kWholeFile - known, 0) != 0) error = errno;
  return error;
}

void DirectFile::prepare_map(int fd) noexcept {
  int error = 0;
  const Mount* mount = Mount::of(fd, true, &error, nullptr, 0);
  if (mount == nullptr || mount->devices().slot_count == 0) return;
  protocol::Align question = {};
  question.version = protocol::kVersion;
  question.flags = protocol::kAlignKeepHoles;
  if (mount->devices().members[0].align_bytes == kPageBytes) {
    // As the kernel knows it: there are no more pieces than blocks.
    struct statx status = {};
    const bool is_known = kernel::stat_cached(fd, STATX_BLOCKS, &status) == 0;
    if (!is_known || status.stx_blocks * 512 / mount->devices().block_size_bytes <= kMostPieces) return;
    question.most_pieces = kMostPieces;
  }
  // The kernel tells the daemon of a close, which may have ended the last lease, when it gets round to it.
  constexpr int kTries = 20;
  for (int i = 0; i < kTries; ++i) {
    if (kernel::control(fd, protocol::kIocAlign, &question) == 0 || errno != EBUSY) return;
    const timespec wait = {0, 1'000'000};
    nanosleep(&wait, nullptr);
  }
}

DirectFile* DirectFile::open(int fd, bool writable, int* error, char* why, std::size_t why_bytes) noexcept {
  const Mount* mount = Mount::of(fd, writable, error, why, why_bytes);
  if (mount == nullptr) return nullptr;
  if (mount->devices().slot_count == 0) {
    Why{why, why_bytes}.tell("no direct access: the file system is mounted read-only, or its lease slots are lost");
    *error = EOPNOTSUPP;
    return nullptr;
  }
  void* memory = std::malloc(sizeof(DirectFile));
  if (memory == nullptr) {
    *error = ENOMEM;
    return nullptr;
  }
  *error = mount->hold(why, why_bytes);
  if (*error != 0) {
    std::free(memory);
    return nullptr;
  }
  auto* file = new (memory) DirectFile;
  file->mount_ = mount;
  file->fd_.store(fd, std::memory_order_relaxed);
  *error = file->start(writable);
  if (*error == 0) return file;
  Why{why, why_bytes}.tell("no direct access to this file: %s", std::strerror(*error));
  destroy(file);
  return nullptr;
}

void DirectFile::destroy(DirectFile* file) noexcept {
  if (file == nullptr) return;
  const Mount* mount = file->mount_;
  file->~DirectFile();
  std::free(file);
  mount->release();
}

int DirectFile::learn(std::uint64_t offset, std::uint64_t length, std::uint32_t flags) noexcept {
  if (writable_) flags |= protocol::kLeaseWrite;
  if ((flags & protocol::kLeaseMap) == 0 && extents_.covers(offset, length)) return 0;
  auto* lease = static_cast<protocol::Lease*>(std::malloc(sizeof(protocol::Lease)));
  if (lease == nullptr) return fail(ENOMEM);
  int error = 0;
  while (length > 0) {
    error = ask(lease, offset, length, flags);
    if (error == 0) error = add(*lease);
    if (error != 0 || lease->length_bytes == 0) break;
    const std::uint64_t next = lease->offset_bytes + lease->length_bytes;
    if (next <= offset) {
      error = EPROTO;
      break;
    }
    // The file ends there, or the question.
    if (next >= round_up(lease->size_bytes, mount_->devices().block_size_bytes) || next - offset >= length) break;
    length -= next - offset;
    offset = next;
  }
  std::free(lease);
  return error == 0 ? 0 : fail(error);
}

// ---- Reading and writing ----

// Read after what else was read from the slot: had that been the next mount's, the epoch is its, too.
bool DirectFile::is_alive() const noexcept {
  return load(slot_->epoch, std::memory_order_acquire) == epoch_;
}

bool DirectFile::size(std::uint64_t* bytes) const noexcept {
  *bytes = load(slot_->size_bytes, std::memory_order_acquire);
  return is_alive();
}

ssize_t DirectFile::read(void* to, std::size_t length, std::uint64_t offset) noexcept {
  std::uint64_t end = 0;
  if (!size(&end)) return kNotHere;
  if (offset >= end || length == 0) return 0;
  const std::uint64_t wanted = std::min<std::uint64_t>(length, end - offset);
  auto* target = static_cast<std::byte*>(to);
  std::uint64_t done = 0;
  while (done < wanted) {
    ExtentTable::Piece pieces[kBatch];
    const std::size_t found = extents_.find(offset + done, wanted - done, pieces, kBatch);
    // What has been copied before a hole is copied again by the kernel.
    if (found == 0) return kNotHere;
    for (std::size_t i = 0; i < found; ++i) {
      std::memcpy(target + done, base_ + pieces[i].device_offset, pieces[i].length);
      done += pieces[i].length;
    }
  }
  return static_cast<ssize_t>(wanted);
}

ssize_t DirectFile::write(const void* from, std::size_t length, std::uint64_t offset) noexcept {
  if (!writable_ || length == 0 ||
      (load(slot_->state, std::memory_order_acquire) & protocol::kSlotWritesByKernel) != 0) {
    return kNotHere;
  }
  std::uint64_t end = 0;
  if (!size(&end) || offset >= end || length > end - offset) return kNotHere;
  const auto* source = static_cast<const std::byte*>(from);
  std::uint64_t done = 0;
  while (done < length) {
    ExtentTable::Piece pieces[kBatch];
    const std::size_t found = extents_.find(offset + done, length - done, pieces, kBatch);
    if (found == 0) return kNotHere;
    for (std::size_t i = 0; i < found; ++i) {
      std::byte* target = base_ + pieces[i].device_offset;
      if (is_memory_) {
        copy_persist(target, source + done, pieces[i].length);
      } else {
        std::memcpy(target, source + done, pieces[i].length);
      }
      done += pieces[i].length;
    }
  }
  note_stores();
  return static_cast<ssize_t>(length);
}

void DirectFile::note_stores() noexcept {
  if (!mount_->is_writable()) return;
  const std::atomic_ref<std::uint64_t> word(slot_->write_time_ns);
  std::uint64_t now = clock_ns();
  std::uint64_t noted = word.load(std::memory_order_relaxed);
  while (noted != now) {
    if (noted > now) {
      // Another thread's, a moment ago; or the clock has been set back.
      const std::uint64_t again = clock_ns();
      if (again >= noted) return;
      now = again;
    }
    // Release: whoever takes this time finds the stores that it is about.
    if (word.compare_exchange_weak(noted, now, std::memory_order_release, std::memory_order_relaxed)) return;
  }
}

bool DirectFile::is_synced(bool data_only) const noexcept {
  if (!is_memory_ || (mount_->devices().flags & protocol::kDevicesImmediate) == 0) return false;
  const std::uint64_t state = load(slot_->state, std::memory_order_acquire);
  // In this order: the daemon writes the second after it has read the first.
  const std::uint64_t seen = load(slot_->seen_time_ns, std::memory_order_acquire);
  const std::uint64_t written = load(slot_->write_time_ns, std::memory_order_acquire);
  if (!is_alive() || (state & protocol::kSlotMapped) != 0) return false;
  return data_only || seen == written;
}

// ---- Maps ----

// Not disturbed by another thread's add().
std::size_t DirectFile::find_settled(std::uint64_t offset, std::uint64_t length, ExtentTable::Piece* pieces,
                                     std::size_t max) const noexcept {
  const RegistryLock lock;
  return extents_.find(offset, length, pieces, max);
}

int DirectFile::map_pieces(char* address, std::uint64_t length, std::uint64_t offset, int protection,
                           int flags) noexcept {
  int error = member_ == 0 ? 0 : mount_->hold_for_good();
  if (error == 0) {
    with_own_descriptors([&] {
      const int fd = mount_->open_again(member_, nullptr, 0);
      error = fd < 0 ? errno : map_opened(fd, address, length, offset, protection, flags);
      if (fd >= 0) kernel::close_file(fd);
    });
  }
  if (error != 0) {
    kernel::map(address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  }
  return error;
}

int DirectFile::map_opened(int fd, char* address, std::uint64_t length, std::uint64_t offset, int protection,
                           int flags) noexcept {
  int error = 0;
  const bool is_private = (flags & MAP_TYPE) == MAP_PRIVATE;
  // Of a shared map always: without it a store is durable only after an fsync of the file system that the device is on.
  int how = MAP_FIXED | (flags & (MAP_POPULATE | MAP_LOCKED | MAP_NORESERVE));
  how |= is_private ? MAP_PRIVATE : mount_->is_map_sync(member_) ? MAP_SHARED_VALIDATE | MAP_SYNC : MAP_SHARED;
  std::uint64_t done = 0;
  while (done < length && error == 0) {
    ExtentTable::Piece pieces[kBatch];
    const std::size_t found = find_settled(offset + done, length - done, pieces, kBatch);
    if (found == 0) error = ENXIO;
    for (std::size_t i = 0; i < found && error == 0; ++i) {
      if (kernel::map(address + done, pieces[i].length, protection, how, fd, pieces[i].device_offset) == MAP_FAILED) {
        error = errno;
      } else {
        done += pieces[i].length;
      }
    }
  }
  return error;
}

// What every map of [offset, offset + bytes) needs; the blocks, and the holes as blocks if it stores.
int DirectFile::learn_for_map(std::uint64_t bytes, std::uint64_t offset, bool stores, std::uint32_t flags) noexcept {
  const std::uint64_t block = mount_->devices().block_size_bytes;
  if (block < kPageBytes || bytes == 0 || offset > std::uint64_t{INT64_MAX} - bytes || offset % kPageBytes != 0) {
    return fail(EINVAL);
  }
  if (stores && !writable_) return fail(EACCES);
  std::uint64_t end = 0;
  if (!size(&end)) return fail(ENOTCONN);
  if (offset + bytes > round_up(end, block)) return fail(ENXIO);
  return learn(offset, bytes, stores ? flags | protocol::kLeaseWrite | protocol::kLeaseAllocate : 0);
}

int DirectFile::find_padding(std::size_t length, std::uint64_t offset, bool stores, Padding* padding) noexcept {
  *padding = {};
  const std::uint64_t align = align_bytes();
  if (align == kPageBytes) return 0;
  const std::uint64_t bytes = round_up(length, kPageBytes);
  if (learn_for_map(bytes, offset, stores, 0) != 0) return -1;
  ExtentTable::Piece first = {};
  if (find_settled(offset, 1, &first, 1) == 0) return fail(ENXIO);
  const std::uint64_t before = first.device_offset % align;
  const std::uint64_t total = round_up(before + bytes, align);
  if (total == bytes) return 0;
  // A store that goes astray may only hit what its program could have changed anyway, and never bytes behind the end,
  // which have to stay zeros.
  std::uint64_t end = 0;
  if (!size(&end)) return fail(ENOTCONN);
  if (before > offset || offset - before + total > round_up(end, mount_->devices().block_size_bytes)) {
    return fail(EINVAL);
  }
  if (learn(offset - before, total, 0) != 0) return -1;
  const RegistryLock lock;
  if (!extents_.covers(offset - before, total)) return fail(EINVAL);
  *padding = {before, total - before - bytes};
  return 0;
}

int DirectFile::map(void* address, std::size_t length, std::uint64_t offset, int protection, bool may_write, int flags,
                    const Padding& padding) noexcept {
  const std::uint64_t align = align_bytes();
  const std::uint64_t bytes = round_up(length, kPageBytes);
  const std::uint64_t total = padding.before + bytes + padding.after;
  char* const start = static_cast<char*>(address) - padding.before;
  if (reinterpret_cast<std::uintptr_t>(start) % align != 0 || total % align != 0) return fail(EINVAL);
  const bool is_private = (flags & MAP_TYPE) == MAP_PRIVATE;
  if ((flags & MAP_SYNC) != 0 && (is_private || !mount_->is_map_sync(member_))) return fail(EOPNOTSUPP);
  const bool stores = !is_private && (may_write || (protection & PROT_WRITE) != 0);
  if (learn_for_map(bytes, offset, stores, protocol::kLeaseMap) != 0) return -1;

  // Everything is looked at before anything is changed.
  const std::uint64_t begin = offset - padding.before;
  std::size_t count = 0;
  for (std::uint64_t seen = 0; seen < total;) {
    ExtentTable::Piece pieces[kBatch];
    const std::size_t found = find_settled(begin + seen, total - seen, pieces, kBatch);
    if (found == 0) return fail(ENXIO);
    for (std::size_t i = 0; i < found; ++i) {
      if (pieces[i].device_offset % align != 0 || pieces[i].length % align != 0) return fail(EINVAL);
      seen += pieces[i].length;
    }
    count += found;
    if (count > kMostPieces) return fail(ENOMEM);
  }
  const int error = map_pieces(start, total, begin, protection, flags);
  if (error != 0) return fail(error);
  return 0;
}

}  // namespace plumb::client
