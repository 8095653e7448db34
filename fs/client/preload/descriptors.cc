// What makes, duplicates and ends descriptors: the table of descriptors stays right by it.
//
// open() does not look at the file: most files are never read in a way that we can do better. The first pread, mmap or
// fsync does (find_file). All that open() has to say is that a number is in use anew.

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>

#include "fs/client/preload/export.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/maps.h"
#include "fs/client/preload/next.h"
#include "fs/client/preload/process.h"
#include "fs/client/preload/raw.h"
#include "fs/client/preload/stats.h"
#include "fs/client/preload/table.h"
#include "fs/client/preload/unbroken.h"

namespace plumb::preload {
namespace {

mode_t mode_argument(int flags, va_list arguments) {
  if ((flags & O_CREAT) == 0 && (flags & O_TMPFILE) != O_TMPFILE) return 0;
  return va_arg(arguments, mode_t);
}

// With PLUMBFS_REQUIRE_DIRECT a file that would be left to the kernel is refused here, where the program expects
// errors.
int refuse_indirect(int fd, const char* path) {
  Entry entry;
  // The last time to move it, should it be mapped.
  const File* const file = find_file(fd, MayWait::kYes, &entry, Purpose::kShare);
  if (file == nullptr || file->owned != nullptr) return fd;
  complain("%s: refused, as PLUMBFS_REQUIRE_DIRECT is set: %s", path, last_reason());
  end_close(begin_close(fd), raw::call(SYS_close, fd) == 0);
  errno = EACCES;
  return -1;
}

int opened(int fd, const char* path) {
  if (fd < 0) return fd;
  note_opened(fd);
  return settings.require_direct ? refuse_indirect(fd, path) : fd;
}

int duplicated(int from, int to) {
  if (to >= 0) note_duplicated(from, to);
  return to;
}

// -1 if it has none.
int number_of(FILE* stream) {
  const int saved = errno;
  const int fd = ::fileno(stream);
  errno = saved;
  return fd;
}

bool leads_to_file(int fd) {
  const std::atomic<std::uint64_t>* const place = find_place(fd);
  return place != nullptr && load(place).is_file();
}

// Closes `fd` by `call`, and tells the table. `is_closed` says by its result whether it worked.
template <typename Call, typename IsClosed>
auto close_by(int fd, Call&& call, IsClosed&& is_closed) {
  const auto close_it = [&] {
    const Closing closing = begin_close(fd);
    const auto result = call();
    end_close(closing, is_closed(result));
    return result;
  };
  if (!leads_to_file(fd)) return close_it();
  const Unbroken unbroken;
  return close_it();
}

// dup2 and dup3: the number is closed and something else at once.
template <typename Call>
int replace(int from, int to, Call&& call) {
  if (from == to) return call();
  return duplicated(from, close_by(to, call, [](int result) { return result >= 0; }));
}

int controlled(int fd, int command, int result) {
  if (result < 0) return result;
  if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) return duplicated(fd, result);
  if (command == F_SETFL) note_flags(fd);
  return result;
}

int limited(unsigned resource, int result) {
  if (result == 0 && resource == RLIMIT_FSIZE) look_at_limit();
  return result;
}

// Ends what the table knows of [first, last], and calls `call` in the middle.
template <typename Call>
int close_many(unsigned first, unsigned last, Call&& call) {
  // The files one by one, as they may have to be waited for; then what else there is.
  for_each_file(first, last, [](int fd) {
    close_by(
        fd, [] { return 0; }, [](int) { return true; });
  });
  return call();
}

}  // namespace
}  // namespace plumb::preload

using namespace plumb::preload;

extern "C" {

int plumb_open(const char* path, int flags, ...) PLUMB_EXPORT("open64");
int plumb_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return opened(next.open(path, flags, mode), path);
}
int plumb_open_2(const char*, int, ...) PLUMB_ALIAS("open", "open64");
int plumb_open_3(const char*, int, ...) PLUMB_ALIAS("__open", "open64");
int plumb_open_4(const char*, int, ...) PLUMB_ALIAS("__open64", "open64");

int plumb_openat(int directory, const char* path, int flags, ...) PLUMB_EXPORT("openat64");
int plumb_openat(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return opened(next.openat(directory, path, flags, mode), path);
}
int plumb_openat_2(int, const char*, int, ...) PLUMB_ALIAS("openat", "openat64");

int plumb_creat(const char* path, mode_t mode) PLUMB_EXPORT("creat64");
int plumb_creat(const char* path, mode_t mode) {
  return opened(next.open(path, O_CREAT | O_WRONLY | O_TRUNC, mode), path);
}
int plumb_creat_2(const char*, mode_t) PLUMB_ALIAS("creat", "creat64");

// What the compiler calls where it knows that there is no mode (_FORTIFY_SOURCE).
int plumb_open_chk(const char* path, int flags) PLUMB_EXPORT("__open64_2");
int plumb_open_chk(const char* path, int flags) {
  return opened(next.open(path, flags, 0), path);
}
int plumb_open_chk_2(const char*, int) PLUMB_ALIAS("__open_2", "__open64_2");
int plumb_openat_chk(int directory, const char* path, int flags) PLUMB_EXPORT("__openat64_2");
int plumb_openat_chk(int directory, const char* path, int flags) {
  return opened(next.openat(directory, path, flags, 0), path);
}
int plumb_openat_chk_2(int, const char*, int) PLUMB_ALIAS("__openat_2", "__openat64_2");

int plumb_close(int fd) PLUMB_EXPORT("close");
int plumb_close(int fd) {
  ::pthread_testcancel();
  // Linux has closed it after EINTR and EIO too.
  return close_by(
      fd, [fd] { return next.close(fd); }, [](int result) { return result == 0 || errno != EBADF; });
}
int plumb_close_2(int) PLUMB_ALIAS("__close", "close");

int plumb_close_range(unsigned first, unsigned last, int flags) PLUMB_EXPORT("close_range");
int plumb_close_range(unsigned first, unsigned last, int flags) {
  const auto call = [&] { return next.close_range(first, last, flags); };
  if ((flags & CLOSE_RANGE_CLOEXEC) != 0 || first > last || !owns_tables()) return call();
  return close_many(first, last, call);
}
void plumb_closefrom(int first) PLUMB_EXPORT("closefrom");
void plumb_closefrom(int first) {
  const unsigned from = first < 0 ? 0 : static_cast<unsigned>(first);
  if (plumb_close_range(from, ~0U, 0) == 0) return;
  // A kernel before 5.9.
  const long limit = ::sysconf(_SC_OPEN_MAX);
  for (long fd = from; fd < limit; ++fd) plumb_close(static_cast<int>(fd));
}

// stdio closes by a name of libc's own.
int plumb_fclose(FILE* stream) PLUMB_EXPORT("fclose");
int plumb_fclose(FILE* stream) {
  return close_by(
      number_of(stream), [stream] { return next.fclose(stream); }, [](int) { return true; });
}
int plumb_fclose_2(FILE*) PLUMB_ALIAS("_IO_fclose", "fclose");
FILE* plumb_freopen(const char* path, const char* mode, FILE* stream) PLUMB_EXPORT("freopen64");
FILE* plumb_freopen(const char* path, const char* mode, FILE* stream) {
  return close_by(
      number_of(stream), [path, mode, stream] { return next.freopen(path, mode, stream); },
      [](const FILE*) { return true; });
}
FILE* plumb_freopen_2(const char*, const char*, FILE*) PLUMB_ALIAS("freopen", "freopen64");

int plumb_dup(int fd) PLUMB_EXPORT("dup");
int plumb_dup(int fd) {
  return duplicated(fd, next.dup(fd));
}
int plumb_dup2(int from, int to) PLUMB_EXPORT("dup2");
int plumb_dup2(int from, int to) {
  return replace(from, to, [&] { return next.dup2(from, to); });
}
int plumb_dup2_2(int, int) PLUMB_ALIAS("__dup2", "dup2");
int plumb_dup3(int from, int to, int flags) PLUMB_EXPORT("dup3");
int plumb_dup3(int from, int to, int flags) {
  return replace(from, to, [&] { return next.dup3(from, to, flags); });
}

int plumb_fcntl(int fd, int command, ...) PLUMB_EXPORT("fcntl64");
int plumb_fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return controlled(fd, command, next.fcntl(fd, command, argument));
}
int plumb_fcntl_2(int, int, ...) PLUMB_ALIAS("fcntl", "fcntl64");
int plumb_fcntl_3(int, int, ...) PLUMB_ALIAS("__fcntl", "fcntl64");

// Replaces the first three descriptors by libc's own means.
int plumb_daemon(int keep_directory, int keep_descriptors) PLUMB_EXPORT("daemon");
int plumb_daemon(int keep_directory, int keep_descriptors) {
  const int result = next.daemon(keep_directory, keep_descriptors);
  if (result == 0 && keep_descriptors == 0) {
    for (const int fd : {0, 1, 2}) note_opened(fd);
  }
  return result;
}

int plumb_setrlimit(unsigned resource, const void* limit) PLUMB_EXPORT("setrlimit64");
int plumb_setrlimit(unsigned resource, const void* limit) {
  return limited(resource, next.setrlimit(resource, limit));
}
int plumb_setrlimit_2(unsigned, const void*) PLUMB_ALIAS("setrlimit", "setrlimit64");
int plumb_prlimit(pid_t process, unsigned resource, const void* limit, void* old) PLUMB_EXPORT("prlimit64");
int plumb_prlimit(pid_t process, unsigned resource, const void* limit, void* old) {
  return limited(resource, next.prlimit(process, resource, limit, old));
}
int plumb_prlimit_2(pid_t, unsigned, const void*, void*) PLUMB_ALIAS("prlimit", "prlimit64");

// Programs and runtimes that call the kernel by number: what would make the tables wrong goes through our functions.
// The engine, which is linked into this library, calls the kernel by number too, and means the kernel (the linker's
// --wrap).
long plumb_wrapped_syscall(long number, long a, long b, long c, long d, long e, long f) PLUMB_EXPORT("__wrap_syscall");
long plumb_wrapped_syscall(long number, long a, long b, long c, long d, long e, long f) {
  return raw::posix(raw::call6(number, a, b, c, d, e, f));
}
long plumb_syscall(long number, long a, long b, long c, long d, long e, long f) PLUMB_EXPORT("syscall");
long plumb_syscall(long number, long a, long b, long c, long d, long e, long f) {
  const auto by_kernel = [&] { return plumb_wrapped_syscall(number, a, b, c, d, e, f); };
  switch (number) {
    case SYS_close:
      return plumb_close(static_cast<int>(a));
    case SYS_close_range:
      return plumb_close_range(static_cast<unsigned>(a), static_cast<unsigned>(b), static_cast<int>(c));
    case SYS_dup2:
      return plumb_dup2(static_cast<int>(a), static_cast<int>(b));
    case SYS_dup3:
      return plumb_dup3(static_cast<int>(a), static_cast<int>(b), static_cast<int>(c));
    case SYS_mmap:
      return reinterpret_cast<long>(map_file(reinterpret_cast<void*>(a), static_cast<size_t>(b), static_cast<int>(c),
                                             static_cast<int>(d), static_cast<int>(e), f));
    case SYS_munmap:
      return unmap(reinterpret_cast<void*>(a), static_cast<size_t>(b));
    case SYS_mremap:
      return reinterpret_cast<long>(remap(reinterpret_cast<void*>(a), static_cast<size_t>(b), static_cast<size_t>(c),
                                          static_cast<int>(d), reinterpret_cast<void*>(e)));
    case SYS_mprotect:
      return protect(reinterpret_cast<void*>(a), static_cast<size_t>(b), static_cast<int>(c), -1);
    case SYS_pkey_mprotect:
      return protect(reinterpret_cast<void*>(a), static_cast<size_t>(b), static_cast<int>(c), static_cast<int>(d));
    case SYS_remap_file_pages:
      return remap_pages(reinterpret_cast<void*>(a), static_cast<size_t>(b), static_cast<int>(c),
                         static_cast<size_t>(d), static_cast<int>(e));
    case SYS_madvise:
      return advise(reinterpret_cast<void*>(a), static_cast<size_t>(b), static_cast<int>(c));
    case SYS_msync:
      return sync_map(reinterpret_cast<void*>(a), static_cast<size_t>(b), static_cast<int>(c));
    case SYS_fcntl:
      return controlled(static_cast<int>(a), static_cast<int>(b), static_cast<int>(by_kernel()));
    case SYS_setrlimit:
      return limited(static_cast<unsigned>(a), static_cast<int>(by_kernel()));
    case SYS_prlimit64:
      return limited(static_cast<unsigned>(b), static_cast<int>(by_kernel()));
    default:
      return by_kernel();
  }
}

}  // extern "C"
