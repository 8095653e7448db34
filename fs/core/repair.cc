// The order of a repair: superblock, labels, journal; then passes that plan and store, until nothing is left to do.
#include "fs/core/repair.h"

#include <dirent.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "fs/core/repair_impl.h"
#include "fs/media/verify.h"

namespace plumb {
namespace repairer {

using checker::blocks_name;

Planner::Planner(const Superblock& superblock, const RepairOptions& options, RepairReport& report,
                 std::uint64_t next_sequence)
    : superblock_(superblock),
      options_(options),
      report_(report),
      next_sequence_(next_sequence),
      device_(superblock.device(DeviceRole::kMain)),
      image_(device_, superblock),
      metadata_(superblock.blocks(DeviceRole::kMain)),
      pending_(superblock.blocks(DeviceRole::kMain)) {}

std::span<const DeviceRole> Planner::roles() const {
  static constexpr std::array<DeviceRole, media::kMaxDevices> kRoles{DeviceRole::kMain, DeviceRole::kRealtime};
  return std::span(kRoles).first(superblock_.device_count());
}

void Planner::note(std::string object, std::string what, bool harmless) {
  harmless_ = harmless_ && harmless;
  notes_.push_back({std::move(object), std::move(what), harmless});
}

void Planner::progress(std::uint64_t done, std::uint64_t total, std::string_view phase) const {
  if (options_.progress) options_.progress(done, total, phase);
}

void Planner::report_notes() {
  for (Repair& repair : notes_) {
    ++report_.repairs_total;
    if (report_.repairs.size() < RepairReport::kMaxRepairs) report_.repairs.push_back(std::move(repair));
  }
  notes_.clear();
}

// ---- the state block ----

// Of a state block with a wrong checksum the roots are believed, since what they lead to says whose it is; the rest is
// made anew.
void Planner::read_state() {
  const std::uint64_t block = superblock_.media().state_block;
  std::vector<std::byte> bytes(block_size());
  const Status loaded = image_.load(block, bytes);
  Status status = loaded;
  if (status) status = media::verify_state(bytes, block);
  std::memcpy(&state_, bytes.data(), sizeof state_);
  // Without a table there is no root directory: it is lost, whatever the state says.
  if (state_.inode_table.block == 0) state_.inode_table.nodes = 1;
  if (status && state_.header.owner == 0) return;
  state_changed_ = true;
  if (status) {
    note("state block", "header set right", true);
    state_.header.owner = 0;
    return;
  }
  note("state block", "made anew from what was found", false);
  zero_all_.fill(true);
  media::State fresh;
  std::memset(static_cast<void*>(&fresh), 0, sizeof fresh);
  fresh.header.magic = static_cast<std::uint32_t>(media::BlockMagic::kState);
  fresh.header.block = block;
  const bool has_content = loaded && (state_.header.magic == fresh.header.magic || state_.header.block == block);
  if (has_content) {
    fresh.inode_table = state_.inode_table;
    fresh.reclaim = state_.reclaim;
    fresh.bad_blocks = state_.bad_blocks;
    fresh.orphan_head = state_.orphan_head;
  }
  // A root that says it has nodes, and not where, is searched for.
  if (fresh.inode_table.block == 0) fresh.inode_table.nodes = 1;
  if (!has_content) fresh.reclaim.nodes = fresh.bad_blocks.nodes = 1;
  state_ = fresh;
}

// ---- the walk ----

void Planner::walk() {
  for (const DeviceRole role : roles()) {
    spaces_[index_of(role)] = std::make_unique<Space>(superblock_, role);
    space(role).load(image_);
  }
  metadata_ = BitSet(superblock_.blocks(DeviceRole::kMain));
  harmless_ = true;
  want_search_ = want_inodes_ = state_changed_ = table_changed_ = false;
  zero_all_.fill(false);
  zero_ranges_.clear();
  inode_blocks_.clear();
  directories_.clear();
  files_to_look_at_.clear();
  unsound_.clear();
  oversized_.clear();
  doubtful_.clear();
  rewritten_.clear();
  notes_.clear();
  new_trees_.clear();
  edits_.clear();
  cleared_.clear();
  lost_found_ = 0;
  read_state();
  const auto owner = [](media::TreeKind kind) { return static_cast<std::uint64_t>(kind); };
  reclaim_ = read_tree(state_.reclaim, media::TreeKind::kReclaim, owner(media::TreeKind::kReclaim), true);
  note_pending();
  bad_blocks_ = read_tree(state_.bad_blocks, media::TreeKind::kBadBlocks, owner(media::TreeKind::kBadBlocks), true);
  read_inode_table();
  for (std::size_t i = 0; i < inode_blocks_.size(); ++i) {
    if (i % 256 == 0) progress(i, inode_blocks_.size(), "inodes");
    read_inode_block(i);
  }
  read_names();
  claim_data();
}

// What a search finds is believed in this order: leaves, which say where they lie; then, when all that these lead to
// has its owner, inode blocks that nothing leads to. So what a user has written into a file is not taken for either.
void Planner::look() {
  walk();
  if (!want_search_ || !search_device()) return;
  walk();
  if (!want_inodes_) return;
  use_loose_inode_blocks();
  walk();
}

// Blocks that wait for reclaim hold what was deleted.
void Planner::note_pending() {
  pending_ = BitSet(superblock_.blocks(DeviceRole::kMain));
  const Space& main = space(DeviceRole::kMain);
  for (const Entry& entry : reclaim_.entries) {
    media::ReclaimRecord record;
    std::memcpy(&record, entry.record.data(), sizeof record);
    const std::uint64_t block = media::number_of_key(entry.key);
    if (media::device_of_key(entry.key) == 0 && main.holds(block, record.length_blocks))
      pending_.set(block, block + record.length_blocks);
  }
}

Status Planner::plan() {
  walk();
  look();
  plan_reclaim();
  plan_bad_blocks();
  // From here on blocks are taken: everything that has an owner has it.
  PLUMB_TRY(rewrite_data());
  PLUMB_TRY(mend_root());
  cut_loops();
  PLUMB_TRY(plan_directories());
  PLUMB_TRY(reconnect());
  plan_links();
  plan_orphans();
  PLUMB_TRY(plan_new_trees());
  plan_marks();
  plan_windows();
  plan_bitmap();
  return {};
}

// Frees what nobody owns, and nothing else: for a volume that has no room for its repair.
void Planner::plan_space() {
  for (const DeviceRole role : roles()) {
    Space& data = space(role);
    for_bit_runs(
        0, data.units(), [&](std::uint64_t i) { return data.kept.word(i); },
        [&](std::uint64_t from, std::uint64_t to) { data.owned.set(from, to); });
  }
  plan_reclaim();
  plan_bad_blocks();
  edits_.clear();
  cleared_.clear();
  new_trees_.clear();
  new_blocks_.clear();
  copies_.clear();
  notes_.clear();
  zero_ranges_.clear();
  zero_all_.fill(false);
  state_changed_ = false;
  plan_bitmap();
}

// Entries of blocks that somebody owns go; the rest waits for reclaim as before.
void Planner::plan_reclaim() {
  std::vector<Entry> entries;
  bool changed = !reclaim_.sound;
  for (const Entry& entry : reclaim_.entries) {
    media::ReclaimRecord record;
    std::memcpy(&record, entry.record.data(), sizeof record);
    const std::size_t device = media::device_of_key(entry.key);
    const std::uint64_t block = media::number_of_key(entry.key);
    if (device >= superblock_.device_count() || !spaces_[device]->holds(block, record.length_blocks)) {
      changed = true;
      continue;
    }
    Space& data = *spaces_[device];
    const auto kind = static_cast<std::uint8_t>(device != 0 || record.kind == 0 ? media::ReclaimKind::kData
                                                                                : media::ReclaimKind::kMetadata);
    const std::uint64_t unit = data.unit_blocks();
    const std::uint64_t end = (block + record.length_blocks) / unit;
    std::vector<KeyRange> parts;  // end exclusive
    for_bit_runs(
        block / unit, end,
        [&](std::uint64_t i) {
          // Of a damaged tree only what the bitmap does not contradict: a length may be what was damaged.
          const std::uint64_t in_use = reclaim_.sound ? ~std::uint64_t{0} : data.bits.word(i) | data.unknown.word(i);
          return ~data.owned.word(i) & in_use;
        },
        [&](std::uint64_t from, std::uint64_t to) {
          parts.push_back({from, to});
        });
    for (const KeyRange& range : parts) {
      media::ReclaimRecord part{};
      part.length_blocks = static_cast<std::uint32_t>((range.high - range.low) * unit);
      part.kind = kind;
      Entry kept{media::device_key(device, range.low * unit), {}};
      kept.record.assign(reinterpret_cast<const char*>(&part), sizeof part);
      changed = changed || kept.key != entry.key || kept.record != entry.record;
      entries.push_back(std::move(kept));
      data.owned.set(range.low, range.high);
    }
    changed = changed || parts.empty();
  }
  if (changed) {
    note("reclaim tree", "made anew", true);
    replace_tree(reclaim_, NewTree::Place::kReclaim, 0, std::move(entries));
    state_.reclaim = media::TreeRoot{};
    state_changed_ = true;
  } else if (state_.reclaim.nodes != reclaim_.nodes.size()) {
    note("reclaim tree", "number of nodes set right", true);
    state_.reclaim.nodes = static_cast<std::uint32_t>(reclaim_.nodes.size());
    state_changed_ = true;
  }
}

// A listed block that nobody owns belongs to the list. So does one that was about to be freed and cannot be read: it
// could not be zeroed.
void Planner::plan_bad_blocks() {
  std::map<std::uint64_t, std::uint8_t> listed;  // by key: who owns it
  bool changed = !bad_blocks_.sound;
  for (const Entry& entry : bad_blocks_.entries) {
    media::BadBlockRecord record;
    std::memcpy(&record, entry.record.data(), sizeof record);
    const std::size_t device = media::device_of_key(entry.key);
    const std::uint64_t block = media::number_of_key(entry.key);
    const bool sane = device < superblock_.device_count() && record.length_blocks == 1 &&
                      block < superblock_.blocks(static_cast<DeviceRole>(device));
    if (sane) listed.emplace(entry.key, record.owner);
    changed = changed || !sane;
  }
  for (const DeviceRole role : roles()) changed = find_unreadable(role, listed) || changed;
  std::vector<Entry> entries;
  std::vector<std::pair<Space*, std::uint64_t>> taken;
  for (const auto& [key, owner] : listed) {
    Space& data = *spaces_[media::device_of_key(key)];
    const std::uint64_t unit = media::number_of_key(key) / data.unit_blocks();
    const bool others = unit < data.data_start() || data.owned.test(unit);
    media::BadBlockRecord record{};
    record.length_blocks = 1;
    record.owner = static_cast<std::uint8_t>(others ? media::BadBlockOwner::kOther : media::BadBlockOwner::kList);
    changed = changed || owner != record.owner;
    if (!others) taken.emplace_back(&data, unit);
    Entry entry{key, {}};
    entry.record.assign(reinterpret_cast<const char*>(&record), sizeof record);
    entries.push_back(std::move(entry));
  }
  for (const auto& [data, unit] : taken) data->owned.set(unit, unit + 1);
  needs_bad_block_feature_ = !entries.empty();
  if (changed) {
    note("bad block tree", "made anew", true);
    replace_tree(bad_blocks_, NewTree::Place::kBadBlocks, 0, std::move(entries));
    state_.bad_blocks = media::TreeRoot{};
    state_changed_ = true;
  } else if (state_.bad_blocks.nodes != bad_blocks_.nodes.size()) {
    note("bad block tree", "number of nodes set right", true);
    state_.bad_blocks.nodes = static_cast<std::uint32_t>(bad_blocks_.nodes.size());
    state_changed_ = true;
  }
}

// Adds blocks in use that nobody owns, and that cannot be read, to the list. True if there are any.
bool Planner::find_unreadable(DeviceRole role, std::map<std::uint64_t, std::uint8_t>& listed) {
  const Space& data = space(role);
  const pmem::Device& device = superblock_.device(role);
  const std::uint64_t unit_bytes = superblock_.unit_bytes(role);
  bool any = false;
  for_bit_runs(
      data.data_start(), data.units(),
      [&](std::uint64_t i) { return (data.bits.word(i) | data.unknown.word(i)) & ~data.owned.word(i); },
      [&](std::uint64_t from, std::uint64_t to) {
        if (device.is_zero(from * unit_bytes, (to - from) * unit_bytes)) return;
        for (std::uint64_t block = from * data.unit_blocks(); block < to * data.unit_blocks(); ++block) {
          if (device.is_zero(block * block_size(), block_size())) continue;
          any = listed.emplace(media::device_key(index_of(role), block), 0).second || any;
        }
      });
  return any;
}

Status Planner::plan_new_trees() {
  if (table_changed_) {
    std::vector<Entry> entries;
    for (const InodeBlock& block : inode_blocks_) {
      const media::Le64 number(block.block);
      Entry entry{block.index, {}};
      entry.record.assign(reinterpret_cast<const char*>(&number), sizeof number);
      entries.push_back(std::move(entry));
    }
    replace_tree(table_, NewTree::Place::kInodeTable, 0, std::move(entries));
  } else if (state_.inode_table.nodes != table_.nodes.size()) {
    note("inode table", "number of nodes set right", true);
    state_.inode_table.nodes = static_cast<std::uint32_t>(table_.nodes.size());
    state_changed_ = true;
  }
  using Place = NewTree::Place;
  using Kind = media::TreeKind;
  for (const NewTree& tree : new_trees_) {
    const auto system = [&](Kind kind) { return build_tree(kind, static_cast<std::uint64_t>(kind), tree.entries); };
    if (tree.place == Place::kInodeTable) {
      PLUMB_ASSIGN(state_.inode_table, system(Kind::kInodeTable));
      state_changed_ = true;
    } else if (tree.place == Place::kReclaim) {
      PLUMB_ASSIGN(state_.reclaim, system(Kind::kReclaim));
      state_changed_ = true;
    } else if (tree.place == Place::kBadBlocks) {
      PLUMB_ASSIGN(state_.bad_blocks, system(Kind::kBadBlocks));
      state_changed_ = true;
    } else if (tree.place == Place::kXattrs) {
      PLUMB_ASSIGN(edit(tree.inode).xattrs, build_tree(Kind::kXattrs, tree.inode, tree.entries));
    } else {
      const bool directory = find(tree.inode)->type == DT_DIR;
      PLUMB_ASSIGN(edit(tree.inode).data,
                   build_tree(directory ? Kind::kDirectory : Kind::kExtents, tree.inode, tree.entries));
    }
  }
  return {};
}

// Above its mark a device holds anything, and nothing with an owner.
void Planner::plan_marks() {
  for (const DeviceRole role : roles()) {
    Space& data = space(role);
    const std::uint64_t unit = data.unit_blocks();
    std::uint64_t lowest = data.data_start();
    for_bit_runs(
        0, data.units(), [&](std::uint64_t i) { return data.owned.word(i) | data.kept.word(i) | data.bits.word(i); },
        [&](std::uint64_t, std::uint64_t to) { lowest = std::max(lowest, to); });
    media::Le64& mark = state_.zeroed_upto[index_of(role)];
    const bool sane = mark % unit == 0 && mark / unit >= data.data_start() && mark / unit <= data.units();
    // Where the bitmap is unknown, what lies above the mark is free and holds anything.
    data.unknown.clear(std::max(lowest, sane ? mark / unit : lowest), data.units());
    if (sane && !zero_all_[index_of(role)] && mark / unit >= lowest) continue;
    const std::string object = "zeroed mark" + std::string(role == DeviceRole::kMain ? "" : " of the realtime device");
    if (sane && !zero_all_[index_of(role)]) {
      zero_ranges_.push_back({role, {mark / unit, lowest}});
    } else {
      zero_all_[index_of(role)] = true;
    }
    note(object, "set right, and free blocks below it zeroed", true);
    mark = lowest * unit;
    state_changed_ = true;
  }
  if (superblock_.device_count() < 2 && state_.zeroed_upto[1] != 0) {
    state_.zeroed_upto[1] = 0;
    state_changed_ = true;
    note("state block", "mark of a device that is no member cleared", true);
  }
}

// Windows are emptied, as in recovery. One that lies outside says nothing about what to zero: then every free block is
// looked at.
void Planner::plan_windows() {
  for (std::size_t i = 0; i < state_.windows.size(); ++i) {
    media::WindowSlot& slot = state_.windows[i];
    if (slot.length_blocks == 0) continue;
    const auto role = static_cast<DeviceRole>(slot.device);
    bool sane = slot.device < superblock_.device_count();
    if (sane) {
      const std::uint64_t unit = superblock_.unit_blocks(role);
      const std::uint64_t chunk = std::max(superblock_.chunk_blocks(), unit);
      sane = slot.start_block >= superblock_.entry(role).data_start / chunk * chunk &&
             slot.start_block < superblock_.blocks(role) &&
             slot.length_blocks <= superblock_.blocks(role) - slot.start_block && slot.start_block % unit == 0 &&
             slot.length_blocks % unit == 0;
    }
    if (sane) {
      // What recovery does: free blocks in it may hold data of an operation that never committed.
      const std::uint64_t unit = superblock_.unit_blocks(role);
      zero_ranges_.push_back({role, {slot.start_block / unit, (slot.start_block + slot.length_blocks) / unit}});
    } else {
      note("state block", "window " + std::to_string(i) + " dropped: it lay outside the device", true);
      zero_all_.fill(true);
    }
    slot = media::WindowSlot{};
    state_changed_ = true;
  }
}

void Planner::plan_bitmap() {
  for (const DeviceRole role : roles()) {
    const Space& data = space(role);
    const std::string name = role == DeviceRole::kMain ? "bitmap" : "realtime bitmap";
    for (const std::uint64_t index : data.damaged())
      note(name + " block " + std::to_string(index), "made anew from the owners of blocks", true);
    std::uint64_t missing = 0;
    std::uint64_t left = 0;
    for_bit_runs(
        data.data_start(), data.units(),
        [&](std::uint64_t i) {
          return data.owned.word(i) & ~data.bits.word(i) & ~data.unknown.word(i) & ~taken_word(role, i);
        },
        [&](std::uint64_t from, std::uint64_t to) { missing += to - from; });
    for_bit_runs(
        data.data_start(), data.units(),
        [&](std::uint64_t i) {
          return data.bits.word(i) & ~data.owned.word(i) & ~data.kept.word(i) & ~data.unknown.word(i);
        },
        [&](std::uint64_t from, std::uint64_t to) { left += to - from; });
    if (missing != 0) note(name, "blocks marked as in use that have an owner: " + std::to_string(missing), true);
    if (left != 0) note(name, "blocks freed that nobody owned: " + std::to_string(left), true);
  }
}

// Units that this repair takes.
std::uint64_t Planner::taken_word(DeviceRole role, std::uint64_t word) const {
  return spaces_[index_of(role)]->taken.word(word);
}

bool Planner::may_replay_into(std::uint64_t block) const {
  const Space& main = *spaces_[0];
  if (block >= main.units()) return false;
  if (block < main.data_start() || metadata_.test(block)) return true;
  return pending_.test(block);
}

// ---- what is there twice, and the journal ----

namespace {

// Copies of which the other is whole.
Status mend_labels(const Superblock& superblock, RepairReport& report) {
  if (superblock.device_count() < 2) return {};
  pmem::Device& device = superblock.device(DeviceRole::kRealtime);
  PLUMB_ASSIGN(const media::MemberLabel good, Superblock::read_label(device));
  for (std::size_t i = 0; i < media::kSuperblockOffsets.size(); ++i) {
    const std::uint64_t offset = media::kSuperblockOffsets[i];
    media::MemberLabel copy;
    const Status loaded = device.load(offset, std::as_writable_bytes(std::span<media::MemberLabel, 1>(&copy, 1)));
    if (loaded && std::memcmp(&copy, &good, sizeof copy) == 0) continue;
    PLUMB_TRY(device.store(offset, bytes_of(good)));
    // One copy at a time: the other is whole until this one is.
    PLUMB_TRY(device.persist(offset, sizeof good));
    ++report.repairs_total;
    report.repairs.push_back(
        {"realtime label copy " + std::to_string(i + 1), "written again from the other copy", true});
  }
  return {};
}

Status mend_superblocks(Superblock& superblock, RepairReport& report) {
  const pmem::Device& main = superblock.device(DeviceRole::kMain);
  for (std::size_t i = 0; i < media::kSuperblockOffsets.size(); ++i) {
    media::Superblock copy;
    const Status loaded =
        main.load(media::kSuperblockOffsets[i], std::as_writable_bytes(std::span<media::Superblock, 1>(&copy, 1)));
    if (loaded && std::memcmp(&copy, &superblock.media(), sizeof copy) == 0) continue;
    ++report.repairs_total;
    report.repairs.push_back({"superblock copy " + std::to_string(i + 1), "written again from the other copy", true});
  }
  return superblock.mend_copies();
}

// Recovery. A record that is whole and yet cannot be applied ends the log: its first bytes are cleared, in one word.
Result<Journal::Recovery> recover(Journal& journal, const Superblock& superblock, const RepairOptions& options,
                                  RepairReport& report) {
  while (true) {
    auto recovery = journal.recover();
    const std::uint64_t ring = superblock.media().journal_start + media::kJournalRingOffset;
    if (recovery || recovery.error().code != EUCLEAN || recovery.error().offset_bytes < ring ||
        recovery.error().offset_bytes == Error::kNoOffset)
      return recovery;
    ++report.repairs_total;
    report.repairs.push_back({"journal", "cut off in front of a record that stores outside of the metadata", false});
    if (options.preen) return recovery;
    pmem::Device& main = superblock.device(DeviceRole::kMain);
    constexpr std::array<std::byte, 8> kNothing{};
    // Recovery makes all of the log durable before it goes by it: a crash finds the log with or without its end.
    PLUMB_TRY(main.store(recovery.error().offset_bytes, kNothing));
  }
}

}  // namespace
}  // namespace repairer

Result<RepairReport> repair_volume(const Members& members, const RepairOptions& options) {
  constexpr int kMostPasses = 8;
  RepairReport report;
  PLUMB_ASSIGN(Superblock superblock, Superblock::read(members));
  if ((superblock.media().ro_compat & ~media::kRoCompatKnown) != 0)
    return fail(ENOTSUP, members.main.info().path +
                             ": features that this program can only read; repair it with a newer fsck.plumbfs");
  PLUMB_TRY(repairer::mend_superblocks(superblock, report));
  PLUMB_TRY(repairer::mend_labels(superblock, report));
  PLUMB_ASSIGN(const bool has_journal, repairer::mend_journal(superblock, options, report));
  if (!has_journal) {
    report.needs_more = true;
    return report;
  }
  Journal journal(members.main, media::journal_geometry(superblock.media()));
  journal.trust_headers();
  journal.set_deferred(true);  // if this ends early, the next mount flushes everything
  const auto recovered = repairer::recover(journal, superblock, options, report);
  if (!recovered && options.preen && recovered.error().code == EUCLEAN) {
    report.needs_more = true;
    return report;
  }
  PLUMB_ASSIGN(const Journal::Recovery recovery, recovered);
  // As a mount would after an unclean end: nobody knows what was stored and not written back. Every plan that is
  // applied drains all devices, and without one the journal is not marked clean.
  if (!recovery.was_clean)
    for (std::size_t i = 0; i < superblock.device_count(); ++i) {
      const auto role = static_cast<DeviceRole>(i);
      if (superblock.device(role).info().is_volatile) continue;
      if (!superblock.device(role).is_memory() || recovery.was_deferred)
        PLUMB_TRY(superblock.device(role).flush(0, superblock.entry(role).size_bytes));
    }
  bool done = false;
  bool made_room = false;
  for (int pass = 0; pass < kMostPasses && !done && !report.needs_more; ++pass) {
    repairer::Planner planner(superblock, options, report, journal.next_sequence().value);
    const Status planned = planner.plan();
    if (!planned && planned.error().code == ENOSPC && !made_room && !options.preen) {
      made_room = true;
      repairer::Planner space(superblock, options, report, journal.next_sequence().value);
      space.look();
      if (space.may_free()) {
        space.plan_space();
        PLUMB_ASSIGN(const bool freed, space.apply(journal));
        space.report_notes();
        if (freed) continue;
      }
    }
    PLUMB_TRY(planned);
    report.needs_more = options.preen && !planner.is_harmless();
    planner.report_notes();
    if (report.needs_more) break;
    // Durable in both copies before the first entry.
    if (planner.needs_bad_block_feature()) PLUMB_TRY(superblock.set_ro_compat(media::kRoCompatBadBlocks));
    PLUMB_ASSIGN(const bool changed, planner.apply(journal));
    done = !changed;
  }
  if (report.needs_more) return report;
  PLUMB_TRY(journal.checkpoint());  // recovery wrote one header, this writes the other
  CheckOptions check;
  check.zeros = options.zeros;
  check.progress = options.progress;
  PLUMB_ASSIGN(report.left, check_volume(members, check));
  // Not marked clean with problems left: nobody may believe it at the next start.
  if (report.left.problems_total != 0) return report;
  PLUMB_TRY(journal.close());
  return report;
}

}  // namespace plumb
