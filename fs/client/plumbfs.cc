#include "fs/client/plumbfs.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "fs/client/direct.h"
#include "fs/client/kernel.h"
#include "fs/client/registry_lock.h"

using plumb::client::DirectFile;
using plumb::client::kNotHere;
using plumb::client::Mount;
using plumb::client::RegistryLock;
namespace kernel = plumb::client::kernel;
namespace protocol = plumb::protocol;

namespace {

constexpr std::uint64_t kPageBytes = 4096;  // x86-64
constexpr std::uint64_t kHugePageBytes = 2 * 1024 * 1024;
constexpr std::size_t kWhyBytes = 300;

// A DirectFile with those that use it: the file, until it is closed, and its maps.
struct Shared {
  DirectFile* file;
  std::atomic<unsigned> users;
};

void leave(Shared* shared) {
  if (shared == nullptr || shared->users.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  DirectFile::destroy(shared->file);
  std::free(shared);
}

// By the system's own threads model, so that a program in C gets no further library.
__thread char error_text[512];

[[gnu::format(printf, 2, 3)]] int fail(int error, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(error_text, sizeof error_text, format, arguments);
  va_end(arguments);
  errno = error;
  return -1;
}

// What an error of the kernel or the daemon means here.
const char* meaning(int error) {
  switch (error) {
    case ENOTCONN:
    case ECONNABORTED:
      return "the daemon of the file system is gone; mount it again, and open the file again";
    case ENOTTY:
      return "the file is on no plumbfs, or the daemon has no direct path";
    case ENXIO:
      return "the file has holes there, which a map for reading only cannot fill";
    case ENOMEM:
      return "the file is in too many pieces, or there are too many maps (vm.max_map_count)";
    case EPERM:
      return "the file is set-id, immutable or append-only, or has capabilities: writes are the kernel's";
    case EMFILE:
      return "this user has as many files in direct use as one may";
    case ENFILE:
      return "the file system has as many files in direct use as it can";
    case EBUSY:
      return "the file is in direct use, here or by another program";
    case EIO:
      return "a bad block, see plumb badblocks";
    case EOPNOTSUPP:
      return "the file goes through the page cache (dax=never, dax=inode, or a kernel before 6.6)";
    default:
      return std::strerror(error);
  }
}

int fail_with_meaning(int error, const char* function) {
  return fail(error, "%s: %s", function, meaning(error));
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

struct plumbfs_file {
  int fd = -1;
  int access = O_RDONLY;
  bool direct_only = false;
  bool syncs_writes = false;  // O_SYNC, O_DSYNC
  pthread_mutex_t appending = PTHREAD_MUTEX_INITIALIZER;

  // Direct access is sought at the first use, so that plumbfs_align() finds the file without a lease.
  std::atomic<Shared*> direct{nullptr};
  std::atomic<bool> is_refused{false};
  int refused_error = 0;  // before is_refused
  char refused_why[kWhyBytes] = {};
  // Requests that found no lease since the last that did.
  std::atomic<unsigned> misses{0};
};

struct plumbfs_mapping {
  char* address;
  std::size_t length;  // as asked; mapped are whole pages
  Shared* direct;      // nullptr: the kernel's map
  void* anchor;        // keeps the description open, and with it the lease
  bool is_written;
};

namespace {

// nullptr: not to be had; file.refused_why says why.
Shared* seek_direct(plumbfs_file& file) {
  Shared* shared = file.direct.load(std::memory_order_acquire);
  if (shared != nullptr || file.is_refused.load(std::memory_order_acquire)) return shared;
  char why[kWhyBytes] = {};
  int error = 0;
  DirectFile* opened = DirectFile::open(file.fd, file.access != O_RDONLY, &error, why, sizeof why);
  if (opened == nullptr) {
    // Two threads that come at once are told the same.
    const RegistryLock lock;
    if (!file.is_refused.load(std::memory_order_relaxed)) {
      file.refused_error = error;
      std::snprintf(file.refused_why, sizeof file.refused_why, "%s", why[0] != 0 ? why : meaning(error));
      file.is_refused.store(true, std::memory_order_release);
    }
    return nullptr;
  }
  auto* fresh = static_cast<Shared*>(std::malloc(sizeof(Shared)));
  if (fresh == nullptr) {
    DirectFile::destroy(opened);
    return nullptr;
  }
  new (fresh) Shared{opened, {1}};
  Shared* other = nullptr;
  if (file.direct.compare_exchange_strong(other, fresh, std::memory_order_acq_rel)) return fresh;
  leave(fresh);
  return other;
}

// What a caller gets that wants direct access or nothing.
int fail_refused(const plumbfs_file& file, const char* function) {
  if (!file.is_refused.load(std::memory_order_acquire)) return fail_with_meaning(ENOMEM, function);
  return fail(file.refused_error, "%s: %s", function, file.refused_why);
}

// After the nth miss in a row leases are asked for if n is a power of two: holes that nobody fills cost little, and
// blocks that somebody has filled are found soon.
bool is_time_to_learn(plumbfs_file& file) {
  const unsigned misses = file.misses.fetch_add(1, std::memory_order_relaxed) + 1;
  return (misses & (misses - 1)) == 0;
}

// One direct attempt, and another one if there was something to learn.
template <typename Attempt>
ssize_t try_direct(plumbfs_file& file, DirectFile& direct, std::size_t length, std::uint64_t offset,
                   std::uint32_t flags, Attempt attempt) {
  ssize_t done = attempt();
  if (done == kNotHere) {
    std::uint64_t size = 0;
    if (!direct.size(&size) || offset >= size || length > size - offset || !is_time_to_learn(file)) return kNotHere;
    if (direct.learn(offset, length, flags) != 0) return kNotHere;
    done = attempt();
  }
  if (done != kNotHere && file.misses.load(std::memory_order_relaxed) != 0) {
    file.misses.store(0, std::memory_order_relaxed);
  }
  return done;
}

plumbfs_file* adopt(int fd, unsigned flags, const char* function) {
  const int opened = fcntl(fd, F_GETFL);
  struct stat status = {};
  if (opened < 0 || fstat(fd, &status) != 0) {
    fail_with_meaning(errno, function);
    return nullptr;
  }
  if (!S_ISREG(status.st_mode) || (opened & (O_APPEND | O_PATH)) != 0) {
    fail(EINVAL, "%s: %s", function,
         S_ISREG(status.st_mode) ? "not with O_APPEND (use plumbfs_append) or O_PATH" : "not a regular file");
    return nullptr;
  }
  const int access = opened & O_ACCMODE;
  if ((flags & PLUMBFS_DIRECT_ONLY) != 0) {
    int error = 0;
    char why[kWhyBytes] = {};
    const Mount* mount = Mount::of(fd, access != O_RDONLY, &error, why, sizeof why);
    // A Mount may be from before the process gave up its rights.
    if (mount != nullptr) error = mount->hold(why, sizeof why);
    if (mount == nullptr || error != 0) {
      fail(error, "%s: %s", function, why[0] != 0 ? why : meaning(error));
      return nullptr;
    }
    mount->release();
  }
  void* memory = std::malloc(sizeof(plumbfs_file));
  if (memory == nullptr) {
    fail(ENOMEM, "%s: out of memory", function);
    return nullptr;
  }
  auto* file = new (memory) plumbfs_file;
  file->fd = fd;
  file->access = access;
  file->direct_only = (flags & PLUMBFS_DIRECT_ONLY) != 0;
  file->syncs_writes = (opened & (O_SYNC | O_DSYNC)) != 0;
  return file;
}

bool has_unknown(unsigned flags, unsigned known, const char* function) {
  if ((flags & ~known) == 0) return false;
  fail(EINVAL, "%s: unknown flags 0x%x", function, flags & ~known);
  return true;
}

// ---- Maps ----

bool refuse(int error) {
  fail_with_meaning(error, "plumbfs_map");
  return false;
}

// A range of nobody's that begins where `offset` would in a huge page, or at the device's align.
char* reserve(std::uint64_t length, std::uint64_t offset, std::uint64_t align) {
  const std::uint64_t unit = std::max(align, kHugePageBytes);
  void* memory = kernel::map(nullptr, length + unit, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  char* const begin = static_cast<char*>(memory);
  const std::uint64_t shift = (offset - reinterpret_cast<std::uintptr_t>(begin)) % unit;
  char* const address = begin + shift;
  if (shift > 0) kernel::unmap(begin, shift);
  kernel::unmap(address + length, unit - shift);
  return address;
}

bool map_directly(plumbfs_file& file, Shared& shared, plumbfs_mapping* map, std::uint64_t offset, unsigned flags) {
  DirectFile& direct = *shared.file;
  const protocol::Devices& devices = direct.mount().devices();
  const protocol::DeviceMember& member = devices.members[direct.member()];
  const bool stores = (flags & PLUMBFS_MAP_WRITE) != 0;
  if (devices.block_size_bytes < kPageBytes) {
    fail(EINVAL, "plumbfs_map: blocks of %u bytes are smaller than the page: no direct maps on this file system",
         devices.block_size_bytes);
    return false;
  }
  if (stores && !direct.is_writable()) return refuse(EPERM);
  const std::uint64_t bytes = round_up(map->length, kPageBytes);
  // The anchor first: from the first mapped page on the lease may not end.
  void* anchor = kernel::map(nullptr, kPageBytes, PROT_NONE, MAP_PRIVATE, file.fd, 0);
  if (anchor == MAP_FAILED) return refuse(errno);
  char* address = reserve(bytes, offset, member.align_bytes);
  int error = address == nullptr ? ENOMEM : 0;
  if (error == 0) {
    const int protection = stores ? PROT_READ | PROT_WRITE : PROT_READ;
    if (direct.map(address, bytes, offset, protection, stores, MAP_SHARED) != 0) error = errno;
    // On a page-cached device the blocks of the holes are durable only then, and plumbfs_persist() must be able to rely
    // on it.
    if (error == 0 && stores && !direct.mount().is_memory(0) && fdatasync(file.fd) != 0) error = errno;
  }
  if (error == 0) {
    shared.users.fetch_add(1, std::memory_order_relaxed);
    map->address = address;
    map->direct = &shared;
    map->anchor = anchor;
    return true;
  }
  if (address != nullptr) kernel::unmap(address, bytes);
  kernel::unmap(anchor, kPageBytes);
  if (error == EINVAL) {
    fail(EINVAL,
         "plumbfs_map: the device maps multiples of %u bytes only, and the range is none or the file lies "
         "between them (see plumbfs_align)",
         member.align_bytes);
    return false;
  }
  return refuse(error);
}

bool map_by_kernel(const plumbfs_file& file, plumbfs_mapping* map, std::uint64_t offset, unsigned flags) {
  const int protection = (flags & PLUMBFS_MAP_WRITE) != 0 ? PROT_READ | PROT_WRITE : PROT_READ;
  void* address = kernel::map(nullptr, map->length, protection, MAP_SHARED, file.fd, offset);
  if (address == MAP_FAILED) return refuse(errno);
  map->address = static_cast<char*>(address);
  return true;
}

// The range is possible, and the descriptor allows it.
bool may_map(plumbfs_file& file, std::uint64_t offset, std::size_t length, unsigned flags) {
  if (has_unknown(flags, PLUMBFS_MAP_WRITE | PLUMBFS_MAP_ALIGN, "plumbfs_map")) return false;
  if (length == 0 || offset % kPageBytes != 0 || length > std::uint64_t{INT64_MAX} - kPageBytes ||
      offset > std::uint64_t{INT64_MAX} - kPageBytes - length) {
    fail(EINVAL, "plumbfs_map: the offset is no multiple of the page, or the length is out of range");
    return false;
  }
  if (file.access == O_WRONLY || ((flags & PLUMBFS_MAP_WRITE) != 0 && file.access != O_RDWR)) {
    fail(EACCES, "plumbfs_map: the file is not open for %s",
         file.access == O_WRONLY ? "reading" : "reading and writing");
    return false;
  }
  struct stat status = {};
  if (fstat(file.fd, &status) != 0) return refuse(errno);
  if (offset + length > round_up(static_cast<std::uint64_t>(status.st_size), kPageBytes)) {
    fail(ENXIO, "plumbfs_map: the file ends at byte %jd; make it longer first (ftruncate, posix_fallocate)",
         static_cast<std::intmax_t>(status.st_size));
    return false;
  }
  return true;
}

}  // namespace

extern "C" {

int plumbfs_version(void) {
  return PLUMBFS_API_VERSION;
}

const char* plumbfs_error(void) {
  return error_text[0] != 0 ? error_text : "no error";
}

plumbfs_file* plumbfs_open(const char* path, int open_flags, mode_t mode, unsigned flags) {
  if (has_unknown(flags, PLUMBFS_DIRECT_ONLY, "plumbfs_open")) return nullptr;
  const int fd = open(path, open_flags | O_CLOEXEC, mode);
  if (fd < 0) {
    const int error = errno;
    fail(error, "plumbfs_open: %s: %s", path, error == ENOTCONN ? meaning(error) : std::strerror(error));
    return nullptr;
  }
  plumbfs_file* file = adopt(fd, flags, "plumbfs_open");
  if (file == nullptr) kernel::close_file(fd);
  return file;
}

plumbfs_file* plumbfs_open_fd(int fd, unsigned flags) {
  if (has_unknown(flags, PLUMBFS_DIRECT_ONLY, "plumbfs_open_fd")) return nullptr;
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (own < 0) {
    fail_with_meaning(errno, "plumbfs_open_fd");
    return nullptr;
  }
  plumbfs_file* file = adopt(own, flags, "plumbfs_open_fd");
  if (file == nullptr) kernel::close_file(own);
  return file;
}

int plumbfs_close(plumbfs_file* file) {
  if (file == nullptr) return fail(EINVAL, "plumbfs_close: no file");
  Shared* shared = file->direct.load(std::memory_order_acquire);
  if (shared != nullptr) shared->file->use_descriptor(-1);
  leave(shared);
  const int fd = file->fd;
  pthread_mutex_destroy(&file->appending);
  file->~plumbfs_file();
  std::free(file);
  if (close(fd) == 0) return 0;
  return fail_with_meaning(errno, "plumbfs_close");
}

int plumbfs_fd(const plumbfs_file* file) {
  return file->fd;
}

int plumbfs_is_direct(plumbfs_file* file) {
  std::uint64_t size = 0;
  const Shared* shared = seek_direct(*file);
  if (shared == nullptr) {
    fail_refused(*file, "plumbfs_is_direct");
    return 0;
  }
  if (shared->file->size(&size)) return 1;
  fail(ENOTCONN, "plumbfs_is_direct: %s", meaning(ENOTCONN));
  return 0;
}

int plumbfs_size(plumbfs_file* file, uint64_t* size_bytes) {
  const Shared* shared = seek_direct(*file);
  if (shared != nullptr && shared->file->size(size_bytes)) return 0;
  struct stat status = {};
  if (fstat(file->fd, &status) != 0) return fail_with_meaning(errno, "plumbfs_size");
  *size_bytes = static_cast<std::uint64_t>(status.st_size);
  return 0;
}

ssize_t plumbfs_read(plumbfs_file* file, void* to, size_t length, uint64_t offset) {
  if (file->access == O_WRONLY) return fail(EBADF, "plumbfs_read: the file is not open for reading");
  const std::size_t wanted = std::min<std::size_t>(length, SSIZE_MAX);
  const Shared* shared = seek_direct(*file);
  if (shared == nullptr && file->direct_only) return fail_refused(*file, "plumbfs_read");
  if (shared != nullptr) {
    DirectFile& direct = *shared->file;
    const ssize_t done = try_direct(*file, direct, wanted, offset, 0, [&] { return direct.read(to, wanted, offset); });
    if (done != kNotHere) return done;
  }
  std::size_t done = 0;
  while (done < wanted) {
    const ssize_t got =
        pread(file->fd, static_cast<char*>(to) + done, wanted - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && done == 0) return fail_with_meaning(errno, "plumbfs_read");
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

ssize_t plumbfs_write(plumbfs_file* file, const void* from, size_t length, uint64_t offset) {
  if (file->access == O_RDONLY) return fail(EBADF, "plumbfs_write: the file is not open for writing");
  const std::size_t wanted = std::min<std::size_t>(length, SSIZE_MAX);
  const Shared* shared = seek_direct(*file);
  if (shared == nullptr && file->direct_only) return fail_refused(*file, "plumbfs_write");
  if (shared != nullptr) {
    DirectFile& direct = *shared->file;
    const bool is_durable = direct.mount().is_memory(direct.member());
    // O_SYNC on a page-cached device: the kernel's write is one request, and durable.
    if (is_durable || !file->syncs_writes) {
      const ssize_t done =
          try_direct(*file, direct, wanted, offset, direct.is_writable() ? protocol::kLeaseAllocate : 0,
                     [&] { return direct.write(from, wanted, offset); });
      if (done != kNotHere) return done;
    }
  }
  std::size_t done = 0;
  while (done < wanted) {
    const ssize_t put =
        pwrite(file->fd, static_cast<const char*>(from) + done, wanted - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0 && done == 0) return fail_with_meaning(errno, "plumbfs_write");
    if (put <= 0) break;
    done += static_cast<std::size_t>(put);
  }
  return static_cast<ssize_t>(done);
}

ssize_t plumbfs_append(plumbfs_file* file, const void* from, size_t length, uint64_t* offset) {
  if (file->access == O_RDONLY) return fail(EBADF, "plumbfs_append: the file is not open for writing");
  const iovec part = {const_cast<void*>(from), std::min<std::size_t>(length, SSIZE_MAX)};
  // The kernel knows the end of the file for sure: nobody else makes it longer. A thread that is cancelled in the
  // middle would keep the lock.
  int cancellable = 0;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellable);
  pthread_mutex_lock(&file->appending);
  ssize_t put = -1;
  do {
    put = pwritev2(file->fd, &part, 1, -1, RWF_APPEND);
  } while (put < 0 && errno == EINTR);
  int error = errno;
  off_t end = 0;
  if (put >= 0 && offset != nullptr) {
    end = lseek(file->fd, 0, SEEK_CUR);
    error = errno;
  }
  pthread_mutex_unlock(&file->appending);
  pthread_setcancelstate(cancellable, nullptr);
  if (put < 0 || end < 0) return fail_with_meaning(error, "plumbfs_append");
  if (offset != nullptr) *offset = static_cast<std::uint64_t>(end - put);
  return put;
}

int plumbfs_fsync(plumbfs_file* file) {
  const Shared* shared = file->direct.load(std::memory_order_acquire);
  if (shared != nullptr && shared->file->is_synced(false)) return 0;
  if (fsync(file->fd) == 0) return 0;
  return fail_with_meaning(errno, "plumbfs_fsync");
}

int plumbfs_align(plumbfs_file* file, uint64_t* aligned_bytes) {
  if (file->direct.load(std::memory_order_acquire) != nullptr) {
    return fail(EBUSY, "plumbfs_align: the file has been read, written or mapped here: align it first");
  }
  protocol::Align answer = {};
  answer.version = protocol::kVersion;
  if (kernel::control(file->fd, protocol::kIocAlign, &answer) != 0) return fail_with_meaning(errno, "plumbfs_align");
  if (aligned_bytes != nullptr) *aligned_bytes = answer.aligned_bytes;
  return 0;
}

plumbfs_mapping* plumbfs_map(plumbfs_file* file, uint64_t offset, size_t length, unsigned flags) {
  if (!may_map(*file, offset, length, flags)) return nullptr;
  if ((flags & PLUMBFS_MAP_ALIGN) != 0 && plumbfs_align(file, nullptr) != 0 && (errno != ENOTTY || file->direct_only)) {
    return nullptr;
  }
  void* memory = std::malloc(sizeof(plumbfs_mapping));
  if (memory == nullptr) {
    fail(ENOMEM, "plumbfs_map: out of memory");
    return nullptr;
  }
  auto* map = new (memory) plumbfs_mapping{};
  map->length = length;
  map->is_written = (flags & PLUMBFS_MAP_WRITE) != 0;
  Shared* shared = seek_direct(*file);
  bool is_mapped = shared != nullptr && map_directly(*file, *shared, map, offset, flags);
  if (!is_mapped && !file->direct_only) {
    is_mapped = map_by_kernel(*file, map, offset, flags);
  } else if (!is_mapped && shared == nullptr) {
    fail_refused(*file, "plumbfs_map");
  }
  if (is_mapped) return map;
  const int error = errno;
  std::free(map);
  errno = error;
  return nullptr;
}

void* plumbfs_map_address(const plumbfs_mapping* map) {
  return map->address;
}

size_t plumbfs_map_length(const plumbfs_mapping* map) {
  return map->length;
}

int plumbfs_map_is_direct(const plumbfs_mapping* map) {
  return map->direct != nullptr ? 1 : 0;
}

int plumbfs_persist(const plumbfs_mapping* map, const void* address, size_t length) {
  const auto begin = reinterpret_cast<std::uintptr_t>(address);
  const auto first = reinterpret_cast<std::uintptr_t>(map->address);
  if (begin < first || begin - first > map->length || length > map->length - (begin - first)) {
    return fail(EINVAL, "plumbfs_persist: the range is not in the map");
  }
  if (length == 0) return 0;
  if (map->direct != nullptr && map->is_written) map->direct->file->note_stores();
  if (map->direct != nullptr && map->direct->file->mount().is_memory(map->direct->file->member())) {
    plumb::client::persist(address, length);
    return 0;
  }
  const std::uintptr_t page = begin / kPageBytes * kPageBytes;
  if (kernel::sync_pages(reinterpret_cast<void*>(page), begin + length - page) == 0) return 0;
  return fail_with_meaning(errno, "plumbfs_persist");
}

int plumbfs_unmap(plumbfs_mapping* map) {
  if (map == nullptr) return fail(EINVAL, "plumbfs_unmap: no map");
  if (map->direct != nullptr && map->is_written) map->direct->file->note_stores();
  kernel::unmap(map->address, round_up(map->length, kPageBytes));
  leave(map->direct);
  // Last: with it the lease may end.
  if (map->anchor != nullptr) kernel::unmap(map->anchor, kPageBytes);
  std::free(map);
  return 0;
}

}  // extern "C"
