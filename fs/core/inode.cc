#include "fs/core/inode.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "fs/core/btree.h"
#include "fs/media/verify.h"

namespace plumb {
namespace {

constexpr std::uint64_t kTableOwner = static_cast<std::uint64_t>(media::TreeKind::kInodeTable);

Result<media::Inode> inode_in(const BufferRef& buffer, std::uint64_t slot, InodeNumber number) {
  media::Inode inode;
  std::memcpy(&inode, buffer->bytes.get() + slot * media::kInodeBytes, sizeof inode);
  PLUMB_TRY(media::verify_inode(inode, number.value));
  return inode;
}

}  // namespace

// ---- InodeTable ----

Status InodeTable::load() {
  Transaction t(store_);  // for the lock; nothing changes
  PLUMB_ASSIGN(const media::State* state, t.state());
  const std::uint64_t per_block = store_.superblock().inodes_per_block();
  BTree tree(store_, media::TreeKind::kInodeTable, kTableOwner);
  Status bad;
  PLUMB_TRY(tree.visit(state->inode_table, 0, [&](std::uint64_t index, std::span<const std::byte> record) {
    media::Le64 block;
    std::memcpy(&block, record.data(), sizeof block);
    if (index > (std::uint64_t{1} << 55)) {
      bad = fail(EUCLEAN, "inode table: index out of range");
      return false;
    }
    const auto buffer = store_.buffers().get(BlockNumber(block), BufferType::kInodes);
    if (!buffer) {
      bad = tl::unexpected(buffer.error());
      return false;
    }
    InodeBlock entry;
    entry.block = BlockNumber(block);
    for (std::uint64_t slot = 0; slot < per_block; ++slot) {
      media::Le32 magic;
      std::memcpy(&magic, (*buffer)->bytes.get() + slot * media::kInodeBytes, sizeof magic);
      if (magic == 0 && !(index == 0 && slot == 0)) continue;
      entry.used.set(slot);
      if (index != 0 || slot != 0) used_.fetch_add(1, std::memory_order_relaxed);
    }
    if (entry.used.count() < per_block) with_room_.insert(index);
    index_.emplace(index, entry);
    return true;
  }));
  PLUMB_TRY(bad);
  return load_orphans(t);
}

Status InodeTable::load_orphans(Transaction& t) {
  PLUMB_ASSIGN(const media::State* state, t.state());
  std::uint64_t previous = 0;
  for (std::uint64_t number = state->orphan_head; number != 0;) {
    PLUMB_ASSIGN(const media::Inode inode, read(t, InodeNumber(number)));
    if (inode.on_orphan_list == 0 || orphans_.contains(number))
      return fail(EUCLEAN, "inode " + std::to_string(number) + ": the orphan list is broken here");
    orphans_[number] = {previous, inode.next_orphan};
    previous = number;
    number = inode.next_orphan;
  }
  return {};
}

std::vector<InodeNumber> InodeTable::orphans(Transaction&) const {
  std::vector<InodeNumber> out;
  for (const auto& [number, links] : orphans_) out.emplace_back(number);
  return out;
}

Result<media::Inode*> InodeTable::in_place(Transaction& t, InodeNumber number) {
  PLUMB_ASSIGN(const BufferRef buffer, buffer_of(number));
  const std::uint64_t slot = number.value % store_.superblock().inodes_per_block();
  return reinterpret_cast<media::Inode*>(t.modify(buffer) + slot * media::kInodeBytes);
}

Status InodeTable::link_orphan(Transaction& t, InodeNumber number, std::uint64_t next, bool listed) {
  PLUMB_ASSIGN(media::Inode * inode, in_place(t, number));
  inode->next_orphan = next;
  inode->on_orphan_list = listed ? 1 : 0;
  media::seal_inode(*inode);
  return {};
}

Status InodeTable::add_orphan(Transaction& t, InodeNumber number) {
  if (orphans_.contains(number.value)) return {};
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  const std::uint64_t head = state->orphan_head;
  PLUMB_TRY(link_orphan(t, number, head, true));
  state->orphan_head = number.value;
  t.on_commit([this, head, number] {
    orphans_[number.value] = {0, head};
    if (head != 0) orphans_[head].previous = number.value;
  });
  return {};
}

Status InodeTable::remove_orphan(Transaction& t, InodeNumber number) {
  const auto it = orphans_.find(number.value);
  if (it == orphans_.end()) return {};
  const OrphanLinks links = it->second;
  PLUMB_TRY(link_orphan(t, number, 0, false));
  if (links.previous == 0) {
    PLUMB_ASSIGN(media::State * state, t.modify_state());
    state->orphan_head = links.next;
  } else {
    PLUMB_TRY(link_orphan(t, InodeNumber(links.previous), links.next, true));
  }
  t.on_commit([this, links, number] {
    orphans_.erase(number.value);
    if (links.previous != 0) orphans_[links.previous].next = links.next;
    if (links.next != 0) orphans_[links.next].previous = links.previous;
  });
  return {};
}

Result<BufferRef> InodeTable::buffer_of(InodeNumber number) {
  const auto it = index_.find(number.value / store_.superblock().inodes_per_block());
  if (it == index_.end()) return fail(ESTALE);
  return store_.buffers().get(it->second.block, BufferType::kInodes);
}

Result<media::Inode> InodeTable::read(Transaction&, InodeNumber number) {
  PLUMB_ASSIGN(const BufferRef buffer, buffer_of(number));
  return inode_in(buffer, number.value % store_.superblock().inodes_per_block(), number);
}

Status InodeTable::new_block(Transaction& t, std::uint64_t index) {
  PLUMB_ASSIGN(const BufferRef buffer, t.allocate(BufferType::kInodes, 0));
  PLUMB_ASSIGN(media::State * state, t.modify_state());
  const media::Le64 block(buffer->block.value);
  BTree tree(store_, media::TreeKind::kInodeTable, kTableOwner);
  PLUMB_TRY(tree.put(t, state->inode_table, index, std::as_bytes(std::span(&block, 1))));
  index_[index].block = buffer->block;
  if (index == 0) index_[index].used.set(0);
  with_room_.insert(index);
  t.on_abort([this, index] {
    index_.erase(index);
    with_room_.erase(index);
  });
  return {};
}

Result<InodeNumber> InodeTable::allocate(Transaction& t) {
  const std::uint64_t per_block = store_.superblock().inodes_per_block();
  if (with_room_.empty()) {
    std::uint64_t index = index_.size();  // the lowest number that has no block
    if (!index_.empty() && index_.rbegin()->first + 1 != index_.size()) {
      index = 0;
      for (const auto& [used_index, block] : index_) {
        if (used_index != index) break;
        ++index;
      }
    }
    PLUMB_TRY(new_block(t, index));
  }
  const std::uint64_t index = *with_room_.begin();
  InodeBlock& entry = index_[index];
  std::uint64_t slot = 0;
  while (entry.used.test(slot)) ++slot;
  entry.used.set(slot);
  if (entry.used.count() == per_block) with_room_.erase(index);
  used_.fetch_add(1, std::memory_order_relaxed);
  t.on_abort([this, index, slot] {
    index_[index].used.reset(slot);
    with_room_.insert(index);
    used_.fetch_sub(1, std::memory_order_relaxed);
  });
  return InodeNumber(index * per_block + slot);
}

Status InodeTable::put(Transaction& t, media::Inode& inode) {
  PLUMB_ASSIGN(media::Inode * place, in_place(t, InodeNumber(inode.number)));
  inode.next_orphan = place->next_orphan;
  inode.on_orphan_list = place->on_orphan_list;
  media::seal_inode(inode);
  *place = inode;
  return {};
}

Status InodeTable::free(Transaction& t, InodeNumber number) {
  const std::uint64_t per_block = store_.superblock().inodes_per_block();
  const std::uint64_t index = number.value / per_block;
  const std::uint64_t slot = number.value % per_block;
  PLUMB_ASSIGN(const BufferRef buffer, buffer_of(number));
  std::memset(t.modify(buffer) + slot * media::kInodeBytes, 0, media::kInodeBytes);
  InodeBlock& entry = index_[index];
  if (entry.used.count() == 1) {
    PLUMB_ASSIGN(media::State * state, t.modify_state());
    BTree tree(store_, media::TreeKind::kInodeTable, kTableOwner);
    PLUMB_TRY(tree.erase(t, state->inode_table, index));
    t.free_metadata(buffer->block);
    t.on_commit([this, index] {
      index_.erase(index);
      with_room_.erase(index);
      used_.fetch_sub(1, std::memory_order_relaxed);
    });
    return {};
  }
  t.on_commit([this, index, slot] {
    index_[index].used.reset(slot);
    with_room_.insert(index);
    used_.fetch_sub(1, std::memory_order_relaxed);
  });
  return {};
}

// ---- InodeCache and InodeRef ----

InodeCache::~InodeCache() {
  for (auto& [number, inode] : map_) delete inode;
  for (Inode* inode : detached_) delete inode;
}

void InodeCache::shut_down() {
  MutexLock lock(mutex_);
  shut_down_ = true;
}

std::size_t InodeCache::size() const {
  MutexLock lock(mutex_);
  return map_.size();
}

Result<InodeRef> InodeCache::get(InodeNumber number) {
  {
    MutexLock lock(mutex_);
    if (const auto it = map_.find(number.value); it != map_.end()) {
      if (it->second->dying_) return fail(ESTALE);
      it->second->references_.fetch_add(1, std::memory_order_relaxed);
      return InodeRef(it->second);
    }
  }
  // Read and added under the transaction lock, so that no commit comes in between and makes the copy an old one. Two
  // threads may be here for the same inode; one wins.
  Transaction t(store_);
  PLUMB_ASSIGN(const media::Inode media, table_.read(t, number));
  auto fresh = std::make_unique<Inode>(*this, media);
  // Records about it may be younger than the last force of the log: an fsync must not believe otherwise.
  const std::uint64_t last = store_.journal().next_sequence().value - 1;
  fresh->last_sequence = last;
  fresh->last_data_sequence = last;
  MutexLock lock(mutex_);
  auto [it, inserted] = map_.try_emplace(number.value, fresh.get());
  if (inserted) (void)fresh.release();
  if (it->second->dying_) return fail(ESTALE);
  it->second->references_.fetch_add(1, std::memory_order_relaxed);
  return InodeRef(it->second);
}

InodeRef InodeCache::add(const media::Inode& media) {
  auto fresh = std::make_unique<Inode>(*this, media);
  fresh->tail.clear();
  MutexLock lock(mutex_);
  auto [it, inserted] = map_.try_emplace(media.number, fresh.get());
  if (inserted) (void)fresh.release();
  it->second->references_.fetch_add(1, std::memory_order_relaxed);
  return InodeRef(it->second);
}

void InodeCache::detach(Inode& inode) {
  MutexLock lock(mutex_);
  map_.erase(inode.number().value);
  detached_.insert(&inode);
}

// Called when a count fell to zero; somebody may have taken the inode up again since, or released it for good. So it is
// looked up by number, and only an object that is there without references goes.
void InodeCache::release(InodeNumber number, Inode* object) {
  InodeRef unlinked;
  {
    MutexLock lock(mutex_);
    // The address of a detached inode is not used again while it is in the set.
    if (detached_.contains(object)) {
      if (object->references_.load(std::memory_order_acquire) != 0) return;  // a later release() is its last
      detached_.erase(object);
      delete object;
      return;
    }
    const auto it = map_.find(number.value);
    if (it == map_.end() || it->second->references_.load(std::memory_order_acquire) != 0) return;
    Inode* inode = it->second;
    if (inode->media.links == 0 && !shut_down_) {
      inode->dying_ = true;  // nobody takes it up again: its number is about to be free
      inode->references_.fetch_add(1, std::memory_order_relaxed);
      unlinked = InodeRef(inode);
    } else if ((inode->is_clean() && inode->leases == nullptr) || shut_down_) {
      // Nobody has it, so that its lock is not needed. With leases it stays: their programs may outlive a session that
      // was cut off, and what they store is written back by the unmount.
      map_.erase(it);
      delete inode;
    }
  }
  if (unlinked) on_unlinked_(std::move(unlinked));
}

InodeRef::InodeRef(const InodeRef& other) : inode_(other.inode_) {
  if (inode_ != nullptr) inode_->references_.fetch_add(1, std::memory_order_relaxed);
}

InodeRef::~InodeRef() {
  if (inode_ == nullptr) return;
  InodeCache& cache = inode_->cache_;
  const InodeNumber number = inode_->number_;
  if (inode_->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) cache.release(number, inode_);
}

InodeNumber InodeRef::number() const {
  return inode_->number();
}

std::uint64_t InodeRef::generation() const {
  return inode_->generation();
}

Attributes attributes_of(const media::Inode& inode, std::uint32_t block_size) {
  Attributes a;
  a.inode = InodeNumber(inode.number);
  a.generation = inode.generation;
  a.mode = inode.mode;
  a.links = inode.links;
  a.uid = inode.uid;
  a.gid = inode.gid;
  a.rdev = inode.rdev;
  const std::uint64_t tree_blocks = std::uint64_t{inode.data.nodes} + inode.xattrs.nodes + inode.chain_blocks;
  a.size_bytes = inode.size_bytes;
  if (S_ISDIR(inode.mode)) a.size_bytes = std::uint64_t{std::max<std::uint32_t>(1, inode.data.nodes)} * block_size;
  a.sectors = (inode.blocks + tree_blocks) * (block_size / 512);
  auto time = [](std::uint64_t seconds, std::uint32_t nanoseconds) {
    return Timestamp{static_cast<std::int64_t>(seconds), nanoseconds};
  };
  a.atime = time(inode.atime, inode.atime_ns);
  a.mtime = time(inode.mtime, inode.mtime_ns);
  a.ctime = time(inode.ctime, inode.ctime_ns);
  a.btime = time(inode.btime, inode.btime_ns);
  a.flags = inode.flags;
  return a;
}

}  // namespace plumb
