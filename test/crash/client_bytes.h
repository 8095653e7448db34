// Bytes of files whose contract is another one than that of their file, as clients stored them past the daemon.
//
// By file, two maps from bytes to states of the recording (model.h): `oldest`, from which on the byte may be any that
// the file held, as it was stored and not made durable since; and `durable`, which a client has made durable by itself.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "test/crash/client.h"

namespace plumb::test {

/// A state for some of the bytes.
class ByteStates {
 public:
  /// For [begin, end), whatever they had.
  void set(std::uint64_t begin, std::uint64_t end, std::size_t state);
  /// For those of [begin, end) that have none.
  void set_if_none(std::uint64_t begin, std::uint64_t end, std::size_t state);
  void clear(std::uint64_t begin, std::uint64_t end);
  [[nodiscard]] std::optional<std::size_t> at(std::uint64_t byte) const;
  /// Appends where it changes.
  void append_edges(std::vector<std::uint64_t>& edges) const;

 private:
  struct Range {
    std::uint64_t end;
    std::size_t state;
  };
  std::map<std::uint64_t, Range> ranges_;  // by begin; without overlap
};

class ClientBytes {
 public:
  struct OfFile {
    ByteStates oldest, oldest_stale, durable;
    /// Of a byte.
    [[nodiscard]] std::optional<std::size_t> oldest_at(std::uint64_t byte) const;
  };

  /// Step number `step`, from 0, was answered and did this.
  void apply(std::size_t step, const ClientChange& change);
  /// All that may be is durable: an fsync of the file, or without one of all. Nobody flushes what stale clients stored.
  void sync(std::optional<InodeKey> file);
  /// The daemon made other bytes of this, and those durable: step by step.
  void overwrite(InodeKey file, const std::string& before, const std::string& after);

  [[nodiscard]] const OfFile* of(InodeKey file) const;
  [[nodiscard]] const std::map<InodeKey, OfFile>& all() const { return files_; }

 private:
  std::map<InodeKey, OfFile> files_;
};

}  // namespace plumb::test
