#include "test/crash/snapshot.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "pmem/sigbus_guard.h"

namespace plumb::test {
namespace {

VisibleInode look_at(World& world, Inode& inode) {
  VisibleInode visible;
  visible.attributes = world->attributes(inode);
  const std::uint32_t mode = visible.attributes.mode;
  if (S_ISLNK(mode)) visible.target = must(world->readlink(inode));
  if (S_ISREG(mode)) visible.content = content_of(world, inode);
  for (const std::string& name : must(world->list_xattrs(inode)))
    visible.xattrs[name] = must(world->get_xattr(inode, name));
  return visible;
}

void visit(World& world, const std::string& path, Inode& inode, Snapshot& snapshot) {
  const Attributes a = world->attributes(inode);
  const InodeKey key{a.inode.value, a.generation};
  snapshot.names[path] = key;
  if (snapshot.inodes.contains(key)) return;
  snapshot.inodes.emplace(key, look_at(world, inode));
  if (!S_ISDIR(a.mode)) return;
  std::vector<std::string> entries;
  must(world->read_directory(inode, 0, [&](const DirectoryEntry& entry) {
    if (entry.name != "." && entry.name != "..") entries.emplace_back(entry.name);
    return true;
  }));
  for (const std::string& name : entries) {
    const FoundEntry found = must(world->lookup(inode, name));
    visit(world, path.empty() ? name : path + "/" + name, *found.inode, snapshot);
  }
}

std::string text(Timestamp t) {
  return std::to_string(t.seconds) + "." + std::to_string(t.nanoseconds);
}
std::string text(const std::string& s) {
  std::string out(s, 0, 40);
  if (s.size() > 40) out.append("...");
  return out;
}
std::string text(std::uint64_t n) {
  return std::to_string(n);
}

std::string text(const std::map<std::string, std::string>& xattrs) {
  std::string out = "{";
  for (const auto& [name, value] : xattrs) out += text(name) + "[" + std::to_string(value.size()) + "] ";
  return out + "}";
}

// Calls field(name, member) for every field but the number of blocks.
template <typename Field>
void for_each_field(const VisibleInode& i, const Field& field) {
  const Attributes& a = i.attributes;
  field("mode", std::uint64_t{a.mode});
  field("links", std::uint64_t{a.links});
  field("uid", std::uint64_t{a.uid});
  field("gid", std::uint64_t{a.gid});
  field("rdev", a.rdev);
  field("size", a.size_bytes);
  field("flags", std::uint64_t{a.flags});
  field("atime", text(a.atime));
  field("mtime", text(a.mtime));
  field("ctime", text(a.ctime));
  field("btime", text(a.btime));
  field("target", text(i.target) + std::to_string(std::hash<std::string>{}(i.target)));
  std::string all;
  for (const auto& [name, value] : i.xattrs) all += name + "\n" + value + "\n";
  field("xattrs", text(i.xattrs) + std::to_string(std::hash<std::string>{}(all)));
}

std::vector<std::pair<std::string, std::string>> fields(const VisibleInode& inode) {
  std::vector<std::pair<std::string, std::string>> out;
  for_each_field(inode, [&](const char* name, const auto& value) { out.emplace_back(name, text(value)); });
  return out;
}

// Of a file with leases blocks are kept that a crash lets go.
bool same_sectors(const Attributes& x, const Attributes& y) {
  return x.sectors == y.sectors || x.changes_directly || y.changes_directly;
}

bool same_metadata(const VisibleInode& a, const VisibleInode& b) {
  const Attributes& x = a.attributes;
  const Attributes& y = b.attributes;
  return x.mode == y.mode && x.links == y.links && x.uid == y.uid && x.gid == y.gid && x.rdev == y.rdev &&
         x.size_bytes == y.size_bytes && same_sectors(x, y) && x.flags == y.flags && x.atime == y.atime &&
         x.mtime == y.mtime && x.ctime == y.ctime && x.btime == y.btime && a.target == b.target && a.xattrs == b.xattrs;
}

std::string names_difference(const Snapshot& seen, const Snapshot& expected) {
  if (seen.names == expected.names) return {};
  for (const auto& [path, key] : seen.names) {
    const auto it = expected.names.find(path);
    if (it == expected.names.end()) return "there is a name " + text(path) + " that should not be";
    if (it->second != key) return "the name " + text(path) + " is that of another inode";
  }
  for (const auto& [path, key] : expected.names)
    if (!seen.names.contains(path)) return "the name " + text(path) + " is missing";
  return {};
}

std::string inode_name(const Snapshot& snapshot, InodeKey key) {
  for (const auto& [path, its_key] : snapshot.names)
    if (its_key == key) return "\"" + text(path) + "\" (inode " + std::to_string(key.first) + ")";
  return "inode " + std::to_string(key.first);
}

}  // namespace

std::string content_of(World& world, Inode& inode) {
  constexpr std::uint64_t kPiece = 4096;
  std::string content;
  const std::uint64_t size = world->attributes(inode).size_bytes;
  for (std::uint64_t at = 0; at < size; at += kPiece) {
    std::string piece(std::min(kPiece, size - at), kUnreadable);
    const auto pin = world->read(inode, at, piece.size());
    std::string bytes(piece.size(), '\0');
    std::size_t copied = 0;
    bool is_good = pin.has_value() || pin.error().code != EIO;
    if (!pin && is_good) must(Result<int>(tl::unexpected(pin.error())));
    for (std::size_t i = 0; is_good && i < pin->iov.size(); copied += pin->iov[i++].iov_len)
      is_good = pmem::guarded_copy(bytes.data() + copied, pin->iov[i].iov_base, pin->iov[i].iov_len);
    content += is_good ? bytes : piece;
  }
  return content;
}

Snapshot take_snapshot(World& world, const std::vector<InodeRef>& held) {
  Snapshot snapshot;
  const InodeRef root = world->root();
  visit(world, "", *root, snapshot);
  for (const InodeRef& inode : held)
    snapshot.inodes.emplace(InodeKey{inode.number().value, inode.generation()}, look_at(world, *inode));
  return snapshot;
}

std::string metadata_difference(const Snapshot& seen, const Snapshot& expected) {
  if (std::string difference = names_difference(seen, expected); !difference.empty()) return difference;
  for (const auto& [key, inode] : seen.inodes) {
    const VisibleInode& wanted = expected.inodes.at(key);
    if (same_metadata(inode, wanted)) continue;
    std::string what = inode_name(seen, key) + ":";
    const auto has = fields(inode);
    const auto should = fields(wanted);
    for (std::size_t i = 0; i < has.size(); ++i) {
      if (has[i] != should[i]) what += " " + has[i].first + " " + has[i].second + " not " + should[i].second;
    }
    if (inode.attributes.sectors != wanted.attributes.sectors)
      what +=
          " sectors " + std::to_string(inode.attributes.sectors) + " not " + std::to_string(wanted.attributes.sectors);
    return what;
  }
  return {};
}

std::string step_difference(const Snapshot& seen, const Snapshot& before, const Snapshot& after) {
  if (std::string difference = names_difference(seen, before); !difference.empty()) return difference;
  for (const auto& [key, inode] : seen.inodes) {
    const VisibleInode& old = before.inodes.at(key);
    const VisibleInode& next = after.inodes.contains(key) ? after.inodes.at(key) : old;
    const auto has = fields(inode);
    const auto was = fields(old);
    const auto becomes = fields(next);
    for (std::size_t i = 0; i < has.size(); ++i) {
      if (has[i] != was[i] && has[i] != becomes[i])
        return inode_name(seen, key) + ": " + has[i].first + " " + has[i].second + " is neither " + was[i].second +
               " nor " + becomes[i].second;
    }
    const auto [least, most] = std::minmax(old.attributes.sectors, next.attributes.sectors);
    const bool is_leased = old.attributes.changes_directly || next.attributes.changes_directly;
    if (!is_leased && (inode.attributes.sectors < least || inode.attributes.sectors > most))
      return inode_name(seen, key) + ": sectors " + std::to_string(inode.attributes.sectors);
  }
  return {};
}

bool same_inode(const Snapshot& a, const Snapshot& b, InodeKey key) {
  const auto in_a = a.inodes.find(key);
  const auto in_b = b.inodes.find(key);
  if (in_a == a.inodes.end() || in_b == b.inodes.end()) return in_a == a.inodes.end() && in_b == b.inodes.end();
  const auto names = [key](const Snapshot& snapshot) {
    std::vector<std::string> paths;
    for (const auto& [path, its_key] : snapshot.names)
      if (its_key == key) paths.push_back(path);
    return paths;
  };
  return same_metadata(in_a->second, in_b->second) && names(a) == names(b);
}

std::string content_difference(const Snapshot& seen, const Snapshot& expected) {
  for (const auto& [key, inode] : seen.inodes) {
    const auto it = expected.inodes.find(key);
    if (it == expected.inodes.end()) continue;
    if (inode.content == it->second.content) continue;
    const auto [a, b] =
        std::mismatch(inode.content.begin(), inode.content.end(), it->second.content.begin(), it->second.content.end());
    return inode_name(seen, key) + ": differs from byte " + std::to_string(a - inode.content.begin()) + " on";
  }
  return {};
}

std::string foreign_byte(const std::string& content, InodeKey key, const ByteSources& sources, std::size_t begin,
                         std::size_t end) {
  constexpr std::size_t kWord = 8;
  struct Version {
    const std::string* bytes;
    std::size_t good_below;  // bytes from there on were cut off between this version and the one shown
  };
  std::vector<Version> versions;
  bool zero = false;
  const auto add = [&](std::size_t i, std::size_t good_below) {
    const auto it = sources.versions[i].inodes.find(key);
    if (it == sources.versions[i].inodes.end()) {
      zero = sources.unborn_is_zero;
      return good_below;
    }
    versions.push_back({&it->second.content, good_below});
    return std::min(good_below, it->second.content.size());
  };
  const std::size_t shown = std::min(sources.shown, sources.versions.size() - 1);
  std::size_t cut = add(shown, std::string::npos);
  const std::string_view looked_at = std::string_view(content).substr(begin, end - begin);
  if (!versions.empty() && versions.front().bytes->size() == content.size() &&
      std::string_view(*versions.front().bytes).substr(begin, end - begin) == looked_at)
    return {};
  for (std::size_t i = shown, older = cut; i-- > 0;) older = add(i, older);
  for (std::size_t i = shown + 1; i < sources.versions.size(); ++i) {
    const auto it = sources.versions[i].inodes.find(key);
    if (it != sources.versions[i].inodes.end()) cut = std::min(cut, it->second.content.size());
    (void)add(i, cut);
  }
  const auto is_of = [&](const Version& version, std::size_t i) {
    return i < version.good_below && content[i] == (i < version.bytes->size() ? (*version.bytes)[i] : '\0');
  };
  for (std::size_t i = begin, next = begin; i < end; i = next) {
    next = sources.words_are_whole && i % kWord == 0 && end - i >= kWord ? i + kWord : i + 1;
    const auto all_of = [&](const auto& is_so) {
      for (std::size_t at = i; at < next; ++at)
        if (!is_so(at)) return false;
      return true;
    };
    if (zero && all_of([&](std::size_t at) { return content[at] == '\0'; })) continue;
    const bool known = std::any_of(versions.begin(), versions.end(), [&](const Version& version) {
      return all_of([&](std::size_t at) { return is_of(version, at); });
    });
    if (known) continue;
    char byte[8];
    std::snprintf(byte, sizeof byte, "%02x", static_cast<unsigned>(static_cast<unsigned char>(content[i])));
    return "byte " + std::to_string(i) + " of inode " + std::to_string(key.first) + " is " + byte +
           ", which the file never held there, or not since it was cut off";
  }
  return {};
}

}  // namespace plumb::test
