// What a user sees of a volume, as a value: names, types, modes, links, owners, sizes, targets, xattrs and contents. Times are
// left out: they follow the clock.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "test/unit/core_world.h"

namespace plumb::test {

using InodeKey = std::pair<std::uint64_t, std::uint64_t>;  // number, generation

struct VisibleState {
  std::map<std::string, std::string> names;        // path -> everything but contents
  std::map<InodeKey, std::string> contents;        // of files
};

inline void look(World& world, Inode& directory, const std::string& path, VisibleState& state) {
  std::vector<std::string> entries;
  must(world->read_directory(directory, 0, [&](const DirectoryEntry& entry) {
    if (entry.name != "." && entry.name != "..") entries.emplace_back(entry.name);
    return true;
  }));
  for (const std::string& name : entries) {
    const FoundEntry found = must(world->lookup(directory, name));
    const Attributes& a = found.attributes;
    const std::string full = path.empty() ? name : path + "/" + name;
    std::string text = std::to_string(a.inode.value) + "." + std::to_string(a.generation) + " mode " +
                       std::to_string(a.mode) + " links " + std::to_string(a.links) + " uid " + std::to_string(a.uid) +
                       " size " + (S_ISDIR(a.mode) ? "-" : std::to_string(a.size_bytes)) + " flags " +
                       std::to_string(a.flags);
    if (S_ISLNK(a.mode)) text += " -> " + must(world->readlink(*found.inode));
    std::set<std::string> xattrs;
    for (const std::string& xattr : must(world->list_xattrs(*found.inode)))
      xattrs.insert(xattr + "=" + must(world->get_xattr(*found.inode, xattr)));
    for (const std::string& xattr : xattrs) text += " " + xattr;
    state.names.emplace(full, text);
    if (S_ISREG(a.mode)) state.contents[{a.inode.value, a.generation}] = world.read(*found.inode);
    if (S_ISDIR(a.mode)) look(world, *found.inode, full, state);
  }
}

inline VisibleState visible_state(World& world) {
  VisibleState state;
  const InodeRef root = world->root();
  look(world, *root, "", state);
  return state;
}

}  // namespace plumb::test
