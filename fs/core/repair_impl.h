// What repair (repair.h) is made of. Included by fs/core/repair*.cc only.
//
// Space is one device: its bitmap, who owns what, what may be taken. Planner goes through the volume in a fixed order
// and collects changes; nothing is stored. Changes are then stored by apply() in the order that repair.h argues for.
//
//   repair.cc         superblock, journal, passes, the state block
//   repair_space.cc   Space
//   repair_trees.cc   reading what is left of a tree, building a new one
//   repair_inodes.cc  inode table, inodes, targets, xattrs, extents
//   repair_names.cc   directories, links, lost+found, the orphan list
//   repair_apply.cc   storing it
//
// Why it ends on any image: as in the check engine, a block is read as metadata once; what has an owner is not taken by
// a second one.
//
// One thread; no locks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "fs/core/bit_runs.h"
#include "fs/core/check_impl.h"
#include "fs/core/journal.h"
#include "fs/core/repair.h"
#include "fs/core/superblock.h"
#include "fs/media/layout.h"

namespace plumb::repairer {

using checker::Image;

/// One device, in its units of allocation.
class Space {
 public:
  Space(const Superblock& superblock, DeviceRole role);

  /// Reads the bitmap. Parts that are damaged are unknown, and count as in use when a block is looked for.
  void load(const Image& image);

  /// Blocks of the block size that are whole units of the data area.
  [[nodiscard]] bool holds(std::uint64_t start_block, std::uint64_t blocks) const;
  [[nodiscard]] std::uint64_t unit_of(std::uint64_t block) const { return block / unit_; }

  /// Units with an owner in the repaired volume.
  BitSet owned;
  /// Units without one that must keep their contents until the repair is committed: old nodes, what is moved.
  BitSet kept;
  /// The bitmap as it is on the medium, and the units whose part of it is damaged.
  BitSet bits, unknown;
  /// Units that take() has given out.
  BitSet taken;

  /// A free unit for something new; it is owned then. Nothing: no space.
  [[nodiscard]] std::optional<std::uint64_t> take();

  [[nodiscard]] DeviceRole role() const { return role_; }
  [[nodiscard]] std::uint64_t unit_blocks() const { return unit_; }
  [[nodiscard]] std::uint64_t units() const { return units_; }
  [[nodiscard]] std::uint64_t data_start() const { return data_start_; }
  /// Blocks of the bitmap, by index, that are damaged or have a wrong header.
  [[nodiscard]] const std::vector<std::uint64_t>& damaged() const { return damaged_; }
  /// A bitmap block as it should be, sealed: `in_use` says which units are.
  [[nodiscard]] std::vector<std::byte> bitmap_block(std::uint64_t index,
                                                    absl::FunctionRef<std::uint64_t(std::uint64_t word)> in_use) const;

 private:
  const Superblock& superblock_;
  const DeviceRole role_;
  const std::uint64_t unit_, units_, data_start_;
  std::vector<std::uint64_t> damaged_;
  std::array<std::uint64_t, 2> cursors_;  // into what is known, into what is not
};

struct Entry {
  std::uint64_t key = 0;
  std::string record;
};

struct KeyRange {
  std::uint64_t low = 0, high = ~std::uint64_t{0};  // inclusive
};

/// What could be read of a tree.
struct Tree {
  std::vector<Entry> entries;        // by key, each key once
  std::vector<std::uint64_t> nodes;  // whose records are among the entries, or that led to them
  std::vector<KeyRange> lost;        // where a node was that is not there
  bool sound = true;                 // may stay as it is, but for the number of nodes in its root
};

/// A tree that is made anew, and where its root goes.
struct NewTree {
  enum class Place : std::uint8_t { kInodeTable, kReclaim, kBadBlocks, kData, kXattrs };
  Place place = Place::kData;
  std::uint64_t inode = 0;  // kData, kXattrs
  std::vector<Entry> entries;
};

class Planner {
 public:
  /// `next_sequence`: of the journal, for generations.
  Planner(const Superblock& superblock, const RepairOptions& options, RepairReport& report,
          std::uint64_t next_sequence);

  /// `image` may have the journal laid over it.
  [[nodiscard]] Image& image() { return image_; }
  /// Walks the volume and plans. ENOSPC, or an error of the device.
  [[nodiscard]] Status plan();
  /// Instead of plan(), after look(), if may_free(): only frees what nobody owns.
  void plan_space();
  /// Nothing is lost, so what has no owner has none.
  [[nodiscard]] bool may_free() const { return !want_search_ && !state_changed_; }
  [[nodiscard]] bool is_harmless() const { return harmless_; }
  [[nodiscard]] bool needs_bad_block_feature() const { return needs_bad_block_feature_; }
  /// Stores the plan; true if there was anything to store. The journal is recovered, and empty afterwards.
  [[nodiscard]] Result<bool> apply(Journal& journal);
  /// Moves what was planned to the report.
  void report_notes();

  /// Walks without planning, for may_replay_into().
  void look();
  /// The block is metadata, or waits for reclaim: not data, and not free.
  [[nodiscard]] bool may_replay_into(std::uint64_t block) const;

 private:
  struct Info {  // of a slot of the inode table
    std::uint64_t parent = 0;
    std::uint64_t namer = 0;  // of a directory: the one that has its name
    std::uint32_t links = 0;
    std::uint32_t names = 0;
    std::uint32_t subdirectories = 0;
    std::uint8_t type = 0;  // DT_*, 0: free
    bool listed = false;    // says that it is on the orphan list
    bool named = false;     // of a directory: its one name has been seen
    bool has_entries = false;
  };
  struct InodeBlock {
    std::uint64_t index = 0, block = 0;
  };
  struct Name {
    std::uint64_t inode = 0;
    std::uint8_t type = 0;
    std::string text;
  };
  struct FileExtent {
    std::uint64_t file_block = 0, device_block = 0, blocks = 0;
  };
  struct Piece {  // of a file
    FileExtent extent;
    enum class Fate : std::uint8_t { kStays, kCopied } fate = Fate::kStays;
  };
  struct FileData {
    std::uint64_t number = 0;
    DeviceRole role = DeviceRole::kMain;
    std::vector<Piece> pieces;
  };
  struct Copy {  // data that had two owners
    DeviceRole role = DeviceRole::kMain;
    std::uint64_t from = 0, to = 0;  // units
  };
  struct Change {  // bytes at a place that is in use
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes;
  };

  void note(std::string object, std::string what, bool harmless);
  void progress(std::uint64_t done, std::uint64_t total, std::string_view phase) const;
  [[nodiscard]] Space& space(DeviceRole role) { return *spaces_[index_of(role)]; }
  [[nodiscard]] std::span<const DeviceRole> roles() const;
  [[nodiscard]] std::uint32_t block_size() const { return image_.block_size(); }

  // repair.cc
  void read_state();
  void walk();
  void note_pending();
  void plan_reclaim();
  void plan_bad_blocks();
  bool find_unreadable(DeviceRole role, std::map<std::uint64_t, std::uint8_t>& listed);
  void plan_marks();
  void plan_windows();
  [[nodiscard]] Status plan_new_trees();
  void plan_bitmap();
  [[nodiscard]] std::uint64_t taken_word(DeviceRole role, std::uint64_t word) const;

  // repair_trees.cc
  /// Takes a block of the main device as metadata. False: it is outside, or has an owner.
  [[nodiscard]] bool own_metadata(std::uint64_t block);
  /// It has no owner any more, and keeps its contents until the repair is done.
  void disown(std::uint64_t block);
  [[nodiscard]] Tree read_tree(const media::TreeRoot& root, media::TreeKind kind, std::uint64_t owner, bool own);
  void read_node(Tree& tree, media::TreeKind kind, std::uint64_t owner, std::uint64_t block, int parent_level,
                 KeyRange range, bool own);
  [[nodiscard]] bool record_is_plausible(media::TreeKind kind, std::uint64_t key,
                                         std::span<const std::byte> record) const;
  void add_found_leaves(Tree& tree, media::TreeKind kind, std::uint64_t owner);
  /// Looks through every block in use that nobody owns for leaves and inode blocks. True if there are any.
  bool search_device();
  void use_loose_inode_blocks();
  void replace_tree(const Tree& old, NewTree::Place place, std::uint64_t inode, std::vector<Entry> entries);
  [[nodiscard]] Result<media::TreeRoot> build_tree(media::TreeKind kind, std::uint64_t owner,
                                                   std::span<const Entry> entries);
  [[nodiscard]] Result<std::uint64_t> new_block(std::span<const std::byte> bytes);
  /// The value, or nothing if the chain is not whole. Its blocks are owned if it is.
  [[nodiscard]] std::optional<std::string> read_chain(std::uint64_t first, std::uint64_t most_bytes,
                                                      std::uint64_t owner, std::vector<std::uint64_t>& blocks);

  // repair_inodes.cc
  void read_inode_table();
  [[nodiscard]] bool holds_inodes(std::uint64_t block, std::uint64_t index) const;
  void read_inode_block(std::size_t at);
  void read_slot(std::uint64_t number, const media::Inode& found, Info& info);
  [[nodiscard]] bool mend_by_checksum(media::Inode& inode, std::uint64_t number) const;
  [[nodiscard]] bool mend_inode(media::Inode& inode, std::uint64_t number, const Error& error, std::string& how);
  void mend_common(media::Inode& inode);
  [[nodiscard]] bool mend_contents(media::Inode& inode);
  [[nodiscard]] bool mend_target(media::Inode& inode);
  void mend_xattrs(media::Inode& inode);
  void clear_inode(std::uint64_t number, Info& info, const std::string& why);
  [[nodiscard]] media::Inode inode(std::uint64_t number) const;
  /// The inode as it will be, to change.
  [[nodiscard]] media::Inode& edit(std::uint64_t number);
  [[nodiscard]] Info* find(std::uint64_t number);
  [[nodiscard]] std::uint64_t number_of(std::size_t id) const;
  [[nodiscard]] std::uint64_t place_of(std::uint64_t number) const;  // byte on the main device
  [[nodiscard]] Result<std::uint64_t> new_inode(std::uint32_t mode, std::uint64_t parent);
  [[nodiscard]] Result<std::size_t> new_inode_block(std::uint64_t index);
  std::uint64_t put_new_inode(std::size_t id, std::uint32_t mode, std::uint64_t parent);
  [[nodiscard]] std::vector<FileExtent> extents_of(const media::Inode& inode, bool& changed);
  void claim_data();
  void claim_data_of(std::uint64_t number, bool doubtful);
  [[nodiscard]] Status rewrite_data();
  [[nodiscard]] Status rewrite_data_of(const FileData& file);

  // repair_names.cc
  void read_names();
  void note_children(std::uint64_t directory, const Tree& tree);
  [[nodiscard]] Tree tree_of(const media::Inode& inode, media::TreeKind kind);
  [[nodiscard]] std::optional<Name> name_in(const Entry& entry) const;
  void cut_loops();
  [[nodiscard]] Status plan_directories();
  [[nodiscard]] std::vector<Name> names_to_keep(std::uint64_t directory, const Tree& tree, bool& changed, bool count);
  [[nodiscard]] Status plan_directory(std::uint64_t number, std::span<const Name> more, bool count);
  [[nodiscard]] Status mend_root();
  [[nodiscard]] Status reconnect();
  void plan_links();
  void plan_orphans();

  // repair_apply.cc
  [[nodiscard]] Result<bool> set_bits(Journal& journal);
  [[nodiscard]] Status store_new();
  [[nodiscard]] Result<bool> zero_free();
  bool zero_unit(DeviceRole role, std::uint64_t unit);
  [[nodiscard]] Result<bool> commit_metadata(Journal& journal);
  [[nodiscard]] Result<bool> free_blocks(Journal& journal);
  [[nodiscard]] static Status commit(Journal& journal, const std::vector<Change>& changes);
  void add_change(std::vector<Change>& changes, std::uint64_t offset, std::span<const std::byte> bytes) const;
  [[nodiscard]] static std::uint64_t used_word(const Space& space, std::uint64_t word);

  const Superblock& superblock_;
  const RepairOptions& options_;
  RepairReport& report_;
  const std::uint64_t next_sequence_;
  pmem::Device& device_;
  Image image_;
  std::array<std::unique_ptr<Space>, media::kMaxDevices> spaces_;
  BitSet metadata_;  // of the main device: owned as metadata
  BitSet pending_;   // of the main device: waits for reclaim

  bool harmless_ = true;
  media::State state_{};
  bool state_changed_ = false;
  bool needs_bad_block_feature_ = false;
  std::array<bool, media::kMaxDevices> zero_all_{};           // which free blocks are zero is not known
  std::vector<std::pair<DeviceRole, KeyRange>> zero_ranges_;  // units, end exclusive: free ones are zeroed

  bool want_inodes_ = false;  // the inode table does not know all inode blocks
  bool want_search_ = false;  // something is lost that a search of the device may find
  std::map<std::pair<std::uint8_t, std::uint64_t>, std::vector<std::uint64_t>> found_leaves_;  // kind, owner -> blocks
  std::map<std::uint64_t, std::vector<std::uint64_t>> loose_inode_blocks_;  // index -> blocks that a search found
  std::map<std::uint64_t, std::uint64_t> found_inode_blocks_;               // those of them that are believed

  std::vector<InodeBlock> inode_blocks_;  // by index
  std::vector<Info> inodes_;              // slots of inode_blocks_[0], of inode_blocks_[1], ...
  std::vector<std::uint64_t> directories_;
  std::vector<std::uint64_t> files_to_look_at_;  // regular files with extents
  bool table_changed_ = false;
  Tree table_, reclaim_, bad_blocks_;
  absl::flat_hash_map<std::uint64_t, Tree> unsound_;  // by inode: directories and extents of which something is lost
  absl::flat_hash_set<std::uint64_t> doubtful_;       // inodes whose checksum was wrong
  absl::flat_hash_set<std::uint64_t> oversized_;      // regular files whose size is beyond all sense
  std::vector<FileData> rewritten_;
  std::array<std::uint64_t, media::kMaxDevices> claimed_{};  // units, with those of other owners
  std::uint64_t lost_found_ = 0;

  std::vector<Repair> notes_;
  absl::flat_hash_map<std::uint64_t, media::Inode> edits_;
  absl::flat_hash_set<std::uint64_t> cleared_;  // slots that become zeros
  std::vector<NewTree> new_trees_;
  absl::flat_hash_map<std::uint64_t, std::vector<std::byte>> new_blocks_;
  std::vector<Copy> copies_;
};

/// Headers that cannot be read are made anew, so that recovery finds every record that is still there
/// (repair_journal.cc). False: that is needed, and not done with `preen`.
[[nodiscard]] Result<bool> mend_journal(const Superblock& superblock, const RepairOptions& options,
                                        RepairReport& report);

/// The bytes of an object on the medium.
template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span<const T, 1>(&object, 1));
}

}  // namespace plumb::repairer
