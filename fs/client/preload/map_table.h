// The maps of this process by address: a sorted array, guarded by slow_lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace plumb::preload {

struct File;

enum class Served : std::uint8_t {
  kByDevice,      // device pages, with the sharing that was asked for
  kByDeviceRead,  // private and never stored to so far: shared device pages, read-only
  kByCopy,        // private, in memory of its own
  kByKernel,
};

/// [start, end) is `file` from `offset` on. Whole pages.
struct Map {
  std::uintptr_t start;
  std::uintptr_t end;
  std::uint64_t offset;
  File* file;  // a reference
  int protection;
  Served served;
  bool is_shared;
  bool may_store;            // fsync covers it: leased for stores
  bool is_sync;              // MAP_SYNC: the program flushes its stores, and calls nobody
  bool is_inherited = true;  // false: MADV_DONTFORK

  [[nodiscard]] std::size_t length() const { return end - start; }
  [[nodiscard]] Map part(std::uintptr_t from, std::uintptr_t to) const {
    Map result = *this;
    result.start = from > start ? from : start;
    result.end = to < end ? to : end;
    result.offset = offset + (result.start - start);
    return result;
  }
};

class MapTable {
 public:
  /// Whether a map may overlap [start, end). Without the lock: true only errs for maps that other threads are making or
  /// ending at this moment.
  [[nodiscard]] bool may_have(std::uintptr_t start, std::uintptr_t end) const {
    return start < highest_.load(std::memory_order_acquire) && end > lowest_.load(std::memory_order_acquire);
  }
  [[nodiscard]] std::size_t size() const { return count_; }
  [[nodiscard]] Map& at(std::size_t index) { return maps_[index]; }
  /// Index of the first map that ends behind `address`.
  [[nodiscard]] std::size_t find(std::uintptr_t address) const;
  [[nodiscard]] bool overlaps(std::uintptr_t start, std::uintptr_t end) const;
  /// Of free addresses.
  void insert(const Map& map);
  /// Makes `address` a border between maps, if it is within one. The file of the map gets another reference.
  void split(std::uintptr_t address);
  /// Without dropping the reference.
  void remove(std::size_t index);

 private:
  void set_bounds();

  Map* maps_ = nullptr;
  std::size_t count_ = 0;
  std::size_t capacity_ = 0;
  std::atomic<std::uintptr_t> lowest_{~std::uintptr_t{0}};
  std::atomic<std::uintptr_t> highest_{0};
};

extern MapTable maps;

}  // namespace plumb::preload
