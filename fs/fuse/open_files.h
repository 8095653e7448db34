// Open file descriptions: what fuse_file_info::fh points to for regular files.
//
// Invariant: an OpenFile lives from the reply to open or create until release, or until clear() at the end of a session
// whose kernel side is gone (a lazy unmount leaves files without a release).
//
// Thread safety: OpenFiles from any thread. An OpenFile may be used by many requests at once; the kernel sends release
// after all of them.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "fs/core/mutex.h"
#include "fs/core/volume.h"
#include "pmem/result.h"

namespace plumb::fuse {

class OpenFile {
 public:
  OpenFile(std::unique_ptr<FileHandle> handle, int flags) : handle_(std::move(handle)), flags_(flags) {}

  [[nodiscard]] FileHandle& handle() { return *handle_; }

  /// The handle for a write with the flags that the description has now: fcntl(F_SETFL) may have changed O_APPEND since
  /// open. Errors as those of Volume::open.
  [[nodiscard]] Result<FileHandle*> handle_for_write(Volume& volume, int flags_now);

 private:
  const std::unique_ptr<FileHandle> handle_;
  const int flags_;                                               // of open(2)
  Mutex mutex_;                                                   // leaf, but for Volume::open
  std::unique_ptr<FileHandle> toggled_ PLUMB_GUARDED_BY(mutex_);  // with the other O_APPEND, once somebody wanted it
};

class OpenFiles {
 public:
  /// Takes the file over; the result goes to fuse_file_info::fh.
  [[nodiscard]] std::uint64_t add(std::unique_ptr<OpenFile> file);

  [[nodiscard]] static OpenFile& from(std::uint64_t fh) { return *reinterpret_cast<OpenFile*>(fh); }

  void release(std::uint64_t fh);

  /// Drops all: for the end of the session, when no request runs any more.
  void clear();

 private:
  Mutex mutex_;  // leaf
  absl::flat_hash_map<std::uint64_t, std::unique_ptr<OpenFile>> files_ PLUMB_GUARDED_BY(mutex_);
};

}  // namespace plumb::fuse
