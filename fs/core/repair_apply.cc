// Storing a plan, in the order that repair.h argues for.
#include <algorithm>
#include <cstring>

#include "fs/core/repair_impl.h"
#include "fs/media/verify.h"

namespace plumb::repairer {
namespace {

constexpr std::uint64_t kCopyBytes = 1u << 20;

}  // namespace

// What is in use when the repair is done: everything below the data area, and what has an owner.
std::uint64_t Planner::used_word(const Space& space, std::uint64_t word) {
  const std::uint64_t first = word * 64;
  std::uint64_t below = 0;
  if (first < space.data_start())
    below =
        space.data_start() - first >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << (space.data_start() - first)) - 1;
  return below | space.owned.word(word);
}

Result<bool> Planner::apply(Journal& journal) {
  for (auto& [number, inode] : edits_) {
    inode.next_orphan = inode.on_orphan_list == 0 ? std::uint64_t{0} : inode.next_orphan.get();
    media::seal_inode(inode);
  }
  PLUMB_ASSIGN(const bool bits, set_bits(journal));
  PLUMB_TRY(store_new());
  PLUMB_ASSIGN(const bool zeroed, zero_free());
  PLUMB_ASSIGN(const bool metadata, commit_metadata(journal));
  PLUMB_ASSIGN(const bool freed, free_blocks(journal));
  return bits || zeroed || metadata || freed;
}

// 1. Bits of owned blocks that are missing, of blocks this repair takes, and of those that must keep their contents.
Result<bool> Planner::set_bits(Journal& journal) {
  std::vector<Change> changes;
  for (const DeviceRole role : roles()) {
    const Space& data = space(role);
    const auto wanted = [&](std::uint64_t word) {
      return used_word(data, word) | data.kept.word(word) | data.bits.word(word) | data.unknown.word(word);
    };
    const std::uint64_t words = superblock_.bits_per_bitmap_block() / 64;
    const std::uint64_t all = (data.units() + 63) / 64;
    for (std::uint64_t index = 0; index < superblock_.entry(role).bitmap_blocks; ++index) {
      const auto& damaged = data.damaged();
      bool differs = std::find(damaged.begin(), damaged.end(), index) != damaged.end();
      for (std::uint64_t word = index * words; word < std::min(all, (index + 1) * words) && !differs; ++word)
        differs = wanted(word) != data.bits.word(word);
      if (!differs) continue;
      add_change(changes, (superblock_.entry(role).bitmap_start + index) * block_size(),
                 data.bitmap_block(index, wanted));
    }
  }
  // The bits durable before anything is stored into the blocks: a crash leaves blocks that nobody owns, not free ones
  // that are not zero.
  PLUMB_TRY(commit(journal, changes));
  return !changes.empty();
}

// 2. What nobody refers to yet.
Status Planner::store_new() {
  for (const auto& [number, inode] : edits_) {
    const std::uint64_t place = place_of(number);
    if (const auto it = new_blocks_.find(place / block_size()); it != new_blocks_.end())
      std::memcpy(it->second.data() + place % block_size(), &inode, sizeof inode);
  }
  for (const auto& [block, bytes] : new_blocks_) {
    PLUMB_TRY(device_.store(block * block_size(), bytes));
    PLUMB_TRY(device_.flush(block * block_size(), bytes.size()));
  }
  std::vector<std::byte> bytes;
  for (const Copy& copy : copies_) {
    pmem::Device& device = superblock_.device(copy.role);
    const std::uint64_t unit = superblock_.unit_bytes(copy.role);
    for (std::uint64_t at = 0; at < unit; at += kCopyBytes) {
      bytes.resize(std::min(kCopyBytes, unit - at));
      // What cannot be read any more is zeros in the copy.
      if (!device.load(copy.from * unit + at, bytes)) std::fill(bytes.begin(), bytes.end(), std::byte{0});
      PLUMB_TRY(device.store_nt(copy.to * unit + at, bytes));
    }
    PLUMB_TRY(device.flush_after_nt(copy.to * unit, unit));
  }
  // New nodes and copies durable before the records that refer to them.
  for (const DeviceRole role : roles()) PLUMB_TRY(superblock_.device(role).drain());
  return {};
}

// 3. Free blocks whose zeros are in doubt.
Result<bool> Planner::zero_free() {
  bool any = false;
  for (const DeviceRole role : roles()) {
    const Space& data = space(role);
    const std::uint64_t mark = state_.zeroed_upto[index_of(role)] / data.unit_blocks();
    std::vector<KeyRange> ranges;  // end exclusive
    if (zero_all_[index_of(role)] || options_.zeros) {
      ranges.push_back({data.data_start(), mark});
    } else {
      for (const auto& [of_role, range] : zero_ranges_)
        if (of_role == role) ranges.push_back(range);
    }
    for (const KeyRange& range : ranges)
      for_bit_runs(
          range.low, std::min(range.high, data.units()),
          [&](std::uint64_t i) {
            return ~(used_word(data, i) | data.kept.word(i) | data.bits.word(i) | data.unknown.word(i));
          },
          [&](std::uint64_t from, std::uint64_t to) {
            for (std::uint64_t unit = from; unit < to; ++unit) any = zero_unit(role, unit) || any;
          });
  }
  // Zeros durable before the state that promises them.
  for (const DeviceRole role : roles())
    if (any) PLUMB_TRY(superblock_.device(role).drain());
  return any;
}

// True if it was not zero. A block that cannot be zeroed stays in use.
bool Planner::zero_unit(DeviceRole role, std::uint64_t unit) {
  pmem::Device& device = superblock_.device(role);
  const std::uint64_t bytes = superblock_.unit_bytes(role);
  const Result<bool> zero = device.is_zero(unit * bytes, bytes);
  if (zero && *zero) return false;
  Status status = device.zero(unit * bytes, bytes);
  if (status) status = device.flush_after_nt(unit * bytes, bytes);
  if (!status) space(role).owned.set(unit, unit + 1);
  return true;
}

// 4. and 5.
// Should it take several records: the state block comes first, since inodes refer to inode blocks that its table
// knows, and lie below its marks; the head of the orphan list comes last.
Result<bool> Planner::commit_metadata(Journal& journal) {
  std::vector<Change> changes;
  const auto add_state = [&](const media::State& state) {
    std::vector<std::byte> bytes(block_size());
    std::memcpy(bytes.data(), &state, sizeof state);
    media::seal_block(bytes);
    add_change(changes, superblock_.media().state_block * block_size(), bytes);
  };
  std::vector<std::byte> before(block_size());
  const bool has_state = image_.load(superblock_.media().state_block, before) &&
                         media::verify_state(before, superblock_.media().state_block);
  if (state_changed_) {
    media::State first = state_;
    if (has_state)
      std::memcpy(&first.orphan_head, before.data() + offsetof(media::State, orphan_head), sizeof first.orphan_head);
    add_state(first);
  }
  for (const auto& [number, inode] : edits_) {
    const std::uint64_t place = place_of(number);
    if (!new_blocks_.contains(place / block_size())) add_change(changes, place, bytes_of(inode));
  }
  const std::vector<std::byte> zeros(media::kInodeBytes);
  for (const std::uint64_t number : cleared_)
    if (!edits_.contains(number)) add_change(changes, place_of(number), zeros);
  if (state_changed_) add_state(state_);
  PLUMB_TRY(commit(journal, changes));
  return !changes.empty();
}

// 6. and 7.
Result<bool> Planner::free_blocks(Journal& journal) {
  std::vector<Change> changes;
  for (const DeviceRole role : roles()) {
    Space& data = space(role);
    // What step 1 left marked, and nobody owns.
    const auto given_up = [&](std::uint64_t i) {
      return (data.bits.word(i) | data.kept.word(i) | data.unknown.word(i)) & ~used_word(data, i);
    };
    std::vector<KeyRange> runs;
    for_bit_runs(data.data_start(), data.units(), given_up, [&](std::uint64_t from, std::uint64_t to) {
      runs.push_back({from, to});
    });
    for (const KeyRange& run : runs)
      for (std::uint64_t unit = run.low; unit < run.high; ++unit) (void)zero_unit(role, unit);
    // Zeros durable before the bits that call the blocks free.
    if (!runs.empty()) PLUMB_TRY(superblock_.device(role).drain());
    const std::uint64_t words = superblock_.bits_per_bitmap_block() / 64;
    const std::uint64_t all = (data.units() + 63) / 64;
    for (std::uint64_t index = 0; index < superblock_.entry(role).bitmap_blocks; ++index) {
      bool differs = false;
      for (std::uint64_t word = index * words; word < std::min(all, (index + 1) * words) && !differs; ++word)
        differs = given_up(word) != 0;
      if (!differs) continue;
      add_change(changes, (superblock_.entry(role).bitmap_start + index) * block_size(),
                 data.bitmap_block(index, [&](std::uint64_t word) { return used_word(data, word); }));
    }
  }
  PLUMB_TRY(commit(journal, changes));
  return !changes.empty();
}

// What differs from what is there, in words of 8 bytes; all of it if that cannot be read.
void Planner::add_change(std::vector<Change>& changes, std::uint64_t offset, std::span<const std::byte> bytes) const {
  constexpr std::size_t kWord = 8;
  std::vector<std::byte> now(bytes.size());
  const bool readable = device_.load(offset, now).has_value();
  std::size_t end = 0;  // of the last change
  bool open = false;
  for (std::size_t at = 0; at < bytes.size(); at += kWord) {
    if (readable && std::memcmp(now.data() + at, bytes.data() + at, kWord) == 0) continue;
    const auto word = bytes.subspan(at, kWord);
    // A gap shorter than the header of a range is bridged.
    if (open && at - end <= sizeof(media::RangeHeader)) {
      const auto gap = bytes.subspan(end, at - end);
      changes.back().bytes.insert(changes.back().bytes.end(), gap.begin(), gap.end());
      changes.back().bytes.insert(changes.back().bytes.end(), word.begin(), word.end());
    } else {
      changes.push_back({offset + at, std::vector<std::byte>(word.begin(), word.end())});
    }
    open = true;
    end = at + kWord;
  }
}

// One record if they fit; each range is in one, and those of a block in a row. The checkpoint makes them durable at
// home, and the log empty: nothing of it is replayed into a block that the next step zeroes.
Status Planner::commit(Journal& journal, const std::vector<Change>& changes) {
  if (changes.empty()) return {};
  std::vector<RedoRange> ranges;
  const auto append = [&]() -> Status {
    if (ranges.empty()) return {};
    PLUMB_TRY(journal.append(ranges));
    ranges.clear();
    return {};
  };
  for (const Change& change : changes) {
    ranges.push_back({change.offset, change.bytes});
    if (Journal::record_bytes(ranges) <= journal.max_record_bytes()) continue;
    const RedoRange last = ranges.back();
    ranges.pop_back();
    PLUMB_TRY(append());
    ranges.push_back(last);
  }
  PLUMB_TRY(append());
  return journal.checkpoint();
}

}  // namespace plumb::repairer
