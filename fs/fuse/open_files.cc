#include "fs/fuse/open_files.h"

#include <fcntl.h>

namespace plumb::fuse {

Result<FileHandle*> OpenFile::handle_for_write(Volume& volume, int flags_now) {
  if (((flags_now ^ flags_) & O_APPEND) == 0) return handle_.get();
  const MutexLock lock(mutex_);
  if (!toggled_) {
    PLUMB_ASSIGN(toggled_, volume.open(*handle_->inode, (flags_ ^ O_APPEND) & ~(O_TRUNC | O_CREAT | O_EXCL)));
  }
  return toggled_.get();
}

std::uint64_t OpenFiles::add(std::unique_ptr<OpenFile> file) {
  const auto fh = reinterpret_cast<std::uint64_t>(file.get());
  const MutexLock lock(mutex_);
  files_.emplace(fh, std::move(file));
  return fh;
}

void OpenFiles::release(std::uint64_t fh) {
  std::unique_ptr<OpenFile> dropped;  // outlives the lock: closing may work on the volume
  const MutexLock lock(mutex_);
  const auto found = files_.find(fh);
  if (found == files_.end()) return;
  dropped = std::move(found->second);
  files_.erase(found);
}

void OpenFiles::clear() {
  absl::flat_hash_map<std::uint64_t, std::unique_ptr<OpenFile>> dropped;
  const MutexLock lock(mutex_);
  dropped.swap(files_);
}

}  // namespace plumb::fuse
