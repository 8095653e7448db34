#include "fs/core/bad_blocks.h"

#include <cstring>
#include <string>

#include "fs/core/btree.h"
#include "fs/core/store.h"

namespace plumb {
namespace {

BTree tree_of(Store& store) {
  return {store, media::TreeKind::kBadBlocks, static_cast<std::uint64_t>(media::TreeKind::kBadBlocks)};
}

std::uint64_t key_of(DeviceRole role, BlockNumber block) {
  return media::device_key(index_of(role), block.value);
}

BadBlock entry_of(std::uint64_t key, media::BadBlockOwner owner) {
  return {static_cast<DeviceRole>(media::device_of_key(key)), BlockNumber(media::number_of_key(key)), owner};
}

}  // namespace

Status BadBlocks::load(Store& store) {
  const Superblock& superblock = store.superblock();
  PLUMB_ASSIGN(const BufferRef buffer,
               store.buffers().get(BlockNumber(superblock.media().state_block), BufferType::kState));
  const auto& state = *reinterpret_cast<const media::State*>(buffer->bytes.get());
  Status bad;
  PLUMB_TRY(tree_of(store).visit(state.bad_blocks, 0, [&](std::uint64_t key, std::span<const std::byte> bytes) {
    media::BadBlockRecord record;
    std::memcpy(&record, bytes.data(), sizeof record);
    const std::size_t device = media::device_of_key(key);
    const bool known = device < superblock.device_count() &&
                       media::number_of_key(key) < superblock.blocks(static_cast<DeviceRole>(device));
    if (!known || record.length_blocks != 1 || record.owner > static_cast<std::uint8_t>(media::BadBlockOwner::kList)) {
      bad = fail(EUCLEAN, "bad block tree: the entry of block " + std::to_string(media::number_of_key(key)) +
                              " names no block, or an owner that is not known");
      return false;
    }
    remember(key, static_cast<media::BadBlockOwner>(record.owner));
    return true;
  }));
  return bad;
}

void BadBlocks::remember(std::uint64_t key, media::BadBlockOwner owner) {
  const MutexLock lock(mutex_);
  const bool added = entries_.insert_or_assign(key, owner).second;
  if (added) counts_[media::device_of_key(key)].fetch_add(1, std::memory_order_release);
}

void BadBlocks::forget(std::uint64_t key) {
  const MutexLock lock(mutex_);
  if (entries_.erase(key) != 0) counts_[media::device_of_key(key)].fetch_sub(1, std::memory_order_release);
}

std::vector<BadBlock> BadBlocks::in(DeviceRole role, BlockRange range) const {
  std::vector<BadBlock> found;
  if (count(role) == 0) return found;
  const std::uint64_t end = key_of(role, BlockNumber(range.start.value + range.length));
  const MutexLock lock(mutex_);
  for (auto it = entries_.lower_bound(key_of(role, range.start)); it != entries_.end() && it->first < end; ++it)
    found.push_back(entry_of(it->first, it->second));
  return found;
}

bool BadBlocks::any_in(DeviceRole role, BlockRange range) const {
  if (count(role) == 0) return false;
  const MutexLock lock(mutex_);
  const auto it = entries_.lower_bound(key_of(role, range.start));
  return it != entries_.end() && it->first < key_of(role, BlockNumber(range.start.value + range.length));
}

std::vector<BadBlock> BadBlocks::all() const {
  std::vector<BadBlock> found;
  const MutexLock lock(mutex_);
  for (const auto& [key, owner] : entries_) found.push_back(entry_of(key, owner));
  return found;
}

Status BadBlocks::put(Transaction& t, const BadBlock& entry) {
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  media::BadBlockRecord record{};
  record.length_blocks = 1;
  record.owner = static_cast<std::uint8_t>(entry.owner);
  const std::uint64_t key = key_of(entry.role, entry.block);
  PLUMB_TRY(tree_of(t.store()).put(t, state->bad_blocks, key, std::as_bytes(std::span(&record, 1))));
  t.on_commit([this, key, owner = entry.owner] { remember(key, owner); });
  return {};
}

Status BadBlocks::erase(Transaction& t, DeviceRole role, BlockNumber block) {
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  const std::uint64_t key = key_of(role, block);
  const Status erased = tree_of(t.store()).erase(t, state->bad_blocks, key);
  if (!erased && erased.error().code != ENOENT) return erased;
  t.on_commit([this, key] { forget(key); });
  return {};
}

}  // namespace plumb
