// The order of the check, and what stands at fixed places: superblocks, journal headers, state block.
#include "fs/core/check.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "fs/core/check_impl.h"
#include "fs/core/journal.h"
#include "fs/media/verify.h"

namespace plumb {
namespace checker {
namespace {

template <typename T>
std::span<std::byte> writable_bytes(T& object) {
  return std::as_writable_bytes(std::span<T, 1>(&object, 1));
}

}  // namespace

// ---- Findings ----

void Findings::add(std::string object, std::string what, std::uint64_t offset_bytes, bool checksum) {
  if (muted_) return;
  ++report_.problems_total;
  if (report_.problems.size() >= CheckReport::kMaxProblems) return;
  report_.problems.push_back({std::move(object), std::move(what), offset_bytes, checksum});
}

void Findings::add_error(std::string object, std::string_view context, const Error& error, std::uint64_t offset_bytes) {
  std::string_view detail = error.detail;
  if (detail.starts_with(object + ": ")) detail.remove_prefix(object.size() + 2);
  std::string what(context);
  what += detail.empty() ? std::generic_category().message(error.code) : std::string(detail);
  add(std::move(object), std::move(what), offset_bytes, error.code == EBADMSG);
}

// ---- Checker ----

Checker::Checker(const Superblock& superblock, const CheckOptions& options, CheckReport& report)
    : device_(superblock.device(DeviceRole::kMain)),
      superblock_(superblock),
      options_(options),
      report_(report),
      findings_(report),
      image_(device_, superblock),
      owners_(superblock, DeviceRole::kMain, image_, findings_),
      trees_(image_, owners_, findings_, [this] { note_unread(); }) {
  if (superblock.device_count() > 1)
    realtime_owners_ = std::make_unique<BlockOwners>(superblock, DeviceRole::kRealtime, image_, findings_);
  all_owners_ = {&owners_, realtime_owners_.get()};
}

std::span<BlockOwners*> Checker::owners() {
  return std::span(all_owners_).first(superblock_.device_count());
}

void Checker::note_unread() {
  for (BlockOwners* owners : owners()) owners->note_unread();
}

void Checker::progress(std::uint64_t done, std::uint64_t total, std::string_view phase) const {
  if (options_.progress) options_.progress(done, total, phase);
}

void Checker::run() {
  replay_journal();
  check_journal_headers();
  check_superblock_copies();
  check_member_labels();
  for (BlockOwners* owners : owners()) owners->load_bitmap();
  report_.blocks_total = superblock_.blocks(DeviceRole::kMain);
  report_.blocks_used = owners_.blocks_used();
  if (realtime_owners_) {
    report_.realtime_extents_total = realtime_owners_->blocks();
    report_.realtime_extents_used = realtime_owners_->blocks_used();
  }
  if (!read_state()) return;  // nothing leads to the rest
  check_windows();
  walk();
  report_.inodes = used_;
  report_.directories = used_directories_;
  report_.files = used_files_;
  check_orphan_list();
  check_links();
  check_connected();
  bool conflicts = false;
  for (std::size_t device = 0; device < owners().size(); ++device) {
    BlockOwners& owners = *all_owners_[device];
    owners.check_unowned();
    if (mark_is_sane_[device]) owners.check_above_mark(state_.zeroed_upto[device] / owners.unit_blocks());
    conflicts = conflicts || owners.has_conflicts();
  }
  if (conflicts) {
    findings_.set_muted(true);
    for (BlockOwners* owners : owners()) owners->begin_naming();
    walk();
    findings_.set_muted(false);
    for (BlockOwners* owners : owners()) owners->report_conflicts();
  }
  if (!options_.zeros) return;
  for (std::size_t device = 0; device < owners().size(); ++device) {
    BlockOwners& owners = *all_owners_[device];
    const std::uint64_t unit = owners.unit_blocks();
    std::vector<BlockOwners::Run> windows;
    for (const media::WindowSlot& slot : state_.windows)
      if (!report_.was_clean && slot.length_blocks != 0 && slot.device == device && window_is_sane(slot))
        windows.push_back({slot.start_block / unit, (slot.start_block + slot.length_blocks) / unit});
    if (mark_is_sane_[device]) owners.check_zeros(state_.zeroed_upto[device] / unit, windows, options_);
  }
}

// Everything that claims blocks, always in the same order.
void Checker::walk() {
  directories_.clear();
  orphans_.clear();
  check_reclaim();
  check_bad_blocks();
  read_inode_table();
  read_inode_blocks();
  read_directories();
}

// ---- journal ----

void Checker::replay_journal() {
  const media::Superblock& sb = superblock_.media();
  Journal journal(device_, media::journal_geometry(sb));
  const auto recovery = journal.replay_into(
      [this](std::uint64_t home, std::span<const std::byte> bytes) { return image_.overlay(home, bytes); });
  if (recovery) {
    report_.journal_records = recovery->records;
    report_.was_clean = recovery->was_clean;
    return;
  }
  // The homes are looked at as they are; mount fails.
  report_.was_clean = false;
  const std::uint64_t offset = recovery.error().offset_bytes;
  findings_.add_error("journal", {}, recovery.error(), offset == Error::kNoOffset ? sb.journal_start.get() : offset);
}

// A torn header is what a crash while it was written leaves on a memory device: each word is the one of before or the
// new one. Recovery goes by the other header, and its first store replaces the torn one.
bool Checker::may_be_torn(const media::JournalHeader& header, const media::JournalHeader& good) const {
  const bool memory = device_.is_memory() || superblock_.entry(DeviceRole::kMain).kind == 0;
  return memory && (header.update + 1 == good.update || header.update == good.update + 1) && header.clean <= 1 &&
         header.reserved0 == 0 && header.reserved1 == 0;
}

void Checker::check_journal_headers() {
  const media::Superblock& sb = superblock_.media();
  const std::uint64_t ring_bytes =
      (sb.journal_bytes - media::kJournalRingOffset) / media::kRecordAlign * media::kRecordAlign;
  std::array<media::JournalHeader, 2> headers;
  std::array<Status, 2> status;
  for (std::size_t i = 0; i < headers.size(); ++i) {
    const std::uint64_t offset = sb.journal_start + i * media::kJournalHeaderStride;
    status[i] = device_.load(offset, writable_bytes(headers[i]));
    if (status[i]) status[i] = media::verify_journal_header(headers[i], ring_bytes);
  }
  for (std::size_t i = 0; i < headers.size(); ++i) {
    const std::string name = "journal header " + std::to_string(i + 1);
    const std::uint64_t offset = sb.journal_start + i * media::kJournalHeaderStride;
    if (!status[i]) {
      const bool torn = status[1 - i] && status[i].error().code == EBADMSG && may_be_torn(headers[i], headers[1 - i]);
      Error error = status[i].error();
      if (error.detail.starts_with("journal header: ")) error.detail.erase(0, 16);
      if (!torn) findings_.add_error(name, {}, error, offset);
    } else if (headers[i].update % 2 != 1 - i) {
      findings_.add(name, "update is " + std::to_string(headers[i].update) + ", which belongs into the other header",
                    offset);
    } else if (headers[i].clean > 1 || headers[i].deferred > 1) {
      findings_.add(name, "clean or deferred is neither 0 nor 1", offset);
    }
  }
  if (status[0] && status[1]) {
    const bool in_turn = headers[0].update + 1 == headers[1].update || headers[1].update + 1 == headers[0].update;
    if (!in_turn)
      findings_.add("journal header 2", "update does not follow that of the other header",
                    sb.journal_start + media::kJournalHeaderStride);
  }
}

// ---- superblock ----

// As with journal headers: a mount after a crash counts it in both copies, one after the other, before the journal can
// be clean again; only these fields change.
bool Checker::may_be_torn(const media::Superblock& copy, const media::Superblock& good) const {
  media::Superblock same = copy;
  same.crc = good.crc;
  same.update = good.update;
  same.unsafe_shutdowns = good.unsafe_shutdowns;
  same.ro_compat = good.ro_compat;
  const bool memory = device_.is_memory() || good.devices[0].kind == 0;
  return memory && !report_.was_clean && std::memcmp(&same, &good, sizeof same) == 0;
}

void Checker::check_superblock_copies() {
  const media::Superblock& good = superblock_.media();
  for (std::size_t i = 0; i < media::kSuperblockOffsets.size(); ++i) {
    const std::uint64_t offset = media::kSuperblockOffsets[i];
    const std::string name = "superblock copy " + std::to_string(i + 1);
    media::Superblock copy;
    Status status = device_.load(offset, writable_bytes(copy));
    if (status) status = media::verify_superblock(copy, device_.size_bytes());
    if (!status) {
      Error error = status.error();
      if (error.detail.starts_with("superblock: ")) error.detail.erase(0, 12);
      if (error.code != EBADMSG || !may_be_torn(copy, good)) findings_.add_error(name, {}, error, offset);
    } else if (std::memcmp(&copy, &good, sizeof copy) != 0) {
      // An older copy is what a crash between the two leaves.
      media::Superblock same = copy;
      same.crc = good.crc;
      same.update = good.update;
      same.unsafe_shutdowns = good.unsafe_shutdowns;
      same.ro_compat = good.ro_compat;
      if (report_.was_clean || copy.update == good.update || std::memcmp(&same, &good, sizeof same) != 0)
        findings_.add(name, "differs from the copy that counts", offset);
    }
  }
}

// The labels of the realtime device: written once, so both are whole and alike.
void Checker::check_member_labels() {
  if (superblock_.device_count() < 2) return;
  pmem::Device& device = superblock_.device(DeviceRole::kRealtime);
  const auto good = Superblock::read_label(device);  // one of them was, or there would be no check
  for (std::size_t i = 0; i < media::kSuperblockOffsets.size(); ++i) {
    const std::string name = "realtime label copy " + std::to_string(i + 1);
    media::MemberLabel copy;
    Status status = device.load(media::kSuperblockOffsets[i], writable_bytes(copy));
    if (status) status = media::verify_member_label(copy);
    if (!status)
      findings_.add_error(name, {}, status.error());
    else if (good && std::memcmp(&copy, &*good, sizeof copy) != 0)
      findings_.add(name, "differs from the copy that counts");
  }
}

// ---- state block ----

bool Checker::read_state() {
  const std::uint64_t block = superblock_.media().state_block;
  const std::uint64_t offset = block * image_.block_size();
  std::vector<std::byte> bytes(image_.block_size());
  Status status = image_.load(block, bytes);
  if (status) status = media::verify_state(bytes, block);
  if (!status) {
    findings_.add_error("state block", {}, status.error(), offset);
    return false;
  }
  std::memcpy(&state_, bytes.data(), sizeof state_);
  if (state_.header.owner != 0) findings_.add("state block", "header: owner is not 0", offset);
  for (std::size_t device = 0; device < owners().size(); ++device) {
    const BlockOwners& space = *all_owners_[device];
    const std::uint64_t mark = state_.zeroed_upto[device];
    mark_is_sane_[device] = mark % space.unit_blocks() == 0 && mark / space.unit_blocks() >= space.data_start() &&
                            mark / space.unit_blocks() <= space.blocks();
    if (!mark_is_sane_[device])
      findings_.add("state block",
                    "zeroed_upto" + std::string(device == 0 ? "" : " of the realtime device") + " is " +
                        std::to_string(mark) + ", outside the data area",
                    offset);
  }
  if (superblock_.device_count() < 2 && state_.zeroed_upto[1] != 0)
    findings_.add("state block", "zeroed_upto of a device that is no member is set", offset);
  return true;
}

bool Checker::window_is_sane(const media::WindowSlot& slot) const {
  if (slot.device >= superblock_.device_count()) return false;
  const auto role = static_cast<DeviceRole>(slot.device);
  const std::uint64_t unit = superblock_.unit_blocks(role);
  const std::uint64_t chunk = std::max(superblock_.chunk_blocks(), unit);
  const std::uint64_t lowest = superblock_.entry(role).data_start / chunk * chunk;
  const std::uint64_t blocks = superblock_.blocks(role);
  const std::uint64_t start = slot.start_block;
  return start >= lowest && start < blocks && slot.length_blocks <= blocks - start && start % unit == 0 &&
         slot.length_blocks % unit == 0;
}

void Checker::check_windows() {
  const std::uint64_t offset = superblock_.media().state_block * image_.block_size();
  for (std::size_t i = 0; i < state_.windows.size(); ++i) {
    const media::WindowSlot& slot = state_.windows[i];
    if (slot.length_blocks != 0 && !window_is_sane(slot))
      findings_.add("state block", "window " + std::to_string(i) + " lies outside the device", offset);
  }
}

void Checker::check_reclaim() {
  const auto visit = [this](std::uint64_t key, std::span<const std::byte> bytes) {
    media::ReclaimRecord record;
    std::memcpy(&record, bytes.data(), sizeof record);
    const std::uint64_t block = media::number_of_key(key);
    const auto bad = [&](const char* what) {
      findings_.add("reclaim tree", "entry of block " + std::to_string(block) + ": " + what, trees_.leaf_offset());
    };
    const std::size_t device = media::device_of_key(key);
    if (device >= superblock_.device_count()) return bad("of a device that is no member");
    if (record.kind > static_cast<std::uint8_t>(media::ReclaimKind::kMetadata)) bad("unknown kind");
    if (device != 0 && record.kind != static_cast<std::uint8_t>(media::ReclaimKind::kData))
      bad("metadata on a device that holds none");
    all_owners_[device]->claim(block, record.length_blocks, {Owner::Kind::kReclaimEntry, 0, trees_.leaf_offset()});
  };
  trees_.read(state_.reclaim, media::TreeKind::kReclaim, {Owner::Kind::kReclaimTree, 0, state_offset()}, visit);
}

void Checker::check_bad_blocks() {
  struct {
    std::uint64_t key = 0;  // of the unit's first block
    std::uint8_t owner = 0;
  } last;
  bool any = false;
  const auto visit = [&](std::uint64_t key, std::span<const std::byte> bytes) {
    any = true;
    media::BadBlockRecord record;
    std::memcpy(&record, bytes.data(), sizeof record);
    const std::uint64_t block = media::number_of_key(key);
    const auto bad = [&](const char* what) {
      findings_.add("bad block tree", "entry of block " + std::to_string(block) + ": " + what, trees_.leaf_offset());
    };
    const std::size_t device = media::device_of_key(key);
    if (device >= superblock_.device_count()) return bad("of a device that is no member");
    if (record.length_blocks != 1) return bad("length is not 1");
    if (record.owner > static_cast<std::uint8_t>(media::BadBlockOwner::kList)) return bad("unknown owner");
    BlockOwners& owners = *all_owners_[device];
    const std::uint64_t unit = block / owners.unit_blocks();
    if (unit >= owners.blocks()) return bad("beyond the end of the device");
    const std::uint64_t unit_key = media::device_key(device, unit * owners.unit_blocks());
    if (last.key == unit_key && unit != 0) {
      if (last.owner != record.owner) bad("another owner than an entry in the same realtime extent");
      return;
    }
    last = {unit_key, record.owner};
    if (record.owner == static_cast<std::uint8_t>(media::BadBlockOwner::kList))
      owners.claim(unit * owners.unit_blocks(), owners.unit_blocks(),
                   {Owner::Kind::kBadBlock, 0, trees_.leaf_offset()});
    else if (!owners.is_allocated(unit))
      bad("free in the bitmap");
  };
  trees_.read(state_.bad_blocks, media::TreeKind::kBadBlocks, {Owner::Kind::kBadBlockTree, 0, state_offset()}, visit);
  if (any && (superblock_.media().ro_compat & media::kRoCompatBadBlocks) == 0)
    findings_.add("bad block tree", "has entries, and the feature bit in the superblock is not set", 0);
}

}  // namespace checker

Result<CheckReport> check_volume(const Members& members, const CheckOptions& options) {
  PLUMB_ASSIGN(const Superblock superblock, Superblock::read(members));
  CheckReport report;
  checker::Checker(superblock, options, report).run();
  return report;
}

}  // namespace plumb
