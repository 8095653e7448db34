#include "fs/core/bad_block_report.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "fs/core/btree.h"
#include "fs/media/verify.h"

namespace plumb {
namespace {

constexpr std::size_t kEntriesPerStep = 1024;
constexpr std::size_t kMaxDepth = 1024;  // of a path; a damaged tree of directories may have a loop

std::uint64_t kind_number(media::TreeKind kind) {
  return static_cast<std::uint64_t>(kind);
}

struct Name {
  std::uint64_t directory = 0;
  std::string name;
};

class Search {
 public:
  Search(Store& store, std::span<const BadBlock> entries) : store_(store), entries_(entries), found_(entries.size()) {}

  Result<std::vector<BadBlockReport>> run() {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const bool fixed = entries_[i].block.value < store_.superblock().entry(entries_[i].role).data_start;
      if (fixed) found_[i].use = BadBlockUse::kMetadata;
      if (entries_[i].owner == media::BadBlockOwner::kList) found_[i].use = BadBlockUse::kFree;
    }
    PLUMB_TRY(find_deleted());
    PLUMB_TRY(for_each_inode([this](const media::Inode& inode) { find_in(inode); }));
    PLUMB_TRY(find_names());
    return merged();
  }

 private:
  struct Found {
    BadBlockUse use = BadBlockUse::kUnknown;
    std::uint64_t inode = 0;
    std::uint64_t file_block = 0;
  };

  // The entries that lie in a range and whose use is not known yet.
  template <typename Visit>
  void for_entries_in(DeviceRole role, std::uint64_t start, std::uint64_t length, const Visit& visit) {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const std::uint64_t block = entries_[i].block.value;
      if (entries_[i].role == role && block >= start && block - start < length &&
          found_[i].use == BadBlockUse::kUnknown)
        visit(i);
    }
  }

  Status find_deleted() {
    Transaction t(store_);
    PLUMB_ASSIGN(const media::State* state, t.state());
    const BTree tree(store_, media::TreeKind::kReclaim, kind_number(media::TreeKind::kReclaim));
    return tree.visit(state->reclaim, 0, [this](std::uint64_t key, std::span<const std::byte> bytes) {
      media::ReclaimRecord record;
      std::memcpy(&record, bytes.data(), sizeof record);
      for_entries_in(static_cast<DeviceRole>(media::device_of_key(key)), media::number_of_key(key),
                     record.length_blocks, [this](std::size_t i) { found_[i].use = BadBlockUse::kDeleted; });
      return true;
    });
  }

  // Calls `visit` for each inode, under the transaction lock: its trees stand still.
  template <typename Visit>
  Status for_each_inode(const Visit& visit) {
    const BTree table(store_, media::TreeKind::kInodeTable, kind_number(media::TreeKind::kInodeTable));
    for (std::optional<std::uint64_t> next = 0; next;) {
      Transaction t(store_);
      PLUMB_ASSIGN(const media::State* state, t.state());
      std::optional<std::pair<std::uint64_t, std::uint64_t>> at;  // index and block
      PLUMB_TRY(table.visit(state->inode_table, *next, [&](std::uint64_t key, std::span<const std::byte> bytes) {
        media::Le64 block;
        std::memcpy(&block, bytes.data(), sizeof block);
        at = {key, block};
        return false;
      }));
      next.reset();
      if (!at) break;
      next = at->first + 1;
      const auto buffer = t.get(BlockNumber(at->second), BufferType::kInodes);
      if (!buffer) {
        unread_ = true;
        continue;
      }
      const std::uint64_t per_block = store_.superblock().inodes_per_block();
      for (std::uint64_t slot = 0; slot < per_block; ++slot) {
        media::Inode inode;
        std::memcpy(&inode, (*buffer)->bytes.get() + slot * sizeof inode, sizeof inode);
        const Status status = media::verify_inode(inode, at->first * per_block + slot);
        if (status)
          visit(inode);
        else if (status.error().code != ESTALE)
          unread_ = true;
      }
    }
    return {};
  }

  void find_in(const media::Inode& inode) {
    if (!S_ISREG(inode.mode)) return;
    const DeviceRole role = store_.superblock().data_role(inode.flags);
    const auto look = [&](std::uint64_t file_block, const media::ExtentRecord& extent) {
      for_entries_in(role, extent.device_block, extent.length_blocks, [&](std::size_t i) {
        found_[i] = {BadBlockUse::kFile, inode.number, file_block + entries_[i].block.value - extent.device_block};
        names_.try_emplace(inode.number);
      });
    };
    if (inode.data.block == 0) {
      for (std::size_t i = 0; i < inode.inline_extents; ++i) {
        media::InlineExtent entry;
        std::memcpy(&entry, inode.inline_data.data() + i * sizeof entry, sizeof entry);
        look(entry.file_block, entry.extent);
      }
      return;
    }
    const BTree tree(store_, media::TreeKind::kExtents, inode.number);
    const Status status = tree.visit(inode.data, 0, [&](std::uint64_t key, std::span<const std::byte> bytes) {
      media::ExtentRecord record;
      std::memcpy(&record, bytes.data(), sizeof record);
      look(key, record);
      return true;
    });
    if (!status) unread_ = true;
  }

  // ---- names ----

  static Result<media::Inode> inode_of(Transaction& t, std::uint64_t number) {
    Store& store = t.store();
    PLUMB_ASSIGN(const media::State* state, t.state());
    const BTree table(store, media::TreeKind::kInodeTable, kind_number(media::TreeKind::kInodeTable));
    const std::uint64_t per_block = store.superblock().inodes_per_block();
    PLUMB_ASSIGN(const auto record, table.find(state->inode_table, number / per_block));
    if (!record) return fail(ESTALE);
    media::Le64 block;
    std::memcpy(&block, record->data(), sizeof block);
    PLUMB_ASSIGN(const BufferRef buffer, t.get(BlockNumber(block), BufferType::kInodes));
    media::Inode inode;
    std::memcpy(&inode, buffer->bytes.get() + number % per_block * sizeof inode, sizeof inode);
    PLUMB_TRY(media::verify_inode(inode, number));
    return inode;
  }

  // Calls `visit` for the entries of a directory until it returns false. What cannot be read has no names.
  template <typename Visit>
  void for_each_name(std::uint64_t directory, const Visit& visit) {
    bool wanted = true;
    for (std::uint64_t from = 0; wanted;) {
      Transaction t(store_);
      const auto inode = inode_of(t, directory);
      if (!inode || !S_ISDIR(inode->mode)) return;
      const BTree tree(store_, media::TreeKind::kDirectory, directory);
      std::size_t seen = 0;
      const Status status = tree.visit(inode->data, from, [&](std::uint64_t key, std::span<const std::byte> bytes) {
        media::DirectoryRecord record;
        std::memcpy(&record, bytes.data(), sizeof record);
        from = key + 1;
        const std::string_view name(reinterpret_cast<const char*>(bytes.data()) + sizeof record, record.name_length);
        wanted = visit(record.inode, name);
        return wanted && ++seen < kEntriesPerStep;
      });
      if (!status || seen < kEntriesPerStep) return;
    }
  }

  Status find_names() {
    if (names_.empty()) return {};
    std::vector<std::uint64_t> directories;
    PLUMB_TRY(for_each_inode([&](const media::Inode& inode) {
      if (S_ISDIR(inode.mode)) directories.push_back(inode.number);
    }));
    std::size_t missing = names_.size();
    for (const std::uint64_t directory : directories) {
      if (missing == 0) break;
      for_each_name(directory, [&](std::uint64_t number, std::string_view name) {
        const auto it = names_.find(number);
        if (it == names_.end() || it->second.directory != 0) return true;
        it->second = {directory, std::string(name)};
        return --missing != 0;
      });
    }
    return {};
  }

  std::string path_of(std::uint64_t number) {
    Name at = names_[number];
    if (at.directory == 0) return {};
    std::string path = "/" + at.name;
    for (std::size_t depth = 0; at.directory != kRootInode.value; ++depth) {
      std::uint64_t parent = 0;
      {
        Transaction t(store_);
        const auto inode = inode_of(t, at.directory);
        if (inode) parent = inode->parent;
      }
      std::string name;
      for_each_name(parent, [&](std::uint64_t entry, std::string_view its_name) {
        if (entry == at.directory) name = its_name;
        return name.empty();
      });
      if (name.empty() || depth == kMaxDepth) return {};
      path.insert(0, "/" + name);
      at.directory = parent;
    }
    return path;
  }

  // ---- the result ----

  std::vector<BadBlockReport> merged() {
    std::vector<BadBlockReport> reports;
    const std::uint64_t block_size = store_.block_size();
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      BadBlockReport report;
      report.role = entries_[i].role;
      report.cursor = media::device_key(index_of(report.role), entries_[i].block.value);
      report.offset_bytes = entries_[i].block.value * block_size;
      report.length_bytes = block_size;
      report.use = found_[i].use;
      // Every file was looked at.
      if (report.use == BadBlockUse::kUnknown && !unread_) report.use = BadBlockUse::kMetadata;
      report.inode = InodeNumber(found_[i].inode);
      report.file_offset = found_[i].file_block * block_size;
      if (!reports.empty() && continues(reports.back(), report)) {
        reports.back().length_bytes += block_size;
        continue;
      }
      if (report.use == BadBlockUse::kFile) report.path = path_of(found_[i].inode);
      reports.push_back(std::move(report));
    }
    return reports;
  }
  static bool continues(const BadBlockReport& a, const BadBlockReport& b) {
    return a.role == b.role && a.offset_bytes + a.length_bytes == b.offset_bytes && a.use == b.use &&
           a.inode == b.inode && (a.use != BadBlockUse::kFile || a.file_offset + a.length_bytes == b.file_offset);
  }

  Store& store_;
  const std::span<const BadBlock> entries_;
  std::vector<Found> found_;                        // of each entry
  absl::flat_hash_map<std::uint64_t, Name> names_;  // of the files that have bad blocks
  bool unread_ = false;                             // some inode or tree
};

}  // namespace

std::string_view name_of(BadBlockUse use) {
  switch (use) {
    case BadBlockUse::kFree:
      return "free";
    case BadBlockUse::kFile:
      return "file";
    case BadBlockUse::kDeleted:
      return "deleted";
    case BadBlockUse::kMetadata:
      return "metadata";
    case BadBlockUse::kUnknown:
      break;
  }
  return "unknown";
}

Result<std::vector<BadBlockReport>> report_bad_blocks(Store& store, std::span<const BadBlock> entries) {
  return Search(store, entries).run();
}

}  // namespace plumb
