// The inode table, inodes, targets of symbolic links, extended attributes, and the extents of files.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cassert>
#include <cstring>

#include "fs/core/acl.h"
#include "fs/core/repair_impl.h"
#include "fs/core/siphash.h"
#include "fs/core/volume.h"
#include "fs/media/verify.h"

namespace plumb::repairer {
namespace {

using checker::inode_name;

constexpr std::uint64_t kMostIndex = std::uint64_t{1} << 55;
constexpr std::uint64_t kMostClaims = 4;            // of all units together
constexpr std::uint64_t kMostBlocks = 0xffff'ffff;  // of an extent
constexpr std::uint64_t kTableOwner = static_cast<std::uint64_t>(media::TreeKind::kInodeTable);

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

bool type_is_known(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      return true;
    default:
      return false;
  }
}

// An inode with a wrong checksum that is one all the same: what is wrong with the other fields can be set right.
bool is_plausible(const media::Inode& inode) {
  return type_is_known(inode.mode) && (inode.mode & ~std::uint32_t{S_IFMT | 07777}) == 0;
}

}  // namespace

// ---- places ----

std::uint64_t Planner::number_of(std::size_t id) const {
  const std::size_t per_block = superblock_.inodes_per_block();
  return inode_blocks_[id / per_block].index * per_block + id % per_block;
}

Planner::Info* Planner::find(std::uint64_t number) {
  const std::size_t per_block = superblock_.inodes_per_block();
  const auto it = std::lower_bound(inode_blocks_.begin(), inode_blocks_.end(), number / per_block,
                                   [](const InodeBlock& block, std::uint64_t index) { return block.index < index; });
  if (it == inode_blocks_.end() || it->index != number / per_block) return nullptr;
  Info& info = inodes_[static_cast<std::size_t>(it - inode_blocks_.begin()) * per_block + number % per_block];
  return info.type == 0 ? nullptr : &info;
}

std::uint64_t Planner::place_of(std::uint64_t number) const {
  const std::size_t per_block = superblock_.inodes_per_block();
  const auto it = std::lower_bound(inode_blocks_.begin(), inode_blocks_.end(), number / per_block,
                                   [](const InodeBlock& block, std::uint64_t index) { return block.index < index; });
  assert(it != inode_blocks_.end() && it->index == number / per_block);
  return it->block * image_.block_size() + number % per_block * media::kInodeBytes;
}

media::Inode Planner::inode(std::uint64_t number) const {
  if (const auto it = edits_.find(number); it != edits_.end()) return it->second;
  const std::uint64_t place = place_of(number);
  std::vector<std::byte> bytes(image_.block_size());
  // It was read before.
  (void)image_.load(place / image_.block_size(), bytes);
  media::Inode inode;
  std::memcpy(&inode, bytes.data() + place % image_.block_size(), sizeof inode);
  return inode;
}

media::Inode& Planner::edit(std::uint64_t number) {
  const auto it = edits_.find(number);
  if (it != edits_.end()) return it->second;
  return edits_.emplace(number, inode(number)).first->second;
}

// ---- the table ----

// At least one inode of this index lies in the block, where it belongs.
bool Planner::holds_inodes(std::uint64_t block, std::uint64_t index) const {
  const std::size_t per_block = superblock_.inodes_per_block();
  const Space& main = *spaces_[0];
  std::vector<std::byte> bytes(image_.block_size());
  if (!main.holds(block, 1) || !image_.load(block, bytes)) return false;
  for (std::size_t slot = 0; slot < per_block; ++slot) {
    media::Inode inode;
    std::memcpy(&inode, bytes.data() + slot * media::kInodeBytes, sizeof inode);
    if (inode.magic == media::kInodeMagic && inode.number == index * per_block + slot) return true;
  }
  return false;
}

void Planner::read_inode_table() {
  table_ = read_tree(state_.inode_table, media::TreeKind::kInodeTable, kTableOwner, true);
  table_changed_ = !table_.sound;
  want_search_ = want_inodes_ = !table_.sound;
  for (const Entry& entry : table_.entries) {
    media::Le64 block;
    std::memcpy(&block, entry.record.data(), sizeof block);
    const std::string name = "inode block " + std::to_string(entry.key);
    if (entry.key <= kMostIndex && holds_inodes(block, entry.key) && own_metadata(block)) {
      inode_blocks_.push_back({entry.key, block});
      continue;
    }
    table_changed_ = want_search_ = want_inodes_ = true;
    if (!found_inode_blocks_.contains(entry.key)) note(name, "taken out of the inode table: holds no inode", false);
  }
  absl::flat_hash_set<std::uint64_t> known;
  for (const InodeBlock& block : inode_blocks_) known.insert(block.index);
  for (const auto& [index, block] : found_inode_blocks_) {
    if (known.contains(index) || !own_metadata(block)) continue;
    inode_blocks_.push_back({index, block});
    table_changed_ = true;
    note("inode block " + std::to_string(index), "put back into the inode table", false);
  }
  std::sort(inode_blocks_.begin(), inode_blocks_.end(),
            [](const InodeBlock& a, const InodeBlock& b) { return a.index < b.index; });
  if (!table_.sound) note("inode table", "made anew from what was found", true);
  inodes_.assign(inode_blocks_.size() * superblock_.inodes_per_block(), Info{});
}

void Planner::read_inode_block(std::size_t at) {
  const std::size_t per_block = superblock_.inodes_per_block();
  const InodeBlock& where = inode_blocks_[at];
  std::vector<std::byte> bytes(block_size());
  if (!image_.load(where.block, bytes)) return;  // holds_inodes() has read it
  for (std::size_t slot = 0; slot < per_block; ++slot) {
    const std::uint64_t number = where.index * per_block + slot;
    const std::span<const std::byte> slot_bytes =
        std::span(bytes).subspan(slot * media::kInodeBytes, media::kInodeBytes);
    if (all_zero(slot_bytes)) continue;
    media::Inode inode;
    std::memcpy(&inode, slot_bytes.data(), sizeof inode);
    read_slot(number, inode, inodes_[at * per_block + slot]);
  }
}

void Planner::clear_inode(std::uint64_t number, Info& info, const std::string& why) {
  note(inode_name(number), "cleared: " + why, false);
  info = Info{};
  edits_.erase(number);
  cleared_.insert(number);
}

void Planner::read_slot(std::uint64_t number, const media::Inode& found, Info& info) {
  if (number == 0) return clear_inode(number, info, "no inode has this number");
  if (const Status status = media::verify_inode(found, number); !status) {
    media::Inode mended = found;
    std::string how;
    if (!mend_inode(mended, number, status.error(), how))
      return clear_inode(number, info, "what it says makes no sense");
    note(inode_name(number), how, false);
    edits_[number] = mended;
  }
  media::Inode now = inode(number);
  mend_common(now);
  if (!mend_contents(now)) return clear_inode(number, info, "its target is lost");
  mend_xattrs(now);
  if (edits_.contains(number) || std::memcmp(&now, &found, sizeof now) != 0) edits_[number] = now;
  info.type = static_cast<std::uint8_t>(IFTODT(now.mode));
  info.links = now.links;
  info.parent = now.parent;
  info.listed = now.on_orphan_list != 0;
  if (S_ISDIR(now.mode)) directories_.push_back(number);
  if (S_ISREG(now.mode) &&
      (now.inline_extents != 0 || now.data.block != 0 || now.blocks != 0 || unsound_.contains(number)))
    files_to_look_at_.push_back(number);
}

// The checksum is of what the inode was: if changing one field that stands for itself, or any one bit, makes it fit,
// that was the damage.
bool Planner::mend_by_checksum(media::Inode& inode, std::uint64_t number) const {
  const auto fits = [number](media::Inode candidate) {
    const std::uint32_t crc = candidate.crc;
    media::seal_inode(candidate);
    return candidate.crc == crc && candidate.magic == media::kInodeMagic && candidate.number == number;
  };
  media::Inode same = inode;
  same.magic = media::kInodeMagic;
  same.number = number;
  if (fits(same)) {
    inode = same;
    return true;
  }
  const auto bytes = std::as_writable_bytes(std::span<media::Inode, 1>(&same, 1));
  same = inode;
  for (std::byte& byte : bytes)
    for (int bit = 0; bit < 8; ++bit) {
      byte ^= std::byte{1} << bit;
      if (fits(same)) {
        inode = same;
        return true;
      }
      byte ^= std::byte{1} << bit;
    }
  return false;
}

// False: nothing to hold on to.
bool Planner::mend_inode(media::Inode& inode, std::uint64_t number, const Error& error, std::string& how) {
  if (mend_by_checksum(inode, number) && media::verify_inode(inode, number)) {
    how = "what its checksum disagreed with set right";
    return true;
  }
  if (inode.magic != media::kInodeMagic || inode.number != number) return false;
  if (error.code == EBADMSG && !is_plausible(inode)) return false;
  how = error.code == EBADMSG ? "checksum renewed; its fields make sense" : "fields that make no sense set right";
  if (error.code == EBADMSG) {
    doubtful_.insert(number);
    // Nobody gets rights from a file of which nobody knows whether it had them.
    if (!S_ISDIR(inode.mode)) inode.mode = inode.mode & ~std::uint32_t{S_ISUID | S_ISGID};
  }
  if (!type_is_known(inode.mode)) {
    std::vector<std::byte> bytes(block_size());
    media::NodeHeader header{};
    if (inode.data.block != 0 && image_.load(inode.data.block, bytes))
      std::memcpy(&header, bytes.data(), sizeof header);
    std::uint32_t type = S_IFREG;
    if (header.header.magic == static_cast<std::uint32_t>(media::BlockMagic::kValue) || inode.inline_target == 1)
      type = S_IFLNK;
    else if (header.kind == static_cast<std::uint8_t>(media::TreeKind::kDirectory) || inode.parent != 0)
      type = S_IFDIR;
    inode.mode = (inode.mode & 07777) | type;
    how = "type set to what its contents are";
  }
  if (inode.inline_extents > media::kInlineExtents)
    inode.inline_extents = inode.data.block != 0 ? 0 : static_cast<std::uint8_t>(media::kInlineExtents);
  if (S_ISREG(inode.mode) && inode.size_bytes > kMaxFileSize) {
    inode.size_bytes = 0;
    oversized_.insert(number);  // its extents say how long it may be
  }
  if (S_ISLNK(inode.mode) && inode.inline_target != 0 &&
      (inode.size_bytes == 0 || inode.size_bytes > inode.inline_data.size()))
    inode.size_bytes = static_cast<std::uint64_t>(std::find(inode.inline_data.begin(), inode.inline_data.end(), 0) -
                                                  inode.inline_data.begin());
  if (S_ISLNK(inode.mode) && inode.inline_target == 0 && (inode.size_bytes == 0 || inode.size_bytes > kSymlinkMax))
    inode.size_bytes = kSymlinkMax;  // the chain says how long it is
  media::seal_inode(inode);
  return media::verify_inode(inode, number).has_value();
}

void Planner::mend_common(media::Inode& inode) {
  const std::string name = inode_name(inode.number);
  const auto set = [&](auto& field, std::uint64_t value, const char* what) {
    if (field == value) return;
    field = static_cast<std::remove_cvref_t<decltype(field.get())>>(value);
    note(name, what, true);
  };
  const auto set_byte = [&](std::uint8_t& field, std::uint8_t value, const char* what) {
    if (field == value) return;
    field = value;
    note(name, what, true);
  };
  set(inode.mode, inode.mode & (S_IFMT | 07777), "bits of its mode that mean nothing cleared");
  set(inode.flags, inode.flags & kInodeUserFlags, "unknown flags cleared");
  if (superblock_.device_count() < 2)
    set(inode.flags, inode.flags & ~(kInodeRealtime | kInodeRtInherit),
        "flags of the realtime device cleared: there is none");
  if (!S_ISREG(inode.mode))
    set(inode.flags, inode.flags & ~kInodeRealtime, "realtime flag cleared: it is no regular file");
  for (media::Le32* ns : {&inode.atime_ns, &inode.mtime_ns, &inode.ctime_ns, &inode.btime_ns})
    if (*ns >= 1'000'000'000) set(*ns, 0, "nanoseconds of a time cleared: they were not below 10^9");
  if (inode.on_orphan_list > 1) set_byte(inode.on_orphan_list, 1, "on_orphan_list set to 1");
  if (inode.on_orphan_list == 0) set(inode.next_orphan, 0, "next_orphan cleared: it is not on the orphan list");
  if (!S_ISCHR(inode.mode) && !S_ISBLK(inode.mode)) set(inode.rdev, 0, "rdev cleared: it is no device");
  if (!S_ISDIR(inode.mode)) set(inode.parent, 0, "parent cleared: it is no directory");
  if (!S_ISREG(inode.mode)) {
    set_byte(inode.inline_extents, 0, "inline_extents cleared: it is no regular file");
    set(inode.blocks, 0, "blocks cleared: it is no regular file");
  }
  if (!S_ISLNK(inode.mode)) set_byte(inode.inline_target, 0, "inline_target cleared: it is no symbolic link");
  if (inode.inline_target > 1) set_byte(inode.inline_target, 1, "inline_target set to 1");
}

// What an inode holds, as far as it is metadata. False: it is a symbolic link to nowhere.
bool Planner::mend_contents(media::Inode& inode) {
  const std::string name = inode_name(inode.number);
  if (S_ISLNK(inode.mode)) return mend_target(inode);
  if (S_ISREG(inode.mode)) {
    if (inode.data.block != 0 && inode.inline_extents != 0) {
      inode.inline_extents = 0;
      note(name, "inline extents dropped: it has an extent tree", false);
    }
    if (inode.data.block == 0 && inode.inline_extents != 0 && inode.data.nodes != 0) {
      inode.data.nodes = 0;
      note(name, "number of nodes cleared: its extents are inline", true);
    }
    Tree tree = read_tree(inode.data, media::TreeKind::kExtents, inode.number, true);
    if (!tree.sound) {
      note(name,
           "extent tree made anew from what was found" +
               std::string(tree.lost.empty() ? "" : "; what is lost reads as a hole"),
           false);
      unsound_[inode.number] = std::move(tree);
    } else if (tree.nodes.size() != inode.data.nodes) {
      inode.data.nodes = static_cast<std::uint32_t>(tree.nodes.size());
      note(name, "number of nodes of its extent tree set right", true);
    }
    return true;
  }
  if (S_ISDIR(inode.mode)) return true;
  const bool has_data = inode.data.block != 0 || inode.data.nodes != 0;
  if (inode.size_bytes != 0 || has_data) {
    inode.size_bytes = 0;
    inode.data = media::TreeRoot{};
    note(name, "size and data cleared: it has no contents", !has_data);
  }
  return true;
}

bool Planner::mend_target(media::Inode& inode) {
  const std::string name = inode_name(inode.number);
  if (inode.inline_target != 0) {
    if (inode.data.block != 0 || inode.data.nodes != 0) {
      inode.data = media::TreeRoot{};
      note(name, "value chain dropped: its target is inline", false);
    }
    return true;
  }
  std::vector<std::uint64_t> blocks;
  const auto target = read_chain(inode.data.block, kSymlinkMax, inode.number, blocks);
  if (!target) return false;
  if (target->size() != inode.size_bytes) {
    const bool longer = target->size() > inode.size_bytes;  // else its end may be what is lost
    inode.size_bytes = target->size();
    note(name, "size set to the length of its target", longer);
  }
  if (blocks.size() != inode.data.nodes) {
    inode.data.nodes = static_cast<std::uint32_t>(blocks.size());
    note(name, "number of blocks of its target set right", true);
  }
  return true;
}

// ---- extended attributes ----

void Planner::mend_xattrs(media::Inode& inode) {
  const std::string name = inode_name(inode.number);
  if (inode.xattrs.block == 0 && inode.xattrs.nodes == 0) {
    if (inode.chain_blocks != 0) note(name, "chain_blocks cleared: it has no xattrs", true);
    inode.chain_blocks = 0;
    return;
  }
  Tree tree = read_tree(inode.xattrs, media::TreeKind::kXattrs, inode.number, true);
  bool changed = !tree.sound;
  std::uint64_t chain_blocks = 0;
  std::vector<Entry> entries;
  absl::flat_hash_set<std::string> names;
  absl::flat_hash_set<std::uint64_t> keys;
  for (Entry& entry : tree.entries) {
    media::XattrRecord header;
    std::memcpy(&header, entry.record.data(), sizeof header);
    const std::string text = entry.record.substr(sizeof header, header.name_length);
    const bool chained = (header.flags & media::kXattrInChain) != 0;
    std::optional<std::string> value;
    std::vector<std::uint64_t> blocks;
    if (!names.insert(text).second || header.value_length > kXattrValueMax) {
      value = std::nullopt;
    } else if (!chained) {
      value = entry.record.substr(sizeof header + header.name_length);
    } else {
      value = read_chain(header.chain, kXattrValueMax, inode.number, blocks);
    }
    const bool is_access = text == acl::kAccessName;
    const bool is_acl = is_access || text == acl::kDefaultName;
    const bool fits = value && value->size() == header.value_length && (!is_acl || acl::parse(*value)) &&
                      (text != acl::kDefaultName || S_ISDIR(inode.mode));
    if (!fits) {
      for (const std::uint64_t block : blocks) disown(block);
      changed = true;
      note(name, "xattr " + checker::quoted(text) + " removed: its value is damaged, or it is there twice", false);
      // Who was kept out by the ACL stays out.
      if (is_access && (inode.mode & 070) != 0) {
        inode.mode = inode.mode & ~std::uint32_t{070};
        note(name, "permissions of the group cleared: its ACL is lost", false);
      }
      continue;
    }
    const std::uint8_t flags = chained ? media::kXattrInChain : 0;
    if (header.flags != flags || (!chained && header.chain != 0)) {
      header.flags = flags;
      if (!chained) header.chain = 0;
      std::memcpy(entry.record.data(), &header, sizeof header);
      changed = true;
      note(name, "xattr " + checker::quoted(text) + ": flags set right", true);
    }
    const std::uint64_t first = name_key(superblock_.media().hash_seed, text);
    std::uint64_t key = entry.key;
    if (key < first || key >= first + kKeysPerName) {
      changed = true;
      note(name, "xattr " + checker::quoted(text) + ": key set to that of its name", true);
      key = first;
    }
    while (!keys.insert(key).second) ++key;
    chain_blocks += blocks.size();
    entries.push_back({key, std::move(entry.record)});
  }
  if (!tree.sound) note(name, "xattr tree made anew from what was found", false);
  if (changed) {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.key < b.key; });
    replace_tree(tree, NewTree::Place::kXattrs, inode.number, std::move(entries));
    inode.xattrs = media::TreeRoot{};
  } else if (tree.nodes.size() != inode.xattrs.nodes) {
    inode.xattrs.nodes = static_cast<std::uint32_t>(tree.nodes.size());
    note(name, "number of nodes of its xattr tree set right", true);
  }
  if (chain_blocks != inode.chain_blocks) {
    inode.chain_blocks = static_cast<std::uint32_t>(chain_blocks);
    note(name, "chain_blocks set right", true);
  }
}

// ---- extents ----

Tree Planner::tree_of(const media::Inode& inode, media::TreeKind kind) {
  if (const auto it = unsound_.find(inode.number); it != unsound_.end()) return it->second;
  return read_tree(inode.data, kind, inode.number, false);
}

// In order, without overlap, each inside the device. `changed`: not all of it is what the inode says.
std::vector<Planner::FileExtent> Planner::extents_of(const media::Inode& inode, bool& changed) {
  std::vector<std::pair<std::uint64_t, media::ExtentRecord>> records;
  if (inode.data.block == 0 && inode.data.nodes == 0) {
    for (std::size_t i = 0; i < std::min<std::size_t>(inode.inline_extents, media::kInlineExtents); ++i) {
      media::InlineExtent entry;
      std::memcpy(&entry, inode.inline_data.data() + i * sizeof entry, sizeof entry);
      records.emplace_back(entry.file_block, entry.extent);
    }
    if (!std::is_sorted(records.begin(), records.end(),
                        [](const auto& a, const auto& b) { return a.first < b.first; })) {
      changed = true;
      std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    }
  } else {
    const Tree tree = tree_of(inode, media::TreeKind::kExtents);
    changed = changed || !tree.sound;
    for (const Entry& entry : tree.entries) {
      media::ExtentRecord record;
      std::memcpy(&record, entry.record.data(), sizeof record);
      records.emplace_back(entry.key, record);
    }
  }
  const Space& data = *spaces_[index_of(superblock_.data_role(inode.flags))];
  const std::uint64_t last = kMaxFileSize / block_size();
  std::vector<FileExtent> extents;
  std::uint64_t end = 0;
  for (const auto& [file_block, record] : records) {
    FileExtent extent{file_block, record.device_block, record.length_blocks};
    if (extent.blocks == 0 || extent.file_block > last || extent.blocks > last + 1 - extent.file_block ||
        extent.file_block % data.unit_blocks() != 0 || !data.holds(extent.device_block, extent.blocks)) {
      changed = true;
      continue;
    }
    changed = changed || record.flags != 0;
    if (extent.file_block < end) {
      changed = true;
      const std::uint64_t over = std::min(end - extent.file_block, extent.blocks);
      extent.file_block += over;
      extent.device_block += over;
      extent.blocks -= over;
      if (extent.blocks == 0) continue;
    }
    end = extent.file_block + extent.blocks;
    extents.push_back(extent);
  }
  return extents;
}

// Files of which nothing is in doubt come first: the others get what is left.
void Planner::claim_data() {
  claimed_.fill(0);
  for (const bool doubtful : {false, true})
    for (std::size_t i = 0; i < files_to_look_at_.size(); ++i) {
      const std::uint64_t number = files_to_look_at_[i];
      if ((doubtful_.contains(number) || unsound_.contains(number)) != doubtful) continue;
      if (i % 1024 == 0) progress(i, files_to_look_at_.size(), "extents");
      claim_data_of(number, doubtful);
    }
}

// The first file that names a block keeps it; a second one gets a copy. Metadata that turns up in a file stays
// metadata, and the file has a hole there: its data is gone. A file in doubt gets no copies, and no block that the
// bitmap says is free: its extents may be what was damaged.
void Planner::claim_data_of(std::uint64_t number, bool doubtful) {
  media::Inode inode = this->inode(number);
  bool changed = false;
  const std::vector<FileExtent> extents = extents_of(inode, changed);
  if (oversized_.contains(number) && !extents.empty())
    edit(number).size_bytes =
        std::min((extents.back().file_block + extents.back().blocks) * block_size(), kMaxFileSize);
  if (changed && !unsound_.contains(number))
    note(inode_name(number), "extents that overlap or lie outside the device dropped", false);
  FileData file{number, superblock_.data_role(inode.flags), {}};
  Space& data = space(file.role);
  const std::uint64_t unit = data.unit_blocks();
  std::uint64_t copied = 0;
  std::uint64_t dropped = 0;
  std::uint64_t blocks = 0;
  const auto add = [&](const FileExtent& extent, Piece::Fate fate) {
    if (!file.pieces.empty()) {
      Piece& before = file.pieces.back();
      if (before.fate == fate && before.extent.blocks + extent.blocks <= kMostBlocks &&
          before.extent.file_block + before.extent.blocks == extent.file_block &&
          before.extent.device_block + before.extent.blocks == extent.device_block) {
        before.extent.blocks += extent.blocks;
        return;
      }
    }
    file.pieces.push_back({extent, fate});
  };
  for (const FileExtent& extent : extents) {
    const std::uint64_t start = extent.device_block / unit;
    const std::uint64_t end = start + extent.blocks / unit;
    claimed_[index_of(file.role)] += end - start;
    if (claimed_[index_of(file.role)] > kMostClaims * data.units()) {
      // As in the check engine: damage beyond description, which would take forever.
      dropped += end - start;
      continue;
    }
    if (!doubtful && !data.owned.any(start, end) && !data.kept.any(start, end)) {
      data.owned.set(start, end);
      file.pieces.push_back({extent, Piece::Fate::kStays});
      blocks += extent.blocks;
      continue;
    }
    for (std::uint64_t u = start; u < end; ++u) {
      const FileExtent one{extent.file_block + (u - start) * unit, u * unit, unit};
      const bool taken = data.owned.test(u);
      const bool was_metadata = file.role == DeviceRole::kMain && (metadata_.test(u) || data.kept.test(u));
      if (was_metadata || (doubtful && (taken || (!data.bits.test(u) && !data.unknown.test(u))))) {
        ++dropped;
        continue;
      }
      if (taken) ++copied;
      data.owned.set(u, u + 1);
      add(one, taken ? Piece::Fate::kCopied : Piece::Fate::kStays);
      blocks += unit;
    }
  }
  const auto units = [](std::uint64_t n) { return std::to_string(n) + (n == 1 ? " block" : " blocks"); };
  if (copied != 0) note(inode_name(number), units(copied) + " of another owner copied", false);
  if (dropped != 0)
    note(inode_name(number), units(dropped) + " that are not its own taken out; they read as a hole", false);
  changed = changed || copied != 0 || dropped != 0;
  if (changed) {
    rewritten_.push_back(std::move(file));
  } else if (blocks != inode.blocks) {
    edit(number).blocks = blocks;
    note(inode_name(number), "blocks set to what its extents have", true);
  }
}

Status Planner::rewrite_data() {
  for (const FileData& file : rewritten_) PLUMB_TRY(rewrite_data_of(file));
  return {};
}

Status Planner::rewrite_data_of(const FileData& file) {
  Space& data = space(file.role);
  const std::uint64_t unit = data.unit_blocks();
  std::vector<FileExtent> extents;
  std::uint64_t blocks = 0;
  const auto add = [&](const FileExtent& extent) {
    blocks += extent.blocks;
    if (!extents.empty()) {
      FileExtent& before = extents.back();
      if (before.file_block + before.blocks == extent.file_block &&
          before.device_block + before.blocks == extent.device_block && before.blocks + extent.blocks <= kMostBlocks) {
        before.blocks += extent.blocks;
        return;
      }
    }
    extents.push_back(extent);
  };
  for (const Piece& piece : file.pieces) {
    if (piece.fate == Piece::Fate::kStays) {
      add(piece.extent);
      continue;
    }
    for (std::uint64_t at = 0; at < piece.extent.blocks; at += unit) {
      const auto to = data.take();
      if (!to) {
        note(inode_name(file.number), "no room to copy a block of another owner; it reads as a hole", false);
        break;
      }
      copies_.push_back({file.role, (piece.extent.device_block + at) / unit, *to});
      add({piece.extent.file_block + at, *to * unit, unit});
    }
  }
  media::Inode& inode = edit(file.number);
  const Tree old = inode.data.block == 0 ? Tree{} : tree_of(inode, media::TreeKind::kExtents);
  inode.blocks = blocks;
  inode.data = media::TreeRoot{};
  inode.inline_extents = 0;
  inode.inline_data = {};
  if (extents.size() <= media::kInlineExtents) {
    for (const std::uint64_t node : old.nodes) disown(node);
    for (std::size_t i = 0; i < extents.size(); ++i) {
      media::InlineExtent entry;
      entry.file_block = extents[i].file_block;
      entry.extent.device_block = extents[i].device_block;
      entry.extent.length_blocks = static_cast<std::uint32_t>(extents[i].blocks);
      std::memcpy(inode.inline_data.data() + i * sizeof entry, &entry, sizeof entry);
    }
    inode.inline_extents = static_cast<std::uint8_t>(extents.size());
    return {};
  }
  std::vector<Entry> entries;
  entries.reserve(extents.size());
  for (const FileExtent& extent : extents) {
    media::ExtentRecord record;
    record.device_block = extent.device_block;
    record.length_blocks = static_cast<std::uint32_t>(extent.blocks);
    Entry entry{extent.file_block, {}};
    entry.record.assign(reinterpret_cast<const char*>(&record), sizeof record);
    entries.push_back(std::move(entry));
  }
  replace_tree(old, NewTree::Place::kData, file.number, std::move(entries));
  return {};
}

// ---- a new inode ----

Result<std::uint64_t> Planner::new_inode(std::uint32_t mode, std::uint64_t parent) {
  std::size_t id = 0;
  while (id < inodes_.size() && (inodes_[id].type != 0 || number_of(id) <= kRootInode.value)) ++id;
  if (id == inodes_.size()) {
    PLUMB_ASSIGN(id, new_inode_block(inode_blocks_.empty() ? 1 : inode_blocks_.back().index + 1));
  }
  return put_new_inode(id, mode, parent);
}

// An inode block with nothing in it; the number of its first slot.
Result<std::size_t> Planner::new_inode_block(std::uint64_t index) {
  const std::size_t per_block = superblock_.inodes_per_block();
  PLUMB_ASSIGN(const std::uint64_t block, new_block({}));
  const auto at = std::lower_bound(inode_blocks_.begin(), inode_blocks_.end(), index,
                                   [](const InodeBlock& b, std::uint64_t i) { return b.index < i; });
  const auto first = static_cast<std::size_t>(at - inode_blocks_.begin()) * per_block;
  inode_blocks_.insert(at, {index, block});
  inodes_.insert(inodes_.begin() + static_cast<std::ptrdiff_t>(first), per_block, Info{});
  table_changed_ = true;
  return first;
}

std::uint64_t Planner::put_new_inode(std::size_t id, std::uint32_t mode, std::uint64_t parent) {
  const std::uint64_t number = number_of(id);
  media::Inode inode;
  std::memset(static_cast<void*>(&inode), 0, sizeof inode);
  inode.magic = media::kInodeMagic;
  inode.number = number;
  // Generations are sequence numbers of the journal: one that was not reached yet.
  inode.generation = next_sequence_;
  inode.mode = mode;
  inode.links = 2;
  inode.parent = parent;
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  inode.atime = inode.mtime = inode.ctime = inode.btime = static_cast<std::uint64_t>(now.tv_sec);
  inode.atime_ns = inode.mtime_ns = inode.ctime_ns = inode.btime_ns = static_cast<std::uint32_t>(now.tv_nsec);
  cleared_.erase(number);
  edits_[number] = inode;
  Info& info = inodes_[id];
  info = Info{};
  info.type = static_cast<std::uint8_t>(IFTODT(mode));
  info.links = 2;
  info.parent = info.namer = parent;
  return number;
}

}  // namespace plumb::repairer
