// The extents of a file: up to three in the inode, more in a B+tree; all of them in DRAM (Inode::extents) once used.
//
// Changes go to the DRAM map and to the medium's form together. If the transaction does not commit, the caller drops
// the map (forget_extents) and it is read again: there is no undo to get wrong. All functions need the inode's
// exclusive lock.
#pragma once

#include <cstdint>

#include "fs/core/inode.h"
#include "fs/core/store.h"

namespace plumb {

/// Fills Inode::extents if that has not happened. EUCLEAN: overlapping, unsorted or out of the data area.
[[nodiscard]] Status load_extents(Store& store, Inode& inode);
inline void forget_extents(Inode& inode) {
  inode.extents.clear();
  inode.extents_loaded = false;
}

/// Adds blocks at `file_block`, where there was a hole; merges with neighbours. `next` is the inode being committed.
[[nodiscard]] Status insert_extent(Transaction& t, media::Inode& next, ExtentMap& extents, FileBlock file_block,
                                   BlockRange blocks);

/// Takes out what lies in [from, to), from the end backwards, at most `most` extents, and queues the blocks for reclaim
/// on their device. The range is whole units of that device. True when nothing is left in it.
[[nodiscard]] Result<bool> remove_extents(Transaction& t, media::Inode& next, ExtentMap& extents, FileBlock from,
                                          FileBlock to, std::size_t most);

/// Writes the inline form, or moves to a tree; after the last insert or remove of a transaction.
[[nodiscard]] Status settle_extents(Transaction& t, media::Inode& next, const ExtentMap& extents);

/// The extent that covers `file_block`, or the end().
[[nodiscard]] ExtentMap::const_iterator find_extent(const ExtentMap& extents, std::uint64_t file_block);

/// How many blocks of [first, end) no extent covers.
[[nodiscard]] std::uint64_t holes_between(const ExtentMap& extents, std::uint64_t first, std::uint64_t end);

/// Where the last extent ends, in blocks of the file.
[[nodiscard]] inline std::uint64_t allocated_end(const ExtentMap& extents) {
  return extents.empty() ? 0 : extents.rbegin()->first + extents.rbegin()->second.length;
}

/// A part of a file that lies in one piece on its device.
struct FilePiece {
  std::uint64_t offset;  // in the file
  std::uint64_t at;      // on the device
  std::uint64_t length;
};

/// The allocated pieces of [begin, end) of a file, in order, for a range-based for. In bytes, or in blocks with a
/// `block_size` of 1. The map must not change meanwhile.
class FilePieces {
 public:
  FilePieces(const ExtentMap& extents, std::uint64_t block_size, std::uint64_t begin, std::uint64_t end)
      : extents_(extents), block_size_(block_size), begin_(begin), end_(end) {}

  class Iterator {
   public:
    Iterator(const FilePieces& pieces, ExtentMap::const_iterator at) : pieces_(pieces), at_(at) {}
    FilePiece operator*() const;
    Iterator& operator++() {
      ++at_;
      return *this;
    }
    bool operator==(const Iterator& other) const { return at_ == other.at_; }

   private:
    const FilePieces& pieces_;
    ExtentMap::const_iterator at_;
  };
  [[nodiscard]] Iterator begin() const;
  [[nodiscard]] Iterator end() const;

 private:
  const ExtentMap& extents_;
  const std::uint64_t block_size_;
  const std::uint64_t begin_;
  const std::uint64_t end_;
};

}  // namespace plumb
