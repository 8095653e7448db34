// What is left of a tree, and new trees.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "fs/core/node.h"
#include "fs/core/repair_impl.h"
#include "fs/core/siphash.h"
#include "fs/media/verify.h"

namespace plumb::repairer {
namespace {

constexpr int kAboveRoot = 17;
constexpr std::uint64_t kMostIndex = std::uint64_t{1} << 55;  // of an inode block

// The only length a record of a leaf may have; 0: by its contents.
std::size_t record_length(media::TreeKind kind) {
  switch (kind) {
    case media::TreeKind::kInodeTable:
      return sizeof(media::Le64);
    case media::TreeKind::kReclaim:
      return sizeof(media::ReclaimRecord);
    case media::TreeKind::kBadBlocks:
      return sizeof(media::BadBlockRecord);
    case media::TreeKind::kExtents:
      return sizeof(media::ExtentRecord);
    default:
      return 0;
  }
}

// Names are their own proof: the hash of a name under the seed of the file system is its key.
bool has_named_records(media::TreeKind kind) {
  return kind == media::TreeKind::kDirectory || kind == media::TreeKind::kXattrs;
}

// A node as far as it can be read: never outside of its bytes.
struct Parsed {
  bool usable = false;  // it is, or was, a node of this tree
  bool sound = false;   // and nothing is wrong with it by itself
  std::uint8_t level = 0;
  std::vector<std::pair<std::uint64_t, std::span<const std::byte>>> records;
};

Parsed parse(std::span<const std::byte> bytes, std::uint64_t block, media::TreeKind kind, std::uint64_t owner,
             int parent_level) {
  Parsed parsed;
  const Status status = media::verify_node(bytes, block, kind);
  media::NodeHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  const bool checksum_right = status || status.error().code != EBADMSG;
  const bool own_number = header.header.block == block;
  const bool own_tree = header.header.owner == owner;
  const int wrong = (header.header.magic == static_cast<std::uint32_t>(media::BlockMagic::kNode) ? 0 : 1) +
                    (own_number ? 0 : 1) + (own_tree ? 0 : 1) +
                    (header.kind == static_cast<std::uint8_t>(kind) ? 0 : 1);
  // One field of the header may be what was damaged. A whole node that says it belongs elsewhere does.
  if (wrong > 1) return parsed;
  if (checksum_right && (!own_number || (!own_tree && !has_named_records(kind)))) return parsed;
  const bool level_fits = parent_level == kAboveRoot ? header.level < kAboveRoot - 1 : header.level == parent_level - 1;
  if (parent_level == kAboveRoot && !level_fits) return parsed;
  parsed.usable = true;
  parsed.sound = status && own_tree && level_fits;
  parsed.level = parent_level == kAboveRoot ? header.level : static_cast<std::uint8_t>(parent_level - 1);
  const std::size_t exact = parsed.level > 0 ? sizeof(media::Le64) : record_length(kind);
  const std::size_t most = (bytes.size() - sizeof header) / sizeof(media::NodeSlot);
  // The count may be what was damaged. Names need none: what is no slot has no name that fits its key.
  const bool look_at_all = !checksum_right && parsed.level == 0 && has_named_records(kind);
  const std::size_t count = look_at_all ? most : std::min<std::size_t>(header.count, most);
  for (std::size_t i = 0; i < count; ++i) {
    media::NodeSlot slot;
    std::memcpy(&slot, bytes.data() + sizeof header + i * sizeof slot, sizeof slot);
    const std::size_t offset = slot.offset;
    const std::size_t length = slot.length;
    if (offset < sizeof header || offset > bytes.size() || length > bytes.size() - offset || length == 0 ||
        (exact != 0 && length != exact)) {
      parsed.sound = false;
      continue;
    }
    parsed.records.emplace_back(slot.key, bytes.subspan(offset, length));
  }
  return parsed;
}

std::uint64_t child_of(std::span<const std::byte> record) {
  media::Le64 block;
  std::memcpy(&block, record.data(), sizeof block);
  return block;
}

void sort_entries(Tree& tree) {
  const auto before = [](const Entry& a, const Entry& b) { return a.key < b.key; };
  if (!std::is_sorted(tree.entries.begin(), tree.entries.end(), before)) {
    tree.sound = false;
    std::stable_sort(tree.entries.begin(), tree.entries.end(), before);
  }
  const auto end = std::unique(tree.entries.begin(), tree.entries.end(),
                               [](const Entry& a, const Entry& b) { return a.key == b.key; });
  if (end != tree.entries.end()) tree.sound = false;
  tree.entries.erase(end, tree.entries.end());
}

}  // namespace

bool Planner::own_metadata(std::uint64_t block) {
  Space& main = space(DeviceRole::kMain);
  if (!main.holds(block, 1) || main.owned.test(block)) return false;
  main.owned.set(block, block + 1);
  metadata_.set(block, block + 1);
  return true;
}

void Planner::disown(std::uint64_t block) {
  Space& main = space(DeviceRole::kMain);
  main.owned.clear(block, block + 1);
  metadata_.clear(block, block + 1);
  main.kept.set(block, block + 1);
}

Tree Planner::read_tree(const media::TreeRoot& root, media::TreeKind kind, std::uint64_t owner, bool own) {
  Tree tree;
  if (root.block == 0 && root.nodes == 0) return tree;
  if (root.block == 0) {
    tree.lost.push_back({});
    tree.sound = false;
  } else {
    read_node(tree, kind, owner, root.block, kAboveRoot, {}, own);
  }
  sort_entries(tree);
  if (tree.lost.empty()) return tree;
  want_search_ = true;
  add_found_leaves(tree, kind, owner);
  return tree;
}

void Planner::read_node(Tree& tree, media::TreeKind kind, std::uint64_t owner, std::uint64_t block, int parent_level,
                        KeyRange range, bool own) {
  const auto lose = [&] {
    tree.lost.push_back(range);
    tree.sound = false;
  };
  Space& main = space(DeviceRole::kMain);
  if (!main.holds(block, 1) || (own && main.owned.test(block))) return lose();
  std::vector<std::byte> bytes(block_size());
  if (!image_.load(block, bytes)) return lose();
  const Parsed node = parse(bytes, block, kind, owner, parent_level);
  if (!node.usable) return lose();
  if (own) (void)own_metadata(block);
  tree.nodes.push_back(block);
  tree.sound = tree.sound && node.sound;
  const bool empty_root = parent_level == kAboveRoot && kind == media::TreeKind::kReclaim;
  if (node.records.empty() && !empty_root) tree.sound = false;
  if (node.level == 0) {
    for (const auto& [key, record] : node.records) {
      if (key < range.low || key > range.high) tree.sound = false;
      if (!node.sound && !record_is_plausible(kind, key, record)) continue;
      tree.entries.push_back({key, std::string(reinterpret_cast<const char*>(record.data()), record.size())});
    }
    return;
  }
  for (std::size_t i = 0; i < node.records.size(); ++i) {
    KeyRange below = range;
    // The keys of a damaged node bound nothing; the first one never does.
    if (node.sound) {
      if (i > 0) below.low = std::max(below.low, node.records[i].first);
      if (i + 1 < node.records.size()) below.high = std::min(below.high, node.records[i + 1].first - 1);
    }
    read_node(tree, kind, owner, child_of(node.records[i].second), node.level, below, own);
  }
}

// Of a record whose node has a wrong checksum or does not hold together.
bool Planner::record_is_plausible(media::TreeKind kind, std::uint64_t key, std::span<const std::byte> record) const {
  const auto named = [&](std::size_t header_bytes, std::size_t name_bytes) {
    if (name_bytes == 0 || record.size() < header_bytes + name_bytes) return false;
    const std::string_view name(reinterpret_cast<const char*>(record.data()) + header_bytes, name_bytes);
    const std::uint64_t first = name_key(superblock_.media().hash_seed, name);
    return key >= first && key < first + kKeysPerName;
  };
  if (record.size() > (image_.block_size() - sizeof(media::NodeHeader)) / 3 - sizeof(media::NodeSlot)) return false;
  switch (kind) {
    case media::TreeKind::kDirectory: {
      media::DirectoryRecord header;
      if (record.size() <= sizeof header) return false;
      std::memcpy(&header, record.data(), sizeof header);
      return record.size() == sizeof header + header.name_length && named(sizeof header, header.name_length);
    }
    case media::TreeKind::kXattrs: {
      media::XattrRecord header;
      if (record.size() <= sizeof header) return false;
      std::memcpy(&header, record.data(), sizeof header);
      const bool chained = (header.flags & media::kXattrInChain) != 0;
      const std::uint64_t value = chained ? 0 : header.value_length.get();
      return record.size() == sizeof header + header.name_length + value && named(sizeof header, header.name_length);
    }
    case media::TreeKind::kInodeTable:
      return holds_inodes(child_of(record), key);
    case media::TreeKind::kExtents:
    case media::TreeKind::kReclaim:
    case media::TreeKind::kBadBlocks:
      break;  // what they name is compared with its owner later
  }
  return true;
}

// Leaves that no parent leads to, for the ranges of keys in which a node is lost.
void Planner::add_found_leaves(Tree& tree, media::TreeKind kind, std::uint64_t owner) {
  const auto found = found_leaves_.find({static_cast<std::uint8_t>(kind), owner});
  if (found == found_leaves_.end()) return;
  // Disjoint, in order: a tree of many lost nodes is searched in reasonable time.
  std::sort(tree.lost.begin(), tree.lost.end(), [](const KeyRange& a, const KeyRange& b) { return a.low < b.low; });
  std::vector<KeyRange> lost;
  for (const KeyRange& range : tree.lost) {
    if (lost.empty() || lost.back().high < range.low)
      lost.push_back(range);
    else
      lost.back().high = std::max(lost.back().high, range.high);
  }
  const auto is_lost = [&lost](std::uint64_t key) {
    const auto behind = std::upper_bound(lost.begin(), lost.end(), key,
                                         [](std::uint64_t k, const KeyRange& range) { return k < range.low; });
    return behind != lost.begin() && key <= std::prev(behind)->high;
  };
  // The newest leaf first: where two know a key, that one counts.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> leaves;
  std::vector<std::byte> bytes(block_size());
  Space& main = space(DeviceRole::kMain);
  for (const std::uint64_t block : found->second) {
    if (main.owned.test(block) || pending_.test(block) || !image_.load(block, bytes)) continue;
    media::BlockHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    leaves.emplace_back(header.sequence, block);
  }
  std::sort(leaves.rbegin(), leaves.rend());
  for (const auto& [sequence, block] : leaves) {
    if (!image_.load(block, bytes)) continue;
    const Parsed node = parse(bytes, block, kind, owner, kAboveRoot);
    bool used = false;
    for (const auto& [key, record] : node.records) {
      if (!is_lost(key) || !record_is_plausible(kind, key, record)) continue;
      tree.entries.push_back({key, std::string(reinterpret_cast<const char*>(record.data()), record.size())});
      used = true;
    }
    // Until what was in it is stored elsewhere.
    if (used) main.kept.set(block, block + 1);
  }
  sort_entries(tree);
}

// A node and an inode say whose they are; so they are found although nothing leads to them. Blocks that wait for
// reclaim are old ones and not looked at.
bool Planner::search_device() {
  Space& main = space(DeviceRole::kMain);
  const std::size_t per_block = superblock_.inodes_per_block();
  std::vector<std::byte> bytes(block_size());
  bool any = false;
  for (std::uint64_t block = main.data_start(); block < main.units(); ++block) {
    if (block % 4096 == 0) progress(block, main.units(), "search");
    if ((!main.bits.test(block) && !main.unknown.test(block)) || main.owned.test(block) || pending_.test(block))
      continue;
    if (!image_.load(block, bytes)) continue;
    media::NodeHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    const auto kind = static_cast<media::TreeKind>(header.kind);
    if (header.header.magic == static_cast<std::uint32_t>(media::BlockMagic::kNode)) {
      if (header.level != 0 || !media::verify_node(bytes, block, kind)) continue;
      found_leaves_[{header.kind, header.header.owner}].push_back(block);
      any = true;
      continue;
    }
    std::optional<std::uint64_t> index;
    bool alike = true;
    for (std::size_t slot = 0; slot < per_block && alike; ++slot) {
      media::Inode inode;
      std::memcpy(&inode, bytes.data() + slot * media::kInodeBytes, sizeof inode);
      const Status status = media::verify_inode(inode, inode.number);
      if (!status) {
        alike = status.error().code == ESTALE;
        continue;
      }
      alike = inode.number % per_block == slot && (!index || *index == inode.number / per_block);
      index = inode.number / per_block;
    }
    if (!alike || !index || *index > kMostIndex) continue;
    loose_inode_blocks_[*index].push_back(block);
    any = true;
  }
  return any;
}

// Inode blocks for indexes that the table does not know. Of several for one index, the one that was changed last in the
// life of this file system: with the highest generation of an inode, which is a sequence number.
void Planner::use_loose_inode_blocks() {
  std::vector<std::byte> bytes(block_size());
  for (const auto& [index, blocks] : loose_inode_blocks_) {
    const bool known = std::any_of(inode_blocks_.begin(), inode_blocks_.end(),
                                   [i = index](const InodeBlock& block) { return block.index == i; });
    std::uint64_t newest = 0;
    for (const std::uint64_t block : blocks) {
      if (known || space(DeviceRole::kMain).owned.test(block) || pending_.test(block) || !image_.load(block, bytes))
        continue;
      std::uint64_t generation = 0;
      for (std::size_t at = 0; at < bytes.size(); at += media::kInodeBytes) {
        media::Inode inode;
        std::memcpy(&inode, bytes.data() + at, sizeof inode);
        generation = std::max(generation, inode.generation.get());
      }
      if (generation >= next_sequence_ || generation < newest) continue;
      newest = generation;
      found_inode_blocks_[index] = block;
    }
  }
}

void Planner::replace_tree(const Tree& old, NewTree::Place place, std::uint64_t inode, std::vector<Entry> entries) {
  for (const std::uint64_t node : old.nodes) disown(node);
  new_trees_.push_back({place, inode, std::move(entries)});
}

Result<std::uint64_t> Planner::new_block(std::span<const std::byte> bytes) {
  const auto block = space(DeviceRole::kMain).take();
  if (!block) return fail(ENOSPC, device_.info().path + ": no free block for what the repair has to make anew");
  metadata_.set(*block, *block + 1);
  std::vector<std::byte>& copy = new_blocks_[*block];
  copy.assign(bytes.begin(), bytes.end());
  if (bytes.size() < sizeof(media::BlockHeader)) copy.resize(block_size());
  return *block;
}

// From the bottom up; nodes are filled to seven eighths, so that the next names do not split every one of them.
Result<media::TreeRoot> Planner::build_tree(media::TreeKind kind, std::uint64_t owner, std::span<const Entry> entries) {
  struct Below {
    std::uint64_t key = 0, block = 0;
  };
  media::TreeRoot root;
  std::vector<Below> below;
  std::vector<std::byte> bytes(block_size());
  Node node(bytes.data(), bytes.size());
  std::uint64_t first_key = 0;
  const auto begin = [&](std::uint8_t level) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
    media::BlockHeader header;
    header.magic = static_cast<std::uint32_t>(media::BlockMagic::kNode);
    header.owner = owner;
    header.sequence = next_sequence_;
    std::memcpy(bytes.data(), &header, sizeof header);
    node.initialise(kind, level);
  };
  const auto end = [&](std::vector<Below>& level) -> Status {
    PLUMB_ASSIGN(const std::uint64_t block, new_block(bytes));
    const media::Le64 number(block);
    std::vector<std::byte>& stored = new_blocks_[block];
    std::memcpy(stored.data() + offsetof(media::BlockHeader, block), &number, sizeof number);
    media::seal_block(stored);
    level.push_back({first_key, block});
    root.nodes = root.nodes + 1;
    return {};
  };
  const auto add = [&](std::vector<Below>& level, std::uint8_t height, std::uint64_t key,
                       std::span<const std::byte> record) -> Status {
    const std::size_t size = node.live_bytes() + sizeof(media::NodeSlot) + record.size();
    if (node.count() != 0 && (size > node.capacity() / 8 * 7 || !node.fits(record.size()))) {
      PLUMB_TRY(end(level));
      begin(height);
    }
    if (node.count() == 0) first_key = key;
    node.insert(node.count(), key, record);
    return {};
  };
  if (entries.empty()) return root;
  begin(0);
  for (const Entry& entry : entries)
    PLUMB_TRY(add(below, 0, entry.key, std::as_bytes(std::span(entry.record.data(), entry.record.size()))));
  PLUMB_TRY(end(below));
  for (std::uint8_t height = 1; below.size() > 1; ++height) {
    std::vector<Below> above;
    begin(height);
    for (std::size_t i = 0; i < below.size(); ++i) {
      const media::Le64 child(below[i].block);
      PLUMB_TRY(add(above, height, i == 0 ? 0 : below[i].key, bytes_of(child)));
    }
    PLUMB_TRY(end(above));
    below = std::move(above);
  }
  root.block = below.front().block;
  return root;
}

std::optional<std::string> Planner::read_chain(std::uint64_t first, std::uint64_t most_bytes, std::uint64_t owner,
                                               std::vector<std::uint64_t>& blocks) {
  const std::uint64_t room = block_size() - sizeof(media::ValueHeader);
  std::string value;
  std::vector<std::byte> bytes(block_size());
  bool whole = first != 0;
  for (std::uint64_t block = first; block != 0 && whole;) {
    whole = own_metadata(block);
    if (!whole) break;
    blocks.push_back(block);
    whole = image_.load(block, bytes) && media::verify_block(bytes, media::BlockMagic::kValue, block);
    media::ValueHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    whole = whole && header.header.owner == owner && header.index == blocks.size() - 1 && header.bytes <= room &&
            header.bytes != 0 && (header.next == 0 || header.bytes == room) &&
            value.size() + header.bytes <= most_bytes;
    if (!whole) break;
    value.append(reinterpret_cast<const char*>(bytes.data()) + sizeof header, header.bytes);
    block = header.next;
  }
  if (whole) return value;
  for (const std::uint64_t block : blocks) disown(block);
  blocks.clear();
  return std::nullopt;
}

}  // namespace plumb::repairer
