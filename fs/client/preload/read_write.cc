// pread, pwrite and their like: from and to the device, without a system call.
//
// Async-signal-safe, as libc's are. Cancellation points, as libc's are: a direct one is before it begins.

#include <errno.h>
#include <pthread.h>
#include <sys/uio.h>

#include <cstdint>
#include <limits>

#include "fs/client/preload/export.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/next.h"
#include "fs/client/preload/table.h"
#include "fs/client/preload/thread.h"

namespace plumb::preload {
namespace {

using client::DirectFile;
using client::kNotHere;

constexpr std::size_t kTransferMax = 0x7ffff000;  // of one request, read(2)

struct Read {
  using Buffer = void*;
  static constexpr bool kMayAppend = false;
  static bool may(const File& file) { return file.reads.load(std::memory_order_relaxed); }
  static ssize_t direct(DirectFile& file, void* to, std::size_t length, std::uint64_t offset) {
    return file.read(to, length, offset);
  }
  static void count(Counters& counters, ssize_t bytes) {
    ++counters.direct_reads;
    counters.direct_read_bytes += static_cast<std::uint64_t>(bytes);
  }
  static void count_kernel(Counters& counters, ssize_t bytes) {
    ++counters.kernel_reads;
    if (bytes > 0) counters.kernel_read_bytes += static_cast<std::uint64_t>(bytes);
  }
};

struct Write {
  using Buffer = const void*;
  // What makes a file longer is the kernel's. A file that is only written from its start to its end, or a journal that
  // is gone with its transaction, is not worth the request for a lease.
  static constexpr bool kMayAppend = true;
  static bool may(const File& file) {
    return file.writes.load(std::memory_order_relaxed) && !size_is_limited.load(std::memory_order_relaxed);
  }
  static ssize_t direct(DirectFile& file, const void* from, std::size_t length, std::uint64_t offset) {
    return file.write(from, length, offset);
  }
  static void count(Counters& counters, ssize_t bytes) {
    ++counters.direct_writes;
    counters.direct_write_bytes += static_cast<std::uint64_t>(bytes);
  }
  static void count_kernel(Counters& counters, ssize_t bytes) {
    ++counters.kernel_writes;
    if (bytes > 0) counters.kernel_write_bytes += static_cast<std::uint64_t>(bytes);
  }
};

bool is_plain(std::size_t length, off64_t offset) {
  return length <= kTransferMax && offset >= 0 &&
         offset <= std::numeric_limits<off64_t>::max() - static_cast<off64_t>(length);
}

// What is left to the kernel of a file that is known; the statistics of a thread that has no place are not kept.
template <typename Way>
void count_left(Entry entry, ssize_t result) {
  if (entry.is_file() && this_thread != nullptr) Way::count_kernel(this_thread->counters, result);
}

// The file is not known yet, or has not all that was asked for.
template <typename Way>
__attribute__((noinline)) ssize_t transfer_slowly(int fd, typename Way::Buffer buffer, std::size_t length,
                                                  off64_t offset, Entry* entry) {
  if (!is_plain(length, offset)) return kNotHere;
  if (Way::kMayAppend && entry->is_unknown() && is_append(fd, static_cast<std::uint64_t>(offset) + length)) {
    return kNotHere;
  }
  File* const file = find_file(fd, MayWait::kNo, entry);
  if (file == nullptr) return kNotHere;
  const Use use(file);
  if (!use || !(load(find_place(fd)) == *entry)) return kNotHere;
  DirectFile* const direct = file->direct.load(std::memory_order_acquire);
  if (direct == nullptr || !Way::may(*file)) return kNotHere;
  const auto start = static_cast<std::uint64_t>(offset);
  ssize_t result = Way::direct(*direct, buffer, length, start);
  if (result == kNotHere && learn_more(file, fd, start, length)) {
    result = Way::direct(*direct, buffer, length, start);
    if (result != kNotHere) file->misses.store(0, std::memory_order_relaxed);
  }
  if (result != kNotHere) Way::count(use.counters(), result);
  return result;
}

template <typename Way>
__attribute__((always_inline)) inline ssize_t transfer(int fd, typename Way::Buffer buffer, std::size_t length,
                                                       off64_t offset, Entry* entry) {
  std::atomic<std::uint64_t>* const place = find_place(fd);
  if (__builtin_expect(place != nullptr, 1)) {
    *entry = load(place);
    if (__builtin_expect(entry->is_file(), 1)) {
      if (__builtin_expect(!is_plain(length, offset), 0)) return kNotHere;
      ::pthread_testcancel();
      File* const file = entry->file();
      const Use use(file);
      if (__builtin_expect(use && load(place) == *entry, 1)) {
        DirectFile* const direct = file->direct.load(std::memory_order_acquire);
        if (direct == nullptr || !Way::may(*file)) return kNotHere;
        const ssize_t result = Way::direct(*direct, buffer, length, static_cast<std::uint64_t>(offset));
        if (__builtin_expect(result != kNotHere, 1)) {
          Way::count(use.counters(), result);
          return result;
        }
      }
    } else if (!entry->is_unknown()) {
      return kNotHere;
    }
  }
  return transfer_slowly<Way>(fd, buffer, length, offset, entry);
}

// The parts one after the other. What the direct path cannot do from some part on is one request to the kernel.
template <typename Way, typename Kernel>
ssize_t transfer_parts(int fd, const iovec* parts, int count, off64_t offset, Entry* entry, Kernel&& kernel) {
  // The sum as well has to fit; the kernel knows what else is wrong.
  std::size_t sum = 0;
  if (count < 0 || count > IOV_MAX) return kernel(parts, count, offset);
  for (int i = 0; i < count; ++i) {
    if (parts[i].iov_len > kTransferMax - sum) return kernel(parts, count, offset);
    sum += parts[i].iov_len;
  }
  ssize_t done = 0;
  for (int i = 0; i < count; ++i) {
    if (parts[i].iov_len == 0) continue;
    const ssize_t result = transfer<Way>(fd, parts[i].iov_base, parts[i].iov_len, offset + done, entry);
    if (result == kNotHere) {
      const ssize_t rest = kernel(parts + i, count - i, offset + done);
      count_left<Way>(*entry, rest);
      return rest >= 0 ? done + rest : done > 0 ? done : rest;
    }
    done += result;
    if (static_cast<std::size_t>(result) < parts[i].iov_len) return done;  // the end of the file
  }
  return sum > 0 ? done : kernel(parts, count, offset);
}

}  // namespace
}  // namespace plumb::preload

using namespace plumb::preload;

extern "C" {

ssize_t plumb_pread(int fd, void* to, size_t length, off64_t offset) PLUMB_EXPORT("pread64");
ssize_t plumb_pread(int fd, void* to, size_t length, off64_t offset) {
  Entry entry;
  ssize_t result = transfer<Read>(fd, to, length, offset, &entry);
  if (__builtin_expect(result != plumb::client::kNotHere, 1)) return result;
  result = next.pread(fd, to, length, offset);
  count_left<Read>(entry, result);
  return result;
}
ssize_t plumb_pread_2(int, void*, size_t, off64_t) PLUMB_ALIAS("pread", "pread64");
ssize_t plumb_pread_3(int, void*, size_t, off64_t) PLUMB_ALIAS("__pread64", "pread64");

// What the compiler calls where it knows the size of the buffer (_FORTIFY_SOURCE).
void plumb_chk_fail() __asm__("__chk_fail") __attribute__((noreturn));
ssize_t plumb_pread_chk(int fd, void* to, size_t length, off64_t offset, size_t room) PLUMB_EXPORT("__pread64_chk");
ssize_t plumb_pread_chk(int fd, void* to, size_t length, off64_t offset, size_t room) {
  if (length > room) plumb_chk_fail();
  return plumb_pread(fd, to, length, offset);
}
ssize_t plumb_pread_chk_2(int, void*, size_t, off64_t, size_t) PLUMB_ALIAS("__pread_chk", "__pread64_chk");

ssize_t plumb_pwrite(int fd, const void* from, size_t length, off64_t offset) PLUMB_EXPORT("pwrite64");
ssize_t plumb_pwrite(int fd, const void* from, size_t length, off64_t offset) {
  Entry entry;
  ssize_t result = transfer<Write>(fd, from, length, offset, &entry);
  if (__builtin_expect(result != plumb::client::kNotHere, 1)) return result;
  result = next.pwrite(fd, from, length, offset);
  count_left<Write>(entry, result);
  return result;
}
ssize_t plumb_pwrite_2(int, const void*, size_t, off64_t) PLUMB_ALIAS("pwrite", "pwrite64");
ssize_t plumb_pwrite_3(int, const void*, size_t, off64_t) PLUMB_ALIAS("__pwrite64", "pwrite64");

ssize_t plumb_preadv(int fd, const iovec* parts, int count, off64_t offset) PLUMB_EXPORT("preadv64");
ssize_t plumb_preadv(int fd, const iovec* parts, int count, off64_t offset) {
  Entry entry;
  return transfer_parts<Read>(fd, parts, count, offset, &entry, [fd](const iovec* rest, int left, off64_t at) {
    return next.preadv(fd, rest, left, at);
  });
}
ssize_t plumb_preadv_2(int, const iovec*, int, off64_t) PLUMB_ALIAS("preadv", "preadv64");

ssize_t plumb_pwritev(int fd, const iovec* parts, int count, off64_t offset) PLUMB_EXPORT("pwritev64");
ssize_t plumb_pwritev(int fd, const iovec* parts, int count, off64_t offset) {
  Entry entry;
  return transfer_parts<Write>(fd, parts, count, offset, &entry, [fd](const iovec* rest, int left, off64_t at) {
    return next.pwritev(fd, rest, left, at);
  });
}
ssize_t plumb_pwritev_2(int, const iovec*, int, off64_t) PLUMB_ALIAS("pwritev", "pwritev64");

// With flags, and at the offset of the description, the kernel's. RWF_HIPRI is a hint that has nothing to hint at.
ssize_t plumb_preadv2(int fd, const iovec* parts, int count, off64_t offset, int flags) PLUMB_EXPORT("preadv64v2");
ssize_t plumb_preadv2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  if ((flags & ~RWF_HIPRI) != 0 || offset < 0) return next.preadv2(fd, parts, count, offset, flags);
  Entry entry;
  return transfer_parts<Read>(fd, parts, count, offset, &entry, [fd, flags](const iovec* rest, int left, off64_t at) {
    return next.preadv2(fd, rest, left, at, flags);
  });
}
ssize_t plumb_preadv2_2(int, const iovec*, int, off64_t, int) PLUMB_ALIAS("preadv2", "preadv64v2");

ssize_t plumb_pwritev2(int fd, const iovec* parts, int count, off64_t offset, int flags) PLUMB_EXPORT("pwritev64v2");
ssize_t plumb_pwritev2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  if ((flags & ~RWF_HIPRI) != 0 || offset < 0) return next.pwritev2(fd, parts, count, offset, flags);
  Entry entry;
  return transfer_parts<Write>(fd, parts, count, offset, &entry, [fd, flags](const iovec* rest, int left, off64_t at) {
    return next.pwritev2(fd, rest, left, at, flags);
  });
}
ssize_t plumb_pwritev2_2(int, const iovec*, int, off64_t, int) PLUMB_ALIAS("pwritev2", "pwritev64v2");

}  // extern "C"
