/* Files of a plumbfs without system calls: reads and writes as copies, and maps of the file's own device pages.
 *
 * libplumbfs opens the devices of the mount itself, as the user that the program runs as: who may not open them gets no
 * direct access. Then, and on any other file system, every function does the same by the kernel, unless the file was
 * opened with PLUMBFS_DIRECT_ONLY. A program that may open the devices could read all of them: that is what the
 * permissions of a device mean.
 *
 * On a memory device (see plumbfs(8)) a write is durable when it returns, and a store when plumbfs_persist() has
 * returned. On other devices a write is durable after plumbfs_fsync(), a store after plumbfs_persist() or
 * plumbfs_fsync().
 *
 * Other processes see what is stored at once, and plumbfs_size() says at once what others made of the size. A shared
 * map that the kernel made of the file, mmap(2), is not coherent with direct stores.
 *
 * While anybody has a file open here or mapped, its blocks stay where they are: space that is cut off by ftruncate(2)
 * or punched out is zeroed at once and becomes free when the last of them is done.
 *
 * Errors: -1 or NULL, errno, and a text that says what it means: plumbfs_error(). Thread safety: all functions, any
 * thread; but nobody uses a file that is being closed, or a map that is being unmapped. After fork(2) files and maps
 * work on in both processes (a file that another thread was appending to at that moment must not be appended to by the
 * child). A signal handler may call plumbfs_persist() of a direct map and nothing else.
 *
 * See libplumbfs(3). C and C++.
 */
#ifndef PLUMBFS_H
#define PLUMBFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PLUMBFS_API __attribute__((visibility("default")))
#else
#define PLUMBFS_API
#endif

/* Of this interface. plumbfs_version() is that of the library. */
#define PLUMBFS_API_VERSION 1

typedef struct plumbfs_file plumbfs_file;
typedef struct plumbfs_mapping plumbfs_mapping;

/* Flags of plumbfs_open() and plumbfs_open_fd(). */
enum {
  /* Fail rather than do without direct access: opening with ENOTTY (no plumbfs), EACCES (a device may not be opened),
   * EPERM (somebody else's mount); reading, writing and mapping with what the file system says of a lease. Single
   * requests that only the kernel can do, as one that reads a hole or makes the file longer, it still does. */
  PLUMBFS_DIRECT_ONLY = 1
};

/* Flags of plumbfs_map(). */
enum {
  PLUMBFS_MAP_WRITE = 1, /* loads and stores; the file must be open for both */
  PLUMBFS_MAP_ALIGN = 2  /* plumbfs_align() first; the map fails if that does */
};

PLUMBFS_API int plumbfs_version(void);

/* What the last error of this thread in this library was, for people, without a newline; never NULL. */
PLUMBFS_API const char* plumbfs_error(void);

/* open(2), with O_CLOEXEC. NULL with errno; EINVAL: no regular file, or O_APPEND (there is plumbfs_append()). */
PLUMBFS_API plumbfs_file* plumbfs_open(const char* path, int open_flags, mode_t mode, unsigned flags);
/* Of an open regular file. The descriptor stays the caller's; the file has another one of the same description. */
PLUMBFS_API plumbfs_file* plumbfs_open_fd(int fd, unsigned flags);
/* Maps stay. What has been written is as durable as it was. */
PLUMBFS_API int plumbfs_close(plumbfs_file* file);

/* For what is not here: ftruncate(2), fallocate(2), fstat(2), locks. It ends with plumbfs_close(). */
PLUMBFS_API int plumbfs_fd(const plumbfs_file* file);
/* 1 if the file is used directly as far as one knows, else 0 (and plumbfs_error() says why). */
PLUMBFS_API int plumbfs_is_direct(plumbfs_file* file);

PLUMBFS_API int plumbfs_size(plumbfs_file* file, uint64_t* size_bytes);
/* pread(2): fewer bytes than asked at the end of the file only. */
PLUMBFS_API ssize_t plumbfs_read(plumbfs_file* file, void* to, size_t length, uint64_t offset);
/* pwrite(2); less than `length` only if an error or the limit of the process (RLIMIT_FSIZE) ended it. */
PLUMBFS_API ssize_t plumbfs_write(plumbfs_file* file, const void* from, size_t length, uint64_t offset);
/* Writes at the end of the file, after everybody else's appends, in one request. `offset` (unless NULL) gets where; it
 * is right as long as nobody else uses the file position of this description. */
PLUMBFS_API ssize_t plumbfs_append(plumbfs_file* file, const void* from, size_t length, uint64_t* offset);
/* fsync(2); a system call only if something may not be durable. Covers the stores through all maps of the file, of
 * every process. */
PLUMBFS_API int plumbfs_fsync(plumbfs_file* file);

/* Moves the data of the file into aligned chunks of 2 MiB as far as there is space, so that huge pages can map it, and
 * a device that is aligned to 2 MiB at all. Before the file is read, written or mapped here, by anybody: EBUSY. The
 * file must be open for writing (EBADF). `aligned_bytes` (unless NULL) gets how much lies so afterwards. */
PLUMBFS_API int plumbfs_align(plumbfs_file* file, uint64_t* aligned_bytes);

/* Maps [offset, offset + length) of the file as one range of addresses, whatever pieces the file is in. The offset is a
 * multiple of the page, the range ends before the file does (its last page included): ENXIO. Holes get blocks for
 * PLUMBFS_MAP_WRITE (ENOSPC).
 * The map stays, and stays right, after plumbfs_close(), unlink(2), and ftruncate(2); what has been cut off reads as
 * zeros. Not direct, and so an error with PLUMBFS_DIRECT_ONLY: EINVAL: blocks smaller than the page, or a device whose
 * align the file does not meet; ENXIO: holes, and no PLUMBFS_MAP_WRITE; ENOMEM: too many pieces; EPERM: set-id,
 * immutable or append-only file, with PLUMBFS_MAP_WRITE; EMFILE, ENFILE: limits of the file system. */
PLUMBFS_API plumbfs_mapping* plumbfs_map(plumbfs_file* file, uint64_t offset, size_t length, unsigned flags);
PLUMBFS_API void* plumbfs_map_address(const plumbfs_mapping* map);
PLUMBFS_API size_t plumbfs_map_length(const plumbfs_mapping* map);
/* 1: device pages. 0: the kernel's map of the file. */
PLUMBFS_API int plumbfs_map_is_direct(const plumbfs_mapping* map);
/* Makes [address, address + length), which lies in the map, durable: a flush of cache lines and a fence on a memory
 * device, no system call; else msync(2). EINVAL: not in the map. */
PLUMBFS_API int plumbfs_persist(const plumbfs_mapping* map, const void* address, size_t length);
PLUMBFS_API int plumbfs_unmap(plumbfs_mapping* map);

#ifdef __cplusplus
}
#endif

#endif
