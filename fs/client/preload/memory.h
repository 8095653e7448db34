// Memory of this library and of the engine in it, apart from malloc: the program's malloc may call mmap, which is ours,
// and may be interrupted by a signal handler that calls pread, which is ours too.
//
// malloc() and free() of what is linked into this library end here (the linker's --wrap). Guarded by slow_lock; nothing
// allocates without it.
#pragma once

#include <cstddef>

namespace plumb::preload {

/// 16-byte aligned and zeroed. Ends the program when there is none.
void* allocate(std::size_t bytes);
void release(void* memory, std::size_t bytes);

}  // namespace plumb::preload
