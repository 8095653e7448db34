// One B+tree node as bytes: slotted records (media::NodeHeader, NodeSlot, heap). Pure functions of the bytes, no I/O.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "fs/media/layout.h"

namespace plumb {

class Node {
 public:
  Node(std::byte* bytes, std::size_t block_size) : bytes_(bytes), size_(block_size) {}

  void initialise(media::TreeKind kind, std::uint8_t level) {
    header().level = level;
    header().kind = static_cast<std::uint8_t>(kind);
    header().count = 0;
    header().heap_begin = static_cast<std::uint32_t>(size_);
    header().dead_bytes = 0;
  }

  [[nodiscard]] std::uint8_t level() const { return header().level; }
  [[nodiscard]] std::size_t count() const { return header().count; }
  [[nodiscard]] std::uint64_t key(std::size_t i) const { return slot(i).key; }
  void set_key(std::size_t i, std::uint64_t key) { slot(i).key = key; }
  [[nodiscard]] std::span<const std::byte> record(std::size_t i) const {
    return {bytes_ + slot(i).offset.get(), slot(i).length.get()};
  }
  [[nodiscard]] std::uint64_t child(std::size_t i) const {
    media::Le64 block;
    std::memcpy(&block, record(i).data(), sizeof block);
    return block;
  }
  void overwrite(std::size_t i, std::span<const std::byte> record) {
    std::memcpy(bytes_ + slot(i).offset.get(), record.data(), record.size());
  }

  /// Index of the first key not below `key`.
  [[nodiscard]] std::size_t lower_bound(std::uint64_t key) const {
    std::size_t low = 0, high = count();
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (slot(middle).key < key)
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }
  /// The child to go to for `key`; keys of child 0 have no lower bound.
  [[nodiscard]] std::size_t child_index(std::uint64_t key) const {
    const std::size_t i = lower_bound(key);
    if (i < count() && slot(i).key == key) return i;
    return i == 0 ? 0 : i - 1;
  }

  [[nodiscard]] std::size_t capacity() const { return size_ - sizeof(media::NodeHeader); }
  /// Bytes in use: slots and live records.
  [[nodiscard]] std::size_t live_bytes() const {
    return count() * sizeof(media::NodeSlot) + (size_ - header().heap_begin) - header().dead_bytes;
  }
  [[nodiscard]] bool fits(std::size_t record_length) const {
    return live_bytes() + sizeof(media::NodeSlot) + record_length <= capacity();
  }

  /// Inserts before slot i. The caller has checked fits().
  void insert(std::size_t i, std::uint64_t key, std::span<const std::byte> record) {
    const std::size_t slots_end = sizeof(media::NodeHeader) + (count() + 1) * sizeof(media::NodeSlot);
    if (header().heap_begin < slots_end + record.size()) compact();
    const std::size_t offset = header().heap_begin - record.size();
    std::memcpy(bytes_ + offset, record.data(), record.size());
    std::byte* at = slot_bytes(i);
    std::memmove(at + sizeof(media::NodeSlot), at, (count() - i) * sizeof(media::NodeSlot));
    media::NodeSlot s;
    s.key = key;
    s.offset = static_cast<std::uint16_t>(offset);
    s.length = static_cast<std::uint16_t>(record.size());
    std::memcpy(at, &s, sizeof s);
    header().heap_begin = static_cast<std::uint32_t>(offset);
    header().count = static_cast<std::uint16_t>(count() + 1);
  }

  void remove(std::size_t i) {
    header().dead_bytes = header().dead_bytes + slot(i).length;
    std::byte* at = slot_bytes(i);
    std::memmove(at, at + sizeof(media::NodeSlot), (count() - i - 1) * sizeof(media::NodeSlot));
    header().count = static_cast<std::uint16_t>(count() - 1);
    std::memset(slot_bytes(count()), 0, sizeof(media::NodeSlot));
    if (count() == 0) clear_heap();
  }

  /// Appends records [from, count) of this node to `to` and removes them here.
  void move_tail(std::size_t from, Node& to) {
    for (std::size_t i = from; i < count(); ++i) to.insert(to.count(), key(i), record(i));
    while (count() > from) remove(count() - 1);
    compact();
  }

 private:
  [[nodiscard]] media::NodeHeader& header() { return *reinterpret_cast<media::NodeHeader*>(bytes_); }
  [[nodiscard]] const media::NodeHeader& header() const { return *reinterpret_cast<const media::NodeHeader*>(bytes_); }
  [[nodiscard]] std::byte* slot_bytes(std::size_t i) {
    return bytes_ + sizeof(media::NodeHeader) + i * sizeof(media::NodeSlot);
  }
  [[nodiscard]] media::NodeSlot& slot(std::size_t i) { return *reinterpret_cast<media::NodeSlot*>(slot_bytes(i)); }
  [[nodiscard]] const media::NodeSlot& slot(std::size_t i) const {
    return *reinterpret_cast<const media::NodeSlot*>(bytes_ + sizeof(media::NodeHeader) + i * sizeof(media::NodeSlot));
  }
  void clear_heap() {
    std::memset(bytes_ + header().heap_begin, 0, size_ - header().heap_begin);
    header().heap_begin = static_cast<std::uint32_t>(size_);
    header().dead_bytes = 0;
  }

  // Closes the gaps of removed records; free room is zeros afterwards, so that diffs and images stay small.
  void compact() {
    if (header().dead_bytes == 0) return;
    const std::vector<std::byte> old(bytes_, bytes_ + size_);
    std::size_t end = size_;
    for (std::size_t i = 0; i < count(); ++i) {
      const std::size_t length = slot(i).length;
      end -= length;
      std::memcpy(bytes_ + end, old.data() + slot(i).offset.get(), length);
      slot(i).offset = static_cast<std::uint16_t>(end);
    }
    const std::size_t slots_end = sizeof(media::NodeHeader) + count() * sizeof(media::NodeSlot);
    std::memset(bytes_ + slots_end, 0, end - slots_end);
    header().heap_begin = static_cast<std::uint32_t>(end);
    header().dead_bytes = 0;
  }

  std::byte* bytes_;
  std::size_t size_;
};

/// A node for reading. The bytes are not changed through it.
inline const Node node_view(const std::byte* bytes, std::size_t block_size) {
  return {const_cast<std::byte*>(bytes), block_size};
}

}  // namespace plumb
