// What a worker's directory must contain.
//
// The supervisor keeps one tree for each worker over all rounds. A worker gets a copy by fork(), and changes its copy
// as it goes; the supervisor applies the acknowledged operations to its own after the round. Not thread safe.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "test/kill/operation.h"

namespace kill_test {

using Bytes = std::vector<std::uint8_t>;

enum class Type : std::uint8_t { kFile, kDirectory, kSymlink, kFifo };

struct Node {
  Type type = Type::kFile;
  std::uint32_t mode = 0;   // permission bits
  std::uint64_t inode = 0;  // 0: not known yet
  unsigned names = 0;       // of a file: hard links
  Bytes content;            // of a file
  std::string target;       // of a symbolic link
  std::map<std::string, Bytes> xattrs;
  std::map<std::string, std::shared_ptr<Node>> children;  // of a directory
};
using NodeRef = std::shared_ptr<Node>;

/// The data of an operation, as it lies in the file from operation.offset on.
[[nodiscard]] Bytes data_of(const Operation& operation);
/// The value of an attribute that an operation sets.
[[nodiscard]] Bytes xattr_value_of(const Operation& operation);

class Tree {
 public:
  Tree();
  [[nodiscard]] Node& root() { return *root_; }
  /// Null if there is none. "" is the root.
  [[nodiscard]] NodeRef find(const std::string& path) const;
  /// Changes the tree as the operation changes the directory. The operation must be possible.
  void apply(const Operation& operation);
  /// Content of the file after the operation, for those that change content.
  [[nodiscard]] Bytes content_after(const Operation& operation) const;
  /// Every path but the root, parents first.
  void walk(const std::function<void(const std::string& path, const NodeRef& node)>& visit) const;

 private:
  void add(const Operation& operation, const std::string& path, Type type);
  void remove(const std::string& path);
  void put(const std::string& path, const NodeRef& node);
  NodeRef root_;
};

/// True for operations that change the content of a file that is there.
[[nodiscard]] bool changes_content(Kind kind);
/// True if a crash may leave part of it: bytes old or new, size in between. The others happen or do not.
[[nodiscard]] bool may_tear(Kind kind);

}  // namespace kill_test
