#include "fs/client/preload/device_pages.h"

#include <errno.h>

#include <algorithm>

#include "fs/client/preload/file.h"

namespace plumb::preload {
namespace {

constexpr int kReserved = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

std::uintptr_t device_page_bytes(const Map& map) {
  const bool is_device = map.served == Served::kByDevice || map.served == Served::kByDeviceRead;
  return is_device ? map.file->owned->align_bytes() : kPageBytes;
}

// The device page that `address` is within, and not at the begin of; empty if there is none. A map in it is one of the
// two that are next to the address.
AddressRange device_page_around(std::uintptr_t address) {
  const std::size_t behind = maps.find(address);
  for (std::size_t index = behind > 0 ? behind - 1 : 0; index <= behind && index < maps.size(); ++index) {
    const AddressRange whole = device_pages_of(maps.at(index));
    const std::uintptr_t page_bytes = device_page_bytes(maps.at(index));
    if (address <= whole.begin || address >= whole.end || address % page_bytes == 0) continue;
    const std::uintptr_t begin = round_down(address, page_bytes);
    return {begin, begin + page_bytes};
  }
  return {address, address};
}

// All maps in [start, end) have it.
bool have_protection(std::uintptr_t start, std::uintptr_t end, int protection) {
  for (std::size_t index = maps.find(start); index < maps.size() && maps.at(index).start < end; ++index) {
    if (maps.at(index).protection != protection) return false;
  }
  return true;
}

// Room in which `begin` + before is at `phase` of `unit`.
void* reserve_aligned(std::size_t whole, int flags, std::uintptr_t unit, std::uintptr_t phase) {
  void* const room = raw_mmap(nullptr, whole + unit, PROT_NONE, flags, -1, 0);
  if (room == MAP_FAILED) return room;
  const std::uintptr_t begin = number(room);
  const std::uintptr_t start = begin + (phase + unit - begin % unit) % unit;
  if (start > begin) raw_munmap(room, start - begin);
  if (begin + unit > start) raw_munmap(pointer(start + whole), begin + unit - start);
  return pointer(start);
}

}  // namespace

AddressRange device_pages_of(const Map& map) {
  const std::uintptr_t page_bytes = device_page_bytes(map);
  return {round_down(map.start, page_bytes), round_up(map.end, page_bytes)};
}

void* reserve(void* hint, std::size_t length, int flags, std::uint64_t offset, std::size_t align_bytes,
              const client::Padding& padding) {
  const int kept = kReserved | (flags & (MAP_32BIT | MAP_FIXED_NOREPLACE));
  const std::size_t whole = padding.before + whole_pages(length) + padding.after;
  if (align_bytes == kPageBytes) {
    if (hint != nullptr || whole < kHugeBytes) return raw_mmap(hint, whole, PROT_NONE, kept, -1, 0);
    return reserve_aligned(whole, kept, kHugeBytes, offset % kHugeBytes);
  }
  if (number(hint) > padding.before) {
    void* const wanted = pointer(round_down(number(hint) - padding.before, align_bytes));
    if ((flags & MAP_FIXED_NOREPLACE) != 0 && number(wanted) + padding.before != number(hint)) {
      errno = EINVAL;
      return MAP_FAILED;
    }
    void* const room = raw_mmap(wanted, whole, PROT_NONE, kept, -1, 0);
    if (room == wanted || (flags & MAP_FIXED_NOREPLACE) != 0) {
      return room == MAP_FAILED ? room : pointer(number(room) + padding.before);
    }
    if (room != MAP_FAILED) raw_munmap(room, whole);
  }
  void* const room = reserve_aligned(whole, kept, align_bytes, 0);
  return room == MAP_FAILED ? room : pointer(number(room) + padding.before);
}

AddressRange unmapped_with(std::uintptr_t start, std::uintptr_t end) {
  const AddressRange first = device_page_around(start);
  const AddressRange last = device_page_around(end);
  AddressRange range{start, end};
  if (first.length() > 0) range.begin = maps.overlaps(first.begin, start) ? first.end : first.begin;
  if (last.length() > 0) range.end = maps.overlaps(end, last.end) ? last.begin : last.end;
  return range;
}

int unmap_pages(std::uintptr_t start, std::uintptr_t end) {
  const AddressRange range = unmapped_with(start, end);
  // A request for nothing is the kernel's to refuse.
  if (range.length() == 0 && start < end) return 0;
  return raw_munmap(pointer(range.begin), range.length());
}

bool make_way(std::uintptr_t start, std::uintptr_t end) {
  const AddressRange range = unmapped_with(start, end);
  const bool is_whole = range.begin == start && range.end == end;
  if (is_whole || range.begin > start || range.end < end) return false;
  // In one step, so that nobody gets the addresses meanwhile.
  if (raw_mmap(pointer(range.begin), range.length(), PROT_NONE, kReserved | MAP_FIXED, -1, 0) == MAP_FAILED)
    return false;
  if (range.begin < start) raw_munmap(pointer(range.begin), start - range.begin);
  if (range.end > end) raw_munmap(pointer(end), range.end - end);
  return true;
}

AddressRange protected_with(std::uintptr_t start, std::uintptr_t end) {
  return {std::min(device_page_around(start).begin, start), std::max(device_page_around(end).end, end)};
}

bool may_protect(std::uintptr_t start, std::uintptr_t end, int protection) {
  const AddressRange whole = protected_with(start, end);
  return have_protection(whole.begin, start, protection) && have_protection(end, whole.end, protection);
}

void unmap_gaps(AddressRange range) {
  std::uintptr_t at = range.begin;
  while (at < range.end) {
    const std::size_t index = maps.find(at);
    const bool has_map = index < maps.size() && maps.at(index).start < range.end;
    const std::uintptr_t gap_end = has_map ? std::max(at, maps.at(index).start) : range.end;
    if (gap_end > at) raw_munmap(pointer(at), gap_end - at);
    at = has_map ? maps.at(index).end : range.end;
  }
}

}  // namespace plumb::preload
