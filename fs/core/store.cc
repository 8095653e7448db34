#include "fs/core/store.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <optional>
#include <string>
#include <thread>

#include "fs/core/btree.h"
#include "fs/media/verify.h"
#include "pmem/unreadable.h"

namespace plumb {
namespace {

constexpr std::size_t kBufferBytes = 256u << 20;
constexpr std::uint64_t kZeroStepBytes = 32u << 20;
constexpr std::uint64_t kWindowBytes = 32u << 20;  // one durable record for so much data
constexpr std::size_t kMainSlots = 20;             // of the window slots, beside a realtime device

std::uint64_t reserve_of(std::uint64_t blocks) {
  return std::clamp<std::uint64_t>(blocks / 64, 48, 8192);
}

std::unique_ptr<Allocator> make_allocator(const Superblock& superblock, DeviceRole role) {
  const std::uint64_t unit = superblock.unit_blocks(role);
  Allocator::Geometry geometry;
  geometry.blocks = superblock.blocks(role) / unit;
  geometry.chunk_blocks = std::max<std::uint64_t>(1, superblock.chunk_blocks() / unit);
  geometry.data_start = superblock.entry(role).data_start / unit;
  const std::uint64_t chunk_bytes = geometry.chunk_blocks * superblock.unit_bytes(role);
  geometry.window_chunks = std::max<std::uint64_t>(1, kWindowBytes / chunk_bytes);
  if (role == DeviceRole::kMain) {
    geometry.reserve_blocks = reserve_of(geometry.blocks);
    if (superblock.device_count() > 1) geometry.slots = kMainSlots;
  } else {
    geometry.first_slot = kMainSlots;
    geometry.slots = media::kWindowSlots - kMainSlots;
  }
  return std::make_unique<Allocator>(geometry);
}

bool has_header(BufferType type) {
  return type != BufferType::kInodes;
}

media::BlockMagic magic_of(BufferType type) {
  switch (type) {
    case BufferType::kState:
      return media::BlockMagic::kState;
    case BufferType::kBitmap:
      return media::BlockMagic::kBitmap;
    case BufferType::kValue:
      return media::BlockMagic::kValue;
    default:
      return media::BlockMagic::kNode;
  }
}

}  // namespace

Store::Store(const Superblock& superblock, bool read_only)
    : superblock_(superblock),
      read_only_(read_only),
      buffers_(superblock.device(DeviceRole::kMain), superblock.block_size(), superblock.blocks(DeviceRole::kMain),
               superblock.media().state_block),
      journal_(superblock.device(DeviceRole::kMain), media::journal_geometry(superblock.media())),
      zeros_(std::make_unique<std::byte[]>(kZeroBytes)) {
  for (const DeviceRole role : roles()) allocators_[index_of(role)] = make_allocator(superblock_, role);
}

Result<Journal::Recovery> Store::open() {
  Result<Journal::Recovery> recovery =
      read_only_ ? journal_.replay_into([this](std::uint64_t home, std::span<const std::byte> bytes) {
        return buffers_.overlay(home, bytes);
      })
                 : journal_.recover();
  if (!recovery) return recovery;
  PLUMB_TRY(load_space());
  PLUMB_TRY(bad_blocks_.load(*this));
  if (!read_only_) PLUMB_TRY(recover_windows());
  return recovery;
}

Status Store::load_bitmap(DeviceRole role) {
  const media::DeviceEntry& entry = superblock_.entry(role);
  Allocator& space = allocator(role);
  const std::uint64_t unit = superblock_.unit_blocks(role);
  space.load_used(BlockNumber(0), entry.data_start / unit);  // whatever the bitmap says: this is not for data
  const std::uint64_t bits = superblock_.bits_per_bitmap_block();
  const std::uint64_t units = superblock_.blocks(role) / unit;
  for (std::uint64_t i = 0; i < entry.bitmap_blocks; ++i) {
    PLUMB_ASSIGN(const BufferRef buffer, buffers_.get(BlockNumber(entry.bitmap_start + i), BufferType::kBitmap));
    const auto* map = reinterpret_cast<const std::uint8_t*>(buffer->bytes.get()) + sizeof(media::BitmapHeader);
    const std::uint64_t first = i * bits;
    const std::uint64_t count = std::min(bits, units - first);
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
      space.load_used(BlockNumber(first + b), end - b);
      b = end;
    }
  }
  PLUMB_ASSIGN(const BufferRef buffer, buffers_.get(BlockNumber(superblock_.media().state_block), BufferType::kState));
  const auto& state = *reinterpret_cast<const media::State*>(buffer->bytes.get());
  const std::uint64_t mark = state.zeroed_upto[index_of(role)];
  if (mark < entry.data_start || mark > superblock_.blocks(role) || mark % unit != 0)
    return fail(EUCLEAN, "state: zeroed_upto");
  space.load_zeroed_upto(mark / unit);
  return {};
}

Status Store::load_space() {
  for (const DeviceRole role : roles()) PLUMB_TRY(load_bitmap(role));
  PLUMB_ASSIGN(const BufferRef buffer, buffers_.get(BlockNumber(superblock_.media().state_block), BufferType::kState));
  const auto& state = *reinterpret_cast<const media::State*>(buffer->bytes.get());
  BTree reclaim(*this, media::TreeKind::kReclaim, static_cast<std::uint64_t>(media::TreeKind::kReclaim));
  reclaim_nodes_ = state.reclaim.nodes;
  Status bad;
  PLUMB_TRY(reclaim.visit(state.reclaim, 0, [&](std::uint64_t key, std::span<const std::byte> record) {
    media::ReclaimRecord entry_record;
    std::memcpy(&entry_record, record.data(), sizeof entry_record);
    if (media::device_of_key(key) >= superblock_.device_count()) {
      bad = fail(EUCLEAN, "reclaim queue: an entry of a device that is not there");
      return false;
    }
    add_pending(static_cast<DeviceRole>(media::device_of_key(key)),
                static_cast<std::int64_t>(entry_record.length_blocks.get()));
    return true;
  }));
  return bad;
}

// The blocks of a window that no committed extent owns may hold data of an operation that never committed. They are
// zeroed durably, on the device of the window, before the windows are forgotten; a crash in between repeats it.
Result<bool> Store::recover_window(const media::WindowSlot& slot, std::vector<BlockNumber>& bad) {
  if (slot.length_blocks == 0) return false;
  if (slot.device >= superblock_.device_count()) return fail(EUCLEAN, "state: a window on a device that is not there");
  const auto role = static_cast<DeviceRole>(slot.device);
  pmem::Device& target = device(role);
  const std::uint64_t unit = superblock_.unit_blocks(role);
  const std::uint64_t blocks = superblock_.blocks(role);
  const std::uint64_t data_start = superblock_.entry(role).data_start;
  const std::uint64_t chunk = std::max(superblock_.chunk_blocks(), unit);
  if (slot.start_block < data_start / chunk * chunk || slot.start_block >= blocks ||
      slot.length_blocks > blocks - slot.start_block || slot.start_block % unit != 0 || slot.length_blocks % unit != 0)
    return fail(EUCLEAN, "state: a window lies outside the device");
  const std::uint64_t end = slot.start_block + slot.length_blocks;
  const std::uint64_t unit_bytes = superblock_.unit_bytes(role);
  const auto must_zero = [&](std::uint64_t u) {
    if (allocator(role).is_used(BlockNumber(u))) return false;
    if (!target.is_memory()) return true;
    // Not on a page-cached device: after a failed msync the page counts as clean, and a flush alone would not write
    // what reads as zeros.
    const Result<bool> zero = target.is_zero(u * unit_bytes, unit_bytes);
    return !zero || !*zero;
  };
  // In runs: on a page-cached device each is one msync.
  for (std::uint64_t u = std::max<std::uint64_t>(slot.start_block, data_start) / unit; u < end / unit;) {
    std::uint64_t run_end = u;
    while (run_end < end / unit && must_zero(run_end)) ++run_end;
    if (run_end == u) {
      ++u;
      continue;
    }
    PLUMB_ASSIGN(const std::vector<BlockNumber> left,
                 zero_readable(role, blocks_of(role, {BlockNumber(u), run_end - u})));
    bad.insert(bad.end(), left.begin(), left.end());
    u = run_end;
  }
  PLUMB_TRY(
      pmem::flush_readable(target, slot.start_block * block_size(), slot.length_blocks * std::uint64_t{block_size()}));
  return true;
}

Status Store::recover_windows() {
  const media::State state = [&] {
    media::State copy;
    const auto buffer = buffers_.get(BlockNumber(superblock_.media().state_block), BufferType::kState);
    std::memcpy(&copy, (*buffer)->bytes.get(), sizeof copy);
    return copy;
  }();
  std::array<bool, media::kMaxDevices> touched{};
  std::array<std::vector<BlockNumber>, media::kMaxDevices> bad;
  for (const media::WindowSlot& slot : state.windows) {
    std::vector<BlockNumber> bad_here;
    PLUMB_ASSIGN(const bool any, recover_window(slot, bad_here));
    if (!any) continue;
    touched[slot.device] = true;
    bad[slot.device].insert(bad[slot.device].end(), bad_here.begin(), bad_here.end());
  }
  if (std::none_of(touched.begin(), touched.end(), [](bool t) { return t; })) return {};
  // Separates the zeros, on every device that has some, from the record that forgets where they had to be.
  for (const DeviceRole role : roles())
    if (touched[index_of(role)]) PLUMB_TRY(device(role).drain());
  // What is free and cannot be zeroed is the list's before its window is forgotten; and after all windows are zeroed,
  // because the tree may grow into any of their blocks.
  for (const DeviceRole role : roles()) {
    std::vector<BlockNumber>& blocks = bad[index_of(role)];
    std::sort(blocks.begin(), blocks.end());
    PLUMB_TRY(list_bad(role, blocks));
  }
  Transaction t(*this, Transaction::Privilege::kMayUseReserve);
  PLUMB_ASSIGN(media::State * changed, t.modify_state());
  for (media::WindowSlot& slot : changed->windows) slot = media::WindowSlot{};
  PLUMB_ASSIGN(const Sequence sequence, t.commit());
  return journal_.force(sequence);
}

Result<Store::WindowOutcome> Store::open_window(DeviceRole role, const Allocator::DataRequest& request) {
  Transaction t(*this, Transaction::Privilege::kMayUseReserve);
  const auto range = allocator(role).choose_window(request);
  if (!range) return WindowOutcome::kNoChunk;
  const auto slot = allocator(role).retire_slot();
  if (!slot) return WindowOutcome::kAllBusy;
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  media::WindowSlot& window = state->windows[*slot];
  const BlockRange blocks = blocks_of(role, *range);
  window.start_block = blocks.start.value;
  window.length_blocks = static_cast<std::uint32_t>(blocks.length);
  window.device = static_cast<std::uint8_t>(role);
  PLUMB_ASSIGN(const Sequence sequence, t.commit());
  // The window is durable, on the main device, before the first store into it, on whichever device it is.
  PLUMB_TRY(journal_.force(sequence));
  allocator(role).open_window(*slot, *range, request.size_class);
  counters_.windows_opened.fetch_add(1, std::memory_order_relaxed);
  return WindowOutcome::kOpened;
}

Result<BlockRange> Store::allocate_data(DeviceRole role, const Allocator::DataRequest& request, bool may_wait) {
  const std::uint64_t unit = superblock_.unit_blocks(role);
  Allocator::DataRequest units = request;
  units.blocks = request.blocks / unit;
  units.goal = BlockNumber(request.goal.value / unit);
  units.file_block = request.file_block / unit;
  PLUMB_ASSIGN(const BlockRange range, allocate_units(role, units, may_wait));
  return blocks_of(role, range);
}

Result<BlockRange> Store::allocate_units(DeviceRole role, Allocator::DataRequest request, bool may_wait) {
  while (true) {
    const Allocator::DataResult result = allocator(role).take_data(request);
    if (result.range.length != 0) return result.range;
    if (result.shortage == Allocator::Shortage::kNoSpace) return fail(ENOSPC);
    if (result.shortage == Allocator::Shortage::kNeedZeroed) {
      PLUMB_ASSIGN(const bool more, extend_zeroed(role));
      if (!more) return fail(ENOSPC);
      continue;
    }
    PLUMB_ASSIGN(const WindowOutcome window, open_window(role, request));
    if (window == WindowOutcome::kOpened) continue;
    if (window == WindowOutcome::kAllBusy) {
      // Every window has blocks of operations in flight. Who holds none may wait for one of them to commit.
      if (!may_wait) return fail(EAGAIN);
      std::this_thread::yield();
      continue;
    }
    // No chunk of this kind: whole zeroed chunks first, then anything that is free.
    if (request.size_class == Allocator::Class::kBig) {
      PLUMB_ASSIGN(const bool more, extend_zeroed(role));
      if (!more) request.size_class = Allocator::Class::kSmall;
    } else if (!request.any_window) {
      request.any_window = true;
    } else {
      PLUMB_ASSIGN(const bool more, extend_zeroed(role));
      if (!more) return fail(ENOSPC);
    }
  }
}

void Store::abandon_data(DeviceRole role, BlockRange range) {
  auto bad = zero_readable(role, range);
  // Zeros durable before anybody can take the blocks, or the window that covers them can go.
  if (!bad || !device(role).drain()) {
    unclean_windows_ = true;  // still in flight, so the window stays, and the next mount zeroes them
    return;
  }
  const std::uint64_t unit = superblock_.unit_blocks(role);
  std::uint64_t next = range.start.value;
  for (std::size_t i = 0; i < bad->size();) {
    const std::uint64_t start = (*bad)[i].value / unit * unit;
    Withdrawn withdrawn{role, {BlockNumber(start), unit}, {}, true};
    for (; i < bad->size() && (*bad)[i].value < start + unit; ++i) withdrawn.bad.push_back((*bad)[i]);
    if (start > next) allocator(role).give_back(units_of(role, {BlockNumber(next), start - next}));
    next = start + unit;
    withdraw(std::move(withdrawn));
  }
  const std::uint64_t end = range.start.value + range.length;
  if (end > next) allocator(role).give_back(units_of(role, {BlockNumber(next), end - next}));
}

Result<bool> Store::extend_zeroed(DeviceRole role) {
  MutexLock one_at_a_time(extend_mutex_);
  pmem::Device& target = device(role);
  const std::uint64_t unit_bytes = superblock_.unit_bytes(role);
  const std::uint64_t mark = allocator(role).zeroed_upto();
  const std::uint64_t units = allocator(role).blocks();
  if (mark >= units) return false;
  std::uint64_t end = std::min(units, mark + std::max<std::uint64_t>(1, kZeroStepBytes / unit_bytes));
  PLUMB_ASSIGN(std::vector<BlockNumber> bad, zero_readable(role, blocks_of(role, {BlockNumber(mark), end - mark})));
  // Zeros durable before the record that says so.
  PLUMB_TRY(target.drain());
  if (!bad.empty()) PLUMB_TRY(allow_bad_blocks());
  if (bad.size() > BadBlocks::kMaxPerTransaction) {
    // Only as far as one transaction takes, but one unit at least.
    const std::uint64_t unit = superblock_.unit_blocks(role);
    end = std::max(mark + 1, bad[BadBlocks::kMaxPerTransaction].value / unit);
    std::erase_if(bad, [&](BlockNumber block) { return block.value >= end * unit; });
  }
  Transaction t(*this, Transaction::Privilege::kMayUseReserve);
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  state->zeroed_upto[index_of(role)] = end * superblock_.unit_blocks(role);
  // What cannot be zeroed becomes the list's with the record that says that the rest is zeros.
  for (const BlockNumber block : bad) {
    const BlockNumber unit(block.value / superblock_.unit_blocks(role));
    if (allocator(role).withdraw(unit)) t.on_abort([this, role, unit] { allocator(role).release({unit, 1}); });
  }
  PLUMB_TRY(own_bad_units(t, role, bad));
  PLUMB_TRY(t.commit());
  allocator(role).advance_zeroed(end);
  return true;
}

Status Store::checkpoint() {
  MutexLock lock(transaction_mutex_);
  return journal_.checkpoint();
}

Status Store::defer_data() {
  MutexLock lock(transaction_mutex_);
  if (journal_.is_deferred()) return {};
  journal_.set_deferred(true);
  return journal_.checkpoint();  // writes a header
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
  Allocator& space = store_.allocator(DeviceRole::kMain);  // metadata lies there only
  std::optional<BlockNumber> block;
  while (true) {
    block = space.take_metadata(privileged_);
    if (!block) return fail(ENOSPC);
    // Metadata is stored when there is no way back any more: not into a block that is known to be bad beforehand.
    if (store_.device(DeviceRole::kMain).is_readable(block->value * block_size(), block_size())) break;
    store_.withdraw({DeviceRole::kMain, {*block, 1}, {*block}, false});
  }
  abort_actions_.push_back([&space, block = *block] { space.release({block, 1}); });
  PLUMB_TRY(set_bitmap(DeviceRole::kMain, {*block, 1}, true));
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
  PLUMB_ASSIGN(const BufferRef buffer, get(BlockNumber(store_.superblock_.media().state_block), BufferType::kState));
  return reinterpret_cast<const media::State*>(buffer->bytes.get());
}

Result<media::State*> Transaction::modify_state() {
  PLUMB_ASSIGN(const BufferRef buffer, get(BlockNumber(store_.superblock_.media().state_block), BufferType::kState));
  return reinterpret_cast<media::State*>(modify(buffer));
}

Status Transaction::set_bitmap(DeviceRole role, BlockRange range, bool allocated) {
  const media::DeviceEntry& entry = store_.superblock_.entry(role);
  const std::uint64_t bits = store_.superblock_.bits_per_bitmap_block();
  const std::uint64_t blocks = store_.superblock_.blocks(role);
  const std::uint64_t unit = store_.superblock_.unit_blocks(role);
  if (range.start.value < entry.data_start || range.length > blocks || range.start.value > blocks - range.length ||
      range.start.value % unit != 0 || range.length % unit != 0)
    return fail(EUCLEAN, "block " + std::to_string(range.start.value) + ": outside the data area");
  const BlockRange units = store_.units_of(role, range);
  for (std::uint64_t b = units.start.value, end = b + units.length; b < end;) {
    PLUMB_ASSIGN(const BufferRef buffer, get(BlockNumber(entry.bitmap_start + b / bits), BufferType::kBitmap));
    auto* map = reinterpret_cast<std::uint8_t*>(modify(buffer)) + sizeof(media::BitmapHeader);
    const std::uint64_t limit = std::min(end, (b / bits + 1) * bits);
    for (; b < limit;) {
      const std::uint64_t bit = b % bits;
      const std::uint64_t count = std::min<std::uint64_t>(8 - bit % 8, limit - b);
      const auto mask = static_cast<std::uint8_t>(((1u << count) - 1) << (bit % 8));
      std::uint8_t& byte = map[bit / 8];
      if ((byte & mask) != (allocated ? 0 : mask))
        return fail(EUCLEAN, "block " + std::to_string(b * unit) + (allocated ? ": allocated twice" : ": freed twice"));
      byte = static_cast<std::uint8_t>(allocated ? byte | mask : byte & ~mask);
      b += count;
    }
  }
  return {};
}

Result<bool> Transaction::is_allocated(DeviceRole role, BlockNumber block) {
  const std::uint64_t bits = store_.superblock_.bits_per_bitmap_block();
  const std::uint64_t unit = block.value / store_.superblock_.unit_blocks(role);
  const std::uint64_t start = store_.superblock_.entry(role).bitmap_start;
  PLUMB_ASSIGN(const BufferRef buffer, get(BlockNumber(start + unit / bits), BufferType::kBitmap));
  const auto* map = reinterpret_cast<const std::uint8_t*>(buffer->bytes.get()) + sizeof(media::BitmapHeader);
  return (map[unit % bits / 8] >> (unit % 8) & 1) != 0;
}

Status Transaction::free_data(DeviceRole role, BlockRange range) {
  PLUMB_ASSIGN(media::State * state, modify_state());
  media::ReclaimRecord record{};
  record.length_blocks = static_cast<std::uint32_t>(range.length);
  record.kind = static_cast<std::uint8_t>(media::ReclaimKind::kData);
  BTree tree(store_, media::TreeKind::kReclaim, static_cast<std::uint64_t>(media::TreeKind::kReclaim));
  PLUMB_TRY(tree.put(*this, state->reclaim, media::device_key(index_of(role), range.start.value),
                     std::as_bytes(std::span(&record, 1))));
  pending_delta_[index_of(role)] += static_cast<std::int64_t>(range.length);
  return {};
}

// Inserting never frees a node, so the list does not grow while it is worked off.
Status Transaction::queue_freed_metadata() {
  if (freed_.empty()) return {};
  PLUMB_ASSIGN(media::State * state, modify_state());
  BTree tree(store_, media::TreeKind::kReclaim, static_cast<std::uint64_t>(media::TreeKind::kReclaim));
  media::ReclaimRecord record{};
  record.length_blocks = 1;
  record.kind = static_cast<std::uint8_t>(media::ReclaimKind::kMetadata);
  for (const BlockNumber block : freed_)
    PLUMB_TRY(tree.put(*this, state->reclaim, block.value, std::as_bytes(std::span(&record, 1))));
  pending_delta_[index_of(DeviceRole::kMain)] += static_cast<std::int64_t>(freed_.size());
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
  for (const DeviceRole role : store_.roles()) store_.add_pending(role, pending_delta_[index_of(role)]);
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
