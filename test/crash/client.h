// A program that has leased a file: it remembers where the blocks are and stores into the devices past the daemon.
//
// It asks as libplumbfs does (fs/client/direct.h) and keeps to its rules: a block is noted once and used for as long as
// the program lives, whatever happens to the file and to the daemon; holes are not noted; what it stores through a map
// is flushed by itself or by an fsync, what it stores by pwrite is durable when that returns if the device is memory.
//
// When the session ends before the lease does, the client is stale: its daemon is gone, its stores go on.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "test/crash/snapshot.h"

namespace plumb::test {

/// A promise to clients was not kept. No runtime_error: steps take those for errors of an operation.
class BrokenPromise : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// What a client did to bytes [begin, end) of a file, which a later state shows and no request told of.
struct ClientChange {
  enum class Kind : std::uint8_t {
    kStored,     // and not made durable
    kPersisted,  // made durable by the client, whoever had stored them
    kSynced,     // fsync through the open file of the client: all of the file
  };
  Kind kind = Kind::kStored;
  InodeKey file;
  std::uint64_t begin = 0, end = 0;
  bool is_stale = false;  // kStored: no fsync covers it
};

class Client {
 public:
  enum class Use : std::uint8_t {
    kRead,
    kWrite,  // pwrite
    kMap,    // a map for stores: holes are filled, and an fsync covers all of it
  };

  /// Opens the file and leases all of it. std::runtime_error: it cannot be had.
  Client(World& world, std::string_view path, Use use);

  [[nodiscard]] InodeKey file() const { return file_; }
  [[nodiscard]] const InodeRef& inode() const { return handle_->inode; }  // not when stale
  [[nodiscard]] bool is_stale() const { return handle_ == nullptr; }
  /// Asks again: what was a hole may have become blocks. BrokenPromise: a block that is known is elsewhere.
  void learn(World& world);

  /// `where` modulo the bytes that may be stored to says at which of them a store begins: its offset in the file.
  /// std::runtime_error: there are none.
  [[nodiscard]] std::uint64_t place(World& world, std::uint64_t where) const;
  /// Stores `bytes` at `offset_bytes` and on, where blocks are known; with pwrite, below the end of the file.
  /// `is_durable`: flushed as well. pwrite flushes in any case on a memory device, and never on a page-cached one.
  /// BrokenPromise: not all of that, or something else, changed in what the file system shows; `held` as in
  /// take_snapshot().
  [[nodiscard]] std::vector<ClientChange> store(World& world, const std::vector<InodeRef>& held,
                                                std::uint64_t offset_bytes, std::string_view bytes, bool is_durable);
  /// Makes durable what the map has: msync(2), or the instructions of a program. std::runtime_error: it has no map for
  /// stores.
  [[nodiscard]] std::vector<ClientChange> persist(World& world);
  /// std::runtime_error: stale.
  [[nodiscard]] std::vector<ClientChange> fsync(World& world);

  /// Closes the file and unmaps: the lease ends. Called once.
  void end(World& world);
  /// The daemon died, or has dropped the session.
  void lose_session() { handle_.reset(); }

  /// BrokenPromise: a block of the client belongs to another file, has moved, or has left its file before the lease
  /// ended. `seen` has all inodes, those without a name as far as they are `held`.
  void check_blocks(World& world, const Snapshot& seen, const std::vector<InodeRef>& held) const;

 private:
  using Blocks = std::map<std::uint64_t, std::uint64_t>;  // offset in the file -> offset on the device

  struct Part {
    std::uint64_t begin, end;  // in the file
    std::uint64_t device_offset;
    bool is_owned;  // still a block of the file; always true until the client is stale
  };
  [[nodiscard]] std::vector<Part> parts(World& world, std::uint64_t begin, std::uint64_t end) const;
  [[nodiscard]] InodeRef own_inode(World& world) const;  // null: the file is gone
  [[nodiscard]] pmem::Device& device(World& world) const { return world->superblock().device(role_); }
  [[nodiscard]] bool flushes(World& world, bool is_durable) const;
  // The change, as far as it is below the end of the file.
  void report(World& world, const Part& part, ClientChange::Kind kind, std::vector<ClientChange>& changes) const;
  void leave_write_time(World& world) const;

  Use use_;
  std::unique_ptr<FileHandle> handle_;
  InodeKey file_;
  DeviceRole role_ = DeviceRole::kMain;
  std::uint32_t slot_ = 0;
  std::uint64_t block_bytes_ = 0;
  Blocks blocks_;
};

}  // namespace plumb::test
