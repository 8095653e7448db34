// The inodes that the kernel knows: node id -> inode and lookup count (nlookup).
//
// The node id is the inode number; FUSE_ROOT_ID is kRootInode. The table holds one InodeRef for as long as the kernel's
// count is above zero, so a number cannot be given to a new inode before the kernel has forgotten the old one.
//
// Invariants: every entry but the root has a count above zero; a count goes up before the reply that tells the kernel
// of it, because the matching forget may arrive before the reply call returns. The root is always there and not
// counted.
//
// Thread safety: all functions from any thread. The lock of a shard is a leaf: nothing is called and no InodeRef is
// dropped under it, as dropping the last one works on the volume.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "fs/core/mutex.h"
#include "fs/core/volume.h"

namespace plumb::fuse {

class InodeTable {
 public:
  explicit InodeTable(InodeRef root) : root_(std::move(root)) {}

  /// Empty if the kernel does not know this id.
  [[nodiscard]] InodeRef find(std::uint64_t id) const;

  /// One more lookup of `inode` is about to be told to the kernel.
  void add_lookup(const InodeRef& inode);

  /// The kernel gives back `count` lookups.
  void forget(std::uint64_t id, std::uint64_t count);

  /// Forgets everything but the root: for the end of the session, when no request runs any more.
  void clear();

 private:
  struct Known {
    InodeRef inode;
    std::uint64_t lookups = 0;
  };
  struct alignas(64) Shard {
    mutable Mutex mutex;
    absl::flat_hash_map<std::uint64_t, Known> inodes PLUMB_GUARDED_BY(mutex);
  };
  static constexpr std::size_t kShards = 64;

  [[nodiscard]] Shard& shard_of(std::uint64_t id) { return shards_[id % kShards]; }
  [[nodiscard]] const Shard& shard_of(std::uint64_t id) const { return shards_[id % kShards]; }

  const InodeRef root_;
  std::array<Shard, kShards> shards_;
};

}  // namespace plumb::fuse
