#include "fs/core/leases.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <span>

#include "fs/client/protocol.h"
#include "fs/core/volume.h"

namespace plumb {
namespace {

using protocol::LeaseSlot;

// The area of a strange image may be as large as the device.
constexpr std::uint64_t kMostSlots = 65536;

constexpr std::size_t kEpoch = offsetof(LeaseSlot, epoch);
constexpr std::size_t kInode = offsetof(LeaseSlot, inode);
constexpr std::size_t kSize = offsetof(LeaseSlot, size_bytes);
constexpr std::size_t kState = offsetof(LeaseSlot, state);
constexpr std::size_t kWriteTime = offsetof(LeaseSlot, write_time_ns);
constexpr std::size_t kSeenTime = offsetof(LeaseSlot, seen_time_ns);

}  // namespace

static_assert(media::kLeaseSlotBytes == protocol::kLeaseSlotBytes);

// ---- LeasedRanges ----

void LeasedRanges::add(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  auto it = ranges_.upper_bound(begin);
  if (it != ranges_.begin() && std::prev(it)->second >= begin) --it;
  while (it != ranges_.end() && it->first <= end) {
    begin = std::min(begin, it->first);
    end = std::max(end, it->second);
    it = ranges_.erase(it);
  }
  ranges_.emplace(begin, end);
  limit();
}

void LeasedRanges::remove(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  auto it = ranges_.upper_bound(begin);
  if (it != ranges_.begin() && std::prev(it)->second > begin) --it;
  while (it != ranges_.end() && it->first < end) {
    const auto [from, to] = *it;
    it = ranges_.erase(it);
    if (from < begin) ranges_.emplace(from, begin);
    if (to > end) it = ranges_.emplace(end, to).first;
  }
  limit();
}

void LeasedRanges::limit() {
  if (ranges_.size() <= kMost) return;
  if (overflow_ == Overflow::kForget) {
    const auto length = [](const auto& range) { return range.second - range.first; };
    ranges_.erase(std::min_element(ranges_.begin(), ranges_.end(),
                                   [&](const auto& a, const auto& b) { return length(a) < length(b); }));
    return;
  }
  auto nearest = ranges_.begin();
  for (auto at = ranges_.begin(); std::next(at) != ranges_.end(); ++at)
    if (std::next(at)->first - at->second < std::next(nearest)->first - nearest->second) nearest = at;
  nearest->second = std::next(nearest)->second;
  ranges_.erase(std::next(nearest));
}

// ---- InodeLeases ----

bool InodeLeases::has_writers() const {
  return std::any_of(holders.begin(), holders.end(), [](const auto& h) { return h->write; });
}

bool InodeLeases::has_stores() const {
  return std::any_of(holders.begin(), holders.end(), [](const auto& h) { return !h->stored.empty(); });
}

void InodeLeases::publish(const media::Inode& inode) {
  publish_state(inode);
  table.publish_size(slot, inode.size_bytes);
}

void InodeLeases::publish_state(const media::Inode& inode) {
  std::uint64_t state = has_stores() ? protocol::kSlotMapped : 0;
  if (!may_store(inode)) state |= protocol::kSlotWritesByKernel;
  table.publish_state(slot, state);
}

bool InodeLeases::may_store(const media::Inode& inode) const {
  constexpr std::uint32_t kSetId = S_ISUID | S_ISGID;
  // With the sync flag a write is followed by a writeback.
  constexpr std::uint32_t kByKernel = kInodeImmutable | kInodeAppend | kInodeSync;
  return !has_capability && !table.is_sync() && (inode.mode & kSetId) == 0 && (inode.flags & kByKernel) == 0;
}

// ---- LeaseTable ----

void LeaseTable::open(std::uint64_t epoch, bool is_sync) {
  is_sync_ = is_sync;
  const media::Superblock& sb = superblock_.media();
  pmem::Device& device = superblock_.device(DeviceRole::kMain);
  const std::uint64_t start = sb.lease_start;
  const std::uint64_t slots = std::min(sb.lease_bytes / protocol::kLeaseSlotBytes, kMostSlots);
  const std::uint64_t bytes = slots * protocol::kLeaseSlotBytes;
  // Slots of an earlier mount would tell clients that still live about files of this one. Nothing here has to be
  // durable: after a crash the next mount clears them too.
  const Result<bool> zero = device.is_zero(start, bytes);
  if (!zero) return;  // poison: no leases
  if (!*zero) {
    // The epochs first: a client of an earlier mount that sees another word cleared does not believe it.
    for (std::uint64_t at = kEpoch; at < bytes; at += protocol::kLeaseSlotBytes) {
      static constexpr std::uint64_t kNone = 0;
      if (!device.store(start + at, std::as_bytes(std::span(&kNone, 1)))) return;
    }
    std::atomic_thread_fence(std::memory_order_release);
    static constexpr std::array<std::byte, 4096> kZeros{};
    for (std::uint64_t at = 0; at < bytes; at += kZeros.size()) {
      const std::size_t count = std::min<std::uint64_t>(kZeros.size(), bytes - at);
      if (!device.store(start + at, std::span(kZeros).first(count))) return;
    }
  }
  epoch_ = epoch;
  slot_count_ = static_cast<std::uint32_t>(slots);
  MutexLock lock(mutex_);
  free_.clear();
  for (std::uint32_t slot = slot_count_; slot > 0; --slot) free_.push_back(slot - 1);
}

std::uint64_t LeaseTable::offset_of(std::uint32_t slot, std::size_t word) const {
  return superblock_.media().lease_start + std::uint64_t{slot} * protocol::kLeaseSlotBytes + word;
}

// One aligned word with one store: that is what a Device promises. An error is poison in the area: who reads the slot
// meets it too, and gets no further.
void LeaseTable::store_word(std::uint32_t slot, std::size_t word, std::uint64_t value) {
  (void)superblock_.device(DeviceRole::kMain).store(offset_of(slot, word), std::as_bytes(std::span(&value, 1)));
}

std::uint64_t LeaseTable::load_word(std::uint32_t slot, std::size_t word) const {
  const std::byte* at = superblock_.device(DeviceRole::kMain).view(offset_of(slot, word), sizeof(std::uint64_t));
  return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(at), __ATOMIC_ACQUIRE);
}

Result<std::uint32_t> LeaseTable::take(std::uint32_t uid, InodeNumber inode, std::uint64_t size_bytes,
                                       std::uint64_t state) {
  PLUMB_TRY(add_holder(uid));
  std::uint32_t slot = 0;
  {
    MutexLock lock(mutex_);
    if (!free_.empty()) {
      slot = free_.back();
      free_.pop_back();
    } else {
      slot = slot_count_;
    }
  }
  if (slot == slot_count_) {
    drop_holder(uid);
    return fail(ENFILE, "all lease slots are taken");
  }
  store_word(slot, kInode, inode.value);
  store_word(slot, kSize, size_bytes);
  store_word(slot, kState, state);
  store_word(slot, kWriteTime, 0);
  store_word(slot, kSeenTime, 0);
  // Last, behind the rest: a client believes a slot of its epoch.
  std::atomic_thread_fence(std::memory_order_release);
  store_word(slot, kEpoch, epoch_);
  return slot;
}

Status LeaseTable::add_holder(std::uint32_t uid) {
  MutexLock lock(mutex_);
  if (slot_count_ == 0) return fail(ENFILE, "no lease slots");
  std::uint32_t& count = of_user_[uid];
  if (count >= most_of_a_user()) return fail(EMFILE, "this user has as many leases as one may");
  ++count;
  return {};
}

void LeaseTable::drop_holder(std::uint32_t uid) {
  MutexLock lock(mutex_);
  const auto it = of_user_.find(uid);
  if (--it->second == 0) of_user_.erase(it);
}

void LeaseTable::release(std::uint32_t slot) {
  store_word(slot, kEpoch, 0);
  MutexLock lock(mutex_);
  free_.push_back(slot);
}

void LeaseTable::publish_size(std::uint32_t slot, std::uint64_t size_bytes) {
  // What lies below the new size is there before the size is.
  std::atomic_thread_fence(std::memory_order_release);
  store_word(slot, kSize, size_bytes);
}
void LeaseTable::publish_state(std::uint32_t slot, std::uint64_t state) {
  store_word(slot, kState, state);
}
std::uint64_t LeaseTable::write_time(std::uint32_t slot) const {
  return load_word(slot, kWriteTime);
}
std::uint64_t LeaseTable::seen_time(std::uint32_t slot) const {
  return load_word(slot, kSeenTime);
}
void LeaseTable::publish_seen_time(std::uint32_t slot, std::uint64_t nanoseconds) {
  store_word(slot, kSeenTime, nanoseconds);
}
void LeaseTable::forget_write_time(std::uint32_t slot) {
  // In this order what a client says from here on stays.
  store_word(slot, kWriteTime, 0);
  store_word(slot, kSeenTime, 0);
}

std::uint64_t LeaseTable::leased_inodes() const {
  MutexLock lock(mutex_);
  return slot_count_ - free_.size();
}

}  // namespace plumb
