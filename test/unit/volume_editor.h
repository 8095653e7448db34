// Changes a volume behind its back, as damage would, but with right checksums: for tests of the check engine.
//
// The block size is kBlockSize. Thread safety: none; nobody has the volume mounted.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/core/node.h"
#include "fs/core/siphash.h"
#include "fs/core/superblock.h"
#include "fs/media/layout.h"
#include "fs/media/verify.h"
#include "test/unit/core_world.h"

namespace plumb::test {

using media::TreeRoot;
using Bytes = std::vector<std::byte>;

inline constexpr std::uint32_t kBlockSize = 1024;  // trees get deep soon

template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span<const T, 1>(&object, 1));
}

// Changes a volume behind its back; checksums are right afterwards.
class Editor {
 public:
  explicit Editor(const Members& members) : device_(members.main), superblock_(must(Superblock::read(members))) {}

  [[nodiscard]] const Superblock& superblock() const { return superblock_; }
  [[nodiscard]] std::uint64_t data_start() const { return superblock_.entry(DeviceRole::kMain).data_start; }
  [[nodiscard]] std::uint64_t blocks() const { return superblock_.blocks(DeviceRole::kMain); }
  [[nodiscard]] std::uint64_t offset(std::uint64_t block) const { return block * superblock_.block_size(); }
  [[nodiscard]] std::uint64_t hash(std::string_view name) const {
    return name_key(superblock_.media().hash_seed, name);
  }

  [[nodiscard]] Bytes load(std::uint64_t offset_bytes, std::uint64_t length) const {
    Bytes bytes(length);
    must(device_.load(offset_bytes, bytes));
    return bytes;
  }
  void store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) { must(device_.store(offset_bytes, bytes)); }
  void flip(std::uint64_t offset_bytes) {
    Bytes byte = load(offset_bytes, 1);
    byte[0] ^= std::byte{0x10};
    store(offset_bytes, byte);
  }

  [[nodiscard]] Bytes block(std::uint64_t number) const { return load(offset(number), superblock_.block_size()); }
  template <typename T, typename F>
  void edit(std::uint64_t number, const F& change) {
    Bytes bytes = block(number);
    change(*reinterpret_cast<T*>(bytes.data()));
    media::seal_block(bytes);
    store(offset(number), bytes);
  }
  template <typename F>
  void edit_node(std::uint64_t number, const F& change) {
    Bytes bytes = block(number);
    Node node(bytes.data(), bytes.size());
    change(node);
    media::seal_block(bytes);
    store(offset(number), bytes);
  }
  template <typename F>
  void edit_state(const F& change) {
    edit<media::State>(superblock_.media().state_block, change);
  }
  [[nodiscard]] media::State state() const {
    media::State state;
    std::memcpy(&state, block(superblock_.media().state_block).data(), sizeof state);
    return state;
  }
  void set_bit(std::uint64_t of_block, bool value) {
    const std::uint64_t bits = superblock_.bits_per_bitmap_block();
    edit<std::uint8_t[kBlockSize]>(bitmap_block(of_block / bits), [&](auto& bytes) {
      std::uint8_t& byte = bytes[sizeof(media::BitmapHeader) + of_block % bits / 8];
      const auto mask = static_cast<std::uint8_t>(1u << (of_block % 8));
      byte = static_cast<std::uint8_t>(value ? byte | mask : byte & ~mask);
    });
  }
  [[nodiscard]] std::uint64_t bitmap_block(std::uint64_t index) const {
    return superblock_.entry(DeviceRole::kMain).bitmap_start + index;
  }

  [[nodiscard]] std::uint64_t leaf(std::uint64_t node_block, std::uint64_t key) const {
    const Bytes bytes = block(node_block);
    const Node node = node_view(bytes.data(), bytes.size());
    return node.level() == 0 ? node_block : leaf(node.child(node.child_index(key)), key);
  }
  [[nodiscard]] std::uint64_t inode_block(std::uint64_t number) const {
    const std::uint64_t index = number / superblock_.inodes_per_block();
    const Bytes bytes = block(leaf(state().inode_table.block, index));
    const Node node = node_view(bytes.data(), bytes.size());
    return node.child(node.lower_bound(index));
  }
  [[nodiscard]] std::uint64_t inode_offset(std::uint64_t number) const {
    return offset(inode_block(number)) + number % superblock_.inodes_per_block() * sizeof(media::Inode);
  }
  [[nodiscard]] media::Inode inode(std::uint64_t number) const {
    media::Inode inode;
    std::memcpy(&inode, load(inode_offset(number), sizeof inode).data(), sizeof inode);
    return inode;
  }
  template <typename F>
  void edit_inode(std::uint64_t number, const F& change) {
    media::Inode copy = inode(number);
    change(copy);
    media::seal_inode(copy);
    store(inode_offset(number), bytes_of(copy));
  }
  template <typename F>
  void edit_extent(std::uint64_t number, std::size_t i, const F& change) {
    edit_inode(number, [&](media::Inode& inode) {
      change(*reinterpret_cast<media::InlineExtent*>(inode.inline_data.data() + i * sizeof(media::InlineExtent)));
    });
  }
  [[nodiscard]] media::InlineExtent extent(std::uint64_t number, std::size_t i) const {
    media::InlineExtent extent;
    std::memcpy(&extent, inode(number).inline_data.data() + i * sizeof extent, sizeof extent);
    return extent;
  }

  // An entry of a tree with hashed keys: the leaf that holds it, for change(node, slot).
  template <typename F>
  void edit_named(const TreeRoot& root, std::string_view name, const F& change) {
    edit_node(leaf(root.block, hash(name)), [&](Node& node) { change(node, node.lower_bound(hash(name))); });
  }
  void add_entry(std::uint64_t directory, std::string_view name, std::uint64_t number, std::uint8_t type,
                 std::uint64_t sequence = 0) {
    media::DirectoryRecord header;
    header.inode = number;
    header.type = type;
    header.name_length = static_cast<std::uint8_t>(name.size());
    std::string record(reinterpret_cast<const char*>(&header), sizeof header);
    record += name;
    const std::uint64_t key = hash(name) + sequence;
    edit_node(leaf(inode(directory).data.block, key),
              [&](Node& node) { node.insert(node.lower_bound(key), key, std::as_bytes(std::span(record))); });
    edit_inode(directory, [](media::Inode& inode) { inode.size_bytes = inode.size_bytes + 1; });
  }
  void remove_entry(std::uint64_t directory, std::string_view name) {
    edit_named(inode(directory).data, name, [](Node& node, std::size_t slot) { node.remove(slot); });
    edit_inode(directory, [](media::Inode& inode) { inode.size_bytes = inode.size_bytes - 1; });
  }
  template <typename Record, typename F>
  void edit_record(const TreeRoot& root, std::string_view name, const F& change) {
    edit_named(root, name, [&](Node& node, std::size_t slot) {
      const std::span<const std::byte> old = node.record(slot);
      Bytes record(old.begin(), old.end());
      change(*reinterpret_cast<Record*>(record.data()));
      node.overwrite(slot, record);
    });
  }
  void add_reclaim(std::uint64_t key, std::uint32_t length, std::uint8_t kind = 0) {
    media::ReclaimRecord record;
    std::memset(static_cast<void*>(&record), 0, sizeof record);
    record.length_blocks = length;
    record.kind = kind;
    edit_node(leaf(state().reclaim.block, key),
              [&](Node& node) { node.insert(node.lower_bound(key), key, bytes_of(record)); });
  }
  [[nodiscard]] std::uint64_t free_block() const {
    const std::uint64_t block = blocks() - 3;
    REQUIRE(must(device_.is_zero(offset(block), superblock_.block_size())));
    return block;
  }

 private:
  pmem::Device& device_;
  Superblock superblock_;
};

}  // namespace plumb::test
