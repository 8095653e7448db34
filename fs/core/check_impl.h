// What the check engine (check.h) is made of. Included by fs/core/check*.cc only.
//
// Findings collects problems. Image reads blocks as recovery would make them. BlockOwners holds the bitmap and who
// claims which block. TreeReader walks trees and value chains and claims their blocks. Checker goes through everything
// in order.
//
// Why it ends on any image: whoever reads a block of metadata claims it first, and a block that has an owner already is
// not read again. So no node, chain block or inode block is visited twice, whatever a damaged pointer says.
//
// One thread; no locks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "fs/core/check.h"
#include "fs/core/superblock.h"
#include "fs/media/layout.h"

namespace plumb::checker {

/// Who a block belongs to.
struct Owner {
  enum class Kind : std::uint8_t {
    kInodeTable,
    kInodeBlock,  // number: its index
    kReclaimTree,
    kReclaimEntry,
    kBadBlockTree,
    kBadBlock,  // of the list
    kData,      // from here on, number: the inode
    kExtentTree,
    kDirectory,
    kXattrTree,
    kXattrValue,
    kTarget,
  };
  Kind kind = Kind::kData;
  std::uint64_t number = 0;
  std::uint64_t offset_bytes = Error::kNoOffset;  // of what refers to the block, on the main device

  [[nodiscard]] std::string object() const;  // "inode 17", "inode table": what a problem is about
  [[nodiscard]] std::string part() const;    // "extent tree: ", or nothing where the object says it all
  [[nodiscard]] std::string text() const;    // "inode 17 (extent tree)"
};

[[nodiscard]] std::string inode_name(std::uint64_t number);
/// "block 7", "realtime extents 7..9"; `end` is the first one behind.
[[nodiscard]] std::string blocks_name(DeviceRole role, std::uint64_t start, std::uint64_t end);

class Findings {
 public:
  explicit Findings(CheckReport& report) : report_(report) {}
  void add(std::string object, std::string what, std::uint64_t offset_bytes = Error::kNoOffset, bool checksum = false);
  /// What a verifier or the device said. `context` goes before it; the object's name at its beginning is left out.
  void add_error(std::string object, std::string_view context, const Error& error,
                 std::uint64_t offset_bytes = Error::kNoOffset);
  /// Nothing is added while muted: for the second walk, which sees the same again.
  void set_muted(bool muted) { muted_ = muted; }

 private:
  CheckReport& report_;
  bool muted_ = false;
};

class Image {
 public:
  Image(pmem::Device& device, const Superblock& superblock)
      : device_(device), block_size_(superblock.block_size()), blocks_(superblock.blocks(DeviceRole::kMain)) {}

  /// What replay of the journal would store.
  [[nodiscard]] Status overlay(std::uint64_t home_offset_bytes, std::span<const std::byte> bytes);
  [[nodiscard]] Status load(std::uint64_t block, std::span<std::byte> out) const;
  /// Calls `visit` for each block that replay changes.
  void for_overlaid(absl::FunctionRef<void(std::uint64_t block, std::span<const std::byte> bytes)> visit) const;

  [[nodiscard]] std::uint32_t block_size() const { return block_size_; }
  [[nodiscard]] std::uint64_t blocks() const { return blocks_; }

 private:
  pmem::Device& device_;
  const std::uint32_t block_size_;
  const std::uint64_t blocks_;
  absl::flat_hash_map<std::uint64_t, std::unique_ptr<std::byte[]>> overlay_;
};

/// Of one device. "Block" is its unit of allocation here: a block of the main device, a realtime extent.
class BlockOwners {
 public:
  BlockOwners(const Superblock& superblock, DeviceRole role, const Image& image, Findings& findings);

  /// Reads and checks the bitmap. Blocks whose part of it is damaged are not judged later.
  void load_bitmap();
  [[nodiscard]] std::uint64_t blocks_used() const { return blocks_used_; }

  /// Start and length in blocks of the block size. True if they lie in the data area, are whole units and had no owner.
  /// Otherwise, and if they are free in the bitmap, says so.
  bool claim(std::uint64_t start, std::uint64_t length, Owner owner);
  /// What the bitmap says about a block; true where it is damaged.
  [[nodiscard]] bool is_allocated(std::uint64_t block) const;
  /// Some metadata cannot be read: blocks without an owner may be its own.
  void note_unread() { unread_ = true; }
  [[nodiscard]] std::uint64_t blocks() const { return blocks_; }
  [[nodiscard]] std::uint64_t data_start() const { return data_start_; }
  [[nodiscard]] std::uint64_t unit_blocks() const { return unit_; }

  /// After the walk: what nobody claimed, and what lies above the zeroed mark.
  void check_unowned();
  void check_above_mark(std::uint64_t zeroed_upto);

  /// Blocks with two owners: only the second one is known when it turns up. For a second walk, which must make the same
  /// claims in the same order: afterwards the first ones are known, and reported.
  [[nodiscard]] bool has_conflicts() const { return !conflicts_.empty(); }
  void begin_naming();
  void report_conflicts();

  /// Last: free blocks below the mark read as zeros, but for those in `exempt`.
  struct Run {
    std::uint64_t start = 0, end = 0;
  };
  void check_zeros(std::uint64_t zeroed_upto, std::span<const Run> exempt, const CheckOptions& options);

 private:
  struct Conflict {
    Run run;
    Owner second;
    Owner first;
    bool named = false;
  };
  [[nodiscard]] bool any_claimed(Run run) const;
  void mark_claimed(Run run);
  void note_conflicts(Run run, Owner owner);
  void name_conflicts(Run run, Owner owner);
  void find_nonzero(Run run, std::vector<Run>& found);
  [[nodiscard]] bool is_known(Run run) const;  // no part of its bitmap is damaged
  [[nodiscard]] std::uint64_t offset_of(std::uint64_t block) const {
    return role_ == DeviceRole::kMain ? block * image_.block_size() : Error::kNoOffset;
  }
  [[nodiscard]] std::string name(std::uint64_t start, std::uint64_t end) const {
    return blocks_name(role_, start, end);
  }

  const Superblock& superblock_;
  const DeviceRole role_;
  const Image& image_;
  Findings& findings_;
  const std::uint64_t unit_, blocks_, data_start_;
  std::vector<std::uint64_t> bits_;     // of the bitmap: 1 allocated
  std::vector<std::uint64_t> claimed_;  // 1: has an owner
  std::vector<Run> unknown_;            // parts of the bitmap that are damaged
  std::vector<Conflict> conflicts_;
  std::uint64_t blocks_used_ = 0;
  std::uint64_t claimed_total_ = 0;
  std::size_t unnamed_ = 0;
  bool naming_ = false;
  bool unread_ = false;
  bool hopeless_ = false;
};

class TreeReader {
 public:
  /// `on_unread` hears of metadata that cannot be read.
  TreeReader(const Image& image, BlockOwners& owners, Findings& findings, std::function<void()> on_unread)
      : image_(image), owners_(owners), findings_(findings), on_unread_(std::move(on_unread)) {}

  /// Calls `visit` for the records in key order. True if every node was good; then their number was compared too.
  /// `visit` does not read trees.
  using Visit = absl::FunctionRef<void(std::uint64_t key, std::span<const std::byte> record)>;
  bool read(const media::TreeRoot& root, media::TreeKind kind, Owner owner, Visit visit);

  /// Where the leaf lies whose records are being visited.
  [[nodiscard]] std::uint64_t leaf_offset() const { return leaf_offset_; }

  /// Reads a value chain of `length_bytes`. `blocks` counts what it has. False if it is not whole. `value` may be null.
  bool read_chain(std::uint64_t first_block, std::uint64_t length_bytes, Owner owner, std::uint64_t& blocks,
                  std::string* value);

 private:
  struct Walk {
    media::TreeKind kind;
    Owner owner;
    Visit visit;
    std::uint64_t nodes = 0;
    bool complete = true;
  };
  struct Place {
    std::uint64_t block = 0;
    std::uint64_t parent = 0;  // block of the node above
    std::size_t depth = 0;
    int parent_level = 0;
    std::uint64_t lowest = 0, highest = 0;  // keys that may be below
  };
  void read_node(Walk& walk, const Place& place);
  void read_leaf(Walk& walk, const Place& place, std::span<std::byte> bytes);
  bool node_is_sane(Walk& walk, const Place& place, std::span<const std::byte> bytes);
  void complain(Walk& walk, std::uint64_t block, const std::string& what);

  const Image& image_;
  BlockOwners& owners_;
  Findings& findings_;
  const std::function<void()> on_unread_;
  std::array<std::vector<std::byte>, 17> levels_;  // a node of each depth
  std::vector<std::byte> chain_block_;
  std::uint64_t leaf_offset_ = Error::kNoOffset;
};

/// The names of one hash in a row: finds a name that comes twice.
class NameRun {
 public:
  /// False if the name was there already. Keys come in ascending order.
  [[nodiscard]] bool add(std::uint64_t key, std::string_view name);
  void clear() { count_ = 0; }

 private:
  std::uint64_t hash_ = 0;
  std::size_t count_ = 0;
  std::vector<std::string> names_;  // the first count_; the others keep their memory
};

class Checker {
 public:
  Checker(const Superblock& superblock, const CheckOptions& options, CheckReport& report);
  void run();

 private:
  static constexpr std::uint8_t kFree = 0;  // InodeInfo::type, else DT_*
  static constexpr std::uint8_t kDamaged = 0xff;

  struct InodeInfo {
    std::uint64_t parent = 0;
    std::uint32_t links = 0;
    std::uint32_t names = 0;           // entries that point here
    std::uint32_t subdirectories = 0;  // entries in here that are directories
    std::uint8_t type = kFree;
    bool partly_read = false;  // a directory whose tree is damaged
  };
  struct DirectoryToRead {
    std::uint64_t number = 0;
    media::TreeRoot entries;
    std::uint64_t size = 0;
  };
  struct InodeBlock {
    std::uint64_t index = 0, block = 0;
    std::uint64_t leaf_offset = 0;  // of the node that names it
  };
  struct ExtentSum {
    std::uint64_t end = 0, blocks = 0;
  };

  // check.cc
  void replay_journal();
  void check_journal_headers();
  void check_superblock_copies();
  void check_member_labels();
  [[nodiscard]] bool may_be_torn(const media::Superblock& copy, const media::Superblock& good) const;
  [[nodiscard]] bool may_be_torn(const media::JournalHeader& header, const media::JournalHeader& good) const;
  bool read_state();
  void check_windows();
  void check_bad_blocks();
  void check_reclaim();
  void walk();
  void progress(std::uint64_t done, std::uint64_t total, std::string_view phase) const;

  // check_inodes.cc
  void read_inode_table();
  void read_inode_blocks();
  void read_slots(const InodeBlock& where, std::size_t first_id);
  void read_inode(InodeInfo& info, const media::Inode& inode);
  void check_common(const media::Inode& inode);
  void check_directory(const media::Inode& inode);
  void check_regular(const media::Inode& inode);
  void check_extent(const media::Inode& inode, std::uint64_t file_block, const media::ExtentRecord& record,
                    ExtentSum& sum);
  void check_symlink(const media::Inode& inode);
  void check_special(const media::Inode& inode);
  void check_xattrs(const media::Inode& inode);
  std::uint64_t check_xattr(const media::Inode& inode, std::uint64_t key, std::span<const std::byte> record);
  void bad_inode(const media::Inode& inode, std::string what);

  // check_names.cc
  void read_directories();
  void read_entry(const DirectoryToRead& directory, std::uint64_t key, std::span<const std::byte> record);
  void check_orphan_list();
  void check_links();
  void check_links_of(std::uint64_t number, const InodeInfo& info, std::uint64_t& unnamed);
  void check_connected();
  [[nodiscard]] bool window_is_sane(const media::WindowSlot& slot) const;
  [[nodiscard]] std::span<BlockOwners*> owners();
  void note_unread();
  [[nodiscard]] InodeInfo* find_inode(std::uint64_t number);
  [[nodiscard]] std::uint64_t number_of(std::size_t id) const;
  [[nodiscard]] std::uint64_t place_of(std::uint64_t number) const;  // byte on the main device, or kNoOffset
  [[nodiscard]] std::uint64_t state_offset() const { return superblock_.media().state_block * image_.block_size(); }

  pmem::Device& device_;
  const Superblock& superblock_;
  const CheckOptions& options_;
  CheckReport& report_;
  Findings findings_;
  Image image_;
  BlockOwners owners_;                            // of the main device
  std::unique_ptr<BlockOwners> realtime_owners_;  // null without a realtime device
  std::array<BlockOwners*, media::kMaxDevices> all_owners_{};
  TreeReader trees_;

  media::State state_{};
  std::vector<std::byte> inode_block_;
  std::vector<InodeBlock> inode_blocks_;  // by index
  std::vector<InodeInfo> inodes_;         // slots of inode_blocks_[0], of inode_blocks_[1], ...
  std::vector<DirectoryToRead> directories_;
  absl::flat_hash_map<std::uint64_t, std::uint64_t> orphans_;  // inode that says it is on the list -> next
  NameRun names_;
  std::uint64_t used_ = 0, used_directories_ = 0, used_files_ = 0;
  std::uint64_t inode_offset_ = 0;                       // of the inode being checked
  std::uint64_t extents_offset_ = 0;                     // of its extents: the inode, or a leaf
  std::array<bool, media::kMaxDevices> mark_is_sane_{};  // zeroed_upto
  bool table_complete_ = true;                           // every inode is known
  bool names_complete_ = true;                           // every name is known
};

/// For messages: control characters and the like as \xNN.
[[nodiscard]] std::string quoted(std::string_view name);

}  // namespace plumb::checker
