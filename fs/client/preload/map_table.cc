#include "fs/client/preload/map_table.h"

#include <algorithm>
#include <cstring>

#include "fs/client/preload/file.h"
#include "fs/client/preload/memory.h"

namespace plumb::preload {

constinit MapTable maps;

std::size_t MapTable::find(std::uintptr_t address) const {
  const Map* const found = std::upper_bound(maps_, maps_ + count_, address,
                                            [](std::uintptr_t value, const Map& map) { return value < map.end; });
  return static_cast<std::size_t>(found - maps_);
}

bool MapTable::overlaps(std::uintptr_t start, std::uintptr_t end) const {
  const std::size_t index = find(start);
  return index < count_ && maps_[index].start < end;
}

void MapTable::insert(const Map& map) {
  if (count_ == capacity_) {
    const std::size_t larger = std::max<std::size_t>(64, capacity_ * 2);
    auto* const moved = static_cast<Map*>(allocate(larger * sizeof(Map)));
    if (count_ > 0) std::memcpy(moved, maps_, count_ * sizeof(Map));
    release(maps_, capacity_ * sizeof(Map));
    maps_ = moved;
    capacity_ = larger;
  }
  const std::size_t index = find(map.start);
  std::memmove(maps_ + index + 1, maps_ + index, (count_ - index) * sizeof(Map));
  maps_[index] = map;
  ++count_;
  set_bounds();
}

void MapTable::split(std::uintptr_t address) {
  const std::size_t index = find(address);
  if (index == count_ || maps_[index].start >= address) return;
  const Map whole = maps_[index];
  maps_[index] = whole.part(whole.start, address);
  hold(whole.file);
  insert(whole.part(address, whole.end));
}

void MapTable::remove(std::size_t index) {
  std::memmove(maps_ + index, maps_ + index + 1, (count_ - index - 1) * sizeof(Map));
  --count_;
  set_bounds();
}

void MapTable::set_bounds() {
  lowest_.store(count_ == 0 ? ~std::uintptr_t{0} : maps_[0].start, std::memory_order_release);
  highest_.store(count_ == 0 ? 0 : maps_[count_ - 1].end, std::memory_order_release);
}

}  // namespace plumb::preload
