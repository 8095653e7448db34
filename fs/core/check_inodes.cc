// The inode table, and every inode with its extents, target and extended attributes.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "fs/core/acl.h"
#include "fs/core/check_impl.h"
#include "fs/core/siphash.h"
#include "fs/core/value_chain.h"
#include "fs/core/volume.h"
#include "fs/media/verify.h"

namespace plumb::checker {
namespace {

constexpr std::uint64_t kMostIndex = std::uint64_t{1} << 55;  // numbers fit into 64 bits

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

void Checker::bad_inode(const media::Inode& inode, std::string what) {
  findings_.add(inode_name(inode.number), std::move(what), inode_offset_);
}

// ---- the table ----

void Checker::read_inode_table() {
  inode_blocks_.clear();
  const Owner owner{Owner::Kind::kInodeTable, 0, state_offset()};
  const auto add = [this](std::uint64_t index, std::span<const std::byte> record) {
    media::Le64 block;
    std::memcpy(&block, record.data(), sizeof block);
    if (index > kMostIndex) {
      findings_.add("inode table", "index " + std::to_string(index) + " out of range", trees_.leaf_offset());
      table_complete_ = false;
      note_unread();
      return;
    }
    inode_blocks_.push_back({index, block, trees_.leaf_offset()});
  };
  if (!trees_.read(state_.inode_table, media::TreeKind::kInodeTable, owner, add)) table_complete_ = false;
  inodes_.assign(inode_blocks_.size() * superblock_.inodes_per_block(), InodeInfo{});
}

void Checker::read_inode_blocks() {
  const std::size_t per_block = superblock_.inodes_per_block();
  used_ = used_directories_ = used_files_ = 0;
  for (std::size_t i = 0; i < inode_blocks_.size(); ++i) {
    if (i % 256 == 0) progress(i, inode_blocks_.size(), "inodes");
    read_slots(inode_blocks_[i], i * per_block);
  }
}

void Checker::read_slots(const InodeBlock& where, std::size_t first_id) {
  const std::size_t per_block = superblock_.inodes_per_block();
  const Owner owner{Owner::Kind::kInodeBlock, where.index, where.leaf_offset};
  std::vector<std::byte>& bytes = inode_block_;
  bytes.resize(image_.block_size());
  bool readable = owners_.claim(where.block, 1, owner);
  if (readable) {
    const Status status = image_.load(where.block, bytes);
    if (!status) findings_.add_error(owner.object(), {}, status.error(), where.block * image_.block_size());
    readable = status.has_value();
  }
  if (!readable) {
    for (std::size_t slot = 0; slot < per_block; ++slot) inodes_[first_id + slot].type = kDamaged;
    table_complete_ = names_complete_ = false;
    note_unread();
    return;
  }
  std::size_t used = 0;
  for (std::size_t slot = 0; slot < per_block; ++slot) {
    const std::uint64_t number = where.index * per_block + slot;
    const std::span<const std::byte> slot_bytes =
        std::span<const std::byte>(bytes).subspan(slot * media::kInodeBytes, media::kInodeBytes);
    const auto& inode = *reinterpret_cast<const media::Inode*>(slot_bytes.data());
    if (inode.magic == 0 && all_zero(slot_bytes)) continue;
    ++used;
    inode_offset_ = where.block * image_.block_size() + slot * media::kInodeBytes;
    if (number == 0) {
      findings_.add("inode 0", "the slot of number 0 is not zero", inode_offset_);
      continue;
    }
    if (const Status status = media::verify_inode(inode, number); !status) {
      findings_.add_error(inode_name(number), {}, status.error(), inode_offset_);
      inodes_[first_id + slot].type = kDamaged;
      names_complete_ = false;
      note_unread();
      continue;
    }
    read_inode(inodes_[first_id + slot], inode);
  }
  if (used == 0 && where.index != 0)
    findings_.add(owner.object(), "is in the inode table, but holds no inode", where.block * image_.block_size());
}

// ---- an inode ----

void Checker::read_inode(InodeInfo& info, const media::Inode& inode) {
  info.type = static_cast<std::uint8_t>(IFTODT(inode.mode));
  info.links = inode.links;
  info.parent = inode.parent;
  ++used_;
  check_common(inode);
  if (inode.on_orphan_list != 0) orphans_[inode.number] = inode.next_orphan;
  if (S_ISDIR(inode.mode)) {
    ++used_directories_;
    check_directory(inode);
  } else if (S_ISREG(inode.mode)) {
    ++used_files_;
    check_regular(inode);
  } else if (S_ISLNK(inode.mode)) {
    check_symlink(inode);
  } else {
    check_special(inode);
  }
  check_xattrs(inode);
}

void Checker::check_common(const media::Inode& inode) {
  if ((inode.mode & ~std::uint32_t{S_IFMT | 07777}) != 0) bad_inode(inode, "mode has bits that mean nothing");
  if ((inode.flags & ~kInodeUserFlags) != 0) bad_inode(inode, "flags has unknown bits");
  if ((inode.flags & (kInodeRealtime | kInodeRtInherit)) != 0 && superblock_.device_count() < 2)
    bad_inode(inode, "flags name the realtime device, but there is none");
  if ((inode.flags & kInodeRealtime) != 0 && !S_ISREG(inode.mode))
    bad_inode(inode, "flags has the realtime bit, but it is no regular file");
  for (const std::uint32_t ns :
       {inode.atime_ns.get(), inode.mtime_ns.get(), inode.ctime_ns.get(), inode.btime_ns.get()})
    if (ns >= 1'000'000'000) bad_inode(inode, "nanoseconds of a time are not below 10^9");
  if (inode.on_orphan_list > 1) bad_inode(inode, "on_orphan_list is neither 0 nor 1");
  if (inode.on_orphan_list == 0 && inode.next_orphan != 0)
    bad_inode(inode, "next_orphan is set, but it is not on the orphan list");
  if (inode.links == 0 && inode.on_orphan_list == 0) bad_inode(inode, "has no links and is not on the orphan list");
  const bool is_device = S_ISCHR(inode.mode) || S_ISBLK(inode.mode);
  if (!is_device && inode.rdev != 0) bad_inode(inode, "rdev is set, but it is no device");
  if (!S_ISDIR(inode.mode) && inode.parent != 0) bad_inode(inode, "parent is set, but it is no directory");
  if (!S_ISREG(inode.mode) && inode.inline_extents != 0)
    bad_inode(inode, "inline_extents is set, but it is no regular file");
  if (!S_ISREG(inode.mode) && inode.blocks != 0) bad_inode(inode, "blocks is set, but it is no regular file");
  if (!S_ISLNK(inode.mode) && inode.inline_target != 0)
    bad_inode(inode, "inline_target is set, but it is no symbolic link");
}

void Checker::check_directory(const media::Inode& inode) {
  if (inode.parent == 0) bad_inode(inode, "directory without a parent");
  if (inode.number == kRootInode.value && (inode.parent != kRootInode.value || inode.links == 0))
    bad_inode(inode, "the root directory has another parent than itself, or no links");
  if (inode.data.block == 0 && inode.data.nodes != 0) bad_inode(inode, "directory: no root, but nodes");
  directories_.push_back({inode.number, inode.data, inode.size_bytes});
}

void Checker::check_special(const media::Inode& inode) {
  if (inode.size_bytes != 0) bad_inode(inode, "size_bytes is set, but it has no contents");
  if (inode.data.block != 0 || inode.data.nodes != 0) bad_inode(inode, "data is set, but it has no contents");
}

void Checker::check_regular(const media::Inode& inode) {
  ExtentSum sum;
  bool complete = true;
  if (inode.data.block == 0) {
    if (inode.data.nodes != 0) bad_inode(inode, "extent tree: no root, but nodes");
    for (std::size_t i = 0; i < inode.inline_extents; ++i) {
      media::InlineExtent entry;
      std::memcpy(&entry, inode.inline_data.data() + i * sizeof entry, sizeof entry);
      extents_offset_ = inode_offset_;
      check_extent(inode, entry.file_block, entry.extent, sum);
    }
  } else {
    if (inode.inline_extents != 0) bad_inode(inode, "has an extent tree and inline extents");
    complete =
        trees_.read(inode.data, media::TreeKind::kExtents, {Owner::Kind::kExtentTree, inode.number, inode_offset_},
                    [&](std::uint64_t key, std::span<const std::byte> bytes) {
                      media::ExtentRecord record;
                      std::memcpy(&record, bytes.data(), sizeof record);
                      extents_offset_ = trees_.leaf_offset();
                      check_extent(inode, key, record, sum);
                    });
  }
  if (complete && sum.blocks != inode.blocks)
    bad_inode(inode, "blocks is " + std::to_string(inode.blocks) + ", its extents have " + std::to_string(sum.blocks));
}

// Beyond the end of the file is allowed: preallocation, and a truncate that is not done.
void Checker::check_extent(const media::Inode& inode, std::uint64_t file_block, const media::ExtentRecord& record,
                           ExtentSum& sum) {
  const std::uint64_t length = record.length_blocks;
  const std::uint64_t last = kMaxFileSize / superblock_.block_size();
  const std::string name = "extent at file block " + std::to_string(file_block) + ": ";
  const auto bad = [&](const char* what) { findings_.add(inode_name(inode.number), name + what, extents_offset_); };
  if (length == 0 || file_block > last || length > last + 1 - file_block)
    return bad("empty, or beyond the largest file");
  if (file_block < sum.end) bad("overlaps the one before, or is out of order");
  if (record.flags != 0) bad("flags are not 0");
  sum.end = std::max(sum.end, file_block + length);
  sum.blocks += length;
  BlockOwners& owners = *all_owners_[index_of(superblock_.data_role(inode.flags))];
  if (file_block % owners.unit_blocks() != 0) bad("does not begin at a realtime extent of the file");
  owners.claim(record.device_block, length, {Owner::Kind::kData, inode.number, extents_offset_});
}

void Checker::check_symlink(const media::Inode& inode) {
  if (inode.inline_target != 0) {
    if (inode.inline_target != 1) bad_inode(inode, "inline_target is neither 0 nor 1");
    if (inode.data.block != 0 || inode.data.nodes != 0) bad_inode(inode, "has an inline target and a value chain");
    return;
  }
  const Owner owner{Owner::Kind::kTarget, inode.number, inode_offset_};
  std::uint64_t blocks = 0;
  if (trees_.read_chain(inode.data.block, inode.size_bytes, owner, blocks, nullptr) && blocks != inode.data.nodes)
    bad_inode(inode, "data.nodes is " + std::to_string(inode.data.nodes) + ", its target has " +
                         std::to_string(blocks) + " blocks");
}

// ---- extended attributes ----

void Checker::check_xattrs(const media::Inode& inode) {
  if (inode.xattrs.block == 0) {
    if (inode.xattrs.nodes != 0) bad_inode(inode, "xattr tree: no root, but nodes");
    if (inode.chain_blocks != 0) bad_inode(inode, "chain_blocks is set, but it has no xattrs");
    return;
  }
  names_.clear();
  std::uint64_t chain_blocks = 0;
  const bool complete = trees_.read(
      inode.xattrs, media::TreeKind::kXattrs, {Owner::Kind::kXattrTree, inode.number, inode_offset_},
      [&](std::uint64_t key, std::span<const std::byte> record) { chain_blocks += check_xattr(inode, key, record); });
  if (complete && chain_blocks != inode.chain_blocks)
    bad_inode(inode, "chain_blocks is " + std::to_string(inode.chain_blocks) + ", its xattrs have " +
                         std::to_string(chain_blocks));
}

// Returns the blocks of its chain. The record is verified.
std::uint64_t Checker::check_xattr(const media::Inode& inode, std::uint64_t key, std::span<const std::byte> record) {
  media::XattrRecord header;
  std::memcpy(&header, record.data(), sizeof header);
  const auto* text = reinterpret_cast<const char*>(record.data()) + sizeof header;
  const std::string_view name(text, header.name_length);
  const auto bad = [&](const std::string& what) {
    findings_.add(inode_name(inode.number), "xattr " + quoted(name) + ": " + what, trees_.leaf_offset());
  };
  const std::uint64_t first = name_key(superblock_.media().hash_seed, name);
  if (key < first || key >= first + kKeysPerName) bad("its key is not that of its name");
  if (!names_.add(key, name)) bad("is there twice");
  if ((header.flags & ~media::kXattrInChain) != 0) bad("unknown flags");
  const bool is_acl = name == acl::kAccessName || name == acl::kDefaultName;
  std::string value;
  std::uint64_t blocks = 0;
  if ((header.flags & media::kXattrInChain) == 0) {
    if (header.chain != 0) bad("chain is set, but the value lies in the record");
    if (is_acl) value.assign(text + name.size(), record.size() - sizeof header - name.size());
  } else if (!trees_.read_chain(header.chain, header.value_length,
                                {Owner::Kind::kXattrValue, inode.number, trees_.leaf_offset()}, blocks,
                                is_acl ? &value : nullptr)) {
    return blocks;
  }
  if (is_acl && !acl::parse(value)) bad("not a valid ACL");
  if (name == acl::kDefaultName && !S_ISDIR(inode.mode)) bad("only directories have one");
  return blocks;
}

}  // namespace plumb::checker
