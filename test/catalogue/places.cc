#include "test/catalogue/places.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>

#include "fs/core/node.h"
#include "fs/core/siphash.h"

namespace plumb::catalogue {
namespace {

constexpr std::uint64_t kRootInode = 1;

[[noreturn]] void complain(const std::string& text) {
  throw std::runtime_error(text);
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  const bool hex = text.starts_with("0x");
  const std::string_view digits = hex ? text.substr(2) : text;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (error != std::errc() || end != digits.data() + digits.size())
    complain("\"" + std::string(text) + "\" is neither a number nor a name that is known");
  return value;
}

Node node_in(std::span<const std::byte> bytes) {
  return node_view(bytes.data(), bytes.size());
}

Structure structure_of(std::uint8_t level, std::uint8_t kind) {
  if (level > 0) return Structure::kChild;
  switch (static_cast<media::TreeKind>(kind)) {
    case media::TreeKind::kInodeTable:
      return Structure::kChild;
    case media::TreeKind::kReclaim:
      return Structure::kReclaimRecord;
    case media::TreeKind::kExtents:
      return Structure::kExtentRecord;
    case media::TreeKind::kDirectory:
      return Structure::kDirectoryRecord;
    case media::TreeKind::kXattrs:
      return Structure::kXattrRecord;
    default:
      return Structure::kBytes;
  }
}

}  // namespace

// The text, word by word.
struct Places::Words {
  explicit Words(std::string_view text) : rest(text) {}
  std::string_view rest;

  std::string_view next() {
    if (rest.empty()) complain("a word is missing at the end");
    const std::size_t end = std::min(rest.find(' '), rest.size());
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return word;
  }
  std::uint64_t next_number() { return number(next()); }
  bool take(std::string_view word) {
    if (!rest.starts_with(word) || (rest.size() > word.size() && rest[word.size()] != ' ')) return false;
    next();
    return true;
  }
  void expect(std::string_view word) {
    if (!take(word)) complain("\"" + std::string(word) + "\" expected before \"" + std::string(rest) + "\"");
  }
};

std::uint64_t read_number(const Medium& medium, const Place& place, const Field& field) {
  if (field.bytes > sizeof(std::uint64_t)) complain("the field holds no number");
  media::Le64 value = 0;
  std::memcpy(&value, medium.bytes(place.device, place.offset_bytes + field.offset, field.bytes).data(), field.bytes);
  return value;
}

Places::Places(const Medium& medium) : medium_(medium), superblock_(medium.read<media::Superblock>(0)) {}

// ---- trees and inodes ----

std::span<const std::byte> Places::block(std::uint64_t block_number) const {
  return medium_.bytes(0, block_number * block_size(), block_size());
}

media::State Places::state() const {
  return medium_.read<media::State>(superblock_.state_block * block_size());
}

TreeSlot Places::lower_bound(const media::TreeRoot& root, std::uint64_t key) const {
  std::uint64_t at = root.block;
  if (at == 0) complain("the tree is empty");
  for (Node node = node_in(block(at)); node.level() > 0; node = node_in(block(at)))
    at = node.child(node.child_index(key));
  return {at, node_in(block(at)).lower_bound(key)};
}

// The nodes of a level, in the order of keys.
std::vector<std::uint64_t> Places::nodes(const media::TreeRoot& root, unsigned level) const {
  if (root.block == 0) complain("the tree is empty");
  std::vector<std::uint64_t> found{root.block};
  while (node_in(block(found[0])).level() > level) {
    std::vector<std::uint64_t> below;
    for (const std::uint64_t parent : found) {
      const Node node = node_in(block(parent));
      for (std::size_t i = 0; i < node.count(); ++i) below.push_back(node.child(i));
    }
    found = std::move(below);
  }
  if (node_in(block(found[0])).level() != level) complain("the tree is not as high");
  return found;
}

std::optional<TreeSlot> Places::find_name(const media::TreeRoot& root, std::size_t name_offset,
                                          std::string_view name) const {
  for (const std::uint64_t leaf : nodes(root, 0)) {
    const Node node = node_in(block(leaf));
    for (std::size_t i = 0; i < node.count(); ++i) {
      const std::span<const std::byte> record = node.record(i);
      const std::string_view text(reinterpret_cast<const char*>(record.data()), record.size());
      if (text.size() >= name_offset + name.size() && text.substr(name_offset, name.size()) == name &&
          static_cast<std::size_t>(record[name_offset == sizeof(media::XattrRecord) ? 0 : 9]) == name.size())
        return TreeSlot{leaf, i};
    }
  }
  return {};
}

std::uint64_t Places::inode_offset(std::uint64_t inode_number) const {
  const std::uint64_t per_block = block_size() / media::kInodeBytes;
  const TreeSlot at = lower_bound(state().inode_table, inode_number / per_block);
  const Node node = node_in(block(at.node_block));
  if (at.slot >= node.count() || node.key(at.slot) != inode_number / per_block)
    complain("inode " + std::to_string(inode_number) + " is not in the inode table");
  return node.child(at.slot) * block_size() + inode_number % per_block * media::kInodeBytes;
}

media::Inode Places::inode(std::uint64_t inode_number) const {
  return medium_.read<media::Inode>(inode_offset(inode_number));
}

std::uint64_t Places::inode_number(std::string_view path) const {
  if (!path.starts_with('/')) complain("\"" + std::string(path) + "\": a path begins with a slash");
  std::uint64_t at = kRootInode;
  for (path.remove_prefix(1); !path.empty();) {
    const std::string_view name = path.substr(0, std::min(path.find('/'), path.size()));
    path.remove_prefix(std::min(name.size() + 1, path.size()));
    const auto slot = find_name(inode(at).data, sizeof(media::DirectoryRecord), name);
    if (!slot) complain("there is no \"" + std::string(name) + "\" in the directory");
    media::DirectoryRecord record;
    std::memcpy(&record, node_in(block(slot->node_block)).record(slot->slot).data(), sizeof record);
    at = record.inode;
  }
  return at;
}

TreeSlot Places::place_for_name(std::string_view directory, std::string_view name) const {
  return lower_bound(inode(inode_number(directory)).data, name_key(superblock_.hash_seed, name));
}

TreeSlot Places::place_in_reclaim(std::uint64_t key) const {
  return lower_bound(state().reclaim, key);
}

// ---- places ----

Place Places::in_block(Structure structure, std::uint64_t block_number, std::size_t offset, std::size_t length) const {
  const std::uint64_t start = block_number * block_size();
  return {structure, 0, start + offset, length, {Seal::Kind::kBlock, start, block_size(), 0}};
}

Place Places::journal_place(Words& words) const {
  const std::uint64_t start = superblock_.journal_start;
  if (words.take("header")) {
    const std::uint64_t at = start + (words.next_number() - 1) * media::kJournalHeaderStride;
    return {Structure::kJournalHeader,
            0,
            at,
            sizeof(media::JournalHeader),
            {Seal::Kind::kJournalHeader, at, sizeof(media::JournalHeader), 0}};
  }
  const bool range = words.take("range");
  if (!range) words.expect("record");
  const bool last = words.take("last");
  const std::uint64_t wanted = last ? ~std::uint64_t{0} : words.next_number();
  auto header = medium_.read<media::JournalHeader>(start);
  const auto second = medium_.read<media::JournalHeader>(start + media::kJournalHeaderStride);
  if (second.update > header.update) header = second;
  std::optional<Place> found;
  std::uint64_t at = header.tail_offset;
  std::uint64_t sequence = header.tail_sequence;
  std::uint32_t seed = header.tail_seed;
  for (std::uint64_t i = 1; i <= wanted; ++i, ++sequence) {
    const std::uint64_t offset = start + media::kJournalRingOffset + at;
    const auto record = medium_.read<media::RecordHeader>(offset);
    if (record.magic != media::kRecordMagic || record.epoch != header.epoch || record.sequence != sequence) break;
    if (record.kind != media::kRecordPad && (last || i == wanted))
      found = Place{Structure::kRecordHeader,
                    0,
                    offset,
                    record.length_bytes,
                    {Seal::Kind::kRecord, offset, record.length_bytes, seed}};
    seed = record.crc;
    at = record.kind == media::kRecordPad ? 0 : at + record.length_bytes;
  }
  if (!found) complain("the journal has no such live record");
  if (range) {
    found->structure = Structure::kRangeHeader;
    found->offset_bytes += sizeof(media::RecordHeader);
  }
  return *found;
}

// After "node".
Place Places::node_place(Words& words) const {
  const std::string_view tree = words.next();
  media::TreeRoot root;
  if (tree == "inode_table") {
    root = state().inode_table;
  } else if (tree == "reclaim") {
    root = state().reclaim;
  } else if (tree == "extents" || tree == "directory" || tree == "xattrs") {
    const media::Inode of = inode(inode_number(words.next()));
    root = tree == "xattrs" ? of.xattrs : of.data;
  } else {
    complain("\"" + std::string(tree) + "\" is no tree");
  }
  std::uint64_t at = root.block;
  if (!words.take("root")) {
    const bool leaf = words.take("leaf");
    if (!leaf) words.expect("level");
    const auto all = nodes(root, leaf ? 0 : static_cast<unsigned>(words.next_number()));
    const std::uint64_t index = words.next_number();
    if (index >= all.size()) complain("there are only " + std::to_string(all.size()) + " nodes on this level");
    at = all[index];
  }
  if (at == 0) complain("the tree is empty");
  return in_block(Structure::kNode, at, 0, block_size());
}

Place Places::record_place(const TreeSlot& at) const {
  const std::span<const std::byte> bytes = block(at.node_block);
  media::NodeHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (at.slot >= header.count) complain("there are only " + std::to_string(header.count) + " records in the node");
  const std::span<const std::byte> record = node_in(bytes).record(at.slot);
  return in_block(structure_of(header.level, header.kind), at.node_block,
                  static_cast<std::size_t>(record.data() - bytes.data()), record.size());
}

Place Places::slot_place(const TreeSlot& at) const {
  return in_block(Structure::kNodeSlot, at.node_block, sizeof(media::NodeHeader) + at.slot * sizeof(media::NodeSlot),
                  sizeof(media::NodeSlot));
}

TreeSlot Places::named_slot(std::string_view path, std::string_view name, bool xattr) const {
  const media::Inode of = inode(inode_number(path));
  const auto slot =
      find_name(xattr ? of.xattrs : of.data, xattr ? sizeof(media::XattrRecord) : sizeof(media::DirectoryRecord), name);
  if (!slot) complain("there is no \"" + std::string(name) + "\" in " + std::string(path));
  return *slot;
}

// After "value".
Place Places::value_place(Words& words) const {
  std::uint64_t steps = words.next_number();
  words.expect("of");
  std::uint64_t at = 0;
  if (words.take("xattr")) {
    const std::string_view name = words.next();
    words.expect("of");
    const Place record = record_place(named_slot(words.next(), name, true));
    at = read_number(medium_, record, field_of(record.structure, "chain"));
  } else {
    at = inode(inode_number(words.next())).data.block;
  }
  for (; steps > 0 && at != 0; --steps) at = medium_.read<media::ValueHeader>(at * block_size()).next;
  if (at == 0) complain("the chain is not as long");
  return in_block(Structure::kValue, at, 0, block_size());
}

Place Places::parse(Words& words) const {
  const auto sealed = [](Structure structure, std::size_t device, Seal::Kind kind, std::uint64_t offset) {
    return Place{structure, device, offset, media::kSuperblockBytes, {kind, offset, media::kSuperblockBytes, 0}};
  };
  const auto copy_offset = [&] {
    const std::uint64_t copy = words.next_number();
    if (copy < 1 || copy > media::kSuperblockOffsets.size()) complain("the copies are 1 and 2");
    return media::kSuperblockOffsets[copy - 1];
  };
  if (words.take("superblock")) return sealed(Structure::kSuperblock, 0, Seal::Kind::kSuperblock, copy_offset());
  if (words.take("label")) return sealed(Structure::kMemberLabel, 1, Seal::Kind::kMemberLabel, copy_offset());
  if (words.take("device")) {
    const std::uint64_t index = words.next_number();
    words.expect("of");
    Place place = parse(words);
    place.structure = Structure::kDeviceEntry;
    place.offset_bytes += offsetof(media::Superblock, devices) + index * sizeof(media::DeviceEntry);
    place.length_bytes = sizeof(media::DeviceEntry);
    return place;
  }
  if (words.take("journal")) return journal_place(words);
  if (words.take("state")) return in_block(Structure::kState, superblock_.state_block, 0, block_size());
  if (words.take("window"))
    return in_block(Structure::kWindowSlot, superblock_.state_block,
                    offsetof(media::State, windows) + words.next_number() * sizeof(media::WindowSlot),
                    sizeof(media::WindowSlot));
  if (words.take("realtime")) {
    if (words.take("bitmap"))
      return in_block(Structure::kBlockHeader, superblock_.devices[1].bitmap_start + words.next_number(), 0,
                      block_size());
    words.expect("block");
    const std::uint64_t at = value(words.rest) * block_size();
    return {Structure::kBytes, 1, at, block_size(), {}};
  }
  if (words.take("bitmap"))
    return in_block(Structure::kBlockHeader, superblock_.devices[0].bitmap_start + words.next_number(), 0,
                    block_size());
  if (words.take("inode")) {
    const bool whole = words.take("block");
    const std::uint64_t at = inode_offset(words.take("number") ? value(words.rest) : inode_number(words.next()));
    if (whole) return {Structure::kBytes, 0, at / block_size() * block_size(), block_size(), {}};
    return {Structure::kInode, 0, at, sizeof(media::Inode), {Seal::Kind::kInode, at, sizeof(media::Inode), 0}};
  }
  if (words.take("extent")) {
    const std::uint64_t index = words.next_number();
    words.expect("of");
    const std::uint64_t at = inode_offset(inode_number(words.next()));
    return {Structure::kInlineExtent,
            0,
            at + offsetof(media::Inode, inline_data) + index * sizeof(media::InlineExtent),
            sizeof(media::InlineExtent),
            {Seal::Kind::kInode, at, sizeof(media::Inode), 0}};
  }
  if (words.take("node")) return node_place(words);
  const bool slot = words.take("slot");
  if (slot || words.take("record")) {
    const std::size_t index = words.next_number();
    words.expect("of");
    words.expect("node");
    const TreeSlot at{node_place(words).offset_bytes / block_size(), index};
    return slot ? slot_place(at) : record_place(at);
  }
  if (words.take("entry")) {
    const std::string_view name = words.next();
    words.expect("in");
    return record_place(named_slot(words.next(), name, false));
  }
  if (words.take("xattr")) {
    const std::string_view name = words.next();
    words.expect("of");
    return record_place(named_slot(words.next(), name, true));
  }
  if (words.take("value")) return value_place(words);
  words.expect("block");
  return {Structure::kBytes, 0, value(words.rest) * block_size(), block_size(), {}};
}

Place Places::place(std::string_view text) const {
  Words words(text);
  try {
    return parse(words);
  } catch (const std::exception& error) {
    throw std::runtime_error("\"" + std::string(text) + "\": " + error.what());
  }
}

// ---- values ----

std::uint64_t Places::term(std::string_view text, std::optional<std::uint64_t> old) const {
  const media::DeviceEntry& main = superblock_.devices[0];
  const media::DeviceEntry& realtime = superblock_.devices[1];
  if (text == "old") {
    if (!old) complain("\"old\" has no meaning here");
    return *old;
  }
  if (text == "blocks") return main.size_bytes / block_size();
  if (text == "data_start") return main.data_start;
  if (text == "journal") return superblock_.journal_start / block_size();
  if (text == "free") return state().zeroed_upto[0] - 5;
  if (text == "realtime_unit") return realtime.extent_bytes / block_size();
  if (text == "realtime_blocks") return realtime.size_bytes / block_size();
  if (text == "realtime_free") return realtime.size_bytes / block_size() - realtime.extent_bytes / block_size();
  if (text.starts_with("hash of ")) return name_key(superblock_.hash_seed, text.substr(8));
  if (text.starts_with("block of ")) return place(text.substr(9)).offset_bytes / block_size();
  const std::size_t of = text.find(" of ");
  if (of == std::string_view::npos) return number(text);
  const Place where = place(text.substr(of + 4));
  return read_number(medium_, where, field_of(where.structure, text.substr(0, of)));
}

std::uint64_t Places::value(std::string_view text, std::optional<std::uint64_t> old) const {
  std::uint64_t sum = 0;
  bool minus = false;
  while (true) {
    const std::size_t end = std::min({text.find(" + "), text.find(" - "), text.size()});
    const std::uint64_t next = term(text.substr(0, end), old);
    sum = minus ? sum - next : sum + next;
    if (end == text.size()) return sum;
    minus = text[end + 1] == '-';
    text.remove_prefix(end + 3);
  }
}

std::string Places::expand(std::string_view text) const {
  std::string out;
  while (!text.empty()) {
    const std::size_t open = std::min(text.find('{'), text.size());
    out += text.substr(0, open);
    if (open == text.size()) break;
    const std::size_t close = text.find('}', open);
    if (close == std::string_view::npos) complain("a \"{\" without \"}\" in \"" + std::string(text) + "\"");
    out += std::to_string(value(text.substr(open + 1, close - open - 1)));
    text.remove_prefix(close + 1);
  }
  return out;
}

}  // namespace plumb::catalogue
