// The operations of the random tester and the log of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace fsx {

enum class Kind : std::uint8_t {
  kRead,
  kReadVector,
  kDirectRead,
  kWrite,
  kWriteVector,
  kDirectWrite,
  kAppend,
  kMapRead,
  kMapPrivateRead,
  kMapWrite,
  kMsync,
  kTruncateDown,
  kTruncateUp,
  kOpenTruncate,
  kAllocate,
  kAllocateKeep,
  kPunch,
  kZeroRange,
  kZeroRangeKeep,
  kCopyRange,
  kSeek,
  kFsync,
  kFdatasync,
  kReopen,
  kPolluteEof,
  kCount,
};
inline constexpr std::size_t kKinds = static_cast<std::size_t>(Kind::kCount);

inline constexpr std::array<const char*, kKinds> kKindNames = {
    "read",        "readv",        "direct read",    "write",       "writev",     "direct write",    "append",
    "mapped read", "private read", "mapped write",   "msync",       "truncate v", "truncate ^",      "open O_TRUNC",
    "fallocate",   "fallocate k",  "punch hole",     "zero range",  "zero rng k", "copy_file_range", "seek walk",
    "fsync",       "fdatasync",    "close and open", "pollute EOF",
};

/// One operation as it was done. Offsets and lengths are bytes.
struct Operation {
  std::uint32_t number = 0;
  Kind kind = Kind::kRead;
  std::uint8_t file = 0;    // which of the files
  std::uint8_t source = 0;  // kCopyRange: which file it came from
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint64_t source_offset = 0;
  std::uint64_t size_before = 0;
  std::uint64_t size_after = 0;

  [[nodiscard]] bool covers(std::uint64_t byte) const { return byte >= offset && byte - offset < length; }
  [[nodiscard]] bool stores_pattern() const {
    return kind == Kind::kWrite || kind == Kind::kWriteVector || kind == Kind::kDirectWrite || kind == Kind::kAppend ||
           kind == Kind::kMapWrite;
  }
  [[nodiscard]] std::string text() const {
    std::array<char, 256> line{};
    int n =
        std::snprintf(line.data(), line.size(), "%8u %c %-15s 0x%08llx + 0x%06llx = 0x%08llx  size 0x%llx", number,
                      'a' + file, kKindNames[static_cast<std::size_t>(kind)], static_cast<unsigned long long>(offset),
                      static_cast<unsigned long long>(length), static_cast<unsigned long long>(offset + length),
                      static_cast<unsigned long long>(size_before));
    std::string result(line.data(), static_cast<std::size_t>(n));
    if (size_after != size_before) {
      n = std::snprintf(line.data(), line.size(), " -> 0x%llx", static_cast<unsigned long long>(size_after));
      result.append(line.data(), static_cast<std::size_t>(n));
    }
    if (kind == Kind::kCopyRange) {
      n = std::snprintf(line.data(), line.size(), "  from %c 0x%llx", 'a' + source,
                        static_cast<unsigned long long>(source_offset));
      result.append(line.data(), static_cast<std::size_t>(n));
    }
    return result;
  }
};

/// The last operations, oldest first.
class OperationLog {
 public:
  void add(const Operation& operation) {
    if (entries_.size() < kCapacity) {
      entries_.push_back(operation);
    } else {
      entries_[next_ % kCapacity] = operation;
    }
    ++next_;
  }
  Operation& last() { return entries_[(next_ - 1) % kCapacity]; }
  [[nodiscard]] std::vector<Operation> tail(std::size_t count) const {
    std::vector<Operation> result;
    const std::size_t have = entries_.size();
    for (std::size_t i = have > count ? have - count : 0; i < have; ++i) {
      result.push_back(entries_[(next_ - have + i) % kCapacity]);
    }
    return result;
  }

 private:
  static constexpr std::size_t kCapacity = 4096;
  std::vector<Operation> entries_;
  std::size_t next_ = 0;
};

}  // namespace fsx
