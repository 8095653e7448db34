#include "test/catalogue/compare.h"

#include <fnmatch.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

namespace plumb::catalogue {
namespace {

using test::Snapshot;
using test::VisibleInode;

constexpr std::size_t kMostShown = 8;
constexpr char kLostAndFound[] = "lost+found";

bool matches(const std::vector<std::string>& patterns, const std::string& path) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return ::fnmatch(pattern.c_str(), path.c_str(), 0) == 0; });
}

std::string text(Timestamp t) {
  return std::to_string(t.seconds) + "." + std::to_string(t.nanoseconds);
}

std::string text(const std::map<std::string, std::string>& xattrs) {
  std::string all;
  for (const auto& [name, value] : xattrs) all += name + "=" + value + "\n";
  return all;
}

// Field by field. Not among them: the contents, which are compared byte by byte; sectors, and the size of directories,
// as a tree that is made anew may have fewer nodes.
std::vector<std::pair<std::string, std::string>> fields(const VisibleInode& i) {
  const Attributes& a = i.attributes;
  return {{"generation", std::to_string(a.generation)},
          {"mode", std::to_string(a.mode)},
          {"links", std::to_string(a.links)},
          {"uid", std::to_string(a.uid)},
          {"gid", std::to_string(a.gid)},
          {"rdev", std::to_string(a.rdev)},
          {"size", S_ISDIR(a.mode) ? std::string() : std::to_string(a.size_bytes)},
          {"flags", std::to_string(a.flags)},
          {"atime", text(a.atime)},
          {"mtime", text(a.mtime)},
          {"ctime", text(a.ctime)},
          {"btime", text(a.btime)},
          {"target", i.target},
          {"xattrs", text(i.xattrs)}};
}

std::string shortened(const std::string& s) {
  return s.size() <= 60 ? s : s.substr(0, 60) + "...";
}

class Comparison {
 public:
  Comparison(const Snapshot& before, const Snapshot& after, const Difference& allowed)
      : before_(before), after_(after), allowed_(allowed) {}

  std::vector<std::string> run() {
    for (const auto& [name, key] : before_.names) compare_name(name, key);
    for (const auto& [name, key] : after_.names)
      if (!accounted_.contains(name) && name != kLostAndFound && !matches(allowed_.added, "/" + name))
        differ("/" + name + " was not there before");
    if (lost_ > allowed_.lost_at_most)
      differ(std::to_string(lost_) + " names are gone, at most " + std::to_string(allowed_.lost_at_most) + " may be");
    if (total_ > kMostShown) found_.push_back("and " + std::to_string(total_ - kMostShown) + " more differences");
    return found_;
  }

 private:
  void differ(std::string what) {
    if (++total_ <= kMostShown) found_.push_back(std::move(what));
  }

  // Its name now, where it may be: in its place, or below /lost+found, moved there itself or with a directory above it.
  [[nodiscard]] const std::string* find_now(const std::string& name, bool may_move) {
    if (const auto it = after_.names.find(name); it != after_.names.end()) return &it->first;
    if (!may_move) return nullptr;
    std::string head = name;
    while (!head.empty()) {
      const std::string moved =
          std::string(kLostAndFound) + "/#" + std::to_string(before_.names.at(head).first) + name.substr(head.size());
      if (const auto it = after_.names.find(moved); it != after_.names.end()) return &it->first;
      const std::size_t slash = head.rfind('/');
      head.resize(slash == std::string::npos ? 0 : slash);
    }
    return nullptr;
  }

  void compare_name(const std::string& name, const test::InodeKey& key) {
    const std::string path = "/" + name;
    const bool may_be_lost = matches(allowed_.lost, path);
    const std::string* now = find_now(name, may_be_lost || matches(allowed_.moved, path));
    if (now == nullptr) {
      ++lost_;
      if (!may_be_lost) differ(path + " is gone");
      return;
    }
    accounted_.insert(*now);
    if (may_be_lost) return;
    const test::InodeKey& key_now = after_.names.at(*now);
    if (key_now.first != key.first) return differ(path + " is another inode");
    compare_inode(path, before_.inodes.at(key), after_.inodes.at(key_now));
  }

  [[nodiscard]] bool may_change(const std::string& path, const std::string& field) const {
    // The root gets one more directory.
    const bool new_directory = after_.names.contains(kLostAndFound) && !before_.names.contains(kLostAndFound);
    if (path == "/" && new_directory && (field == "links" || field == "size" || field == "mtime" || field == "ctime"))
      return true;
    return std::any_of(allowed_.changed.begin(), allowed_.changed.end(), [&](const auto& entry) {
      const auto& [pattern, names] = entry;
      return ::fnmatch(pattern.c_str(), path.c_str(), 0) == 0 &&
             std::find(names.begin(), names.end(), field) != names.end();
    });
  }

  void compare_inode(const std::string& path, const VisibleInode& before, const VisibleInode& after) {
    const auto old_fields = fields(before);
    const auto new_fields = fields(after);
    for (std::size_t i = 0; i < old_fields.size(); ++i) {
      const auto& [name, value] = old_fields[i];
      const std::string& value_now = new_fields[i].second;
      if (value == value_now || may_change(path, name)) continue;
      differ(path + ": " + name + " was " + shortened(value) + ", is " + shortened(value_now));
    }
    if (before.content != after.content && !may_change(path, "content")) compare_content(path, before, after);
  }

  void compare_content(const std::string& path, const VisibleInode& before, const VisibleInode& after) {
    const bool holes = matches(allowed_.holes, path);
    const std::size_t length = std::min(before.content.size(), after.content.size());
    for (std::size_t i = 0; i < length; ++i) {
      if (before.content[i] == after.content[i] || (holes && after.content[i] == '\0')) continue;
      return differ(path + ": its contents differ from byte " + std::to_string(i) + " on");
    }
    if (before.content.size() != after.content.size())
      differ(path + ": had " + std::to_string(before.content.size()) + " bytes, has " +
             std::to_string(after.content.size()));
  }

  const Snapshot& before_;
  const Snapshot& after_;
  const Difference& allowed_;
  std::set<std::string> accounted_;
  std::vector<std::string> found_;
  std::size_t total_ = 0, lost_ = 0;
};

}  // namespace

std::vector<std::string> forbidden_differences(const Snapshot& before, const Snapshot& after,
                                               const Difference& allowed) {
  return Comparison(before, after, allowed).run();
}

}  // namespace plumb::catalogue
