// Which operation a worker does next: always one that is possible.
#include <algorithm>

#include "test/kill/worker.h"

namespace kill_test {
namespace {

constexpr std::size_t kMaxNodes = 120;
constexpr std::size_t kMaxFileBytes = 3 * 1024 * 1024;  // some files get 2 MiB extents
constexpr std::size_t kMaxTotalBytes = 12 * 1024 * 1024;
constexpr unsigned kNames = 60;  // few, so that names are used again
constexpr std::uint64_t kPage = 4096;

struct Weight {
  Kind kind;
  unsigned weight;
};
constexpr std::array<Weight, kKinds> kWeights = {{
    {Kind::kCreate, 10},   {Kind::kCreateUnnamed, 4}, {Kind::kWrite, 16},   {Kind::kAppend, 8},   {Kind::kMapWrite, 3},
    {Kind::kTruncate, 5},  {Kind::kOpenTruncate, 2},  {Kind::kAllocate, 3}, {Kind::kPunch, 3},    {Kind::kZeroRange, 2},
    {Kind::kCopyRange, 3}, {Kind::kMkdir, 5},         {Kind::kSymlink, 3},  {Kind::kMknod, 1},    {Kind::kLink, 4},
    {Kind::kUnlink, 9},    {Kind::kRmdir, 3},         {Kind::kRename, 9},   {Kind::kExchange, 3}, {Kind::kChmod, 2},
    {Kind::kSetXattr, 6},  {Kind::kRemoveXattr, 3},   {Kind::kFsync, 4},
}};

/// Directories only move when they have no directories below them, and not deeper than others are made: paths stay
/// short.
bool may_move(const Node& node, const std::string& to) {
  if (node.type != Type::kDirectory) return true;
  if (std::count(to.begin(), to.end(), '/') > 2) return false;
  return std::none_of(node.children.begin(), node.children.end(),
                      [](const auto& child) { return child.second->type == Type::kDirectory; });
}

bool is_below(const std::string& path, const std::string& directory) {
  return path.starts_with(directory + "/");
}

}  // namespace

struct Worker::Inventory {
  std::vector<std::string> files, directories, others, all;  // directories holds "" too
  std::size_t total_bytes = 0;
};

std::string Worker::new_path(const Inventory& have) {
  const std::string& parent = have.directories[below(have.directories.size())];
  std::string name = "n" + std::to_string(below(kNames));
  if (chance(6)) name += std::string(30, 'x');
  return parent.empty() ? name : parent + "/" + name;
}

void Worker::choose_content(Operation& operation, const Inventory& have) {
  const std::string path = have.files[below(have.files.size())];
  operation.set_path(path);
  const std::uint64_t size = tree_.find(path)->content.size();
  std::uint64_t longest = 0;
  switch (below(8)) {
    case 0:
      longest = 100;
      break;
    case 1:
      longest = 512 * 1024;
      break;
    case 2:
      longest = have.total_bytes < kMaxTotalBytes / 2 ? kMaxFileBytes : 100'000;
      break;
    default:
      longest = 3 * kPage;
  }
  operation.offset =
      operation.kind == Kind::kAppend ? size : below(std::min<std::uint64_t>(size + 20'000, kMaxFileBytes));
  if (operation.kind != Kind::kAppend && chance(3)) operation.offset -= operation.offset % kPage;
  operation.length = 1 + below(longest);
  if (have.total_bytes > kMaxTotalBytes) operation.length = 1 + below(100);
  switch (operation.kind) {
    case Kind::kTruncate:
      operation.length = 0;
      if (chance(2)) operation.offset = below(size + 1);
      break;
    case Kind::kOpenTruncate:
      operation.offset = operation.length = 0;
      break;
    case Kind::kMapWrite:
      operation.offset = below(size);
      operation.length = std::min(operation.length, size - operation.offset);
      break;
    case Kind::kCopyRange: {
      const std::string source = have.files[below(have.files.size())];
      const std::uint64_t source_size = tree_.find(source)->content.size();
      operation.set_other(source);
      operation.source_offset = below(source_size);
      operation.length = std::min(operation.length, source_size - operation.source_offset);
      if (tree_.find(source) == tree_.find(path)) operation.length = 0;  // may overlap: not chosen
      break;
    }
    default:
      break;
  }
  if (operation.offset + operation.length > kMaxFileBytes && operation.kind != Kind::kAppend) {
    operation.length = operation.offset < kMaxFileBytes ? kMaxFileBytes - operation.offset : 0;
  }
  if (operation.kind == Kind::kAppend && size + operation.length > kMaxFileBytes) operation.length = 0;
}

void Worker::choose_rename(Operation& operation, const Inventory& have) {
  const std::string from = have.all[below(have.all.size())];
  const NodeRef node = tree_.find(from);
  const std::string to =
      operation.kind == Kind::kRename && chance(2) ? new_path(have) : have.all[below(have.all.size())];
  const NodeRef target = tree_.find(to);
  if (is_below(to, from) || is_below(from, to) || from == to) return;
  if (!may_move(*node, to) || (target && !may_move(*target, from))) return;
  if (operation.kind == Kind::kExchange && (target == nullptr || target == node)) return;
  if (operation.kind == Kind::kRename && target) {
    const bool directory = node->type == Type::kDirectory;
    if (directory != (target->type == Type::kDirectory) || !target->children.empty()) return;
  }
  operation.set_path(from);
  operation.set_other(to);
}

Operation Worker::choose() {
  Inventory have;
  have.directories.emplace_back();
  tree_.walk([&](const std::string& path, const NodeRef& node) {
    have.all.push_back(path);
    have.total_bytes += node->type == Type::kFile ? node->content.size() / node->names : 0;
    if (node->type == Type::kFile) {
      have.files.push_back(path);
    } else if (node->type == Type::kDirectory) {
      // Paths have a bounded length: no new entries below the third level.
      if (std::count(path.begin(), path.end(), '/') < 2) have.directories.push_back(path);
    } else {
      have.others.push_back(path);
    }
  });
  static const std::vector<Kind> menu = [] {
    std::vector<Kind> kinds;
    for (const Weight& entry : kWeights) kinds.insert(kinds.end(), entry.weight, entry.kind);
    return kinds;
  }();
  while (true) {
    Operation operation;
    operation.kind = menu[below(menu.size())];
    operation.number = number_;
    if (have.all.size() > kMaxNodes && chance(2)) operation.kind = Kind::kUnlink;
    if (have.total_bytes > kMaxTotalBytes && chance(2))
      operation.kind = chance(2) ? Kind::kUnlink : Kind::kOpenTruncate;
    if (operation.kind == Kind::kCreateUnnamed && !has_unnamed_) continue;
    operation.mode = static_cast<std::uint32_t>(0600 | below(0100));
    switch (operation.kind) {
      case Kind::kCreate:
      case Kind::kCreateUnnamed:
      case Kind::kMkdir:
      case Kind::kSymlink:
      case Kind::kMknod: {
        const std::string path = new_path(have);
        if (have.all.size() > kMaxNodes || tree_.find(path)) continue;
        operation.set_path(path);
        if (operation.kind == Kind::kMkdir) operation.mode |= 0700;
        if (operation.kind == Kind::kCreateUnnamed) operation.length = 1 + below(60'000);
        if (operation.kind == Kind::kSymlink) {
          operation.mode = 0777;
          operation.set_other("target-" + std::string(below(80), 't'));
        }
        return operation;
      }
      case Kind::kLink: {
        if (have.files.empty() || have.all.size() > kMaxNodes) continue;
        const std::string path = new_path(have);
        if (tree_.find(path)) continue;
        operation.set_path(have.files[below(have.files.size())]);
        operation.set_other(path);
        return operation;
      }
      case Kind::kUnlink: {
        const std::vector<std::string>& from = have.others.empty() || !chance(5) ? have.files : have.others;
        if (from.empty()) continue;
        operation.set_path(from[below(from.size())]);
        return operation;
      }
      case Kind::kRmdir: {
        const std::string path = have.directories[below(have.directories.size())];
        if (path.empty() || !tree_.find(path)->children.empty()) continue;
        operation.set_path(path);
        return operation;
      }
      case Kind::kRename:
      case Kind::kExchange:
        if (have.all.empty()) continue;
        choose_rename(operation, have);
        if (operation.path[0] == '\0') continue;
        return operation;
      case Kind::kChmod:
      case Kind::kFsync:
      case Kind::kSetXattr: {
        if (have.files.empty()) continue;
        const std::string path =
            chance(4) && have.directories.size() > 1 ? have.directories.back() : have.files[below(have.files.size())];
        operation.set_path(path);
        if (operation.kind == Kind::kChmod) operation.mode |= 0700;
        if (operation.kind == Kind::kSetXattr) {
          operation.set_other("user.attribute" + std::to_string(below(8)));
          operation.length = below(chance(5) ? 20'000 : 200);
        }
        return operation;
      }
      case Kind::kRemoveXattr: {
        if (have.files.empty()) continue;
        const std::string path = have.files[below(have.files.size())];
        const NodeRef node = tree_.find(path);
        if (node->xattrs.empty()) continue;
        auto attribute = node->xattrs.begin();
        std::advance(attribute, static_cast<std::ptrdiff_t>(below(node->xattrs.size())));
        operation.set_path(path);
        operation.set_other(attribute->first);
        return operation;
      }
      default:
        if (have.files.empty() || (operation.kind == Kind::kMapWrite && !use_mmap_)) continue;
        choose_content(operation, have);
        if (operation.length == 0 && operation.kind != Kind::kTruncate && operation.kind != Kind::kOpenTruncate)
          continue;
        return operation;
    }
  }
}

}  // namespace kill_test
