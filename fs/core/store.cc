#include "fs/core/store.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>
#include <thread>

#include "fs/core/btree.h"
#include "fs/media/verify.h"

namespace plumb {
namespace {

constexpr std::size_t kBufferBytes = 256u << 20;
constexpr std::uint64_t kZeroStepBytes = 32u << 20;

std::uint64_t reserve_of(std::uint64_t blocks) { return std::clamp<std::uint64_t>(blocks / 64, 48, 8192); }

bool has_header(BufferType type) { return type != BufferType::kInodes; }

media::BlockMagic magic_of(BufferType type) {
  switch (type) {
    case BufferType::kState: return media::BlockMagic::kState;
    case BufferType::kBitmap: return media::BlockMagic::kBitmap;
    case BufferType::kValue: return media::BlockMagic::kValue;
    default: return media::BlockMagic::kNode;
  }
}

}  // namespace

Store::Store(const Superblock& superblock, bool read_only)
    : superblock_(superblock),
      read_only_(read_only),
      buffers_(superblock.device(DeviceRole::kMain), superblock.block_size(), superblock.blocks(DeviceRole::kMain),
               superblock.media().state_block),
      journal_(superblock.device(DeviceRole::kMain), superblock.media().journal_start, superblock.media().journal_bytes),
      allocator_(superblock.blocks(DeviceRole::kMain), superblock.chunk_blocks(),
                 superblock.entry(DeviceRole::kMain).data_start, reserve_of(superblock.blocks(DeviceRole::kMain))),
      zeros_(std::make_unique<std::byte[]>(kZeroBytes)) {}

Result<Journal::Recovery> Store::open() {
  Result<Journal::Recovery> recovery =
      read_only_ ? journal_.replay_into([this](std::uint64_t home, std::span<const std::byte> bytes) {
        return buffers_.overlay(home, bytes);
      })
                 : journal_.recover();
  if (!recovery) return recovery;
  PLUMB_TRY(load_bitmap());
  if (!read_only_) PLUMB_TRY(recover_windows());
  return recovery;
}

Status Store::load_bitmap() {
  const media::DeviceEntry& entry = superblock_.entry(DeviceRole::kMain);
  allocator_.load_used(BlockNumber(0), entry.data_start);  // whatever the bitmap says: this is not for data
  const std::uint64_t bits = superblock_.bits_per_bitmap_block();
  const std::uint64_t blocks = superblock_.blocks(DeviceRole::kMain);
  for (std::uint64_t i = 0; i < entry.bitmap_blocks; ++i) {
    PLUMB_ASSIGN(const BufferRef buffer, buffers_.get(BlockNumber(entry.bitmap_start + i), BufferType::kBitmap));
    const auto* map = reinterpret_cast<const std::uint8_t*>(buffer->bytes.get()) + sizeof(media::BitmapHeader);
    const std::uint64_t first = i * bits;
    const std::uint64_t count = std::min(bits, blocks - first);
    for (std::uint64_t b = 0; b < count;) {
      if (map[b / 8] == 0 && b % 8 == 0) {
        b += 8;
        continue;
      }
      if ((map[b / 8] >> (b % 8) & 1) == 0) {
        ++b;
        continue;
      }
      std::uint64_t end = b + 1;
      while (end < count && (map[end / 8] >> (end % 8) & 1) != 0) ++end;
      allocator_.load_used(BlockNumber(first + b), end - b);
      b = end;
    }
  }
  PLUMB_ASSIGN(const BufferRef buffer,
               buffers_.get(BlockNumber(superblock_.media().state_block), BufferType::kState));
  const auto& state = *reinterpret_cast<const media::State*>(buffer->bytes.get());
  if (state.zeroed_upto[0] < entry.data_start || state.zeroed_upto[0] > blocks)
    return fail(EUCLEAN, "state: zeroed_upto");
  allocator_.load_zeroed_upto(state.zeroed_upto[0]);
  BTree reclaim(*this, media::TreeKind::kReclaim, static_cast<std::uint64_t>(media::TreeKind::kReclaim));
  reclaim_nodes_ = state.reclaim.nodes;
  return reclaim.visit(state.reclaim, 0, [this](std::uint64_t, std::span<const std::byte> record) {
    media::ReclaimRecord entry_record;
    std::memcpy(&entry_record, record.data(), sizeof entry_record);
    add_pending(static_cast<std::int64_t>(entry_record.length_blocks.get()));
    return true;
  });
}

// The blocks of a window that no committed extent owns may hold data of an operation that never committed. They are zeroed
// durably before the windows are forgotten; a crash in between repeats it.
Status Store::recover_windows() {
  const media::State state = [&] {
    media::State copy;
    const auto buffer = buffers_.get(BlockNumber(superblock_.media().state_block), BufferType::kState);
    std::memcpy(&copy, (*buffer)->bytes.get(), sizeof copy);
    return copy;
  }();
  const std::uint64_t blocks = superblock_.blocks(DeviceRole::kMain);
  const std::uint64_t data_start = superblock_.entry(DeviceRole::kMain).data_start;
  bool any = false;
  for (const media::WindowSlot& slot : state.windows) {
    if (slot.length_blocks == 0) continue;
    any = true;
    if (slot.device != 0 || slot.start_block < data_start / superblock_.chunk_blocks() * superblock_.chunk_blocks() ||
        slot.start_block >= blocks || slot.length_blocks > blocks - slot.start_block)
      return fail(EUCLEAN, "state: a window lies outside the device");
    const std::uint64_t end = slot.start_block + slot.length_blocks;
    for (std::uint64_t b = std::max<std::uint64_t>(slot.start_block, data_start); b < end; ++b) {
      if (allocator_.is_used(BlockNumber(b))) continue;
      const std::uint64_t offset = b * block_size();
      // Stored also where it reads as zeros, on a page-cached device: after a failed msync the page counts as clean, and a
      // flush alone would not write it again.
      PLUMB_ASSIGN(const bool zero, device().is_zero(offset, block_size()));
      if (!zero || !device().is_memory()) PLUMB_TRY(device().zero(offset, block_size()));
    }
    const std::uint64_t offset = slot.start_block * block_size();
    PLUMB_TRY(device().flush(offset, slot.length_blocks * std::uint64_t{block_size()}));
  }
  if (!any) return {};
  // Separates the zeros from the record that forgets where they had to be.
  PLUMB_TRY(device().drain());
  Transaction t(*this, Transaction::Privilege::kMayUseReserve);
  PLUMB_ASSIGN(media::State * changed, t.modify_state());
  for (media::WindowSlot& slot : changed->windows) slot = media::WindowSlot{};
  PLUMB_ASSIGN(const Sequence sequence, t.commit());
  return journal_.force(sequence);
}

Result<Store::WindowOutcome> Store::open_window(const Allocator::DataRequest& request) {
  Transaction t(*this, Transaction::Privilege::kMayUseReserve);
  const auto range = allocator_.choose_window(request);
  if (!range) return WindowOutcome::kNoChunk;
  const auto slot = allocator_.retire_slot();
  if (!slot) return WindowOutcome::kAllBusy;
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  media::WindowSlot& window = state->windows[*slot];
  window.start_block = range->start.value;
  window.length_blocks = static_cast<std::uint32_t>(range->length);
  window.device = 0;
  PLUMB_ASSIGN(const Sequence sequence, t.commit());
  // The window is durable before the first store into it.
  PLUMB_TRY(journal_.force(sequence));
  allocator_.open_window(*slot, *range, request.size_class);
  counters_.windows_opened.fetch_add(1, std::memory_order_relaxed);
  return WindowOutcome::kOpened;
}

Result<BlockRange> Store::allocate_data(Allocator::DataRequest request, bool may_wait) {
  while (true) {
    const Allocator::DataResult result = allocator_.take_data(request);
    if (result.range.length != 0) return result.range;
    if (result.shortage == Allocator::Shortage::kNoSpace) return fail(ENOSPC);
    if (result.shortage == Allocator::Shortage::kNeedZeroed) {
      PLUMB_ASSIGN(const bool more, extend_zeroed());
      if (!more) return fail(ENOSPC);
      continue;
    }
    PLUMB_ASSIGN(const WindowOutcome window, open_window(request));
    if (window == WindowOutcome::kOpened) continue;
    if (window == WindowOutcome::kAllBusy) {
      // Every window has blocks of operations in flight. Who holds none may wait for one of them to commit.
      if (!may_wait) return fail(EAGAIN);
      std::this_thread::yield();
      continue;
    }
    // No chunk of this kind: whole zeroed chunks first, then anything that is free.
    if (request.size_class == Allocator::Class::kBig) {
      PLUMB_ASSIGN(const bool more, extend_zeroed());
      if (!more) request.size_class = Allocator::Class::kSmall;
    } else if (!request.any_window) {
      request.any_window = true;
    } else {
      PLUMB_ASSIGN(const bool more, extend_zeroed());
      if (!more) return fail(ENOSPC);
    }
  }
}

void Store::abandon_data(BlockRange range) {
  const std::uint64_t offset = range.start.value * block_size();
  const std::uint64_t length = range.length * block_size();
  Status status = device().zero(offset, length);
  if (status) status = device().flush_after_nt(offset, length);
  // Zeros durable before anybody can take the blocks, or the window that covers them can go.
  if (status) status = device().drain();
  if (status)
    allocator_.give_back(range);
  else
    unclean_windows_ = true;  // still in flight, so the window stays, and the next mount zeroes them
}

Result<bool> Store::extend_zeroed() {
  MutexLock one_at_a_time(extend_mutex_);
  const std::uint64_t mark = allocator_.zeroed_upto();
  const std::uint64_t blocks = allocator_.blocks();
  if (mark >= blocks) return false;
  const std::uint64_t end = std::min(blocks, mark + kZeroStepBytes / block_size());
  const std::uint64_t offset = mark * block_size();
  const std::uint64_t length = (end - mark) * block_size();
  PLUMB_TRY(device().zero(offset, length));
  PLUMB_TRY(device().flush_after_nt(offset, length));
  // Zeros durable before the record that says so.
  PLUMB_TRY(device().drain());
  Transaction t(*this, Transaction::Privilege::kMayUseReserve);
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  state->zeroed_upto[0] = end;
  PLUMB_TRY(t.commit());
  allocator_.advance_zeroed(end);
  return true;
}

Status Store::checkpoint() {
  MutexLock lock(transaction_mutex_);
  return journal_.checkpoint();
}

Status Store::close() {
  MutexLock lock(transaction_mutex_);
  return journal_.close();
}

Sequence Store::freed_in(BlockNumber block) const {
  const auto it = freed_metadata_.find(block.value);
  return it == freed_metadata_.end() ? Sequence{} : Sequence(it->second);
}

// ---- Transaction ----

Transaction::Transaction(Store& store, Privilege privilege)
    : store_(store), lock_(store.transaction_mutex_), privileged_(privilege == Privilege::kMayUseReserve) {
  store_.buffers_.trim(store_.journal_.homed(), kBufferBytes / store_.block_size());
}

Transaction::~Transaction() {
  if (!done_) abort();
}

std::byte* Transaction::modify(const BufferRef& buffer) {
  if (buffer->before == nullptr && !buffer->created) {
    buffer->before = std::make_unique_for_overwrite<std::byte[]>(block_size());
    std::memcpy(buffer->before.get(), buffer->bytes.get(), block_size());
    changed_.push_back(buffer);
  }
  return buffer->bytes.get();
}

Result<BufferRef> Transaction::allocate(BufferType type, std::uint64_t owner) {
  const auto block = store_.allocator_.take_metadata(privileged_);
  if (!block) return fail(ENOSPC);
  abort_actions_.push_back([this, block = *block] { store_.allocator_.release({block, 1}); });
  PLUMB_TRY(set_bitmap({*block, 1}, true));
  BufferRef buffer = store_.buffers_.create(*block, type);
  changed_.push_back(buffer);
  if (has_header(type)) {
    auto& header = *reinterpret_cast<media::BlockHeader*>(buffer->bytes.get());
    header.magic = static_cast<std::uint32_t>(magic_of(type));
    header.block = block->value;
    header.owner = owner;
  }
  return buffer;
}

Result<const media::State*> Transaction::state() {
  PLUMB_ASSIGN(const BufferRef buffer,
               get(BlockNumber(store_.superblock_.media().state_block), BufferType::kState));
  return reinterpret_cast<const media::State*>(buffer->bytes.get());
}

Result<media::State*> Transaction::modify_state() {
  PLUMB_ASSIGN(const BufferRef buffer,
               get(BlockNumber(store_.superblock_.media().state_block), BufferType::kState));
  return reinterpret_cast<media::State*>(modify(buffer));
}

Status Transaction::set_bitmap(BlockRange range, bool allocated) {
  const media::DeviceEntry& entry = store_.superblock_.entry(DeviceRole::kMain);
  const std::uint64_t bits = store_.superblock_.bits_per_bitmap_block();
  const std::uint64_t blocks = store_.superblock_.blocks(DeviceRole::kMain);
  if (range.start.value < entry.data_start || range.length > blocks || range.start.value > blocks - range.length)
    return fail(EUCLEAN, "block " + std::to_string(range.start.value) + ": outside the data area");
  for (std::uint64_t b = range.start.value, end = b + range.length; b < end;) {
    PLUMB_ASSIGN(const BufferRef buffer, get(BlockNumber(entry.bitmap_start + b / bits), BufferType::kBitmap));
    auto* map = reinterpret_cast<std::uint8_t*>(modify(buffer)) + sizeof(media::BitmapHeader);
    const std::uint64_t limit = std::min(end, (b / bits + 1) * bits);
    for (; b < limit;) {
      const std::uint64_t bit = b % bits;
      const std::uint64_t count = std::min<std::uint64_t>(8 - bit % 8, limit - b);
      const auto mask = static_cast<std::uint8_t>(((1u << count) - 1) << (bit % 8));
      std::uint8_t& byte = map[bit / 8];
      if ((byte & mask) != (allocated ? 0 : mask))
        return fail(EUCLEAN, "block " + std::to_string(b) + (allocated ? ": allocated twice" : ": freed twice"));
      byte = static_cast<std::uint8_t>(allocated ? byte | mask : byte & ~mask);
      b += count;
    }
  }
  return {};
}

Status Transaction::free_data(BlockRange range) {
  PLUMB_ASSIGN(media::State * state, modify_state());
  media::ReclaimRecord record;
  record.length_blocks = static_cast<std::uint32_t>(range.length);
  record.kind = static_cast<std::uint8_t>(media::ReclaimKind::kData);
  BTree tree(store_, media::TreeKind::kReclaim, static_cast<std::uint64_t>(media::TreeKind::kReclaim));
  PLUMB_TRY(tree.put(*this, state->reclaim, range.start.value, std::as_bytes(std::span(&record, 1))));
  pending_delta_ += static_cast<std::int64_t>(range.length);
  return {};
}

// Inserting never frees a node, so the list does not grow while it is worked off.
Status Transaction::queue_freed_metadata() {
  if (freed_.empty()) return {};
  PLUMB_ASSIGN(media::State * state, modify_state());
  BTree tree(store_, media::TreeKind::kReclaim, static_cast<std::uint64_t>(media::TreeKind::kReclaim));
  media::ReclaimRecord record;
  record.length_blocks = 1;
  record.kind = static_cast<std::uint8_t>(media::ReclaimKind::kMetadata);
  for (const BlockNumber block : freed_)
    PLUMB_TRY(tree.put(*this, state->reclaim, block.value, std::as_bytes(std::span(&record, 1))));
  pending_delta_ += static_cast<std::int64_t>(freed_.size());
  return {};
}

// What differs from the state before, in words of 8 bytes; gaps shorter than a range header are bridged.
void Transaction::collect_ranges(std::vector<RedoRange>& ranges) {
  const std::size_t block_size = store_.block_size();
  const Sequence number = sequence();
  for (const BufferRef& buffer : changed_) {
    if (std::find(freed_.begin(), freed_.end(), buffer->block) != freed_.end()) continue;
    const std::byte* before = buffer->created ? store_.zeros() : buffer->before.get();
    std::byte* now = buffer->bytes.get();
    if (std::memcmp(before, now, block_size) == 0) continue;
    if (has_header(buffer->type)) {
      reinterpret_cast<media::BlockHeader*>(now)->sequence = number.value;
      media::seal_block({now, block_size});
    }
    const std::uint64_t home = buffer->block.value * block_size;
    std::size_t last_end = 0;
    bool open = false;
    for (std::size_t at = 0; at < block_size; at += 8) {
      std::uint64_t a, b;
      std::memcpy(&a, before + at, 8);
      std::memcpy(&b, now + at, 8);
      if (a == b) continue;
      if (open && at - last_end <= 24) {
        RedoRange& range = ranges.back();
        const std::size_t start = range.home_offset_bytes - home;
        range.bytes = {now + start, at + 8 - start};
      } else {
        ranges.push_back({home + at, {now + at, 8}});
        open = true;
      }
      last_end = at + 8;
    }
  }
}

Result<Sequence> Transaction::commit() {
  if (store_.read_only()) return fail(EROFS);
  PLUMB_TRY(queue_freed_metadata());
  std::vector<RedoRange> ranges;
  collect_ranges(ranges);
  if (ranges.empty()) {
    finish(Sequence{});
    return Sequence(sequence().value - 1);
  }
  PLUMB_ASSIGN(const Sequence number, store_.journal_.append(ranges));
  store_.counters_.transactions.fetch_add(1, std::memory_order_relaxed);
  finish(number);
  return number;
}

void Transaction::finish(Sequence sequence) {
  done_ = true;
  for (const BufferRef& buffer : changed_) {
    buffer->before.reset();
    buffer->created = false;
    if (sequence.value != 0) buffer->last_sequence.store(sequence.value, std::memory_order_relaxed);
  }
  for (const BlockNumber block : freed_) {
    store_.buffers_.drop(block);
    store_.freed_metadata_[block.value] = sequence.value;
  }
  if (!freed_.empty()) store_.freed_metadata_count_.store(store_.freed_metadata_.size(), std::memory_order_relaxed);
  store_.add_pending(pending_delta_);
  if (const auto state_now = state()) store_.reclaim_nodes_ = (*state_now)->reclaim.nodes.get();
  for (const auto& action : commit_actions_) action();
}

void Transaction::abort() {
  done_ = true;
  for (const BufferRef& buffer : changed_) {
    if (buffer->created) {
      store_.buffers_.drop(buffer->block);
    } else {
      std::memcpy(buffer->bytes.get(), buffer->before.get(), block_size());
      buffer->before.reset();
    }
  }
  // In reverse: the last thing taken is the first given back.
  for (auto it = abort_actions_.rbegin(); it != abort_actions_.rend(); ++it) (*it)();
}

}  // namespace plumb
