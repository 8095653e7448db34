#include "test/crash/client.h"

#include <sys/stat.h>
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>

#include "fs/client/protocol.h"
#include "fs/core/extents.h"
#include "fs/core/volume_impl.h"

namespace plumb::test {
namespace {

constexpr std::uint64_t kAll = 1u << 30;  // beyond any file of the tests

std::string name_of(InodeKey key) {
  return "inode " + std::to_string(key.first);
}

bool has_key(const InodeRef& inode, InodeKey key) {
  return InodeKey{inode.number().value, inode.generation()} == key;
}

// Null: there is no such inode any more.
InodeRef inode_of(World& world, InodeKey key, const std::vector<InodeRef>& held) {
  for (const InodeRef& inode : held)
    if (has_key(inode, key)) return inode;
  const auto inode = world->inode_by_number(InodeNumber(key.first), key.second);
  return inode ? *inode : InodeRef();
}

void load_map(World& world, Inode& inode) {
  ExclusiveLock lock(inode.lock);
  must(load_extents(world->impl().store, inode));
}

// Where a byte of the file is, or nothing.
std::optional<std::uint64_t> device_offset(const Inode& inode, std::uint64_t offset, std::uint64_t block_bytes) {
  const auto it = find_extent(inode.extents, offset / block_bytes);
  if (it == inode.extents.end()) return {};
  return it->second.device_block * block_bytes + (offset - it->first * block_bytes);
}

}  // namespace

Client::Client(World& world, std::string_view path, Use use)
    : use_(use), handle_(world.open(path)), block_bytes_(world->superblock().media().block_size_bytes) {
  file_ = {handle_->inode.number().value, handle_->inode.generation()};
  learn(world);
}

void Client::learn(World& world) {
  if (is_stale()) throw std::runtime_error("the daemon of this lease is gone");
  const LeaseRequest request{.offset_bytes = 0,
                             .length_bytes = kAll,
                             .write = use_ != Use::kRead,
                             .allocate = use_ == Use::kMap,
                             .map = use_ == Use::kMap,
                             .uid = 0};
  const LeaseAnswer answer = must(world->lease(*handle_, request, std::numeric_limits<std::size_t>::max()));
  role_ = static_cast<DeviceRole>(answer.member);
  slot_ = answer.slot;
  for (const LeaseAnswer::Piece& piece : answer.extents) {
    for (std::uint64_t at = 0; at < piece.length; at += block_bytes_) {
      const auto [it, is_new] = blocks_.emplace(piece.file_offset + at, piece.device_offset + at);
      if (!is_new && it->second != piece.device_offset + at)
        throw BrokenPromise("the block at " + std::to_string(it->first) + " of leased " + name_of(file_) +
                            " has moved");
    }
  }
}

std::uint64_t Client::place(World& world, std::uint64_t where) const {
  if (use_ == Use::kRead) throw std::runtime_error("leased to read");
  if (use_ == Use::kMap) {
    if (blocks_.empty()) throw std::runtime_error("nothing is mapped");
    const std::uint64_t at = where % (blocks_.size() * block_bytes_);
    return std::next(blocks_.begin(), static_cast<std::ptrdiff_t>(at / block_bytes_))->first + at % block_bytes_;
  }
  if (is_stale()) throw std::runtime_error("the slot is not of this mount");
  const std::uint64_t size = world->attributes(*handle_->inode).size_bytes;
  if (size == 0) throw std::runtime_error("nothing is below the end of the file");
  return where % size;
}

InodeRef Client::own_inode(World& world) const {
  return handle_ ? handle_->inode : inode_of(world, file_, {});
}

std::vector<Client::Part> Client::parts(World& world, std::uint64_t begin, std::uint64_t end) const {
  const InodeRef inode = own_inode(world);
  if (inode) load_map(world, *inode);
  std::vector<Part> all;
  for (const auto& [offset, on_device] : blocks_) {
    const std::uint64_t from = std::max(begin, offset);
    const std::uint64_t to = std::min(end, offset + block_bytes_);
    if (from >= to) continue;
    all.push_back(
        {from, to, on_device + (from - offset), inode && device_offset(*inode, offset, block_bytes_) == on_device});
  }
  return all;
}

bool Client::flushes(World& world, bool is_durable) const {
  return use_ == Use::kWrite ? device(world).is_memory() : is_durable;
}

void Client::report(World& world, const Part& part, ClientChange::Kind kind, std::vector<ClientChange>& changes) const {
  if (!part.is_owned) return;
  const std::uint64_t size = own_inode(world)->media.size_bytes;
  if (part.begin >= size) return;
  changes.push_back({kind, file_, part.begin, std::min(part.end, size), is_stale()});
}

// As direct.h: after the data, and before the call returns. The daemon takes it when somebody asks for the times.
void Client::leave_write_time(World& world) const {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  const std::uint64_t nanoseconds =
      static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
  const std::uint64_t at = world->superblock().media().lease_start + std::uint64_t{slot_} * protocol::kLeaseSlotBytes +
                           offsetof(protocol::LeaseSlot, write_time_ns);
  must(world->superblock().device(DeviceRole::kMain).store(at, std::as_bytes(std::span(&nanoseconds, 1))));
  (void)world->attributes(*handle_->inode);
}

std::vector<ClientChange> Client::store(World& world, const std::vector<InodeRef>& held, std::uint64_t offset_bytes,
                                        std::string_view bytes, bool is_durable) {
  std::uint64_t end = offset_bytes + bytes.size();
  if (use_ == Use::kRead) throw std::runtime_error("leased to read");
  if (use_ == Use::kWrite) {
    if (is_stale()) throw std::runtime_error("the slot is not of this mount");
    end = std::min(end, world->attributes(*handle_->inode).size_bytes);
  }
  Snapshot expected = take_snapshot(world, held);
  pmem::Device& device = this->device(world);
  const bool is_flushed = flushes(world, is_durable);
  const std::vector<Part> all = parts(world, offset_bytes, end);
  // Bytes that are not the file's any more are in no state of the model: a crash must not bring their file back.
  if (is_stale() && !world->superblock().device(DeviceRole::kMain).is_memory()) must(world->sync());
  std::vector<ClientChange> changes;
  for (const Part& part : all) {
    const std::string_view piece = bytes.substr(part.begin - offset_bytes, part.end - part.begin);
    must(device.store(part.device_offset, std::as_bytes(std::span(piece))));
    if (is_flushed) must(device.flush(part.device_offset, piece.size()));
    report(world, part, is_flushed ? ClientChange::Kind::kPersisted : ClientChange::Kind::kStored, changes);
    const auto file = expected.inodes.find(file_);
    if (!part.is_owned || file == expected.inodes.end()) continue;
    std::string& content = file->second.content;
    if (part.begin < content.size())
      content.replace(part.begin, std::min(part.end, content.size()) - part.begin, piece, 0,
                      content.size() - part.begin);
  }
  if (is_flushed && device.is_memory()) must(device.drain());
  if (use_ == Use::kWrite) leave_write_time(world);
  const std::string difference = content_difference(take_snapshot(world, held), expected);
  if (!difference.empty()) throw BrokenPromise("after a store into leased " + name_of(file_) + ", " + difference);
  return changes;
}

std::vector<ClientChange> Client::persist(World& world) {
  if (use_ != Use::kMap) throw std::runtime_error("it has no map for stores");
  std::vector<ClientChange> changes;
  for (const Part& part : parts(world, 0, kAll)) {
    must(device(world).flush(part.device_offset, part.end - part.begin));
    report(world, part, ClientChange::Kind::kPersisted, changes);
  }
  if (device(world).is_memory()) must(device(world).drain());
  return changes;
}

std::vector<ClientChange> Client::fsync(World& world) {
  if (is_stale()) throw std::runtime_error("the daemon of this lease is gone");
  must(world->fsync(*handle_, FsyncMode::kFull));
  return {{.kind = ClientChange::Kind::kSynced, .file = file_}};
}

void Client::end(World& world) {
  if (!is_stale()) world->end_lease(*handle_);
  handle_.reset();
  blocks_.clear();
}

void Client::check_blocks(World& world, const Snapshot& seen, const std::vector<InodeRef>& held) const {
  std::map<std::uint64_t, std::uint64_t> by_device;
  for (const auto& [offset, on_device] : blocks_) by_device.emplace(on_device, offset);
  std::size_t owned = 0;
  for (const auto& [key, visible] : seen.inodes) {
    const InodeRef inode = inode_of(world, key, held);
    if (!inode || !S_ISREG(visible.attributes.mode)) continue;
    if (world->superblock().data_role(visible.attributes.flags) != role_) continue;
    load_map(world, *inode);
    for (const auto& [file_block, extent] : inode->extents) {
      const std::uint64_t begin = extent.device_block * block_bytes_;
      for (auto it = by_device.lower_bound(begin); it != by_device.end(); ++it) {
        if (it->first >= begin + extent.length * block_bytes_) break;
        if (key != file_) throw BrokenPromise("a block of leased " + name_of(file_) + " is now of " + name_of(key));
        if (it->second != file_block * block_bytes_ + (it->first - begin))
          throw BrokenPromise("a block of leased " + name_of(file_) + " is elsewhere in it");
        ++owned;
      }
    }
  }
  if (!is_stale() && owned != blocks_.size())
    throw BrokenPromise(std::to_string(blocks_.size() - owned) + " blocks have left leased " + name_of(file_));
}

}  // namespace plumb::test
