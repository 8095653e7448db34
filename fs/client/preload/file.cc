#include "fs/client/preload/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstring>

#include "fs/client/preload/memory.h"
#include "fs/client/preload/process.h"
#include "fs/client/preload/raw.h"
#include "fs/client/preload/slow_lock.h"
#include "fs/client/preload/stats.h"
#include "fs/client/preload/thread.h"

namespace plumb::preload {

constinit std::atomic<bool> size_is_limited{false};

namespace {

// A close waits so long for copies of other threads. After that the anchor stays, and the file is buried later.
constexpr int kCloseWait_ms = 200;
constexpr std::uint32_t kMissesMax = 4096;

constinit Inode* inodes = nullptr;
constinit std::atomic<File*> graves{nullptr};
// As the kernel has it: nobody is asked, and the size may be an older one.
struct Status {
  dev_t device = 0;
  ino_t inode = 0;
  std::uint64_t size_bytes = 0;
  bool is_regular = false;
};

bool find_status(int fd, Status* status) {
  struct statx found;
  constexpr unsigned kWanted = STATX_TYPE | STATX_INO | STATX_SIZE;
  if (raw::call(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, kWanted, &found) != 0) return false;
  *status = {makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino, found.stx_size, S_ISREG(found.stx_mode)};
  return true;
}

// st_dev of mounts that are known to be no plumbfs, the newest of some: a look at a file there is one statx.
constinit dev_t other_devices[16] = {};
constinit unsigned other_device_count = 0;
// st_dev of mounts of plumbfs, some; never 0.
constinit std::atomic<dev_t> known_mounts[16] = {};

void note_mount(dev_t device) {
  for (std::atomic<dev_t>& known : known_mounts) {
    const dev_t noted = known.load(std::memory_order_relaxed);
    if (noted == device) return;
    if (noted != 0) continue;
    known.store(device, std::memory_order_relaxed);
    return;
  }
}

bool is_known_mount(dev_t device) {
  return device != 0 && std::any_of(std::begin(known_mounts), std::end(known_mounts), [device](const auto& known) {
           return known.load(std::memory_order_relaxed) == device;
         });
}

bool is_other_device(dev_t device) {
  const unsigned count = std::min<unsigned>(other_device_count, std::size(other_devices));
  return std::find(other_devices, other_devices + count, device) != other_devices + count;
}

Inode* inode_of(const Status& status) {
  for (Inode* inode = inodes; inode != nullptr; inode = inode->next)
    if (inode->device == status.device && inode->number == status.inode) return inode;
  auto* const inode = static_cast<Inode*>(allocate(sizeof(Inode)));
  inode->device = status.device;
  inode->number = status.inode;
  inode->next = inodes;
  inodes = inode;
  return inode;
}

void remove_from_inode(File* file) {
  Inode* const inode = file->inode;
  for (File** place = &inode->files; *place != nullptr; place = &(*place)->next) {
    if (*place != file) continue;
    *place = file->next;
    break;
  }
  if (inode->files != nullptr) return;
  for (Inode** place = &inodes; *place != nullptr; place = &(*place)->next) {
    if (*place != inode) continue;
    *place = inode->next;
    break;
  }
  release(inode, sizeof(Inode));
}

// The description, and with it the leases, may end now.
void let_go(File* file) {
  if (file->anchor != nullptr) raw::call(SYS_munmap, file->anchor, 1);
  file->anchor = nullptr;
  if (file->kept_fd >= 0) raw::call(SYS_close, file->kept_fd);
  file->kept_fd = -1;
}

void put_in_grave(File* file) {
  File* top = graves.load(std::memory_order_relaxed);
  do {
    file->next_grave = top;
  } while (!graves.compare_exchange_weak(top, file, std::memory_order_release, std::memory_order_relaxed));
}

// What only the kernel can do is left to it; `why` is said at the end, or at once if direct access is required.
struct Looked {
  client::DirectFile* direct = nullptr;
  bool is_plumbfs = false;
};

Looked look(int fd, const Status& status, int flags, Purpose purpose) {
  Looked looked;
  const bool writable = (flags & O_ACCMODE) != O_RDONLY;
  if (purpose == Purpose::kShare && (flags & O_ACCMODE) == O_RDWR) client::DirectFile::prepare_map(fd);
  char why[200] = "";
  int error = 0;
  looked.direct = client::DirectFile::open(fd, writable, &error, why, sizeof(why));
  if (looked.direct != nullptr) {
    looked.is_plumbfs = true;
    note_mount(status.device);
    note_file(true, "");
    return looked;
  }
  if (error == ENOTTY) {
    if (!is_other_device(status.device)) {
      other_devices[other_device_count % std::size(other_devices)] = status.device;
      ++other_device_count;
    }
    return looked;
  }
  looked.is_plumbfs = true;
  note_file(false, why[0] != '\0' ? why : ::strerrordesc_np(error));
  return looked;
}

// Whether pwrite may be direct, by the flags of the description. A page-cached device takes an msync for O_SYNC, and
// perhaps the daemon's log.
bool may_write(const File& file, int flags) {
  return file.opened_write && (flags & O_APPEND) == 0 && (file.is_memory || !file.opened_sync);
}

File* make_file(int fd, const Status& status, int flags, client::DirectFile* direct) {
  auto* const file = static_cast<File*>(allocate(sizeof(File)));
  const int mode = flags & O_ACCMODE;
  file->reads.store(mode != O_WRONLY, std::memory_order_relaxed);
  file->opened_write = mode != O_RDONLY;
  file->opened_sync = (flags & (O_DSYNC | O_SYNC)) != 0;
  file->owned = direct;
  file->kept_fd = -1;
  if (direct != nullptr) {
    file->is_memory = direct->mount().is_memory(direct->member());
    const long page = raw::call(SYS_mmap, nullptr, 1, PROT_NONE, MAP_PRIVATE, fd, 0);
    if (!raw::failed(page)) file->anchor = reinterpret_cast<void*>(page);
  }
  file->writes.store(may_write(*file, flags), std::memory_order_relaxed);
  file->inode = inode_of(status);
  file->next = file->inode->files;
  file->inode->files = file;
  file->references.store(1, std::memory_order_relaxed);
  if (!file->inode->by_kernel) file->direct.store(direct, std::memory_order_release);
  return file;
}

void destroy(File* file) {
  if (file->owned != nullptr) client::DirectFile::destroy(file->owned);
  remove_from_inode(file);
  release(file, sizeof(File));
}

// With slow_lock held.
File* learn_file(int fd, std::atomic<std::uint64_t>* place, Entry* entry, Purpose purpose) {
  Status status;
  if (!find_status(fd, &status)) return nullptr;
  const long flags = raw::call(SYS_fcntl, fd, F_GETFL);
  if (raw::failed(flags)) return nullptr;
  Looked looked;
  // O_ACCMODE opens for neither reading nor writing (open(2)).
  const bool has_rights = (flags & O_PATH) == 0 && (flags & O_ACCMODE) != O_ACCMODE;
  if (status.is_regular && has_rights && !is_other_device(status.device)) {
    looked = look(fd, status, static_cast<int>(flags), purpose);
  }
  std::uint64_t expected = entry->word();
  if (!looked.is_plumbfs) {
    place->compare_exchange_strong(expected, Entry::kernel().word(), std::memory_order_acq_rel);
    return nullptr;
  }
  File* const file = make_file(fd, status, static_cast<int>(flags), looked.direct);
  if (!place->compare_exchange_strong(expected, Entry::of(file).word(), std::memory_order_acq_rel)) {
    // Closed meanwhile.
    let_go(file);
    destroy(file);
    return nullptr;
  }
  *entry = Entry::of(file);
  return file;
}

}  // namespace

File* find_file(int fd, MayWait may_wait, Entry* entry, Purpose purpose) {
  if (fd < 0) return nullptr;
  std::atomic<std::uint64_t>* const place = make_place(fd);
  if (place == nullptr) return nullptr;
  *entry = load(place);
  if (entry->is_file()) return entry->file();
  if (!entry->is_unknown()) return nullptr;
  const int saved = errno;
  File* file = nullptr;
  if (owns_tables()) {
    const Slow slow(may_wait == MayWait::kYes ? Slow::How::kWait : Slow::How::kTry);
    if (slow) {
      bury();
      *entry = load(place);
      if (entry->is_file()) {
        file = entry->file();
      } else if (entry->is_unknown()) {
        file = learn_file(fd, place, entry, purpose);
      }
    }
  }
  errno = saved;
  return file;
}

void hold(File* file) {
  file->references.fetch_add(1, std::memory_order_relaxed);
}

void drop(File* file) {
  if (file->references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  file->is_settled = wait_unused(file, kCloseWait_ms);
  if (file->is_settled) let_go(file);
  put_in_grave(file);
  // At once, if it may be: the engine's lock on the device, which a next mount waits for, ends with the last file.
  if (const Slow slow(Slow::How::kTry); slow) bury();
}

void bury() {
  File* file = graves.exchange(nullptr, std::memory_order_acquire);
  if (file == nullptr) return;
  while (file != nullptr) {
    File* const following = file->next_grave;
    if (file->is_settled || (all_pass(), busy(file) == Busy::kNo)) {
      let_go(file);
      destroy(file);
    } else {
      put_in_grave(file);
    }
    file = following;
  }
}

Closing begin_close(int fd) {
  Closing closing{nullptr, Entry(), nullptr};
  if (fd < 0) return closing;
  std::atomic<std::uint64_t>* const place = make_place(fd);
  if (place == nullptr || (load(place).is_file() && !owns_tables())) return closing;
  closing.place = place;
  closing.entry = Entry::closing();
  const Entry before(place->exchange(closing.entry.word(), std::memory_order_acq_rel));
  if (!before.is_file()) return closing;
  closing.file = before.file();
  if (closing.file->stores_mapped.load(std::memory_order_relaxed)) closing.file->owned->note_stores();
  if (closing.file->references.load(std::memory_order_acquire) != 1) return closing;
  // The last one: before the description can end, all copies have.
  if (!wait_unused(closing.file, kCloseWait_ms) && closing.file->anchor == nullptr) {
    const long kept = raw::call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    if (!raw::failed(kept)) closing.file->kept_fd = static_cast<int>(kept);
  }
  return closing;
}

void end_close(const Closing& closing, bool is_closed) {
  if (closing.place == nullptr) return;
  const int saved = errno;
  std::uint64_t expected = closing.entry.word();
  if (!is_closed && closing.file != nullptr) {
    // Nothing was closed: as before.
    if (closing.place->compare_exchange_strong(expected, Entry::of(closing.file).word(), std::memory_order_acq_rel)) {
      errno = saved;
      return;
    }
  } else {
    closing.place->compare_exchange_strong(expected, closing.entry.closed().word(), std::memory_order_acq_rel);
  }
  if (closing.file != nullptr) drop(closing.file);
  errno = saved;
}

void note_opened(int fd) {
  if (fd < 0) return;
  std::atomic<std::uint64_t>* const place = find_place(fd);
  if (place == nullptr) return;
  const Entry entry = load(place);
  if (entry.is_unknown() || (entry.is_file() && !owns_tables())) return;
  std::uint64_t expected = entry.word();
  const std::uint64_t fresh = Entry::closing().closed().word();
  if (place->compare_exchange_strong(expected, fresh, std::memory_order_acq_rel) && entry.is_file()) {
    const int saved = errno;
    drop(entry.file());
    errno = saved;
  }
}

void note_duplicated(int from, int to) {
  note_opened(to);
  const std::atomic<std::uint64_t>* const source = find_place(from);
  if (source == nullptr) return;
  const Entry entry = load(source);
  if (!entry.is_file()) return;
  std::atomic<std::uint64_t>* const place = make_place(to);
  if (place == nullptr) return;
  const Entry before = load(place);
  if (!before.is_unknown() || !owns_tables()) return;
  File* const file = entry.file();
  const Use use(file);
  if (!use || !(load(source) == entry)) return;
  hold(file);
  std::uint64_t expected = before.word();
  if (!place->compare_exchange_strong(expected, entry.word(), std::memory_order_acq_rel)) drop(file);
}

void note_flags(int fd) {
  Status status;
  if (!find_status(fd, &status) || !status.is_regular) return;
  for_each_file(0, ~0U, [&](int other) {
    const std::atomic<std::uint64_t>* const place = find_place(other);
    const Entry entry = load(place);
    if (!entry.is_file()) return;
    File* const file = entry.file();
    const Use use(file);
    if (!use || !(load(place) == entry)) return;
    if (file->inode->device != status.device || file->inode->number != status.inode) return;
    const long flags = raw::call(SYS_fcntl, other, F_GETFL);
    if (raw::failed(flags) || !(load(place) == entry)) return;
    file->writes.store(may_write(*file, static_cast<int>(flags)), std::memory_order_relaxed);
  });
}

bool learn_more(File* file, int fd, std::uint64_t offset, std::uint64_t length) {
  // The first miss asks, then every second, fourth ... as long as asking does not help.
  const std::uint32_t misses = file->misses.fetch_add(1, std::memory_order_relaxed);
  if ((misses & (misses + 1)) != 0 && misses % kMissesMax != 0) return false;
  std::uint64_t size = 0;
  if (!file->owned->size(&size) || offset >= size) return false;
  const int saved = errno;
  bool learned = false;
  if (owns_tables()) {
    if (const Slow slow(Slow::How::kTry); slow) {
      file->owned->use_descriptor(fd);
      const std::uint64_t end = std::max(offset + length, size);
      learned = file->owned->learn(offset, end - offset, 0) == 0;
    }
  }
  errno = saved;
  return learned;
}

bool is_append(int fd, std::uint64_t end) {
  Status status;
  return find_status(fd, &status) && status.is_regular && end > status.size_bytes && is_known_mount(status.device);
}

void expect_blocks(int fd) {
  const std::atomic<std::uint64_t>* const place = find_place(fd);
  if (place == nullptr) return;
  const Entry entry = load(place);
  if (!entry.is_file()) return;
  const Use use(entry.file());
  if (use && load(place) == entry) entry.file()->misses.store(0, std::memory_order_relaxed);
}

void leave_to_kernel(Inode* inode) {
  if (inode->by_kernel) return;
  inode->by_kernel = true;
  for (File* file = inode->files; file != nullptr; file = file->next) {
    file->direct.store(nullptr, std::memory_order_release);
  }
  for (File* file = inode->files; file != nullptr; file = file->next) wait_unused(file, kCloseWait_ms);
}

int find_descriptor(const Inode* inode, const File* file, bool writing) {
  int found = -1;
  for_each_file(0, ~0U, [&](int fd) {
    const std::atomic<std::uint64_t>* const place = find_place(fd);
    const Entry entry = load(place);
    if (found >= 0 || !entry.is_file()) return;
    File* const candidate = entry.file();
    const Use use(candidate);
    if (!use || !(load(place) == entry)) return;
    if (candidate->inode != inode || (file != nullptr && candidate != file)) return;
    if (!candidate->reads.load(std::memory_order_relaxed) || (writing && !candidate->opened_write)) return;
    found = fd;
  });
  return found;
}

void look_at_limit() {
  rlimit limit{};
  const bool known = raw::call(SYS_prlimit64, 0, RLIMIT_FSIZE, nullptr, &limit) == 0;
  size_is_limited.store(!known || limit.rlim_cur != RLIM_INFINITY, std::memory_order_relaxed);
}

}  // namespace plumb::preload
