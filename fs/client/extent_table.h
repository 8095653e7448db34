// What a client knows of where the bytes of a file lie: the leased extents, by file offset.
//
// Invariants: extents are sorted, do not overlap, and neighbours that follow each other in the file and on the device
// are one. What has been added stays true and stays there until destruction, as a lease does; holes are never noted,
// because anybody may fill them.
//
// Thread safety: find() from any thread and from signal handlers, at any time: it takes no lock and does not wait;
// while add() is at work it may find nothing, which is always a right answer. add() by one thread at a time. Outgrown
// arrays are kept until destruction because somebody may be reading them; they grow by doubling, so that they are no
// more than the last one together.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fs/client/protocol.h"

namespace plumb::client {

class ExtentTable {
 public:
  /// A part of a file range that is contiguous on the device.
  struct Piece {
    std::uint64_t device_offset;
    std::uint64_t length;
  };

  ExtentTable() = default;
  ExtentTable(const ExtentTable&) = delete;
  ExtentTable& operator=(const ExtentTable&) = delete;
  ~ExtentTable();

  /// The pieces of [offset, offset + length) from its begin up to the first byte that is not known, at most `max`.
  /// Returns how many.
  std::size_t find(std::uint64_t offset, std::uint64_t length, Piece* pieces, std::size_t max) const noexcept;

  /// True if all of the range is known.
  [[nodiscard]] bool covers(std::uint64_t offset, std::uint64_t length) const noexcept;

  /// Adds an extent, parts of which may be known. 0, ENOMEM, or EPROTO if it contradicts what is known; what comes
  /// before the contradiction has been added then.
  int add(const protocol::LeaseExtent& extent) noexcept;

  /// For tests: number of extents.
  [[nodiscard]] std::size_t count() const noexcept;

 private:
  struct Entry {
    std::atomic<std::uint64_t> file_offset;
    std::atomic<std::uint64_t> device_offset;
    std::atomic<std::uint64_t> length;
  };
  struct Array {
    Array* outgrown;
    std::size_t capacity;
    std::atomic<std::size_t> count;

    [[nodiscard]] Entry* entries() noexcept { return reinterpret_cast<Entry*>(this + 1); }
    [[nodiscard]] const Entry* entries() const noexcept { return reinterpret_cast<const Entry*>(this + 1); }
  };

  static std::size_t first_ending_after(const Array& array, std::uint64_t offset) noexcept;
  static std::size_t collect(const Array& array, std::uint64_t offset, std::uint64_t length, Piece* pieces,
                             std::size_t max) noexcept;
  bool make_room() noexcept;
  void insert(std::size_t at, const protocol::LeaseExtent& extent) noexcept;

  std::atomic<std::uint64_t> sequence_{0};  // odd while add() is at work
  std::atomic<Array*> array_{nullptr};
};

}  // namespace plumb::client
