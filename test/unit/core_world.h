// A mounted volume with paths, for tests: what a shell is to a user.
//
// Functions of World throw std::runtime_error with the place and the message of an unexpected error; tests of errors
// call the volume itself and look at code_of().
//
// Thread safety: none. Handles and references are gone before the world is: it checks nothing.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/core/volume.h"
#include "pmem/crash_device.h"

namespace plumb::test {

/// Of the caller; std::source_location, which clang has from version 16 on.
struct SourceLocation {
  const char* file = "";
  int line = 0;
  static constexpr SourceLocation current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

template <typename T>
T must(Result<T> result, SourceLocation where = SourceLocation::current()) {
  if (!result) {
    throw std::runtime_error(std::string(where.file) + ":" + std::to_string(where.line) + ": " +
                             result.error().message());
  }
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

/// 0, or the errno of a failed result.
template <typename T>
int code_of(const Result<T>& result) {
  return result ? 0 : result.error().code;
}

inline std::unique_ptr<pmem::CrashDevice> crash_device(pmem::DeviceKind kind, std::uint64_t size_bytes) {
  return std::make_unique<pmem::CrashDevice>(size_bytes, pmem::CrashDeviceOptions{.kind = kind});
}

/// The same file system every time, but for times.
inline FormatOptions fixed_format(std::uint32_t block_size_bytes) {
  FormatOptions options;
  options.block_size_bytes = block_size_bytes;
  options.label = "test";
  options.uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  options.hash_seed = {16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1};
  options.now = {1'000'000'000, 1};
  options.contents_are_zero = true;
  options.realtime_is_zero = true;
  options.realtime_uuid = {9, 9, 9, 9, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  return options;
}

inline MountOptions quiet_mount() {
  MountOptions options;
  options.atime = AtimeMode::kNoatime;
  options.background_threads = false;
  return options;
}

/// Bytes that say where they came from: a file's letter in the top bits of a value that changes with the offset.
inline std::string pattern(char letter, std::size_t length, std::uint64_t offset = 0) {
  std::string text(length, letter);
  for (std::size_t i = 0; i < length; ++i) {
    if ((offset + i) % 16 == 15) text[i] = static_cast<char>('0' + (offset + i) / 16 % 10);
  }
  return text;
}

class World {
 public:
  explicit World(const Members& members, const MountOptions& options = quiet_mount(),
                 SourceLocation where = SourceLocation::current())
      : volume_(must(Volume::mount(members, options), where)) {}

  [[nodiscard]] Volume& volume() { return *volume_; }
  Volume* operator->() { return volume_.get(); }
  void unmount(SourceLocation where = SourceLocation::current()) {
    must(volume_->unmount(), where);
    volume_.reset();
  }
  /// The death of the daemon.
  void die() { volume_.reset(); }

  // --- names ---
  [[nodiscard]] InodeRef find(std::string_view path, SourceLocation where = SourceLocation::current()) {
    InodeRef inode = volume_->root();
    while (!path.empty()) {
      const std::size_t slash = std::min(path.find('/'), path.size());
      inode = must(volume_->lookup(*inode, path.substr(0, slash)), where).inode;
      path.remove_prefix(std::min(slash + 1, path.size()));
    }
    return inode;
  }
  [[nodiscard]] bool exists(std::string_view path) {
    const auto [parent, name] = split(path);
    return volume_->lookup(*parent, name).has_value();
  }
  InodeRef make(std::string_view path, std::uint32_t mode, std::string_view target = {}, std::uint64_t rdev = 0,
                SourceLocation where = SourceLocation::current()) {
    const auto [parent, name] = split(path);
    CreateRequest request;
    request.mode = mode;
    request.symlink_target = target;
    request.rdev = rdev;
    return must(volume_->create(*parent, name, request), where).inode;
  }
  InodeRef create(std::string_view path, SourceLocation where = SourceLocation::current()) {
    return make(path, S_IFREG | 0644, {}, 0, where);
  }
  InodeRef mkdir(std::string_view path, SourceLocation where = SourceLocation::current()) {
    return make(path, S_IFDIR | 0755, {}, 0, where);
  }
  InodeRef symlink(std::string_view path, std::string_view target, SourceLocation where = SourceLocation::current()) {
    return make(path, S_IFLNK | 0777, target, 0, where);
  }
  void link(std::string_view from, std::string_view to, SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(from, where);
    const auto [parent, name] = split(to);
    must(volume_->link(*inode, *parent, name), where);
  }
  void unlink(std::string_view path, SourceLocation where = SourceLocation::current()) {
    const auto [parent, name] = split(path);
    must(volume_->unlink(*parent, name), where);
  }
  void rmdir(std::string_view path, SourceLocation where = SourceLocation::current()) {
    const auto [parent, name] = split(path);
    must(volume_->rmdir(*parent, name), where);
  }
  Status try_rename(std::string_view from, std::string_view to, RenameFlags flags = {}) {
    const auto [from_parent, from_name] = split(from);
    const auto [to_parent, to_name] = split(to);
    return volume_->rename(*from_parent, from_name, *to_parent, to_name, flags, Caller{});
  }
  void rename(std::string_view from, std::string_view to, RenameFlags flags = {},
              SourceLocation where = SourceLocation::current()) {
    must(try_rename(from, to, flags), where);
  }
  std::vector<std::string> names(std::string_view path = {}) {
    std::vector<std::string> found;
    const InodeRef directory = find(path);
    must(volume_->read_directory(*directory, 0, [&](const DirectoryEntry& entry) {
      if (entry.name != "." && entry.name != "..") found.emplace_back(entry.name);
      return true;
    }));
    return found;
  }

  // --- data ---
  std::unique_ptr<FileHandle> open(std::string_view path, int flags = O_RDWR,
                                   SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(path, where);
    return must(volume_->open(*inode, flags), where);
  }
  Result<std::uint64_t> try_write(FileHandle& handle, std::uint64_t offset, std::string_view bytes) {
    const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    return volume_->write(handle, offset, std::span(&piece, 1), Caller{.uid = 0, .gid = 0, .may_keep_setid = true});
  }
  void write(FileHandle& handle, std::uint64_t offset, std::string_view bytes,
             SourceLocation where = SourceLocation::current()) {
    if (must(try_write(handle, offset, bytes), where) != bytes.size()) throw std::runtime_error("short write");
  }
  void write(std::string_view path, std::uint64_t offset, std::string_view bytes,
             SourceLocation where = SourceLocation::current()) {
    const auto handle = open(path, O_RDWR, where);
    write(*handle, offset, bytes, where);
  }
  std::string read(Inode& inode, std::uint64_t offset = 0, std::uint64_t length = ~std::uint64_t{0} >> 2) {
    const ReadPin pin = must(volume_->read(inode, offset, length));
    std::string bytes;
    for (const iovec& piece : pin.iov) bytes.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
    return bytes;
  }
  std::string read(std::string_view path, std::uint64_t offset = 0, std::uint64_t length = ~std::uint64_t{0} >> 2) {
    const InodeRef inode = find(path);
    return read(*inode, offset, length);
  }
  Status try_allocate(std::string_view path, int mode, std::uint64_t offset, std::uint64_t length) {
    const auto handle = open(path);
    return volume_->allocate(*handle, mode, offset, length, Caller{.uid = 0, .gid = 0, .may_keep_setid = true});
  }
  void allocate(std::string_view path, int mode, std::uint64_t offset, std::uint64_t length,
                SourceLocation where = SourceLocation::current()) {
    must(try_allocate(path, mode, offset, length), where);
  }
  void truncate(std::string_view path, std::uint64_t size, SourceLocation where = SourceLocation::current()) {
    SetAttributes set;
    set.size_bytes = size;
    change(path, set, where);
  }
  void fsync(std::string_view path, FsyncMode mode = FsyncMode::kFull,
             SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(path, where);
    must(volume_->fsync_inode(*inode, mode), where);
  }

  // --- attributes ---
  Attributes stat(std::string_view path, SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(path, where);
    return volume_->attributes(*inode);
  }
  void change(std::string_view path, const SetAttributes& set, SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(path, where);
    must(volume_->set_attributes(*inode, set, Caller{.uid = 0, .gid = 0, .may_keep_setid = true}), where);
  }
  Status try_set_xattr(std::string_view path, std::string_view name, std::string_view value, XattrSetFlags flags = {}) {
    const InodeRef inode = find(path);
    return volume_->set_xattr(*inode, name, value, flags, Caller{});
  }
  void set_xattr(std::string_view path, std::string_view name, std::string_view value,
                 SourceLocation where = SourceLocation::current()) {
    must(try_set_xattr(path, name, value), where);
  }
  std::string get_xattr(std::string_view path, std::string_view name,
                        SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(path, where);
    return must(volume_->get_xattr(*inode, name), where);
  }
  void remove_xattr(std::string_view path, std::string_view name, SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(path, where);
    must(volume_->remove_xattr(*inode, name), where);
  }
  void set_flags(std::string_view path, std::uint32_t flags, SourceLocation where = SourceLocation::current()) {
    const InodeRef inode = find(path, where);
    must(volume_->set_flags(*inode, flags), where);
  }
  std::uint64_t blocks_free() { return volume_->statistics().blocks_free; }

  /// The directory of a path, and the last name in it.
  std::pair<InodeRef, std::string> split(std::string_view path) {
    const std::size_t slash = path.rfind('/');
    if (slash == std::string_view::npos) return {volume_->root(), std::string(path)};
    return {find(path.substr(0, slash)), std::string(path.substr(slash + 1))};
  }

 private:
  std::unique_ptr<Volume> volume_;
};

}  // namespace plumb::test
