#include "fs/client/extent_table.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <new>

namespace plumb::client {
namespace {

constexpr std::size_t kFirstCapacity = 4;
// How often find() looks again when add() was at work meanwhile.
constexpr int kAttempts = 4;

}  // namespace

ExtentTable::~ExtentTable() {
  Array* array = array_.load(std::memory_order_relaxed);
  while (array != nullptr) {
    Array* next = array->outgrown;
    std::free(array);
    array = next;
  }
}

// Relaxed loads, here and in collect(): the sequence tells whether they belong together.
std::size_t ExtentTable::first_ending_after(const Array& array, std::uint64_t offset) noexcept {
  std::size_t low = 0;
  std::size_t high = array.count.load(std::memory_order_relaxed);
  while (low < high) {
    const std::size_t middle = low + (high - low) / 2;
    const Entry& entry = array.entries()[middle];
    if (entry.file_offset.load(std::memory_order_relaxed) + entry.length.load(std::memory_order_relaxed) > offset) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

std::size_t ExtentTable::collect(const Array& array, std::uint64_t offset, std::uint64_t length, Piece* pieces,
                                 std::size_t max) noexcept {
  const std::size_t count = array.count.load(std::memory_order_relaxed);
  std::size_t found = 0;
  for (std::size_t i = first_ending_after(array, offset); i < count && found < max && length > 0; ++i) {
    const std::uint64_t start = array.entries()[i].file_offset.load(std::memory_order_relaxed);
    if (start > offset) break;
    const std::uint64_t skipped = offset - start;
    const std::uint64_t rest = array.entries()[i].length.load(std::memory_order_relaxed) - skipped;
    const std::uint64_t taken = std::min(length, rest);
    pieces[found++] = {array.entries()[i].device_offset.load(std::memory_order_relaxed) + skipped, taken};
    offset += taken;
    length -= taken;
  }
  return found;
}

std::size_t ExtentTable::find(std::uint64_t offset, std::uint64_t length, Piece* pieces,
                              std::size_t max) const noexcept {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::uint64_t before = sequence_.load(std::memory_order_acquire);
    if ((before & 1) != 0) continue;
    const Array* array = array_.load(std::memory_order_acquire);
    if (array == nullptr) return 0;
    const std::size_t found = collect(*array, offset, length, pieces, max);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (sequence_.load(std::memory_order_relaxed) == before) return found;
  }
  return 0;
}

bool ExtentTable::covers(std::uint64_t offset, std::uint64_t length) const noexcept {
  constexpr std::size_t kBatch = 32;
  Piece pieces[kBatch];
  while (length > 0) {
    const std::size_t found = find(offset, length, pieces, kBatch);
    if (found == 0) return false;
    for (std::size_t i = 0; i < found; ++i) {
      offset += pieces[i].length;
      length -= pieces[i].length;
    }
  }
  return true;
}

std::size_t ExtentTable::count() const noexcept {
  const Array* array = array_.load(std::memory_order_acquire);
  return array == nullptr ? 0 : array->count.load(std::memory_order_relaxed);
}

bool ExtentTable::make_room() noexcept {
  Array* old = array_.load(std::memory_order_relaxed);
  const std::size_t count = old == nullptr ? 0 : old->count.load(std::memory_order_relaxed);
  if (old != nullptr && count < old->capacity) return true;
  const std::size_t capacity = old == nullptr ? kFirstCapacity : 2 * old->capacity;
  void* memory = std::malloc(sizeof(Array) + capacity * sizeof(Entry));
  if (memory == nullptr) return false;
  Array* grown = new (memory) Array{old, capacity, {count}};
  for (std::size_t i = 0; i < capacity; ++i) {
    Entry* entry = new (&grown->entries()[i]) Entry{};
    if (i >= count) continue;
    entry->file_offset.store(old->entries()[i].file_offset.load(std::memory_order_relaxed), std::memory_order_relaxed);
    entry->device_offset.store(old->entries()[i].device_offset.load(std::memory_order_relaxed),
                               std::memory_order_relaxed);
    entry->length.store(old->entries()[i].length.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  array_.store(grown, std::memory_order_release);
  return true;
}

// Puts what is not known yet before entry `at`, or makes a neighbour longer by it. There is room.
void ExtentTable::insert(std::size_t at, const protocol::LeaseExtent& extent) noexcept {
  Array& array = *array_.load(std::memory_order_relaxed);
  const auto relaxed = std::memory_order_relaxed;
  const std::size_t count = array.count.load(relaxed);
  Entry* const entries = array.entries();
  const auto follows = [relaxed](const Entry& entry, std::uint64_t file_offset, std::uint64_t device_offset) {
    const std::uint64_t length = entry.length.load(relaxed);
    return entry.file_offset.load(relaxed) + length == file_offset &&
           entry.device_offset.load(relaxed) + length == device_offset;
  };
  const auto move = [relaxed](Entry& to, const Entry& from) {
    to.file_offset.store(from.file_offset.load(relaxed), relaxed);
    to.device_offset.store(from.device_offset.load(relaxed), relaxed);
    to.length.store(from.length.load(relaxed), relaxed);
  };
  const bool joins_left = at > 0 && follows(entries[at - 1], extent.file_offset, extent.device_offset);
  const bool joins_right = at < count && entries[at].file_offset.load(relaxed) == extent.file_offset + extent.length &&
                           entries[at].device_offset.load(relaxed) == extent.device_offset + extent.length;

  const std::uint64_t sequence = sequence_.load(relaxed);
  sequence_.store(sequence + 1, relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  if (joins_left) {
    Entry& left = entries[at - 1];
    std::uint64_t length = left.length.load(relaxed) + extent.length;
    if (joins_right) {
      length += entries[at].length.load(relaxed);
      for (std::size_t i = at; i + 1 < count; ++i) move(entries[i], entries[i + 1]);
      array.count.store(count - 1, relaxed);
    }
    left.length.store(length, relaxed);
  } else if (joins_right) {
    entries[at].file_offset.store(extent.file_offset, relaxed);
    entries[at].device_offset.store(extent.device_offset, relaxed);
    entries[at].length.store(entries[at].length.load(relaxed) + extent.length, relaxed);
  } else {
    for (std::size_t i = count; i > at; --i) move(entries[i], entries[i - 1]);
    entries[at].file_offset.store(extent.file_offset, relaxed);
    entries[at].device_offset.store(extent.device_offset, relaxed);
    entries[at].length.store(extent.length, relaxed);
    array.count.store(count + 1, relaxed);
  }
  sequence_.store(sequence + 2, std::memory_order_release);
}

int ExtentTable::add(const protocol::LeaseExtent& extent) noexcept {
  protocol::LeaseExtent rest = extent;
  while (rest.length > 0) {
    if (!make_room()) return ENOMEM;
    const Array& array = *array_.load(std::memory_order_relaxed);
    const std::size_t at = first_ending_after(array, rest.file_offset);
    std::uint64_t step = rest.length;
    bool is_known = false;
    if (at < array.count.load(std::memory_order_relaxed)) {
      const Entry& entry = array.entries()[at];
      const std::uint64_t start = entry.file_offset.load(std::memory_order_relaxed);
      if (start <= rest.file_offset) {
        is_known = true;
        const std::uint64_t skipped = rest.file_offset - start;
        if (entry.device_offset.load(std::memory_order_relaxed) + skipped != rest.device_offset) return EPROTO;
        step = std::min(step, entry.length.load(std::memory_order_relaxed) - skipped);
      } else {
        step = std::min(step, start - rest.file_offset);
      }
    }
    if (!is_known) insert(at, {rest.file_offset, rest.device_offset, step});
    rest.file_offset += step;
    rest.device_offset += step;
    rest.length -= step;
  }
  return 0;
}

}  // namespace plumb::client
