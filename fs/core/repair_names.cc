// Directories, link counts, lost+found, the orphan list.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "fs/core/directory.h"
#include "fs/core/repair_impl.h"
#include "fs/core/siphash.h"
#include "fs/core/volume.h"

namespace plumb::repairer {
namespace {

using checker::inode_name;
using checker::quoted;

constexpr std::string_view kLostFound = "lost+found";

}  // namespace

std::optional<Planner::Name> Planner::name_in(const Entry& entry) const {
  media::DirectoryRecord header;
  if (entry.record.size() <= sizeof header) return std::nullopt;
  std::memcpy(&header, entry.record.data(), sizeof header);
  if (header.name_length == 0 || entry.record.size() != sizeof header + header.name_length) return std::nullopt;
  return Name{header.inode, header.type, entry.record.substr(sizeof header)};
}

void Planner::note_children(std::uint64_t directory, const Tree& tree) {
  if (Info* info = find(directory)) info->has_entries = !tree.entries.empty();
  for (const Entry& entry : tree.entries) {
    const auto name = name_in(entry);
    if (!name || name->inode == kRootInode.value) continue;
    Info* child = find(name->inode);
    if (child == nullptr || child->type != DT_DIR) continue;
    if (child->namer == 0 || child->parent == directory) child->namer = directory;
    if (directory == kRootInode.value && name->text == kLostFound) lost_found_ = name->inode;
  }
}

// Reads every directory once; afterwards it is known which directory has the name of each directory: the one that the
// child calls its parent, if that has a name for it, else the first.
void Planner::read_names() {
  // Names below a root that is lost are found by what says that it is theirs.
  const Info* root = find(kRootInode.value);
  if (root == nullptr || root->type != DT_DIR) {
    media::TreeRoot lost;
    lost.nodes = 1;
    Tree tree = read_tree(lost, media::TreeKind::kDirectory, kRootInode.value, true);
    note_children(kRootInode.value, tree);
    unsound_[kRootInode.value] = std::move(tree);
  }
  for (std::size_t i = 0; i < directories_.size(); ++i) {
    if (i % 256 == 0) progress(i, directories_.size(), "directories");
    const std::uint64_t number = directories_[i];
    const media::Inode directory = inode(number);
    Tree tree = read_tree(directory.data, media::TreeKind::kDirectory, number, true);
    note_children(number, tree);
    if (!tree.sound) {
      note(inode_name(number), "directory made anew from what was found", false);
      unsound_[number] = std::move(tree);
    } else if (tree.nodes.size() != directory.data.nodes) {
      edit(number).data.nodes = static_cast<std::uint32_t>(tree.nodes.size());
      note(inode_name(number), "number of nodes of the directory set right", true);
    }
  }
}

// The root directory is number 1, whatever its slot says.
Status Planner::mend_root() {
  const std::uint64_t number = kRootInode.value;
  Info* root = find(number);
  if (root != nullptr && root->type != DT_DIR) {
    clear_inode(number, *root, "the root is a directory");
    std::erase_if(new_trees_, [](const NewTree& tree) { return tree.inode == kRootInode.value; });
    std::erase_if(rewritten_, [](const FileData& file) { return file.number == kRootInode.value; });
    root = nullptr;
  }
  if (root == nullptr) {
    const std::size_t per_block = superblock_.inodes_per_block();
    const std::uint64_t index = number / per_block;
    const auto at = std::find_if(inode_blocks_.begin(), inode_blocks_.end(),
                                 [index](const InodeBlock& block) { return block.index == index; });
    std::size_t first = static_cast<std::size_t>(at - inode_blocks_.begin()) * per_block;
    if (at == inode_blocks_.end()) {
      PLUMB_ASSIGN(first, new_inode_block(index));
    }
    (void)put_new_inode(first + number % per_block, S_IFDIR | 0755, number);
    directories_.push_back(number);
    note(inode_name(number), "root directory made anew", false);
    root = find(number);
  }
  root->namer = number;
  if (root->parent != number) {
    root->parent = number;
    edit(number).parent = number;
    note(inode_name(number), "parent of the root set to itself", true);
  }
  return {};
}

// A directory whose names lead back to itself instead of to the root loses its name, and is reconnected like the
// others without one.
void Planner::cut_loops() {
  enum : std::uint8_t { kUnknown, kOnPath, kDone };
  std::vector<std::uint8_t> state(inodes_.size(), kUnknown);
  std::vector<std::size_t> path;
  for (std::size_t id = 0; id < inodes_.size(); ++id) {
    path.clear();
    for (std::size_t at = id; inodes_[at].type == DT_DIR && state[at] != kDone;) {
      if (state[at] == kOnPath) {
        inodes_[at].namer = 0;
        note(inode_name(number_of(at)), "taken out of a directory that lies below it", false);
        break;
      }
      state[at] = kOnPath;
      path.push_back(at);
      if (number_of(at) == kRootInode.value || inodes_[at].namer == 0) break;
      const Info* namer = find(inodes_[at].namer);
      if (namer == nullptr) break;
      at = static_cast<std::size_t>(namer - inodes_.data());
    }
    for (const std::size_t at : path) state[at] = kDone;
  }
}

// `count`: the names are counted where they lead.
std::vector<Planner::Name> Planner::names_to_keep(std::uint64_t directory, const Tree& tree, bool& changed,
                                                  bool count) {
  std::vector<Name> names;
  absl::flat_hash_set<std::string> seen;
  const auto drop = [&](const Name& name, const std::string& why) {
    changed = true;
    if (count) note(inode_name(directory), "directory: entry " + quoted(name.text) + " removed: " + why, false);
  };
  for (const Entry& entry : tree.entries) {
    auto name = name_in(entry);
    if (!name) {
      changed = true;
      if (count) note(inode_name(directory), "directory: an entry that is none removed", false);
      continue;
    }
    Info* child = find(name->inode);
    if (!check_name(name->text)) {
      drop(*name, "not a valid name");
    } else if (child == nullptr || name->inode == kRootInode.value) {
      drop(*name, "inode " + std::to_string(name->inode) + " is not there");
    } else if (seen.contains(name->text)) {
      drop(*name, "the name is there twice");
    } else if (child->type == DT_DIR && (child->namer != directory || (count && child->named))) {
      drop(*name, "the directory has another name");
    } else {
      const std::uint64_t first = name_key(superblock_.media().hash_seed, name->text);
      if (entry.key < first || entry.key >= first + kKeysPerName) {
        changed = true;
        if (count)
          note(inode_name(directory), "directory: entry " + quoted(name->text) + ": key set to that of its name", true);
      }
      if (name->type != child->type) {
        name->type = child->type;
        changed = true;
        if (count)
          note(inode_name(directory), "directory: entry " + quoted(name->text) + ": type set to that of the inode",
               true);
      }
      if (count) {
        ++child->names;
        child->named = true;
        if (child->type == DT_DIR) {
          ++find(directory)->subdirectories;
          if (child->parent != directory) {
            child->parent = directory;
            edit(name->inode).parent = directory;
            note(inode_name(name->inode), "parent set to the directory that has its name", true);
          }
        }
      }
      seen.insert(name->text);
      names.push_back(std::move(*name));
    }
  }
  return names;
}

// The directory as it will be, with `more` names in it.
Status Planner::plan_directory(std::uint64_t number, std::span<const Name> more, bool count) {
  const media::Inode before = inode(number);
  const Tree tree = tree_of(before, media::TreeKind::kDirectory);
  bool changed = !tree.sound || !more.empty();
  std::vector<Name> names = names_to_keep(number, tree, changed, count);
  names.insert(names.end(), more.begin(), more.end());
  if (before.size_bytes != names.size()) {
    edit(number).size_bytes = names.size();
    if (!changed) note(inode_name(number), "size set to the number of entries", true);
  }
  if (!changed) return {};
  // Names that share a hash take the keys in a row, lowest first.
  std::vector<Entry> entries;
  entries.reserve(names.size());
  absl::flat_hash_set<std::uint64_t> keys;
  for (const Name& name : names) {
    std::uint64_t key = name_key(superblock_.media().hash_seed, name.text);
    const std::uint64_t end = key + kKeysPerName;
    while (key < end && !keys.insert(key).second) ++key;
    if (key == end) return fail(ENOSPC, inode_name(number) + ": directory: too many names with one hash");
    media::DirectoryRecord header;
    header.inode = name.inode;
    header.type = name.type;
    header.name_length = static_cast<std::uint8_t>(name.text.size());
    Entry entry{key, {}};
    entry.record.assign(reinterpret_cast<const char*>(&header), sizeof header);
    entry.record += name.text;
    entries.push_back(std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.key < b.key; });
  std::erase_if(new_trees_, [number](const NewTree& planned) {
    return planned.place == NewTree::Place::kData && planned.inode == number;
  });
  replace_tree(tree, NewTree::Place::kData, number, std::move(entries));
  edit(number).data = media::TreeRoot{};
  // What it is made of from now on; its old nodes are given up once.
  unsound_[number] = Tree{new_trees_.back().entries, {}, {}, false};
  return {};
}

Status Planner::plan_directories() {
  for (const std::uint64_t number : directories_)
    if (find(number) != nullptr) PLUMB_TRY(plan_directory(number, {}, true));
  return {};
}

// What has links and no name gets one in /lost+found: "#" and its number, as other file systems do.
Status Planner::reconnect() {
  std::vector<std::uint64_t> lost;
  for (std::size_t id = 0; id < inodes_.size(); ++id) {
    const Info& info = inodes_[id];
    const bool wanted = info.links != 0 || info.has_entries;  // a directory is empty before it goes
    if (info.type != 0 && wanted && info.names == 0 && number_of(id) != kRootInode.value) lost.push_back(number_of(id));
  }
  if (lost.empty()) return {};
  const Info* place = lost_found_ == 0 ? nullptr : find(lost_found_);
  if (place == nullptr || place->type != DT_DIR || place->namer != kRootInode.value || place->names == 0) {
    PLUMB_ASSIGN(lost_found_, new_inode(S_IFDIR | 0700, kRootInode.value));
    Info* made = find(lost_found_);
    made->names = 1;
    made->named = true;
    ++find(kRootInode.value)->subdirectories;
    Name name{lost_found_, DT_DIR, std::string(kLostFound)};
    const Tree root = tree_of(inode(kRootInode.value), media::TreeKind::kDirectory);
    const auto is_taken = [&](const std::string& text) {
      return std::any_of(root.entries.begin(), root.entries.end(), [&](const Entry& entry) {
        const auto other = name_in(entry);
        return other && other->text == text;
      });
    };
    for (int i = 1; is_taken(name.text); ++i) name.text = std::string(kLostFound) + "." + std::to_string(i);
    PLUMB_TRY(plan_directory(kRootInode.value, std::span(&name, 1), false));
    note(inode_name(lost_found_), "made as /" + name.text, true);
  }
  absl::flat_hash_set<std::string> taken;
  for (const Entry& entry : tree_of(inode(lost_found_), media::TreeKind::kDirectory).entries)
    if (const auto name = name_in(entry)) taken.insert(name->text);
  std::vector<Name> names;
  for (const std::uint64_t number : lost) {
    Info* info = find(number);
    std::string text = "#" + std::to_string(number);
    for (int i = 1; !taken.insert(text).second; ++i) text = "#" + std::to_string(number) + "." + std::to_string(i);
    note(inode_name(number), "has no name: now in lost+found, as " + checker::quoted(text), false);
    info->names = 1;
    info->named = true;
    if (info->type == DT_DIR) {
      ++find(lost_found_)->subdirectories;
      info->namer = info->parent = lost_found_;
      edit(number).parent = lost_found_;
    }
    names.push_back({number, info->type, std::move(text)});
  }
  return plan_directory(lost_found_, names, false);
}

void Planner::plan_links() {
  for (std::size_t id = 0; id < inodes_.size(); ++id) {
    Info& info = inodes_[id];
    if (info.type == 0) continue;
    const std::uint64_t number = number_of(id);
    const bool has_name = info.names != 0 || number == kRootInode.value;
    const std::uint32_t links = !has_name ? 0 : info.type == DT_DIR ? 2 + info.subdirectories : info.names;
    if (links == info.links) continue;
    note(inode_name(number), "links set from " + std::to_string(info.links) + " to " + std::to_string(links), true);
    edit(number).links = links;
    info.links = links;
  }
}

// On the list are the inodes without links, and those that a truncate was cutting.
void Planner::plan_orphans() {
  std::vector<std::uint64_t> right;
  for (std::size_t id = 0; id < inodes_.size(); ++id) {
    const Info& info = inodes_[id];
    if (info.type == 0) continue;
    if (info.links == 0 || (info.listed && info.type == DT_REG)) {
      right.push_back(number_of(id));
    } else if (info.listed) {
      media::Inode& inode = edit(number_of(id));
      inode.on_orphan_list = 0;
      inode.next_orphan = 0;
      note(inode_name(number_of(id)), "taken off the orphan list: it has links", true);
    }
  }
  absl::flat_hash_set<std::uint64_t> wanted(right.begin(), right.end());
  std::size_t found = 0;
  bool whole = true;
  for (std::uint64_t number = state_.orphan_head; number != 0 && whole; ++found) {
    whole = wanted.erase(number) != 0;
    if (!whole) break;
    const media::Inode inode = this->inode(number);
    whole = inode.on_orphan_list != 0;
    number = inode.next_orphan;
  }
  if (whole && wanted.empty()) return;
  note("orphan list", "made anew, " + std::to_string(right.size()) + (right.size() == 1 ? " inode" : " inodes"), true);
  state_.orphan_head = right.empty() ? 0 : right.front();
  state_changed_ = true;
  for (std::size_t i = 0; i < right.size(); ++i) {
    media::Inode& inode = edit(right[i]);
    inode.on_orphan_list = 1;
    inode.next_orphan = i + 1 < right.size() ? right[i + 1] : 0;
  }
}

}  // namespace plumb::repairer
