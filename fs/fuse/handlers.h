// The requests of the FUSE protocol, by topic. Each handler replies exactly once and holds no lock when it does; the
// wire format is libfuse's (fuse_lowlevel.h), the meaning of each operation is Volume's (fs/core/volume.h).
//
// Left to the kernel: permission checks (default_permissions), flock and fcntl locks, access, poll, bmap. Left out on
// purpose: flush, as close(2) has nothing to wait for (FOPEN_NOFLUSH), opendir and releasedir, as a directory needs no
// handle: its cookies are keys.
//
// Thread safety: all of them from any thread.
#pragma once

#include "fs/fuse/fuse_api.h"
#include "fs/fuse/request.h"
#include "fs/fuse/server.h"

namespace plumb::fuse {

/// Every handler below, as libfuse wants them.
[[nodiscard]] fuse_lowlevel_ops operations();

namespace handlers {

// handlers_namespace.cc
void lookup(Server& server, Request& request, fuse_ino_t parent, const char* name);
void forget(Server& server, Request& request, fuse_ino_t id, std::uint64_t count);
void forget_multi(Server& server, Request& request, std::size_t count, fuse_forget_data* forgets);
void mknod(Server& server, Request& request, fuse_ino_t parent, const char* name, mode_t mode, dev_t rdev);
void mkdir(Server& server, Request& request, fuse_ino_t parent, const char* name, mode_t mode);
void symlink(Server& server, Request& request, const char* target, fuse_ino_t parent, const char* name);
void link(Server& server, Request& request, fuse_ino_t id, fuse_ino_t parent, const char* name);
void unlink(Server& server, Request& request, fuse_ino_t parent, const char* name);
void rmdir(Server& server, Request& request, fuse_ino_t parent, const char* name);
void rename(Server& server, Request& request, fuse_ino_t from, const char* from_name, fuse_ino_t to,
            const char* to_name, unsigned flags);
void readlink(Server& server, Request& request, fuse_ino_t id);

// handlers_directory.cc
void readdir(Server& server, Request& request, fuse_ino_t id, std::size_t size, off_t cookie, fuse_file_info* file);
void readdirplus(Server& server, Request& request, fuse_ino_t id, std::size_t size, off_t cookie, fuse_file_info* file);
void fsyncdir(Server& server, Request& request, fuse_ino_t id, int data_only, fuse_file_info* file);

// handlers_open.cc
/// True if reads and writes bypass the kernel's page cache.
[[nodiscard]] bool is_direct(const Server& server, const Attributes& attributes);
void open(Server& server, Request& request, fuse_ino_t id, fuse_file_info* file);
void create(Server& server, Request& request, fuse_ino_t parent, const char* name, mode_t mode, fuse_file_info* file);
void tmpfile(Server& server, Request& request, fuse_ino_t parent, mode_t mode, fuse_file_info* file);
void release(Server& server, Request& request, fuse_ino_t id, fuse_file_info* file);

// handlers_data.cc
void read(Server& server, Request& request, fuse_ino_t id, std::size_t size, off_t offset, fuse_file_info* file);
void write(Server& server, Request& request, fuse_ino_t id, const char* data, std::size_t size, off_t offset,
           fuse_file_info* file);
void fsync(Server& server, Request& request, fuse_ino_t id, int data_only, fuse_file_info* file);
void fallocate(Server& server, Request& request, fuse_ino_t id, int mode, off_t offset, off_t length,
               fuse_file_info* file);
void lseek(Server& server, Request& request, fuse_ino_t id, off_t offset, int whence, fuse_file_info* file);
void copy_file_range(Server& server, Request& request, fuse_ino_t from_id, off_t from_offset, fuse_file_info* from,
                     fuse_ino_t to_id, off_t to_offset, fuse_file_info* to, std::size_t length, int flags);

// handlers_attr.cc
void getattr(Server& server, Request& request, fuse_ino_t id, fuse_file_info* file);
void setattr(Server& server, Request& request, fuse_ino_t id, struct stat* values, int which, fuse_file_info* file);
void statfs(Server& server, Request& request, fuse_ino_t id);
#if PLUMB_FUSE_HAS_STATX
void statx(Server& server, Request& request, fuse_ino_t id, int flags, int mask, fuse_file_info* file);
#endif

// handlers_xattr.cc
void setxattr(Server& server, Request& request, fuse_ino_t id, const char* name, const char* value, std::size_t size,
              int flags);
void getxattr(Server& server, Request& request, fuse_ino_t id, const char* name, std::size_t size);
void listxattr(Server& server, Request& request, fuse_ino_t id, std::size_t size);
void removexattr(Server& server, Request& request, fuse_ino_t id, const char* name);

// handlers_ioctl.cc
void ioctl(Server& server, Request& request, fuse_ino_t id, unsigned command, void* argument, fuse_file_info* file,
           unsigned flags, const void* input, std::size_t input_bytes, std::size_t output_bytes);

}  // namespace handlers
}  // namespace plumb::fuse
