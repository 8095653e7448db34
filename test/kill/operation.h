// One operation of a worker, as it is written down outside of the file system before it is done.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

namespace kill_test {

enum class Kind : std::uint8_t {
  kCreate,
  kCreateUnnamed,  // O_TMPFILE, written, then linked: the whole content appears with the name
  kWrite,
  kAppend,
  kMapWrite,  // stores to a mapping, then msync
  kTruncate,
  kOpenTruncate,
  kAllocate,
  kPunch,
  kZeroRange,
  kCopyRange,
  kMkdir,
  kSymlink,
  kMknod,
  kLink,
  kUnlink,
  kRmdir,
  kRename,
  kExchange,
  kChmod,
  kSetXattr,
  kRemoveXattr,
  kFsync,
  kCount,
};
inline constexpr std::size_t kKinds = static_cast<std::size_t>(Kind::kCount);
inline constexpr std::array<const char*, kKinds> kKindNames = {
    "create", "create unnamed", "write",    "append", "mapped write", "truncate",    "open O_TRUNC", "allocate",
    "punch",  "zero range",     "copy",     "mkdir",  "symlink",      "mknod",       "link",         "unlink",
    "rmdir",  "rename",         "exchange", "chmod",  "setxattr",     "removexattr", "fsync"};

/// Plain data in shared memory. Paths are relative to the directory of the worker.
struct Operation {
  Kind kind = Kind::kCreate;
  std::uint32_t mode = 0;
  std::uint64_t number = 0;  // unique in the life of the file system; makes the data
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t source_offset = 0;  // kCopyRange
  std::uint64_t inode = 0;          // of what was made, told by the worker with the acknowledgement; 0: not known
  std::array<char, 200> path{};
  std::array<char, 200> other{};  // second path, target of a symbolic link, name of an attribute

  void set_path(const std::string& text) { copy(text, path); }
  void set_other(const std::string& text) { copy(text, other); }
  [[nodiscard]] std::string text() const;

 private:
  template <std::size_t N>
  static void copy(const std::string& text, std::array<char, N>& out) {
    out.fill('\0');
    text.copy(out.data(), N - 1);
  }
};

/// What one worker did in one round. Lives in memory shared with the supervisor, which reads it after the worker has
/// ended. issued - acknowledged is 0 or 1: the operation in flight.
struct Log {
  static constexpr std::size_t kCapacity = 1 << 15;
  std::atomic<std::uint64_t> issued{0};
  std::atomic<std::uint64_t> acknowledged{0};
  std::atomic<int> error{0};  // errno of an operation that failed although the daemon was alive
  std::array<Operation, kCapacity> operations{};
};

/// Shared by the supervisor and all workers.
struct Control {
  std::atomic<bool> killed{false};  // set before the daemon is killed: from then on every error is expected
};

}  // namespace kill_test
