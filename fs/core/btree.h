// The B+tree on the medium: 64-bit keys, records of variable length, checksummed nodes (media::NodeHeader).
//
// One implementation for the inode table, the reclaim queue, extents, directories and xattrs. Reading needs the lock of
// the structure the tree belongs to; changing it also a transaction. Every change goes through Transaction::modify, so
// an aborted transaction leaves no trace. The root is passed by reference: the caller stores it with its inode or the
// state.
//
// Nodes that fall below a third are merged with a neighbour when both fit in one; an empty tree has no node. So a tree
// whose records are all removed gives back all its blocks.
//
// Depth is bounded and levels must fall by one from parent to child, so a damaged tree ends in EUCLEAN, not in a loop.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "fs/core/store.h"
#include "fs/media/layout.h"

namespace plumb {

class Node;

class BTree {
 public:
  /// `owner` is the inode number, or the tree kind for trees of the file system.
  BTree(Store& store, media::TreeKind kind, std::uint64_t owner) : store_(store), kind_(kind), owner_(owner) {}

  /// Calls `visit` in key order from `from` on until it returns false.
  using Visit = std::function<bool(std::uint64_t key, std::span<const std::byte> record)>;
  [[nodiscard]] Status visit(const media::TreeRoot& root, std::uint64_t from, const Visit& visit) const;
  /// The record of exactly this key.
  [[nodiscard]] Result<std::optional<std::string>> find(const media::TreeRoot& root, std::uint64_t key) const;
  /// Every node of the tree, parents first (for freeing, counting and checking). Stops at the first bad one.
  using VisitNode = std::function<Status(BlockNumber block, std::uint8_t level)>;
  [[nodiscard]] Status visit_nodes(const media::TreeRoot& root, const VisitNode& visit) const;

  /// Inserts, or replaces the record of the key. Records are at most max_record() long.
  [[nodiscard]] Status put(Transaction& t, media::TreeRoot& root, std::uint64_t key, std::span<const std::byte> record);
  /// ENOENT if the key is not there.
  [[nodiscard]] Status erase(Transaction& t, media::TreeRoot& root, std::uint64_t key);

  /// A third of a node's room: two records always fit beside a new one after a split.
  [[nodiscard]] static std::size_t max_record(std::uint32_t block_size) {
    return (block_size - sizeof(media::NodeHeader)) / 3 - sizeof(media::NodeSlot);
  }

 private:
  struct Step {
    BufferRef node;
    std::size_t slot = 0;  // of the child taken (interior) or of the key (leaf)
  };
  using Path = std::vector<Step>;

  [[nodiscard]] Result<BufferRef> node(std::uint64_t block, int parent_level) const;
  struct Bounds {
    std::uint64_t low = 0, high = ~std::uint64_t{0};  // inclusive
  };
  [[nodiscard]] static Bounds child_bounds(const Node& view, std::size_t i, Bounds bounds);
  [[nodiscard]] Result<bool> visit_below(std::uint64_t block, int parent_level, Bounds bounds, std::uint64_t from,
                                         const Visit& visit) const;
  [[nodiscard]] Status visit_nodes_below(std::uint64_t block, int parent_level, const VisitNode& visit) const;
  [[nodiscard]] Result<Path> descend(const media::TreeRoot& root, std::uint64_t key) const;
  [[nodiscard]] Result<BufferRef> new_node(Transaction& t, media::TreeRoot& root, std::uint8_t level);
  void free_node(Transaction& t, media::TreeRoot& root, const BufferRef& node);
  [[nodiscard]] Status insert_at(Transaction& t, media::TreeRoot& root, Path path, std::uint64_t key,
                                 std::span<const std::byte> record);
  [[nodiscard]] Status remove_at(Transaction& t, media::TreeRoot& root, Path path);
  [[nodiscard]] Result<bool> merge_with_neighbour(Transaction& t, media::TreeRoot& root, Path& path);

  Store& store_;
  media::TreeKind kind_;
  std::uint64_t owner_;
};

}  // namespace plumb
