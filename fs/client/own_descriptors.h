// Work with a descriptor that the program never sees.
//
// The device is open only while it is locked and mapped, but for that moment it has a number, the lowest that is free.
// A program with a thread that uses a number which another one has just closed would read or write the device instead
// of getting EBADF. So the work is done by a child that shares the memory, as after vfork(2), and has a table of
// descriptors of its own: maps and locks are left, the number never was in the program's table.
//
// Thread safety: no state.
#pragma once

namespace plumb::client {

/// Runs work(argument) with a copy of the table of descriptors, in the memory of the caller, which waits; signals wait,
/// too. Where the kernel allows no child (a seccomp filter, RLIMIT_NPROC, no memory) it runs in the caller itself. The
/// work must not wait for a lock that the caller holds. errno stays as it was.
void in_own_descriptors(void (*work)(void* argument), void* argument) noexcept;

/// The same for a lambda.
template <typename Work>
void with_own_descriptors(Work work) noexcept {
  in_own_descriptors([](void* argument) { (*static_cast<Work*>(argument))(); }, &work);
}

}  // namespace plumb::client
