// The requests that a device served raw answers: RawFile (fs/core/raw_file.h) behind one or two fixed inodes.
//
// The size is fixed. O_TRUNC, and truncate(2) of the path to nothing, which the kernel sends as the same request,
// change nothing, as on a block device: so cp, dd and a shell's > work. ftruncate(2) to any other size is EPERM.

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <array>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/client/protocol.h"
#include "fs/fuse/attributes.h"
#include "fs/fuse/raw_server.h"
#include "fs/fuse/request.h"
#include "fs/fuse/statistics.h"

namespace plumb::fuse {
namespace {

constexpr std::uint32_t kStatisticsBlockBytes = 4096;
constexpr std::uint64_t kSectorBytes = 512;

RawHandle& handle_of(const fuse_file_info& file) {
  return *reinterpret_cast<RawHandle*>(file.fh);
}

Attributes attributes_of(const RawServer& server, fuse_ino_t id) {
  Attributes result;
  result.inode = InodeNumber(id);
  result.uid = server.uid;
  result.gid = server.gid;
  result.atime = result.mtime = result.ctime = result.btime = server.file.modified();
  if (id == server.file_id()) {
    result.mode = S_IFREG | server.permissions;
    result.links = 1;
    result.size_bytes = server.file.size_bytes();
    result.sectors = result.size_bytes / kSectorBytes;
  } else {
    result.mode = S_IFDIR | 0555;
    result.links = 2;
  }
  return result;
}

// --- names ---

void lookup(RawServer& server, Request& request, fuse_ino_t, const char* name) {
  if (name != server.name) return request.error(ENOENT);
  static_cast<void>(request.entry(to_entry(attributes_of(server, server.file_id()))));
}

void forget(RawServer&, Request& request, fuse_ino_t, std::uint64_t) {
  request.none();
}

void forget_multi(RawServer&, Request& request, std::size_t, fuse_forget_data*) {
  request.none();
}

void readdir(RawServer& server, Request& request, fuse_ino_t id, std::size_t size, off_t cookie, fuse_file_info*) {
  const std::array<std::pair<const char*, fuse_ino_t>, 3> entries = {
      {{".", id}, {"..", id}, {server.name.c_str(), server.file_id()}}};
  std::vector<char> buffer(size);
  std::size_t used = 0;
  for (auto at = static_cast<std::size_t>(cookie); at < entries.size(); ++at) {
    const struct stat attributes = to_stat(attributes_of(server, entries[at].second));
    const std::size_t needed = fuse_add_direntry(request.raw(), buffer.data() + used, size - used, entries[at].first,
                                                 &attributes, static_cast<off_t>(at + 1));
    if (needed > size - used) break;
    used += needed;
  }
  static_cast<void>(request.bytes(buffer.data(), used));
}

// Everything that would make, remove or rename something.
template <typename... Arguments>
void forbidden(RawServer&, Request& request, Arguments...) {
  request.error(EPERM);
}

// --- attributes ---

void getattr(RawServer& server, Request& request, fuse_ino_t id, fuse_file_info*) {
  request.attributes(attributes_of(server, id));
}

#if PLUMB_FUSE_HAS_STATX
void statx(RawServer& server, Request& request, fuse_ino_t id, int, int, fuse_file_info*) {
  request.statx(attributes_of(server, id));
}
#endif

void setattr(RawServer& server, Request& request, fuse_ino_t id, struct stat* values, int which, fuse_file_info* file) {
  if ((which & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0) return request.error(EPERM);
  if ((which & FUSE_SET_ATTR_SIZE) != 0) {
    const auto size = static_cast<std::uint64_t>(values->st_size);
    const bool as_by_open = size == 0 && file == nullptr;
    if (server.file.read_only()) return request.error(EROFS);
    if (size != server.file.size_bytes() && !as_by_open) return request.error(EPERM);
  }
  // Times are those of the last store; nobody keeps others.
  request.attributes(attributes_of(server, id));
}

void statfs(RawServer& server, Request& request, fuse_ino_t) {
  struct statvfs reply {};
  reply.f_bsize = kStatisticsBlockBytes;
  reply.f_frsize = kStatisticsBlockBytes;
  reply.f_blocks = server.file.size_bytes() / kStatisticsBlockBytes;
  reply.f_files = server.file_id();
  reply.f_namemax = kNameMax;
  request.statistics(reply);
}

// --- data ---

void open(RawServer& server, Request& request, fuse_ino_t, fuse_file_info* file) {
  if (server.file.read_only() && (file->flags & O_ACCMODE) != O_RDONLY) return request.error(EROFS);
  auto handle = server.file.open_handle();
  file->fh = reinterpret_cast<std::uint64_t>(handle.get());
  file->direct_io = server.options.dax != DaxMode::kNever && server.features.direct_io_mmap ? 1 : 0;
  file->keep_cache = 1;  // nobody else changes the bytes
  file->noflush = 1;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)
  file->parallel_direct_writes = 1;
#endif
  // Delivered: the release gives it back.
  if (request.opened(*file)) static_cast<void>(handle.release());
}

void release(RawServer&, Request& request, fuse_ino_t, fuse_file_info* file) {
  delete &handle_of(*file);
  request.ok();
}

void read(RawServer& server, Request& request, fuse_ino_t id, std::size_t size, off_t offset, fuse_file_info*) {
  request.data(server.file.read(static_cast<std::uint64_t>(offset), size), InodeNumber(id));
}

void write(RawServer& server, Request& request, fuse_ino_t, const char* data, std::size_t size, off_t offset,
           fuse_file_info* file) {
  const auto written =
      server.file.write(static_cast<std::uint64_t>(offset), std::as_bytes(std::span<const char>(data, size)));
  if (!written) return request.error(written.error());
  // The description that happens to carry pages of a mapping says nothing about how they are written.
  if (file->writepage == 0 && (file->flags & O_DSYNC) != 0) {
    const Status synced = server.file.fsync(handle_of(*file));
    if (!synced) return request.error(synced.error());
  }
  request.count(*written);
}

void fsync(RawServer& server, Request& request, fuse_ino_t, int, fuse_file_info* file) {
  request.status(server.file.fsync(handle_of(*file)));
}

void fsyncdir(RawServer& server, Request& request, fuse_ino_t, int, fuse_file_info*) {
  request.status(server.file.sync());
}

void fallocate(RawServer& server, Request& request, fuse_ino_t, int mode, off_t offset, off_t length, fuse_file_info*) {
  request.status(server.file.allocate(mode, static_cast<std::uint64_t>(offset), static_cast<std::uint64_t>(length)));
}

void lseek(RawServer& server, Request& request, fuse_ino_t, off_t offset, int whence, fuse_file_info*) {
  if (offset < 0) return request.error(ENXIO);
  const auto found = server.file.seek(static_cast<std::uint64_t>(offset), whence);
  if (!found) return request.error(found.error());
  request.offset(*found);
}

// --- ioctl ---

void ioctl(RawServer& server, Request& request, fuse_ino_t, unsigned command, void*, fuse_file_info*, unsigned,
           const void*, std::size_t, std::size_t output_bytes) {
  switch (command) {
    case protocol::kIocStatistics: {
      const auto reply = to_reply(to_json(server.file));
      if (!reply) return request.error(reply.error());
      if (output_bytes < sizeof **reply) return request.error(EINVAL);
      return request.ioctl(reply->get(), sizeof **reply);
    }
    case protocol::kIocSync: {
      const Status status = server.file.sync();
      return status ? request.ioctl(nullptr, 0) : request.error(status.error());
    }
    default:
      return request.error(ENOTTY);
  }
}

// FUSE_INIT, the one request that libfuse replies to by itself.
void init(void* userdata, fuse_conn_info* connection) {
  auto& server = *static_cast<RawServer*>(userdata);
  std::vector<std::string> missing;
  server.features = negotiate(*connection, server.options, Contents::kRawDevice, server.ask_for_io_uring, missing);
  for (const std::string& clause : missing) spdlog::warn("this kernel or libfuse is too old: {}", clause);
  if (server.on_init) std::exchange(server.on_init, nullptr)();
}

}  // namespace

fuse_lowlevel_ops raw_operations() {
  fuse_lowlevel_ops ops{};
  ops.init = init;
  ops.lookup = Callback<lookup>::call;
  ops.forget = Callback<forget>::call;
  ops.forget_multi = Callback<forget_multi>::call;
  ops.readdir = Callback<readdir>::call;
  ops.getattr = Callback<getattr>::call;
  ops.setattr = Callback<setattr>::call;
#if PLUMB_FUSE_HAS_STATX
  ops.statx = Callback<statx>::call;
#endif
  ops.statfs = Callback<statfs>::call;
  ops.open = Callback<open>::call;
  ops.release = Callback<release>::call;
  ops.read = Callback<read>::call;
  ops.write = Callback<write>::call;
  ops.fsync = Callback<fsync>::call;
  ops.fsyncdir = Callback<fsyncdir>::call;
  ops.fallocate = Callback<fallocate>::call;
  ops.lseek = Callback<lseek>::call;
  ops.ioctl = Callback<ioctl>::call;
  ops.mknod = Callback<forbidden<fuse_ino_t, const char*, mode_t, dev_t>>::call;
  ops.mkdir = Callback<forbidden<fuse_ino_t, const char*, mode_t>>::call;
  ops.symlink = Callback<forbidden<const char*, fuse_ino_t, const char*>>::call;
  ops.link = Callback<forbidden<fuse_ino_t, fuse_ino_t, const char*>>::call;
  ops.unlink = Callback<forbidden<fuse_ino_t, const char*>>::call;
  ops.rmdir = Callback<forbidden<fuse_ino_t, const char*>>::call;
  ops.rename = Callback<forbidden<fuse_ino_t, const char*, fuse_ino_t, const char*, unsigned>>::call;
  ops.create = Callback<forbidden<fuse_ino_t, const char*, mode_t, fuse_file_info*>>::call;
  return ops;
}

}  // namespace plumb::fuse
