// The functions behind ours: what a call becomes that is not answered here.
//
// Those that can be cancelled, or whose work another preloaded library may have to see, are libc's (or the next
// library's), found by the constructor. Until then, and where there is none, they are the bare system calls. Everything
// else is a bare system call always (raw.h).
//
// Thread safety: written once, before the program has threads.
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/uio.h>

namespace plumb::preload {

struct Next {
  int (*open)(const char*, int, ...);
  int (*openat)(int, const char*, int, ...);
  int (*close)(int);
  int (*dup)(int);
  int (*dup2)(int, int);
  int (*dup3)(int, int, int);
  int (*fcntl)(int, int, ...);
  int (*close_range)(unsigned, unsigned, int);
  int (*fclose)(FILE*);
  FILE* (*freopen)(const char*, const char*, FILE*);
  int (*daemon)(int, int);
  ssize_t (*pread)(int, void*, size_t, off64_t);
  ssize_t (*pwrite)(int, const void*, size_t, off64_t);
  ssize_t (*preadv)(int, const iovec*, int, off64_t);
  ssize_t (*pwritev)(int, const iovec*, int, off64_t);
  ssize_t (*preadv2)(int, const iovec*, int, off64_t, int);
  ssize_t (*pwritev2)(int, const iovec*, int, off64_t, int);
  off64_t (*lseek)(int, off64_t, int);
  int (*fsync)(int);
  int (*fdatasync)(int);
  int (*sync_file_range)(int, off64_t, off64_t, unsigned);
  int (*msync)(void*, size_t, int);
  int (*ftruncate)(int, off64_t);
  int (*fallocate)(int, int, off64_t, off64_t);
  int (*posix_fallocate)(int, off64_t, off64_t);
  int (*setrlimit)(unsigned, const void*);
  int (*prlimit)(pid_t, unsigned, const void*, void*);
};

extern Next next;

/// dlsym for all of them.
void find_next();

}  // namespace plumb::preload
