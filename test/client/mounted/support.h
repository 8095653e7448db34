// What the tests of libplumbfs on a mount share, beside what the POSIX tests have (test/posix/support.h).
//
// $PLUMBFS_TEST_DIR is the mount, $PLUMBFS_TEST_BLOCK_SIZE its block size, $PLUMBFS_TEST_KIND the device as in
// test/lib/mount.sh.
#pragma once

#include <fcntl.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "fs/client/plumbfs.h"
#include "test/posix/support.h"

namespace client {

using posix::Bytes;
using posix::code;
using posix::Fd;

inline std::size_t block_size() {
  return std::strtoul(std::getenv("PLUMBFS_TEST_BLOCK_SIZE"), nullptr, 10);
}
inline bool has_direct_maps() {
  return block_size() >= posix::kPage;
}
/// New files are realtime files.
inline bool is_on_realtime() {
  return std::string_view(std::getenv("PLUMBFS_TEST_KIND")).starts_with("rt-");
}

/// A plumbfs_file that is closed at the end of its scope.
class File {
 public:
  explicit File(plumbfs_file* file) : file_(file) {}
  explicit File(const std::string& path, int flags = O_RDWR, unsigned how = PLUMBFS_DIRECT_ONLY)
      : file_(plumbfs_open(path.c_str(), flags, 0644, how)) {
    INFO(plumbfs_error());
    REQUIRE(file_ != nullptr);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() { close(); }
  void close() {
    if (file_ != nullptr) plumbfs_close(std::exchange(file_, nullptr));
  }
  [[nodiscard]] plumbfs_file* get() const { return file_; }

 private:
  plumbfs_file* file_;
};

/// A plumbfs_mapping that is unmapped at the end of its scope.
class Map {
 public:
  Map(const File& file, std::uint64_t offset, std::size_t length, unsigned flags = PLUMBFS_MAP_WRITE)
      : map_(plumbfs_map(file.get(), offset, length, flags)) {
    INFO(plumbfs_error());
    REQUIRE(map_ != nullptr);
  }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
  ~Map() { unmap(); }
  void unmap() {
    if (map_ != nullptr) plumbfs_unmap(std::exchange(map_, nullptr));
  }
  [[nodiscard]] plumbfs_mapping* get() const { return map_; }
  [[nodiscard]] std::uint8_t* bytes() const { return static_cast<std::uint8_t*>(plumbfs_map_address(map_)); }
  [[nodiscard]] Bytes copy() const { return Bytes(bytes(), bytes() + plumbfs_map_length(map_)); }
  void store(std::size_t at, const Bytes& data) const {
    std::memcpy(bytes() + at, data.data(), data.size());
    CHECK(code(plumbfs_persist(map_, bytes() + at, data.size())) == 0);
  }
  [[nodiscard]] bool is_zero(std::size_t begin, std::size_t end) const {
    for (std::size_t i = begin; i < end; ++i) {
      if (bytes()[i] != 0) return false;
    }
    return true;
  }

 private:
  plumbfs_mapping* map_;
};

/// All bytes at `offset`, or fails the test.
inline Bytes read_directly(const File& file, std::size_t length, std::uint64_t offset) {
  Bytes data(length);
  INFO(plumbfs_error());
  REQUIRE(plumbfs_read(file.get(), data.data(), length, offset) == static_cast<ssize_t>(length));
  return data;
}
inline void write_directly(const File& file, const Bytes& data, std::uint64_t offset) {
  INFO(plumbfs_error());
  REQUIRE(plumbfs_write(file.get(), data.data(), data.size(), offset) == static_cast<ssize_t>(data.size()));
}
inline std::uint64_t size_of(const File& file) {
  std::uint64_t size = 0;
  REQUIRE(code(plumbfs_size(file.get(), &size)) == 0);
  return size;
}

/// A file of `size` bytes of a pattern, written by the kernel.
inline Bytes make_pattern_file(const std::string& path, std::size_t size, std::uint32_t seed = 1) {
  const Bytes data = posix::pattern(size, seed);
  const Fd fd = posix::open_file(path, O_RDWR | O_CREAT | O_TRUNC);
  posix::write_at(fd.get(), data, 0);
  return data;
}

}  // namespace client
