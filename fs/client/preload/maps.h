// Mappings of plumbfs files in this process: which addresses are which part of which file, and who serves them.
//
// A direct map consists of device pages, in as many pieces as the file has extents; what libc would do to it with one
// system call has to know that. A map that the kernel serves is known too, as long as it lives, because the file is
// left to the kernel for so long. Both hold a reference to their File, whose anchor keeps the leases.
//
// The functions are those of libc, results and errno included; they may wait for slow_lock. Addresses without maps of
// plumbfs files cost a comparison and the system call.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace plumb::preload {

void* map_file(void* address, std::size_t length, int protection, int flags, int fd, off64_t offset);
int unmap(void* address, std::size_t length);
void* remap(void* address, std::size_t old_length, std::size_t new_length, int flags, void* new_address);
/// `key` as for pkey_mprotect(2); -1: mprotect(2).
int protect(void* address, std::size_t length, int protection, int key);
int sync_map(void* address, std::size_t length, int flags);

/// madvise(2).
int advise(void* address, std::size_t length, int advice);
/// remap_file_pages(2).
int remap_pages(void* address, std::size_t length, int protection, std::size_t page, int flags);

/// In the child of a fork: what MADV_DONTFORK has kept from it.
void forget_not_inherited();
/// At the end of the process: times of what was stored through maps.
void note_all_stores();

}  // namespace plumb::preload
