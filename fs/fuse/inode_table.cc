#include "fs/fuse/inode_table.h"

#include <cassert>
#include <utility>

namespace plumb::fuse {

InodeRef InodeTable::find(std::uint64_t id) const {
  if (id == kRootInode.value) return root_;
  const Shard& shard = shard_of(id);
  const MutexLock lock(shard.mutex);
  const auto found = shard.inodes.find(id);
  return found == shard.inodes.end() ? InodeRef() : found->second.inode;
}

void InodeTable::add_lookup(const InodeRef& inode) {
  const std::uint64_t id = inode.number().value;
  if (id == kRootInode.value) return;
  Shard& shard = shard_of(id);
  const MutexLock lock(shard.mutex);
  Known& known = shard.inodes[id];
  if (!known.inode) known.inode = inode;
  assert(known.inode.get() == inode.get());
  ++known.lookups;
}

void InodeTable::forget(std::uint64_t id, std::uint64_t count) {
  if (id == kRootInode.value) return;
  InodeRef dropped;  // outlives the lock
  Shard& shard = shard_of(id);
  const MutexLock lock(shard.mutex);
  const auto found = shard.inodes.find(id);
  if (found == shard.inodes.end()) return;
  Known& known = found->second;
  assert(count <= known.lookups);
  if (count < known.lookups) {
    known.lookups -= count;
    return;
  }
  dropped = std::move(known.inode);
  shard.inodes.erase(found);
}

void InodeTable::clear() {
  for (Shard& shard : shards_) {
    absl::flat_hash_map<std::uint64_t, Known> dropped;
    const MutexLock lock(shard.mutex);
    dropped.swap(shard.inodes);
  }
}

}  // namespace plumb::fuse
