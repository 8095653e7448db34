#include "fs/core/btree.h"

#include <algorithm>
#include <array>
#include <string>

#include "fs/core/node.h"

namespace plumb {
namespace {

constexpr int kAboveRoot = 16;  // "level of the parent" of a root: any level fits below it

std::array<std::byte, 8> child_record(BlockNumber block) {
  const media::Le64 value(block.value);
  std::array<std::byte, 8> bytes;
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

}  // namespace

Result<BufferRef> BTree::node(std::uint64_t block, int parent_level) const {
  PLUMB_ASSIGN(BufferRef buffer, store_.buffers().get(BlockNumber(block), node_buffer_type(kind_)));
  if (reinterpret_cast<const media::BlockHeader*>(buffer->bytes.get())->owner != owner_)
    return fail(EUCLEAN, "block " + std::to_string(block) + ": node of another tree", block * store_.block_size());
  const Node view = node_view(buffer->bytes.get(), store_.block_size());
  const int level = view.level();
  if (parent_level != kAboveRoot && view.count() == 0)
    return fail(EUCLEAN, "block " + std::to_string(block) + ": empty node", block * store_.block_size());
  if (parent_level == kAboveRoot ? level >= kAboveRoot : level != parent_level - 1)
    return fail(EUCLEAN, "block " + std::to_string(block) + ": node level does not fit its parent",
                block * store_.block_size());
  return buffer;
}

BTree::Bounds BTree::child_bounds(const Node& view, std::size_t i, Bounds bounds) {
  if (i != 0) bounds.low = std::max(bounds.low, view.key(i));
  if (i + 1 < view.count()) bounds.high = std::min(bounds.high, view.key(i + 1) - 1);
  return bounds;
}

Result<bool> BTree::visit_below(std::uint64_t block, int parent_level, Bounds bounds, std::uint64_t from,
                                const Visit& visit) const {
  PLUMB_ASSIGN(const BufferRef buffer, node(block, parent_level));
  const Node view = node_view(buffer->bytes.get(), store_.block_size());
  if (view.level() == 0) {
    // Children have disjoint bounds, so a damaged tree cannot lead to the same leaf twice, or for ever.
    if (view.count() != 0 && (view.key(0) < bounds.low || view.key(view.count() - 1) > bounds.high))
      return fail(EUCLEAN, "block " + std::to_string(block) + ": node keys outside the bounds of its parent",
                  block * store_.block_size());
    for (std::size_t i = view.lower_bound(from); i < view.count(); ++i)
      if (!visit(view.key(i), view.record(i))) return false;
    return true;
  }
  for (std::size_t i = view.child_index(from); i < view.count(); ++i) {
    PLUMB_ASSIGN(const bool go_on,
                 visit_below(view.child(i), view.level(), child_bounds(view, i, bounds), from, visit));
    if (!go_on) return false;
  }
  return true;
}

Status BTree::visit(const media::TreeRoot& root, std::uint64_t from, const Visit& visit) const {
  if (root.block == 0) return {};
  const Result<bool> done = visit_below(root.block, kAboveRoot, {}, from, visit);
  if (!done) return tl::unexpected(done.error());
  return {};
}

Status BTree::visit_nodes_below(std::uint64_t block, int parent_level, const VisitNode& visit) const {
  PLUMB_ASSIGN(const BufferRef buffer, node(block, parent_level));
  const Node view = node_view(buffer->bytes.get(), store_.block_size());
  PLUMB_TRY(visit(BlockNumber(block), view.level()));
  if (view.level() == 0) return {};
  for (std::size_t i = 0; i < view.count(); ++i) PLUMB_TRY(visit_nodes_below(view.child(i), view.level(), visit));
  return {};
}

Status BTree::visit_nodes(const media::TreeRoot& root, const VisitNode& visit) const {
  if (root.block == 0) return {};
  return visit_nodes_below(root.block, kAboveRoot, visit);
}

Result<std::optional<std::string>> BTree::find(const media::TreeRoot& root, std::uint64_t key) const {
  std::optional<std::string> found;
  PLUMB_TRY(visit(root, key, [&](std::uint64_t k, std::span<const std::byte> record) {
    if (k == key) found.emplace(reinterpret_cast<const char*>(record.data()), record.size());
    return false;
  }));
  return found;
}

Result<BTree::Path> BTree::descend(const media::TreeRoot& root, std::uint64_t key) const {
  Path path;
  std::uint64_t block = root.block;
  int parent_level = kAboveRoot;
  while (true) {
    PLUMB_ASSIGN(BufferRef buffer, node(block, parent_level));
    const Node view = node_view(buffer->bytes.get(), store_.block_size());
    parent_level = view.level();
    const std::size_t slot = parent_level == 0 ? view.lower_bound(key) : view.child_index(key);
    path.push_back({std::move(buffer), slot});
    if (parent_level == 0) return path;
    block = view.child(slot);
  }
}

Result<BufferRef> BTree::new_node(Transaction& t, media::TreeRoot& root, std::uint8_t level) {
  PLUMB_ASSIGN(BufferRef buffer, t.allocate(node_buffer_type(kind_), owner_));
  Node(t.modify(buffer), t.block_size()).initialise(kind_, level);
  root.nodes = root.nodes + 1;
  return buffer;
}

void BTree::free_node(Transaction& t, media::TreeRoot& root, const BufferRef& node) {
  root.nodes = root.nodes - 1;
  t.free_metadata(node->block);
}

Status BTree::put(Transaction& t, media::TreeRoot& root, std::uint64_t key, std::span<const std::byte> record) {
  if (record.size() > max_record(t.block_size())) return fail(E2BIG, "B+tree: record too long");
  if (root.block == 0) {
    PLUMB_ASSIGN(const BufferRef leaf, new_node(t, root, 0));
    root.block = leaf->block.value;
  }
  PLUMB_ASSIGN(Path path, descend(root, key));
  const Step& leaf = path.back();
  const Node view = node_view(leaf.node->bytes.get(), t.block_size());
  if (leaf.slot < view.count() && view.key(leaf.slot) == key) {
    if (view.record(leaf.slot).size() == record.size()) {
      Node(t.modify(leaf.node), t.block_size()).overwrite(leaf.slot, record);
      return {};
    }
    // Another length: the slot goes and comes again. The leaf is not emptied in between, so no node is freed here.
    Node(t.modify(leaf.node), t.block_size()).remove(leaf.slot);
  }
  return insert_at(t, root, std::move(path), key, record);
}

Status BTree::insert_at(Transaction& t, media::TreeRoot& root, Path path, std::uint64_t key,
                        std::span<const std::byte> record) {
  const std::size_t block_size = t.block_size();
  const BufferRef buffer = path.back().node;
  const std::size_t slot = path.back().slot;
  Node left(t.modify(buffer), block_size);
  if (left.fits(record.size())) {
    left.insert(slot, key, record);
    return {};
  }
  // Split. Ascending keys leave the left node full; otherwise half of the bytes move.
  PLUMB_ASSIGN(const BufferRef right_buffer, new_node(t, root, left.level()));
  Node right(t.modify(right_buffer), block_size);
  if (slot == left.count()) {
    right.insert(0, key, record);
  } else {
    // The split point halves the bytes of the sequence with the new record in it: records are at most a third of a
    // node, so either side has room whatever their sizes.
    const std::size_t new_bytes = sizeof(media::NodeSlot) + record.size();
    const std::size_t half = (left.live_bytes() + new_bytes) / 2;
    const std::size_t old_count = left.count();
    std::size_t bytes = 0;
    std::size_t split = 0;  // records of the new sequence that stay left
    while (split < old_count && (split == 0 || bytes < half)) {
      const std::size_t old = split > slot ? split - 1 : split;
      bytes += split == slot ? new_bytes : sizeof(media::NodeSlot) + left.record(old).size();
      ++split;
    }
    if (slot < split) {
      left.move_tail(split - 1, right);
      left.insert(slot, key, record);
    } else {
      left.move_tail(split, right);
      right.insert(slot - split, key, record);
    }
  }
  const std::uint64_t separator = right.key(0);
  path.pop_back();
  if (!path.empty()) {
    Step& parent = path.back();
    Node above(t.modify(parent.node), block_size);
    // Slot 0 bounds nothing from below: keys smaller than its own go to it too, and such a one may be the separator
    // now.
    if (parent.slot == 0 && above.key(0) >= separator) above.set_key(0, 0);
    parent.slot += 1;
    return insert_at(t, root, std::move(path), separator, child_record(right_buffer->block));
  }
  const auto level = static_cast<std::uint8_t>(left.level() + 1);
  PLUMB_ASSIGN(const BufferRef root_buffer, new_node(t, root, level));
  Node top(t.modify(root_buffer), block_size);
  top.insert(0, 0, child_record(buffer->block));
  top.insert(1, separator, child_record(right_buffer->block));
  root.block = root_buffer->block.value;
  return {};
}

Status BTree::erase(Transaction& t, media::TreeRoot& root, std::uint64_t key) {
  if (root.block == 0) return fail(ENOENT);
  PLUMB_ASSIGN(Path path, descend(root, key));
  const Node view = node_view(path.back().node->bytes.get(), t.block_size());
  const std::size_t slot = path.back().slot;
  if (slot >= view.count() || view.key(slot) != key) return fail(ENOENT);
  return remove_at(t, root, std::move(path));
}

Status BTree::remove_at(Transaction& t, media::TreeRoot& root, Path path) {
  while (true) {
    const BufferRef buffer = path.back().node;
    Node node(t.modify(buffer), t.block_size());
    node.remove(path.back().slot);
    const bool is_root = path.size() == 1;
    // The reclaim tree keeps an empty root: freeing it would queue it in itself, and so on for ever.
    if (node.count() == 0 && is_root && kind_ == media::TreeKind::kReclaim) {
      node.initialise(kind_, 0);  // of a damaged tree it may have been the parent of one leaf
      return {};
    }
    if (node.count() == 0) {
      free_node(t, root, buffer);
      if (is_root) {
        root.block = 0;
        return {};
      }
      path.pop_back();
      continue;  // take the child out of its parent
    }
    if (is_root) {
      if (node.level() > 0 && node.count() == 1) {
        // The only child becomes the root.
        const std::uint64_t child = node.child(0);
        free_node(t, root, buffer);
        root.block = child;
      }
      return {};
    }
    if (node.live_bytes() >= node.capacity() / 3) return {};
    PLUMB_ASSIGN(const bool merged, merge_with_neighbour(t, root, path));
    if (!merged) return {};
    // path.back() is now the parent with the slot of the child that is gone.
  }
}

// Merges path's last node with a neighbour below the same parent when both fit in one. Afterwards path ends at the
// parent, its slot being that of the emptied child, which the caller removes.
Result<bool> BTree::merge_with_neighbour(Transaction& t, media::TreeRoot& root, Path& path) {
  const std::size_t block_size = t.block_size();
  Step& parent_step = path[path.size() - 2];
  const Node parent = node_view(parent_step.node->bytes.get(), block_size);
  const Node self = node_view(path.back().node->bytes.get(), block_size);
  for (const bool with_right : {true, false}) {
    if (with_right ? parent_step.slot + 1 >= parent.count() : parent_step.slot == 0) continue;
    const std::size_t right_slot = with_right ? parent_step.slot + 1 : parent_step.slot;
    PLUMB_ASSIGN(BufferRef left_buffer, node(parent.child(right_slot - 1), parent.level()));
    PLUMB_ASSIGN(BufferRef right_buffer, node(parent.child(right_slot), parent.level()));
    if (left_buffer == right_buffer)
      return fail(EUCLEAN, "block " + std::to_string(left_buffer->block.value) + ": two slots of a node lead to it",
                  left_buffer->block.value * block_size);
    const std::size_t together = node_view(left_buffer->bytes.get(), block_size).live_bytes() +
                                 node_view(right_buffer->bytes.get(), block_size).live_bytes();
    if (together > self.capacity()) continue;
    Node left(t.modify(left_buffer), block_size);
    Node right(t.modify(right_buffer), block_size);
    // As an inner slot the key must bound its subtree: the parent's key for `right` does, its own slot 0 need not.
    if (right.level() > 0) right.set_key(0, parent.key(right_slot));
    right.move_tail(0, left);
    free_node(t, root, right_buffer);
    path.pop_back();
    path.back().slot = right_slot;
    return true;
  }
  return false;
}

}  // namespace plumb
