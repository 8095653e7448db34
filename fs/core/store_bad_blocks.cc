// Blocks that cannot be read: found while blocks are zeroed, and put on the list.
#include <algorithm>
#include <span>
#include <vector>

#include "fs/core/store.h"
#include "pmem/unreadable.h"

namespace plumb {

Status Store::allow_bad_blocks() {
  const MutexLock lock(feature_mutex_);
  return superblock_.set_ro_compat(media::kRoCompatBadBlocks);
}

bool Store::unclean_windows() {
  if (unclean_windows_) return true;
  const MutexLock lock(withdrawn_mutex_);
  return !withdrawn_.empty();
}

Result<std::vector<BlockNumber>> Store::zero_readable(DeviceRole role, BlockRange range) {
  pmem::Device& target = device(role);
  const std::uint64_t size = block_size();
  const auto zero = [&](std::uint64_t from, std::uint64_t end) -> Status {
    if (from == end) return {};
    PLUMB_TRY(target.zero(from * size, (end - from) * size));
    return target.flush_after_nt(from * size, (end - from) * size);
  };
  std::vector<BlockNumber> bad;
  const std::uint64_t first = range.start.value;
  const std::uint64_t end = first + range.length;
  if (const Status status = zero(first, end); !status) {
    if (status.error().code != EIO) return tl::unexpected(status.error());
    const auto unreadable = pmem::unreadable_units(target, first * size, range.length * size, size);
    // All of it can be read: it is the device as a whole that does not take stores.
    if (unreadable.empty()) return tl::unexpected(status.error());
    std::uint64_t from = first;
    for (const std::uint64_t offset : unreadable) {
      const std::uint64_t block = offset / size;
      PLUMB_TRY(zero(from, block));
      from = block + 1;
      // By itself: the store that failed may not have come as far.
      if (!zero(block, block + 1) || !target.is_readable(offset, size)) bad.emplace_back(block);
    }
    PLUMB_TRY(zero(from, end));
  }
  // A store to poison need not fail: the block counts as good when it reads again.
  for (const BadBlock& listed : bad_blocks_.in(role, range)) {
    const auto at = std::lower_bound(bad.begin(), bad.end(), listed.block);
    if (at != bad.end() && *at == listed.block) continue;
    const Result<bool> reads_zero = target.is_zero(listed.block.value * size, size);
    if (!reads_zero || !*reads_zero) bad.insert(at, listed.block);
  }
  return bad;
}

Status Store::own_bad_units(Transaction& t, DeviceRole role, std::span<const BlockNumber> bad) {
  const std::uint64_t unit = superblock_.unit_blocks(role);
  for (std::size_t i = 0; i < bad.size(); ++i) {
    const std::uint64_t start = bad[i].value / unit * unit;
    const bool first_in_unit = i == 0 || bad[i - 1].value < start;
    if (first_in_unit) PLUMB_TRY(t.set_bitmap(role, {BlockNumber(start), unit}, true));
    // Those of a unit are neighbours: the one so many places before is in the same unit, so there are enough.
    if (i >= BadBlocks::kMaxPerUnit && bad[i - BadBlocks::kMaxPerUnit].value >= start) continue;
    PLUMB_TRY(bad_blocks_.put(t, {role, bad[i], media::BadBlockOwner::kList}));
  }
  return {};
}

// One look at all of them before the first record: what is free must be out of circulation, or the tree would grow into
// a block that is about to be listed.
Result<std::vector<BadBlock>> Store::classify_bad(DeviceRole role, std::span<const BlockNumber> blocks,
                                                  std::vector<BlockNumber>& left) {
  std::vector<BadBlock> found;
  const std::uint64_t unit = superblock_.unit_blocks(role);
  std::uint64_t withdrawn = 0;  // the unit that was taken last; 0 is none, it lies in the reserved head
  Transaction t(*this);         // for its lock; nothing changes
  std::uint64_t room = 0;       // entries that may be added to the unit
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const BlockNumber block = blocks[i];
    const BlockNumber number(block.value / unit);
    const std::vector<BadBlock> beside = bad_blocks_.in(role, {BlockNumber(number.value * unit), unit});
    if (i == 0 || blocks[i - 1].value / unit != number.value) room = BadBlocks::kMaxPerUnit - beside.size();
    if (room == 0 || bad_blocks_.any_in(role, {block, 1})) continue;
    BadBlock entry{role, block, media::BadBlockOwner::kOther};
    if (block.value >= superblock_.entry(role).data_start) {
      PLUMB_ASSIGN(const bool allocated, t.is_allocated(role, block));
      if (allocated) {
        if (!beside.empty()) entry.owner = beside.front().owner;
      } else if (withdrawn == number.value) {
        entry.owner = media::BadBlockOwner::kList;
      } else if (number.value < allocator(role).zeroed_upto() && allocator(role).withdraw(number)) {
        withdrawn = number.value;
        entry.owner = media::BadBlockOwner::kList;
      } else {
        left.push_back(block);
        continue;
      }
    }
    found.push_back(entry);
    --room;
  }
  return found;
}

Result<std::vector<BlockNumber>> Store::list_bad(DeviceRole role, std::span<const BlockNumber> blocks) {
  std::vector<BlockNumber> left;
  if (blocks.empty()) return left;
  PLUMB_TRY(allow_bad_blocks());
  PLUMB_ASSIGN(const std::vector<BadBlock> entries, classify_bad(role, blocks, left));
  const std::uint64_t unit = superblock_.unit_blocks(role);
  for (std::size_t next = 0; next < entries.size();) {
    const std::size_t end = std::min(entries.size(), next + BadBlocks::kMaxPerTransaction);
    const auto build = [&]() -> Result<Sequence> {
      Transaction t(*this, Transaction::Privilege::kMayUseReserve);
      for (std::size_t i = next; i < end; ++i) {
        const BlockNumber start(entries[i].block.value / unit * unit);
        if (start.value >= superblock_.entry(role).data_start) {
          PLUMB_ASSIGN(const bool allocated, t.is_allocated(role, start));
          if (!allocated) PLUMB_TRY(t.set_bitmap(role, {start, unit}, true));
        }
        PLUMB_TRY(bad_blocks_.put(t, entries[i]));
      }
      return t.commit();
    };
    const Result<Sequence> committed = build();
    if (!committed) {
      give_back_unlisted(role, std::span(entries).subspan(next));
      return tl::unexpected(committed.error());
    }
    next = end;
  }
  return left;
}

// What classify_bad took and no record has made the list's.
void Store::give_back_unlisted(DeviceRole role, std::span<const BadBlock> entries) {
  const std::uint64_t unit = superblock_.unit_blocks(role);
  std::uint64_t last = 0;
  for (const BadBlock& entry : entries) {
    const std::uint64_t number = entry.block.value / unit;
    if (entry.owner != media::BadBlockOwner::kList || number == last ||
        bad_blocks_.any_in(role, {BlockNumber(number * unit), unit}))
      continue;
    last = number;
    allocator(role).release({BlockNumber(number), 1});
  }
}

void Store::withdraw(Withdrawn withdrawn) {
  const MutexLock lock(withdrawn_mutex_);
  withdrawn_.push_back(std::move(withdrawn));
}

Status Store::list_withdrawn() {
  while (true) {
    Withdrawn withdrawn;
    {
      const MutexLock lock(withdrawn_mutex_);
      if (withdrawn_.empty()) return {};
      withdrawn = std::move(withdrawn_.back());
      withdrawn_.pop_back();
    }
    const auto list = [&]() -> Result<Sequence> {
      PLUMB_TRY(allow_bad_blocks());
      Transaction t(*this, Transaction::Privilege::kMayUseReserve);
      PLUMB_TRY(own_bad_units(t, withdrawn.role, withdrawn.bad));
      return t.commit();
    };
    if (const Result<Sequence> listed = list(); !listed) {
      withdraw(std::move(withdrawn));
      return tl::unexpected(listed.error());
    }
    if (withdrawn.in_flight) settle_data(withdrawn.role, withdrawn.unit);
  }
}

}  // namespace plumb
