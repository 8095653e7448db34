// What happens to blocks that cannot be read: found by requests, listed soon after, used again when they can be
// written.
//
// The devices keep the places where a load or store has failed. Whoever works in the background, or runs reclaim, takes
// them from there, with no lock held but those of that work, reads again around them, and puts what cannot be read on
// the list (Store::list_bad). So no request does more than fail.
#include <algorithm>
#include <string>
#include <vector>

#include "fs/core/bad_block_report.h"
#include "fs/core/extents.h"
#include "fs/core/file_bytes.h"
#include "fs/core/volume_impl.h"
#include "pmem/unreadable.h"

namespace plumb {
namespace {

constexpr std::uint64_t kPageBytes = 4096;  // what the kernel takes away around poison, at least
constexpr std::size_t kMaxUnlisted = 4096;

}  // namespace

// The blocks around the places where something has failed, that are not on the list and still cannot be read.
std::vector<BlockNumber> VolumeImpl::unreadable_around(DeviceRole role, const std::vector<std::uint64_t>& faults) {
  const pmem::Device& device = store.device(role);
  const std::uint64_t block_size = store.block_size();
  const std::uint64_t step = std::max(kPageBytes, block_size);
  std::vector<BlockNumber> found;
  for (const std::uint64_t fault : faults) {
    const std::uint64_t first = fault / step * step / block_size;
    for (std::uint64_t block = first; block < first + step / block_size && block < superblock.blocks(role); ++block) {
      if (store.bad_blocks().any_in(role, {BlockNumber(block), 1})) continue;
      if (!device.is_readable(block * block_size, block_size)) found.emplace_back(block);
    }
  }
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

Status VolumeImpl::list_faults() {
  if (store.read_only()) return {};
  const MutexLock one_at_a_time(reclaim_mutex_);
  Status first = store.list_withdrawn();
  for (const DeviceRole role : store.roles()) {
    std::vector<std::uint64_t>& waiting = unlisted_[index_of(role)];
    std::vector<std::uint64_t> faults = store.device(role).take_faults();
    faults.insert(faults.end(), waiting.begin(), waiting.end());
    waiting.clear();
    if (faults.empty()) continue;
    const std::vector<BlockNumber> blocks = unreadable_around(role, faults);
    const auto left = store.list_bad(role, blocks);
    // What is in flight belongs to a file, or to nobody, in a moment. After an error all of it waits.
    for (const BlockNumber block : left ? *left : blocks)
      if (waiting.size() < kMaxUnlisted) waiting.push_back(superblock.offset_of(block));
    if (!left && first) first = tl::unexpected(left.error());
    for (const BlockNumber block : blocks)
      if (store.bad_blocks().any_in(role, {block, 1}))
        notify(store.device(role).info().path + ": block " + std::to_string(block.value) + " (at byte " +
               std::to_string(superblock.offset_of(block)) + ") cannot be read and is on the list of bad blocks; " +
               "'plumb badblocks' says what it is part of");
  }
  return first;
}

void VolumeImpl::notify(const std::string& line) const {
  if (options.on_notice) options.on_notice(line);
}

void VolumeImpl::report_failed_log() {
  if (options.read_only || log_failure_told_) return;
  const std::optional<Error> failure = store.journal().first_failure();
  if (!failure) return;
  log_failure_told_ = true;
  notify(
      store.device(DeviceRole::kMain).info().path +
      ": the log cannot be written, and the file system is read-only until it is mounted again: " + failure->message());
}

void Volume::note_unreadable(const ReadPin& pin) {
  VolumeImpl& v = *impl_;
  const std::uint64_t block_size = v.store.block_size();
  std::vector<std::byte> block(block_size);
  for (const iovec& piece : pin.iov) {
    for (const DeviceRole role : v.store.roles()) {
      const pmem::Device& device = v.store.device(role);
      const auto offset = device.offset_of(piece.iov_base);
      if (!offset) continue;
      const std::uint64_t begin = *offset / block_size * block_size;
      const std::uint64_t end = (*offset + piece.iov_len + block_size - 1) / block_size * block_size;
      // The load that fails leaves its place with the device.
      for (const std::uint64_t bad : pmem::unreadable_units(device, begin, end - begin, block_size))
        (void)device.load(bad, block);
    }
  }
}

// ---- using them again ----

std::vector<VolumeImpl::FileBadBlock> VolumeImpl::bad_blocks_of(const Inode& inode, std::uint64_t offset,
                                                                std::uint64_t end) const {
  std::vector<FileBadBlock> found;
  const DeviceRole role = role_of(inode.media);
  if (store.bad_blocks().count(role) == 0) return found;
  const std::uint64_t first = offset / store.block_size();
  const std::uint64_t last = (end - 1) / store.block_size();
  for (const FilePiece& piece : FilePieces(inode.extents, 1, first, last + 1)) {
    for (const BadBlock& bad : store.bad_blocks().in(role, {BlockNumber(piece.at), piece.length}))
      found.push_back({piece.offset + (bad.block.value - piece.at), bad.block});
  }
  return found;
}

std::uint64_t VolumeImpl::end_with_few_bad(const Inode& inode, std::uint64_t offset, std::uint64_t end) const {
  const std::vector<FileBadBlock> blocks = bad_blocks_of(inode, offset, end);
  if (blocks.size() <= BadBlocks::kMaxPerTransaction) return end;
  return blocks[BadBlocks::kMaxPerTransaction].file_block * store.block_size();
}

Result<std::vector<VolumeImpl::FileBadBlock>> VolumeImpl::renew_bad_blocks(Inode& inode, std::uint64_t offset,
                                                                           std::uint64_t end) {
  const DeviceRole role = role_of(inode.media);
  pmem::Device& device = store.device(role);
  const std::uint64_t block_size = store.block_size();
  std::vector<FileBadBlock> blocks = bad_blocks_of(inode, offset, end);
  for (const FileBadBlock& block : blocks) {
    const std::uint64_t start = block.file_block * block_size;
    const std::uint64_t valid_end = std::min<std::uint64_t>(start + block_size, inode.media.size_bytes);
    const bool covered = valid_end <= start || (offset <= start && end >= valid_end);
    if (!covered) return bad_block_error(role, block.device_block);
  }
  for (const FileBadBlock& block : blocks) {
    const std::uint64_t at = superblock.offset_of(block.device_block);
    PLUMB_TRY(zero_file_bytes(device, at, block_size));
    mark_stored(inode, role, at, block_size);
    const Result<bool> zero = device.is_zero(at, block_size);
    if (!zero || !*zero) return bad_block_error(role, block.device_block);
  }
  return blocks;
}

Status VolumeImpl::forget_bad_blocks(Transaction& t, DeviceRole role, const std::vector<FileBadBlock>& renewed) {
  for (const FileBadBlock& block : renewed) PLUMB_TRY(store.bad_blocks().erase(t, role, block.device_block));
  return {};
}

Result<bool> VolumeImpl::free_listed_unit(DeviceRole role, BlockRange unit) {
  PLUMB_ASSIGN(const std::vector<BlockNumber> bad, store.zero_readable(role, unit));
  if (!bad.empty()) return false;
  // Zeros durable before the record that makes them free.
  PLUMB_TRY(store.device(role).drain());
  Transaction t(store, Transaction::Privilege::kMayUseReserve);
  for (const BadBlock& entry : store.bad_blocks().in(role, unit))
    PLUMB_TRY(store.bad_blocks().erase(t, role, entry.block));
  PLUMB_TRY(t.set_bitmap(role, unit, false));
  t.on_commit([this, role, unit] { store.release_data(role, unit); });
  PLUMB_TRY(t.commit());
  return true;
}

Result<bool> VolumeImpl::forget_if_readable(const BadBlock& entry) {
  if (!store.device(entry.role).is_readable(superblock.offset_of(entry.block), store.block_size())) return false;
  Transaction t(store, Transaction::Privilege::kMayUseReserve);
  PLUMB_TRY(store.bad_blocks().erase(t, entry.role, entry.block));
  PLUMB_TRY(t.commit());
  return true;
}

Result<BadBlocksPart> Volume::report_bad_blocks(std::uint64_t cursor, std::size_t most) {
  Store& store = impl_->store;
  std::vector<BadBlock> entries = store.bad_blocks().all();
  const auto key = [](const BadBlock& entry) { return media::device_key(index_of(entry.role), entry.block.value); };
  std::erase_if(entries, [&](const BadBlock& entry) { return key(entry) < cursor; });
  BadBlocksPart part;
  if (entries.size() > most) {
    part.next = key(entries[most]);
    entries.resize(most);
  }
  PLUMB_ASSIGN(part.reports, plumb::report_bad_blocks(store, entries));
  return part;
}

Result<std::uint64_t> Volume::clear_bad_blocks() {
  VolumeImpl& v = *impl_;
  if (v.store.read_only()) return fail(EROFS);
  PLUMB_TRY(v.run_reclaim());  // what is on its way to the list
  const MutexLock one_at_a_time(v.reclaim_mutex());
  const std::vector<BadBlock> before = v.store.bad_blocks().all();
  for (const BadBlock& entry : before) {
    if (!v.store.bad_blocks().any_in(entry.role, {entry.block, 1})) continue;  // went with another of its unit
    if (entry.owner == media::BadBlockOwner::kList) {
      const std::uint64_t unit = v.superblock.unit_blocks(entry.role);
      PLUMB_TRY(v.free_listed_unit(entry.role, {BlockNumber(entry.block.value / unit * unit), unit}));
      continue;
    }
    PLUMB_ASSIGN(const auto report, plumb::report_bad_blocks(v.store, std::span(&entry, 1)));
    if (report.front().use == BadBlockUse::kMetadata) PLUMB_TRY(v.forget_if_readable(entry));
  }
  const std::size_t left = v.store.bad_blocks().all().size();
  return before.size() - std::min(left, before.size());
}

tl::unexpected<Error> VolumeImpl::bad_block_error(DeviceRole role, BlockNumber block) const {
  return fail(EIO,
              store.device(role).info().path + ": block " + std::to_string(block.value) +
                  " is on the list of bad blocks; writing all of it may make it usable",
              superblock.offset_of(block));
}

}  // namespace plumb
