#include "test/kill/model.h"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <utility>

#include "test/lib/pattern.h"

namespace kill_test {
namespace {

std::pair<std::string, std::string> split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

void walk_below(const std::string& prefix, const Node& directory,
                const std::function<void(const std::string&, const NodeRef&)>& visit) {
  for (const auto& [name, node] : directory.children) {
    const std::string path = prefix.empty() ? name : prefix + "/" + name;
    visit(path, node);
    if (node->type == Type::kDirectory) walk_below(path, *node, visit);
  }
}

}  // namespace

std::string Operation::text() const {
  std::array<char, 512> line{};
  std::snprintf(line.data(), line.size(), "%-14s %s%s%s offset %llu length %llu mode %o number %llu",
                kKindNames[static_cast<std::size_t>(kind)], path.data(), other[0] != '\0' ? " -> " : "", other.data(),
                static_cast<unsigned long long>(offset), static_cast<unsigned long long>(length), mode,
                static_cast<unsigned long long>(number));
  return line.data();
}

Bytes data_of(const Operation& operation) {
  Bytes data(operation.length);
  plumb_test::fill_pattern(data, operation.number, operation.offset);
  return data;
}

Bytes xattr_value_of(const Operation& operation) {
  Bytes data(operation.length);
  plumb_test::fill_pattern(data, operation.number, 0);
  return data;
}

bool changes_content(Kind kind) {
  switch (kind) {
    case Kind::kWrite:
    case Kind::kAppend:
    case Kind::kMapWrite:
    case Kind::kTruncate:
    case Kind::kOpenTruncate:
    case Kind::kAllocate:
    case Kind::kPunch:
    case Kind::kZeroRange:
    case Kind::kCopyRange:
      return true;
    default:
      return false;
  }
}

bool may_tear(Kind kind) {
  return changes_content(kind) && kind != Kind::kTruncate && kind != Kind::kOpenTruncate;
}

Tree::Tree() : root_(std::make_shared<Node>()) {
  root_->type = Type::kDirectory;
}

NodeRef Tree::find(const std::string& path) const {
  NodeRef node = root_;
  std::size_t at = 0;
  while (at < path.size()) {
    const std::size_t end = std::min(path.find('/', at), path.size());
    const auto child = node->children.find(path.substr(at, end - at));
    if (child == node->children.end()) return nullptr;
    node = child->second;
    at = end + 1;
  }
  return node;
}

void Tree::put(const std::string& path, const NodeRef& node) {
  const auto [parent, name] = split(path);
  const NodeRef directory = find(parent);
  assert(directory && directory->type == Type::kDirectory);
  directory->children[name] = node;
}

void Tree::add(const Operation& operation, const std::string& path, Type type) {
  const NodeRef node = std::make_shared<Node>();
  node->type = type;
  node->mode = operation.mode;
  node->inode = operation.inode;
  node->names = 1;
  put(path, node);
}

void Tree::remove(const std::string& path) {
  const auto [parent, name] = split(path);
  const NodeRef directory = find(parent);
  const auto entry = directory->children.find(name);
  assert(entry != directory->children.end());
  --entry->second->names;
  directory->children.erase(entry);
}

Bytes Tree::content_after(const Operation& operation) const {
  const std::string path = operation.path.data();
  Bytes content = find(path)->content;
  const std::size_t end = operation.offset + operation.length;
  const auto place = [&](const Bytes& data) {
    if (content.size() < end) content.resize(end);
    std::copy(data.begin(), data.end(), content.begin() + static_cast<std::ptrdiff_t>(operation.offset));
  };
  switch (operation.kind) {
    case Kind::kWrite:
    case Kind::kAppend:
    case Kind::kMapWrite:
      place(data_of(operation));
      break;
    case Kind::kTruncate:
      content.resize(operation.offset);
      break;
    case Kind::kOpenTruncate:
      content.clear();
      break;
    case Kind::kAllocate:
      if (content.size() < end) content.resize(end);
      break;
    case Kind::kPunch:
      for (std::size_t i = operation.offset; i < std::min(end, content.size()); ++i) content[i] = 0;
      break;
    case Kind::kZeroRange:
      place(Bytes(operation.length, 0));
      break;
    case Kind::kCopyRange: {
      const Bytes& source = find(operation.other.data())->content;
      const auto from = source.begin() + static_cast<std::ptrdiff_t>(operation.source_offset);
      place(Bytes(from, from + static_cast<std::ptrdiff_t>(operation.length)));
      break;
    }
    default:
      break;
  }
  return content;
}

void Tree::apply(const Operation& operation) {
  const std::string path = operation.path.data();
  const std::string other = operation.other.data();
  if (changes_content(operation.kind)) {
    Bytes content = content_after(operation);
    find(path)->content = std::move(content);
    return;
  }
  switch (operation.kind) {
    case Kind::kCreate:
      return add(operation, path, Type::kFile);
    case Kind::kCreateUnnamed:
      add(operation, path, Type::kFile);
      find(path)->content = data_of(operation);
      return;
    case Kind::kMkdir:
      return add(operation, path, Type::kDirectory);
    case Kind::kSymlink:
      add(operation, path, Type::kSymlink);
      find(path)->target = other;
      return;
    case Kind::kMknod:
      return add(operation, path, Type::kFifo);
    case Kind::kLink: {
      const NodeRef node = find(path);
      ++node->names;
      return put(other, node);
    }
    case Kind::kUnlink:
    case Kind::kRmdir:
      return remove(path);
    case Kind::kRename: {
      const NodeRef node = find(path);
      const NodeRef replaced = find(other);
      if (replaced == node) return;  // two names of one file: nothing happens
      if (replaced) remove(other);
      put(other, node);
      ++node->names;
      return remove(path);
    }
    case Kind::kExchange: {
      const NodeRef one = find(path);
      const NodeRef two = find(other);
      put(path, two);
      return put(other, one);
    }
    case Kind::kChmod:
      find(path)->mode = operation.mode;
      return;
    case Kind::kSetXattr:
      find(path)->xattrs[other] = xattr_value_of(operation);
      return;
    case Kind::kRemoveXattr:
      find(path)->xattrs.erase(other);
      return;
    default:
      return;
  }
}

void Tree::walk(const std::function<void(const std::string&, const NodeRef&)>& visit) const {
  walk_below("", *root_, visit);
}

}  // namespace kill_test
