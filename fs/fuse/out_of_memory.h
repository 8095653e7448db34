// Out of memory ends the daemon (fs/DESIGN.md, "Failures"). A request that stops in the middle of an operation by an
// exception would leave inodes and indexes in DRAM of which nobody knows how far they are; the file system on the
// device has no such states. So the death of the daemon, which loses nothing that was replied, is the safe answer.
//
// Thread safety: call once, before there are threads.
#pragma once

namespace plumb::fuse {

/// From now on an allocation that fails is logged and ends the process with SIGABRT.
void end_when_out_of_memory();

}  // namespace plumb::fuse
