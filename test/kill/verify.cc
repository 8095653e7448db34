#include "test/kill/verify.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <set>

namespace kill_test {
namespace {

[[noreturn]] void differ(const std::string& path, const std::string& what) {
  throw Difference(path, what);
}
[[noreturn]] void differ_errno(const std::string& path, const char* call) {
  differ(path, std::string(call) + ": " + std::strerror(errno));
}

std::optional<struct stat> status_of(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) return status;
  if (errno != ENOENT) differ_errno(path, "lstat");
  return std::nullopt;
}

Bytes read_all(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) differ_errno(path, "open");
  struct stat status {};
  if (::fstat(fd, &status) != 0) differ_errno(path, "fstat");
  Bytes content(static_cast<std::size_t>(status.st_size) + 1);
  std::size_t have = 0;
  while (have < content.size()) {
    const ssize_t got = ::pread(fd, content.data() + have, content.size() - have, static_cast<off_t>(have));
    if (got < 0) differ_errno(path, "read");
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  ::close(fd);
  if (have != static_cast<std::size_t>(status.st_size)) {
    differ(path,
           "the size is " + std::to_string(status.st_size) + ", but " + std::to_string(have) + " bytes can be read");
  }
  content.resize(have);
  return content;
}

std::optional<Bytes> xattr_of(const std::string& path, const std::string& name) {
  Bytes value(65536);
  const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
  if (length < 0) {
    if (errno == ENODATA) return std::nullopt;
    differ_errno(path, "getxattr");
  }
  value.resize(static_cast<std::size_t>(length));
  return value;
}

std::string describe(const Bytes& bytes, std::size_t at) {
  std::string text;
  for (std::size_t i = at; i < std::min(bytes.size(), at + 16); ++i) {
    std::array<char, 4> two{};
    std::snprintf(two.data(), two.size(), "%02x ", bytes[i]);
    text += two.data();
  }
  return text;
}

void compare_content(const std::string& path, const Bytes& expected, const Bytes& got) {
  if (expected == got) return;
  if (expected.size() != got.size()) {
    differ(path, "the size is " + std::to_string(got.size()) + ", acknowledged was " + std::to_string(expected.size()));
  }
  std::size_t at = 0;
  while (expected[at] == got[at]) ++at;
  std::size_t wrong = 0;
  for (std::size_t i = at; i < got.size(); ++i) wrong += expected[i] != got[i] ? 1 : 0;
  differ(path, std::to_string(wrong) + " bytes differ, the first at " + std::to_string(at) + " of " +
                   std::to_string(got.size()) + ": acknowledged " + describe(expected, at) + "got " +
                   describe(got, at));
}

std::set<std::string> xattr_names(const std::string& path) {
  std::string buffer(65536, '\0');
  const ssize_t length = ::llistxattr(path.c_str(), buffer.data(), buffer.size());
  if (length < 0) differ_errno(path, "listxattr");
  std::set<std::string> names;
  for (std::size_t at = 0; at < static_cast<std::size_t>(length); at += std::strlen(buffer.data() + at) + 1) {
    const std::string name = buffer.data() + at;
    if (name.starts_with("user.")) names.insert(name);
  }
  return names;
}

std::set<std::string> entries(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  if (directory == nullptr) differ_errno(path, "opendir");
  std::set<std::string> names;
  std::string twice;
  errno = 0;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    if (name != "." && name != ".." && !names.insert(name).second) twice = name;
  }
  const int error = errno;
  ::closedir(directory);
  errno = error;
  if (error != 0) differ_errno(path, "readdir");
  if (!twice.empty()) differ(path, "readdir gives " + twice + " twice");
  return names;
}

void compare_entries(const std::string& path, const Node& node) {
  std::set<std::string> expected;
  for (const auto& child : node.children) expected.insert(child.first);
  const std::set<std::string> got = entries(path);
  for (const std::string& name : expected) {
    if (!got.contains(name)) differ(path, "the acknowledged entry " + name + " is missing");
  }
  for (const std::string& name : got) {
    if (!expected.contains(name)) differ(path, "the entry " + name + " should not be there");
  }
}

void compare_node(const std::string& path, Node& node) {
  const std::optional<struct stat> status = status_of(path);
  if (!status) differ(path, "is missing, but was acknowledged");
  const mode_t types[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO};
  if ((status->st_mode & S_IFMT) != types[static_cast<std::size_t>(node.type)]) {
    differ(path, "is of another type: mode " + std::to_string(status->st_mode));
  }
  if (node.type != Type::kSymlink && (status->st_mode & 07777) != node.mode) {
    differ(path, "the mode is " + std::to_string(status->st_mode & 07777) + ", acknowledged was " +
                     std::to_string(node.mode));
  }
  if (node.inode == 0) node.inode = status->st_ino;
  if (node.inode != status->st_ino) {
    differ(path, "is inode " + std::to_string(status->st_ino) + ", acknowledged was " + std::to_string(node.inode));
  }
  if (node.type != Type::kDirectory && status->st_nlink != node.names) {
    differ(path, "has " + std::to_string(status->st_nlink) + " links, acknowledged were " + std::to_string(node.names));
  }
  if (node.type == Type::kFile) compare_content(path, node.content, read_all(path));
  if (node.type == Type::kSymlink) {
    std::string target(4096, '\0');
    const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
    if (length < 0) differ_errno(path, "readlink");
    target.resize(static_cast<std::size_t>(length));
    if (target != node.target) differ(path, "points to '" + target + "', acknowledged was '" + node.target + "'");
    return;
  }
  if (node.type == Type::kFifo) return;
  std::set<std::string> expected;
  for (const auto& [name, value] : node.xattrs) {
    expected.insert(name);
    const std::optional<Bytes> got = xattr_of(path, name);
    if (!got) differ(path, "the acknowledged attribute " + name + " is missing");
    if (*got != value) differ(path, "the attribute " + name + " has another value than was acknowledged");
  }
  if (xattr_names(path) != expected) differ(path, "there are attributes that should not be there");
}

// Data in flight: every byte old or new, the size in between.
const char* resolve_content(const std::string& path, Tree& tree, const Operation& operation) {
  Node& node = *tree.find(operation.path.data());
  const Bytes before = node.content;
  const Bytes after = tree.content_after(operation);
  Bytes got = read_all(path);
  const bool is_before = got == before;
  const bool is_after = got == after;
  if (!is_before && !is_after) {
    if (!may_tear(operation.kind)) {
      differ(path, "is neither as before nor as after the operation in flight: size " + std::to_string(got.size()));
    }
    if (got.size() < std::min(before.size(), after.size()) || got.size() > std::max(before.size(), after.size())) {
      differ(path, "the size is " + std::to_string(got.size()) + ", before the operation in flight it was " +
                       std::to_string(before.size()) + ", after it " + std::to_string(after.size()));
    }
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::uint8_t old_byte = i < before.size() ? before[i] : 0;
      const std::uint8_t new_byte = i < after.size() ? after[i] : 0;
      if (got[i] != old_byte && got[i] != new_byte) {
        differ(path, "byte " + std::to_string(i) +
                         " is neither the old nor the new one of the operation in flight: old " + describe(before, i) +
                         "new " + describe(after, i) + "got " + describe(got, i));
      }
    }
  }
  node.content = std::move(got);
  return is_before ? "before" : is_after ? "after" : "torn";
}

bool has_happened(const std::string& directory, const Tree& tree, const Operation& operation) {
  const std::string path = directory + "/" + operation.path.data();
  const std::string other = directory + "/" + operation.other.data();
  switch (operation.kind) {
    case Kind::kCreate:
    case Kind::kCreateUnnamed:
    case Kind::kMkdir:
    case Kind::kSymlink:
    case Kind::kMknod:
      return status_of(path).has_value();
    case Kind::kLink:
      return status_of(other).has_value();
    case Kind::kUnlink:
    case Kind::kRmdir:
      return !status_of(path).has_value();
    case Kind::kRename:
      // With two names of one file nothing happens, and the tree knows.
      return !status_of(path).has_value();
    case Kind::kExchange: {
      const std::optional<struct stat> status = status_of(path);
      return status && status->st_ino == tree.find(operation.other.data())->inode;
    }
    case Kind::kChmod: {
      const std::optional<struct stat> status = status_of(path);
      return status && (status->st_mode & 07777) == operation.mode;
    }
    case Kind::kSetXattr:
      return xattr_of(path, operation.other.data()) == xattr_value_of(operation);
    case Kind::kRemoveXattr:
      return !xattr_of(path, operation.other.data()).has_value();
    default:
      return false;
  }
}

}  // namespace

const char* resolve_in_flight(const std::string& directory, Tree& tree, const Operation& operation) {
  if (changes_content(operation.kind)) {
    return resolve_content(directory + "/" + operation.path.data(), tree, operation);
  }
  if (!has_happened(directory, tree, operation)) return "before";
  tree.apply(operation);
  return "after";
}

void compare(const std::string& directory, Tree& tree) {
  compare_entries(directory, tree.root());
  tree.walk([&](const std::string& path, const NodeRef& node) {
    const std::string full = directory + "/" + path;
    compare_node(full, *node);
    if (node->type == Type::kDirectory) compare_entries(full, *node);
  });
}

}  // namespace kill_test
