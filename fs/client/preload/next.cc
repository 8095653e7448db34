#include "fs/client/preload/next.h"

#include <dlfcn.h>

#include <cstdarg>
#include <utility>

#include "fs/client/preload/raw.h"

namespace plumb::preload {
namespace {

mode_t mode_argument(int flags, va_list arguments) {
  if ((flags & O_CREAT) == 0 && (flags & O_TMPFILE) != O_TMPFILE) return 0;
  return va_arg(arguments, mode_t);
}

int raw_openat(int directory, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return static_cast<int>(raw::posix(raw::call(SYS_openat, directory, path, flags, mode)));
}

int raw_open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_argument(flags, arguments);
  va_end(arguments);
  return static_cast<int>(raw::posix(raw::call(SYS_openat, AT_FDCWD, path, flags, mode)));
}

int raw_fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  const long argument = va_arg(arguments, long);
  va_end(arguments);
  return static_cast<int>(raw::posix(raw::call(SYS_fcntl, fd, command, argument)));
}

// posix_fallocate returns its error; the emulation for file systems without it is libc's alone.
int raw_posix_fallocate(int fd, off64_t offset, off64_t length) {
  return static_cast<int>(-raw::call(SYS_fallocate, fd, 0, offset, length));
}

template <long kNumber, typename Result, typename... Arguments>
Result raw_call(Arguments... arguments) {
  return static_cast<Result>(raw::posix(raw::call(kNumber, arguments...)));
}

// The kernel takes the offset of these in two words, of which the lower is whole.
template <long kNumber>
ssize_t raw_vector(int fd, const iovec* parts, int count, off64_t offset) {
  return raw::posix(raw::call(kNumber, fd, parts, count, offset, 0));
}
template <long kNumber>
ssize_t raw_vector2(int fd, const iovec* parts, int count, off64_t offset, int flags) {
  return raw::posix(raw::call(kNumber, fd, parts, count, offset, 0, flags));
}

// stdio has no system call; before the constructor no program has a stream to close.
int no_fclose(FILE*) {
  errno = ENOSYS;
  return EOF;
}
FILE* no_freopen(const char*, const char*, FILE*) {
  errno = ENOSYS;
  return nullptr;
}
int no_daemon(int, int) {
  errno = ENOSYS;
  return -1;
}

template <typename Function>
void find(Function& function, const char* name) {
  if (void* const found = ::dlsym(RTLD_NEXT, name); found != nullptr) function = reinterpret_cast<Function>(found);
}

}  // namespace

constinit Next next = {
    .open = raw_open,
    .openat = raw_openat,
    .close = raw_call<SYS_close, int, int>,
    .dup = raw_call<SYS_dup, int, int>,
    .dup2 = raw_call<SYS_dup2, int, int, int>,
    .dup3 = raw_call<SYS_dup3, int, int, int, int>,
    .fcntl = raw_fcntl,
    .close_range = raw_call<SYS_close_range, int, unsigned, unsigned, int>,
    .fclose = no_fclose,
    .freopen = no_freopen,
    .daemon = no_daemon,
    .pread = raw_call<SYS_pread64, ssize_t, int, void*, size_t, off64_t>,
    .pwrite = raw_call<SYS_pwrite64, ssize_t, int, const void*, size_t, off64_t>,
    .preadv = raw_vector<SYS_preadv>,
    .pwritev = raw_vector<SYS_pwritev>,
    .preadv2 = raw_vector2<SYS_preadv2>,
    .pwritev2 = raw_vector2<SYS_pwritev2>,
    .lseek = raw_call<SYS_lseek, off64_t, int, off64_t, int>,
    .fsync = raw_call<SYS_fsync, int, int>,
    .fdatasync = raw_call<SYS_fdatasync, int, int>,
    .sync_file_range = raw_call<SYS_sync_file_range, int, int, off64_t, off64_t, unsigned>,
    .msync = raw_call<SYS_msync, int, void*, size_t, int>,
    .ftruncate = raw_call<SYS_ftruncate, int, int, off64_t>,
    .fallocate = raw_call<SYS_fallocate, int, int, int, off64_t, off64_t>,
    .posix_fallocate = raw_posix_fallocate,
    .setrlimit = raw_call<SYS_setrlimit, int, unsigned, const void*>,
    .prlimit = raw_call<SYS_prlimit64, int, pid_t, unsigned, const void*, void*>,
};

void find_next() {
  find(next.open, "open64");
  find(next.openat, "openat64");
  find(next.close, "close");
  find(next.dup, "dup");
  find(next.dup2, "dup2");
  find(next.dup3, "dup3");
  find(next.fcntl, "fcntl64");
  find(next.close_range, "close_range");
  find(next.fclose, "fclose");
  find(next.freopen, "freopen64");
  find(next.daemon, "daemon");
  find(next.pread, "pread64");
  find(next.pwrite, "pwrite64");
  find(next.preadv, "preadv64");
  find(next.pwritev, "pwritev64");
  find(next.preadv2, "preadv64v2");
  find(next.pwritev2, "pwritev64v2");
  find(next.lseek, "lseek64");
  find(next.fsync, "fsync");
  find(next.fdatasync, "fdatasync");
  find(next.sync_file_range, "sync_file_range");
  find(next.msync, "msync");
  find(next.ftruncate, "ftruncate64");
  find(next.fallocate, "fallocate64");
  find(next.posix_fallocate, "posix_fallocate64");
  find(next.setrlimit, "setrlimit64");
  find(next.prlimit, "prlimit64");
}

}  // namespace plumb::preload
