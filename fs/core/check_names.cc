// Directory entries, link counts, the orphan list, and that every directory hangs below the root.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "absl/container/flat_hash_set.h"
#include "fs/core/check_impl.h"
#include "fs/core/directory.h"
#include "fs/core/siphash.h"

namespace plumb::checker {

std::string quoted(std::string_view name) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text = "\"";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f && c != '"' && c != '\\') {
      text += c;
    } else {
      text += "\\x";
      text += kHex[byte >> 4];
      text += kHex[byte & 15];
    }
  }
  return text + "\"";
}

bool NameRun::add(std::uint64_t key, std::string_view name) {
  const std::uint64_t hash = key / kKeysPerName;
  if (hash != hash_) count_ = 0;
  hash_ = hash;
  if (std::find(names_.begin(), names_.begin() + static_cast<std::ptrdiff_t>(count_), name) !=
      names_.begin() + static_cast<std::ptrdiff_t>(count_))
    return false;
  if (count_ == names_.size()) names_.emplace_back();
  names_[count_++].assign(name);
  return true;
}

// ---- numbers and slots ----

std::uint64_t Checker::number_of(std::size_t id) const {
  const std::size_t per_block = superblock_.inodes_per_block();
  return inode_blocks_[id / per_block].index * per_block + id % per_block;
}

std::uint64_t Checker::place_of(std::uint64_t number) const {
  const std::size_t per_block = superblock_.inodes_per_block();
  const auto it = std::lower_bound(inode_blocks_.begin(), inode_blocks_.end(), number / per_block,
                                   [](const InodeBlock& block, std::uint64_t i) { return block.index < i; });
  if (it == inode_blocks_.end() || it->index != number / per_block) return Error::kNoOffset;
  return it->block * image_.block_size() + number % per_block * media::kInodeBytes;
}

Checker::InodeInfo* Checker::find_inode(std::uint64_t number) {
  const std::size_t per_block = superblock_.inodes_per_block();
  const std::uint64_t index = number / per_block;
  // Indexes have few gaps or none: look where it would be without one.
  std::size_t at = index;
  if (at >= inode_blocks_.size() || inode_blocks_[at].index != index) {
    const auto it = std::lower_bound(inode_blocks_.begin(), inode_blocks_.end(), index,
                                     [](const InodeBlock& block, std::uint64_t i) { return block.index < i; });
    if (it == inode_blocks_.end() || it->index != index) return nullptr;
    at = static_cast<std::size_t>(it - inode_blocks_.begin());
  }
  InodeInfo& info = inodes_[at * per_block + number % per_block];
  return info.type == kFree ? nullptr : &info;
}

// ---- entries ----

void Checker::read_directories() {
  for (std::size_t i = 0; i < directories_.size(); ++i) {
    if (i % 256 == 0) progress(i, directories_.size(), "directories");
    const DirectoryToRead& directory = directories_[i];
    names_.clear();
    std::uint64_t entries = 0;
    const bool complete = trees_.read(directory.entries, media::TreeKind::kDirectory,
                                      {Owner::Kind::kDirectory, directory.number, place_of(directory.number)},
                                      [&](std::uint64_t key, std::span<const std::byte> record) {
                                        ++entries;
                                        read_entry(directory, key, record);
                                      });
    if (!complete) {
      names_complete_ = false;
      if (InodeInfo* info = find_inode(directory.number)) info->partly_read = true;
    } else if (entries != directory.size) {
      findings_.add(
          inode_name(directory.number),
          "directory: has " + std::to_string(entries) + " entries, size_bytes says " + std::to_string(directory.size),
          place_of(directory.number));
    }
  }
}

// The record is verified.
void Checker::read_entry(const DirectoryToRead& directory, std::uint64_t key, std::span<const std::byte> record) {
  media::DirectoryRecord header;
  std::memcpy(&header, record.data(), sizeof header);
  const std::string_view name(reinterpret_cast<const char*>(record.data()) + sizeof header, header.name_length);
  const auto bad = [&](const std::string& what) {
    findings_.add(inode_name(directory.number), "directory: entry " + quoted(name) + ": " + what, trees_.leaf_offset());
  };
  const std::uint64_t first = name_key(superblock_.media().hash_seed, name);
  if (key < first || key >= first + kKeysPerName) bad("its key is not that of its name");
  if (!names_.add(key, name)) bad("is there twice");
  if (!check_name(name)) bad("not a valid name");
  const std::uint64_t number = header.inode;
  InodeInfo* parent = find_inode(directory.number);
  InodeInfo* info = find_inode(number);
  if (info == nullptr) {
    if (table_complete_) bad("names inode " + std::to_string(number) + ", which is not in use");
    if (header.type == DT_DIR) ++parent->subdirectories;
    return;
  }
  ++info->names;
  const std::uint8_t type = info->type == kDamaged ? header.type : info->type;
  if (header.type != type) bad("its type is not that of inode " + std::to_string(number));
  if (type != DT_DIR) return;
  ++parent->subdirectories;
  if (info->type == DT_DIR && info->parent != directory.number)
    findings_.add(inode_name(number),
                  "its parent is inode " + std::to_string(info->parent) + ", but inode " +
                      std::to_string(directory.number) + " has the entry " + quoted(name),
                  place_of(number));
}

// ---- orphans ----

void Checker::check_orphan_list() {
  absl::flat_hash_set<std::uint64_t> seen;
  bool whole = true;
  std::string from = "orphan_head";
  std::uint64_t from_offset = state_offset();
  for (std::uint64_t number = state_.orphan_head; number != 0;) {
    const auto it = orphans_.find(number);
    if (it == orphans_.end()) {
      whole = false;
      const InodeInfo* info = find_inode(number);
      if (info == nullptr && table_complete_)
        findings_.add("orphan list", from + " leads to inode " + std::to_string(number) + ", which is not in use",
                      from_offset);
      else if (info != nullptr && info->type != kDamaged)
        findings_.add(inode_name(number), "is on the orphan list, but on_orphan_list is 0", place_of(number));
      break;
    }
    if (!seen.insert(number).second) {
      whole = false;
      findings_.add("orphan list", from + " leads back to inode " + std::to_string(number), from_offset);
      break;
    }
    from = inode_name(number);
    from_offset = place_of(number);
    number = it->second;
  }
  if (!whole) return;  // the rest of the list is unknown
  for (const auto& [number, next] : orphans_)
    if (!seen.contains(number))
      findings_.add(inode_name(number), "on_orphan_list is 1, but it is not on the list", place_of(number));
}

// ---- links ----

void Checker::check_links() {
  std::uint64_t unnamed = 0;
  for (std::size_t id = 0; id < inodes_.size(); ++id) {
    const InodeInfo& info = inodes_[id];
    if (info.type != kFree && info.type != kDamaged) check_links_of(number_of(id), info, unnamed);
  }
  if (unnamed != 0)
    findings_.add("directories", std::to_string(unnamed) +
                                     " inodes have fewer names than links; damaged directories may hold the names");
  const InodeInfo* root = find_inode(kRootInode.value);
  if (root == nullptr) {
    if (table_complete_) findings_.add(inode_name(kRootInode.value), "there is no root directory");
  } else if (root->type != DT_DIR && root->type != kDamaged) {
    findings_.add(inode_name(kRootInode.value), "the root is not a directory", place_of(kRootInode.value));
  }
}

void Checker::check_links_of(std::uint64_t number, const InodeInfo& info, std::uint64_t& unnamed) {
  const bool directory = info.type == DT_DIR;
  const bool root = number == kRootInode.value;
  // Names it must have; what an orphan has is too many in any case.
  const std::uint64_t expected = root ? 0 : directory ? (info.links == 0 ? 0 : 1) : info.links;
  const auto count = [](std::uint64_t n, const char* noun) {
    return std::to_string(n) + " " + noun + (n == 1 ? "" : "s");
  };
  if (info.names > expected) {
    findings_.add(inode_name(number),
                  "has " + count(info.names, "name") + " where " + count(expected, "name") +
                      (expected == 1 ? " is" : " are") + " right",
                  place_of(number));
  } else if (info.names < expected) {
    if (!names_complete_ || !table_complete_)
      ++unnamed;
    else if (info.names == 0)
      findings_.add(inode_name(number), "unreachable: no directory names it", place_of(number));
    else
      findings_.add(inode_name(number),
                    "links is " + std::to_string(info.links) + ", but it has " + count(info.names, "name"),
                    place_of(number));
  }
  if (!directory || info.partly_read || info.links == 0) return;
  if (info.links != 2 + std::uint64_t{info.subdirectories})
    findings_.add(inode_name(number),
                  "links is " + std::to_string(info.links) + ", but the directory has " +
                      std::to_string(info.subdirectories) +
                      (info.subdirectories == 1 ? " subdirectory" : " subdirectories"),
                  place_of(number));
}

// With one entry for each directory and parents that agree with it, what is not connected to the root is a circle.
void Checker::check_connected() {
  enum : std::uint8_t { kUnknown, kOnPath, kDone };
  std::vector<std::uint8_t> state(inodes_.size(), kUnknown);
  std::vector<std::size_t> path;
  for (std::size_t id = 0; id < inodes_.size(); ++id) {
    path.clear();
    for (std::size_t at = id; inodes_[at].type == DT_DIR && state[at] != kDone;) {
      if (state[at] == kOnPath) {
        if (inodes_[at].links != 0)
          findings_.add(inode_name(number_of(at)), "directory: its parents lead back to itself, not to the root",
                        place_of(number_of(at)));
        break;
      }
      state[at] = kOnPath;
      path.push_back(at);
      const InodeInfo* parent = find_inode(inodes_[at].parent);
      // The root ends every path. A parent that is not there was reported as a missing name.
      if (parent == nullptr || number_of(at) == kRootInode.value || inodes_[at].links == 0) break;
      at = static_cast<std::size_t>(parent - inodes_.data());
    }
    for (const std::size_t at : path) state[at] = kDone;
  }
}

}  // namespace plumb::checker
