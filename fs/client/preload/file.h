// Open file descriptions of plumbfs files, as this process uses them.
//
// A File is made when a descriptor is first read, written, mapped or synced by a call that we see, and lives as long as
// a descriptor or a map refers to it. Its anchor, a mapping of one page that nobody can touch, keeps the description,
// and so the leases, until the last copy has ended, whoever closes the descriptors. (A file that is open for writing
// only cannot be mapped; there a duplicate of the descriptor does it, for the time it is needed.)
//
// Files of one inode belong together: the kernel's page cache knows nothing of direct stores. As soon as one mapping of
// the file has to be the kernel's, all I/O of this process on it is, until the process has closed and unmapped it.
//
// Thread safety: as each function says. slow_lock guards inodes and their lists.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fs/client/direct.h"
#include "fs/client/preload/table.h"

namespace plumb::preload {

struct File;

struct Inode {
  dev_t device;
  ino_t number;
  bool by_kernel;  // a mapping of it is the kernel's
  File* files;
  Inode* next;
};

struct File {
  /// Null: reads and writes are the kernel's.
  std::atomic<client::DirectFile*> direct;
  std::atomic<bool> reads;                // open for reading
  std::atomic<bool> writes;               // open for writing, and a write is no more than a store
  bool is_memory;                         // a write is durable when it returns
  bool opened_sync;                       // O_SYNC or O_DSYNC
  bool opened_write;                      // whether O_APPEND or not
  bool is_settled;                        // without references, and no thread has it in a slot any more
  std::atomic<std::uint32_t> references;  // of entries and of maps
  std::atomic<std::uint32_t> misses;      // operations left to the kernel since the last that learning has helped
  client::DirectFile* owned;              // `direct`, whether or not in use
  Inode* inode;
  void* anchor;
  int kept_fd;                      // instead of the anchor; -1
  std::atomic<bool> stores_mapped;  // a map may store
  File* next;                       // of the inode; by slow_lock
  File* next_grave;                 // of those without references
};

/// The file of `fd`, looked for if nobody has yet. Null: the kernel's, or not known. Not in a child of vfork. Waits for
/// slow_lock if it `may_wait`; the entry it was found by is in `*entry`. A file that is looked for in order to share a
/// map of it is moved first, if it has to be for that (DirectFile::prepare_map()).
enum class MayWait { kNo, kYes };
enum class Purpose { kAny, kShare };
File* find_file(int fd, MayWait may_wait, Entry* entry, Purpose purpose = Purpose::kAny);

void hold(File* file);
/// The last one waits until nobody copies any more, and ends the leases.
void drop(File* file);

/// What close(2) and its like do around the call: begin_close() before, end_close() after, whether or not it worked.
struct Closing {
  std::atomic<std::uint64_t>* place;
  Entry entry;
  File* file;
};
Closing begin_close(int fd);
void end_close(const Closing& closing, bool is_closed);
/// `fd` has just been opened: what is known about the number is out of date, if a close was not seen.
void note_opened(int fd);
/// `to` is a duplicate of `from` now.
void note_duplicated(int from, int to);
/// After F_SETFL, which is of the description: other numbers, and other Files, may be of the same one.
void note_flags(int fd);

/// Asks for leases of [offset, offset + length), by chance: seldom for what did not help the last times. True if it is
/// worth to try again.
bool learn_more(File* file, int fd, std::uint64_t offset, std::uint64_t length);
/// Whether a write up to `end` makes the file of `fd`, which is not known yet, longer. By what the kernel knows,
/// without a request to the daemon; false on file systems that no file was found to be direct on.
[[nodiscard]] bool is_append(int fd, std::uint64_t end);
/// The blocks of the file have changed: trying is worthwhile again.
void expect_blocks(int fd);

/// All of this process's I/O on the inode goes by the kernel from now on. With slow_lock held.
void leave_to_kernel(Inode* inode);
/// A descriptor of this description that is open for `writing` as well; -1. With slow_lock held.
int find_descriptor(const Inode* inode, const File* file, bool writing);

/// Frees Files that are in use no more. With slow_lock held.
void bury();

/// RLIMIT_FSIZE is finite: writes go to the kernel, which compares.
extern std::atomic<bool> size_is_limited;
void look_at_limit();

}  // namespace plumb::preload
