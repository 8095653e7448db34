// Maps of a device that the kernel maps in pages larger than ours: devdax with align 2 MiB, hugetlbfs.
//
// Such a page is mapped, protected and unmapped whole or not at all. A map of a part of one therefore has padding
// around it (client::Padding): bytes of the same file, at addresses that the program does not know of and nobody else
// gets. Two maps never share a device page unless they were one map before; so
//
//   - a device page has one protection, that of all maps in it;
//   - it goes when nothing of it is in use any more, and what the program has unmapped of it stays readable until then.
//
// Where the device has pages of 4 KiB all of this does nothing.
//
// Thread safety: slow_lock is held.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fs/client/direct.h"
#include "fs/client/preload/addresses.h"
#include "fs/client/preload/map_table.h"

namespace plumb::preload {

/// [begin, end)
struct AddressRange {
  std::uintptr_t begin;
  std::uintptr_t end;
  [[nodiscard]] std::size_t length() const { return end > begin ? end - begin : 0; }
};

/// The device pages that `map` is on; of a map that the device does not serve, what it is.
AddressRange device_pages_of(const Map& map);

/// Free addresses for a map of `length` bytes of a file from `offset` on, with padding before and behind what is
/// returned. `hint` and `flags` as those of mmap. On a device with small pages what the kernel chooses is such that
/// huge pages fit. MAP_FAILED with errno.
void* reserve(void* hint, std::size_t length, int flags, std::uint64_t offset, std::size_t align_bytes,
              const client::Padding& padding);

/// What the kernel unmaps when [start, end) is in use no more: with the device pages at the ends that nothing else is
/// using, without those that something is. Empty if nothing is left.
AddressRange unmapped_with(std::uintptr_t start, std::uintptr_t end);

/// munmap of [start, end), whole pages, and all that goes with it; the table is not touched. As munmap(2).
int unmap_pages(std::uintptr_t start, std::uintptr_t end);

/// Before a MAP_FIXED of [start, end): device pages that it has only a part of give way if nothing else is using them.
/// True if there were any; what was there is gone then. Otherwise the kernel will replace what is there, or refuse to.
bool make_way(std::uintptr_t start, std::uintptr_t end);

/// What the kernel protects for [start, end): whole device pages.
AddressRange protected_with(std::uintptr_t start, std::uintptr_t end);

/// False if another part of such a page is in use that would have to change with it. No map has `start` or `end`
/// within.
bool may_protect(std::uintptr_t start, std::uintptr_t end, int protection);

/// Unmaps what no map in the table has of `range`: padding of pages that are not the device's any more.
void unmap_gaps(AddressRange range);

}  // namespace plumb::preload
