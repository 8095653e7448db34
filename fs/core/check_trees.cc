// Blocks as recovery would make them; trees and value chains.
#include <algorithm>
#include <cstring>

#include "fs/core/buffer_pool.h"
#include "fs/core/check_impl.h"
#include "fs/core/node.h"
#include "fs/media/verify.h"

namespace plumb::checker {
namespace {

constexpr int kAboveRoot = 16;

std::uint64_t owner_in_header(media::TreeKind kind, const Owner& owner) {
  return owner.kind >= Owner::Kind::kData ? owner.number : static_cast<std::uint64_t>(kind);
}

// The only length a record of this kind may have; 0: by its contents.
std::size_t record_length(media::TreeKind kind, std::uint8_t level) {
  if (level > 0) return sizeof(media::Le64);
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

}  // namespace

// ---- Image ----

Status Image::overlay(std::uint64_t home_offset_bytes, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::uint64_t block = home_offset_bytes / block_size_;
    const std::uint64_t within = home_offset_bytes % block_size_;
    if (block >= blocks_) return fail(EUCLEAN, "a range lies outside the file system", home_offset_bytes);
    const std::size_t count = std::min<std::size_t>(bytes.size(), block_size_ - within);
    std::unique_ptr<std::byte[]>& copy = overlay_[block];
    if (copy == nullptr) {
      copy = std::make_unique<std::byte[]>(block_size_);
      // What cannot be read is zeros: the checksum of the block will say so.
      (void)device_.load(block * block_size_, {copy.get(), block_size_});
    }
    std::memcpy(copy.get() + within, bytes.data(), count);
    home_offset_bytes += count;
    bytes = bytes.subspan(count);
  }
  return {};
}

Status Image::load(std::uint64_t block, std::span<std::byte> out) const {
  if (block >= blocks_) return fail(EUCLEAN, "block " + std::to_string(block) + ": outside the file system");
  if (const auto it = overlay_.find(block); it != overlay_.end()) {
    std::memcpy(out.data(), it->second.get(), block_size_);
    return {};
  }
  return device_.load(block * block_size_, out);
}

void Image::for_overlaid(absl::FunctionRef<void(std::uint64_t, std::span<const std::byte>)> visit) const {
  std::vector<std::uint64_t> blocks;
  blocks.reserve(overlay_.size());
  for (const auto& [block, bytes] : overlay_) blocks.push_back(block);
  std::sort(blocks.begin(), blocks.end());
  for (const std::uint64_t block : blocks) visit(block, {overlay_.at(block).get(), block_size_});
}

// ---- TreeReader ----

void TreeReader::complain(Walk& walk, std::uint64_t block, const std::string& what) {
  findings_.add(walk.owner.object(), walk.owner.part() + "block " + std::to_string(block) + ": " + what,
                block * image_.block_size());
  walk.complete = false;
}

bool TreeReader::read(const media::TreeRoot& root, media::TreeKind kind, Owner owner, Visit visit) {
  Walk walk{kind, owner, visit};
  if (root.block != 0) {
    read_node(walk, {root.block, 0, 0, kAboveRoot, 0, ~std::uint64_t{0}});
    if (!walk.complete) on_unread_();
  }
  if (walk.complete && walk.nodes != root.nodes)
    findings_.add(
        owner.object(),
        owner.part() + "has " + std::to_string(walk.nodes) + " nodes, its root says " + std::to_string(root.nodes),
        owner.offset_bytes);
  return walk.complete;
}

void TreeReader::read_node(Walk& walk, const Place& place) {
  Owner owner = walk.owner;
  if (place.depth != 0) owner.offset_bytes = place.parent * image_.block_size();
  if (!owners_.claim(place.block, 1, owner)) {
    walk.complete = false;
    return;
  }
  std::vector<std::byte>& bytes = levels_[place.depth];
  bytes.resize(image_.block_size());
  Status status = image_.load(place.block, bytes);
  if (status) status = media::verify_node(bytes, place.block, walk.kind);
  if (!status) {
    findings_.add_error(walk.owner.object(), walk.owner.part(), status.error(), place.block * image_.block_size());
    walk.complete = false;
    return;
  }
  if (!node_is_sane(walk, place, bytes)) return;
  ++walk.nodes;
  const Node node = node_view(bytes.data(), bytes.size());
  if (node.level() == 0) {
    leaf_offset_ = place.block * image_.block_size();
    for (std::size_t i = 0; i < node.count(); ++i) walk.visit(node.key(i), node.record(i));
    return;
  }
  // The first child takes everything below the second key: the first key is not looked at (fs/FORMAT.md, "Trees").
  for (std::size_t i = 0; i < node.count(); ++i) {
    Place below{node.child(i), place.block, place.depth + 1, node.level(), place.lowest, place.highest};
    if (i > 0) below.lowest = node.key(i);
    if (i + 1 < node.count()) below.highest = node.key(i + 1) - 1;
    read_node(walk, below);
  }
}

// What verify_node does not know: the place of the node in its tree.
bool TreeReader::node_is_sane(Walk& walk, const Place& place, std::span<const std::byte> bytes) {
  media::NodeHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.header.owner != owner_in_header(walk.kind, walk.owner)) {
    complain(walk, place.block, "header: owner is " + std::to_string(header.header.owner));
    return false;
  }
  if (place.parent_level != kAboveRoot && header.level != place.parent_level - 1) {
    complain(walk, place.block, "node level does not fit its parent");
    return false;
  }
  // The reclaim tree keeps an empty root.
  const bool may_be_empty = walk.kind == media::TreeKind::kReclaim && place.depth == 0;
  if (header.count == 0 && !may_be_empty) {
    complain(walk, place.block, "node without records");
    return false;
  }
  const Node node = node_view(bytes.data(), bytes.size());
  const std::size_t exact = record_length(walk.kind, header.level);
  for (std::size_t i = 0; exact != 0 && i < node.count(); ++i) {
    if (node.record(i).size() == exact) continue;
    complain(walk, place.block, "record of a wrong length");
    return false;
  }
  // Keys ascend: the outermost ones tell. An interior node's first key is not looked at.
  const std::size_t first = header.level == 0 ? 0 : 1;
  if (node.count() > first && (node.key(first) < place.lowest || node.key(node.count() - 1) > place.highest)) {
    complain(walk, place.block, "keys outside the range of the node's place in the tree");
    return false;
  }
  return true;
}

bool TreeReader::read_chain(std::uint64_t first_block, std::uint64_t length_bytes, Owner owner, std::uint64_t& blocks,
                            std::string* value) {
  const std::uint64_t room = image_.block_size() - sizeof(media::ValueHeader);
  const auto bad = [&](std::uint64_t offset, const std::string& what) {
    findings_.add(owner.object(), owner.part() + what, offset);
    on_unread_();
    return false;
  };
  chain_block_.resize(image_.block_size());
  std::uint64_t rest = length_bytes;
  std::uint64_t block = first_block;
  for (blocks = 0; block != 0; ++blocks) {
    if (rest == 0) return bad(owner.offset_bytes, "value chain longer than the value");
    if (!owners_.claim(block, 1, owner)) {
      on_unread_();
      return false;
    }
    Status status = image_.load(block, chain_block_);
    if (status) status = media::verify_block(chain_block_, media::BlockMagic::kValue, block);
    if (!status) {
      findings_.add_error(owner.object(), owner.part(), status.error(), block * image_.block_size());
      on_unread_();
      return false;
    }
    media::ValueHeader header;
    std::memcpy(&header, chain_block_.data(), sizeof header);
    const std::string name = "block " + std::to_string(block) + ": ";
    const std::uint64_t offset = block * image_.block_size();
    if (header.header.owner != owner.number) return bad(offset, name + "header: owner is not the inode");
    if (header.index != blocks) return bad(offset, name + "index in the value chain");
    if (header.bytes != std::min(rest, room)) return bad(offset, name + "bytes of the value");
    if (value != nullptr)
      value->append(reinterpret_cast<const char*>(chain_block_.data()) + sizeof header, header.bytes);
    rest -= header.bytes;
    block = header.next;
    owner.offset_bytes = offset;  // what refers to the next one
  }
  if (rest != 0) return bad(owner.offset_bytes, "value chain shorter than the value");
  return true;
}

}  // namespace plumb::checker
