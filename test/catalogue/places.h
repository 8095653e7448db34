// Where the structures of a file system lie: found from the superblock on, by what they are, not by their offset.
//
// A structure is named in words:
//   superblock N                      copy 1 or 2
//   device I of superblock N          entry of its device table, from 0
//   label N                           copy of the member label on the realtime device
//   journal header N                  1 or 2
//   journal record N                  live record, counted from 1 with pads; or "last"
//   journal range N                   the first range of that record
//   state, window I
//   bitmap I, realtime bitmap I
//   inode PATH, inode number VALUE    the latter may be a free one
//   inode block PATH                  the whole block that the inode lies in
//   extent I of PATH                  in the inode
//   node OF TREE WHERE                OF is inode_table, reclaim, or extents, directory, xattrs with a PATH;
//                                     WHERE is root, "leaf I" in the order of keys, or "level L I"
//   slot I of node ...                key, offset and length of a record
//   record I of node ...              what the slot points to
//   entry NAME in PATH                record of a directory
//   xattr NAME of PATH                record of an attribute
//   value I of PATH                   block of the chain of a symbolic link's target, from 0
//   value I of xattr NAME of PATH     block of the chain of an attribute
//   block VALUE                       any block of the main device
//   realtime block VALUE
// PATH begins with a slash.
//
// A value is a sum: terms with " + " and " - " between them. A term is a number, FIELD of STRUCTURE, "block of
// STRUCTURE" (the number of the block that it lies in), "hash of NAME" (key of a name), "old" (what the field held), or
// one of blocks, data_start, journal (its first block), free (a block far behind that is free and zero),
// realtime_blocks, realtime_unit (in blocks), realtime_free.
//
// Thread safety: none needed; reads one medium that nobody changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/media/layout.h"
#include "test/catalogue/medium.h"
#include "test/catalogue/structures.h"

namespace plumb::catalogue {

/// What is checksummed together with a structure.
struct Seal {
  enum class Kind : std::uint8_t { kNone, kSuperblock, kMemberLabel, kBlock, kInode, kJournalHeader, kRecord };
  Kind kind = Kind::kNone;
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  std::uint32_t seed = 0;
};

struct Place {
  Structure structure = Structure::kBytes;
  std::size_t device = 0;  // 0 main, 1 realtime
  std::uint64_t offset_bytes = 0;
  std::uint64_t length_bytes = 0;
  Seal seal;
};

struct TreeSlot {
  std::uint64_t node_block = 0;
  std::size_t slot = 0;
};

class Places {
 public:
  /// The medium is sound, and outlives this.
  explicit Places(const Medium& medium);

  /// All throw std::runtime_error in words for the author of the text.
  [[nodiscard]] Place place(std::string_view text) const;
  [[nodiscard]] std::uint64_t value(std::string_view text, std::optional<std::uint64_t> old = {}) const;
  /// Each "{VALUE}" in `text` as a decimal number.
  [[nodiscard]] std::string expand(std::string_view text) const;

  [[nodiscard]] const media::Superblock& superblock() const { return superblock_; }
  [[nodiscard]] std::uint32_t block_size() const { return superblock_.block_size_bytes; }
  [[nodiscard]] std::uint64_t inode_number(std::string_view path) const;
  /// The leaf of the tree of a directory that a name belongs to, and where.
  [[nodiscard]] TreeSlot place_for_name(std::string_view directory, std::string_view name) const;
  /// The leaf of the reclaim tree that a key belongs to, and where.
  [[nodiscard]] TreeSlot place_in_reclaim(std::uint64_t key) const;

 private:
  struct Words;
  [[nodiscard]] std::span<const std::byte> block(std::uint64_t number) const;
  [[nodiscard]] media::State state() const;
  [[nodiscard]] media::Inode inode(std::uint64_t number) const;
  [[nodiscard]] std::uint64_t inode_offset(std::uint64_t number) const;
  [[nodiscard]] TreeSlot lower_bound(const media::TreeRoot& root, std::uint64_t key) const;
  [[nodiscard]] std::vector<std::uint64_t> nodes(const media::TreeRoot& root, unsigned level) const;
  [[nodiscard]] std::optional<TreeSlot> find_name(const media::TreeRoot& root, std::size_t name_offset,
                                                  std::string_view name) const;

  [[nodiscard]] Place in_block(Structure structure, std::uint64_t block_number, std::size_t offset,
                               std::size_t length) const;
  [[nodiscard]] Place journal_place(Words& words) const;
  [[nodiscard]] Place node_place(Words& words) const;
  [[nodiscard]] Place record_place(const TreeSlot& at) const;
  [[nodiscard]] Place slot_place(const TreeSlot& at) const;
  [[nodiscard]] Place value_place(Words& words) const;
  [[nodiscard]] TreeSlot named_slot(std::string_view path, std::string_view name, bool xattr) const;
  [[nodiscard]] Place parse(Words& words) const;
  [[nodiscard]] std::uint64_t term(std::string_view text, std::optional<std::uint64_t> old) const;

  const Medium& medium_;
  media::Superblock superblock_{};
};

/// The number in a field of the structure. Throws if it is none.
[[nodiscard]] std::uint64_t read_number(const Medium& medium, const Place& place, const Field& field);

}  // namespace plumb::catalogue
