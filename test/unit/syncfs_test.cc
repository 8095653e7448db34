// FUSE_SYNCFS becomes a request that libfuse knows; nothing else is touched.

#include "fs/fuse/syncfs.h"

#include <linux/fuse.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <cstddef>
#include <cstring>

namespace plumb::fuse {
namespace {

using Buffer = std::array<char, 4096>;

Buffer request(std::uint32_t opcode, std::size_t length_bytes) {
  Buffer buffer;
  buffer.fill('\x5a');
  fuse_in_header header{};
  header.opcode = opcode;
  header.len = static_cast<std::uint32_t>(length_bytes);
  header.unique = 77;
  header.nodeid = FUSE_ROOT_ID;
  std::memcpy(buffer.data(), &header, sizeof header);
  return buffer;
}

}  // namespace

TEST_CASE("syncfs: the request becomes an fsyncdir that is known again", "[syncfs]") {
  Buffer buffer = request(FUSE_SYNCFS, sizeof(fuse_in_header) + sizeof(fuse_syncfs_in));
  const std::size_t length = turn_syncfs(buffer.data(), sizeof(fuse_in_header) + 8, buffer.size());
  CHECK(length == sizeof(fuse_in_header) + sizeof(fuse_fsync_in));
  fuse_in_header header{};
  std::memcpy(&header, buffer.data(), sizeof header);
  CHECK(header.opcode == FUSE_FSYNCDIR);
  CHECK(header.len == length);
  CHECK(header.unique == 77);
  CHECK(header.nodeid == FUSE_ROOT_ID);
  fuse_fsync_in body{};
  std::memcpy(&body, buffer.data() + sizeof header, sizeof body);
  CHECK(body.fsync_flags == 0);
  fuse_file_info file{};
  file.fh = body.fh;
  CHECK(is_syncfs(file));
  CHECK(buffer[length] == '\x5a');
}

TEST_CASE("syncfs: other requests and short reads stay as they are", "[syncfs]") {
  const std::uint32_t opcode = GENERATE(FUSE_FSYNCDIR, FUSE_FSYNC, FUSE_STATFS, FUSE_INIT, FUSE_WRITE);
  Buffer buffer = request(opcode, 100);
  const Buffer before = buffer;
  CHECK(turn_syncfs(buffer.data(), 100, buffer.size()) == 100);
  CHECK(buffer == before);
  Buffer torn = request(FUSE_SYNCFS, 48);
  const Buffer torn_before = torn;
  CHECK(turn_syncfs(torn.data(), sizeof(fuse_in_header) - 1, torn.size()) == sizeof(fuse_in_header) - 1);
  CHECK(torn == torn_before);
  fuse_file_info directory{};
  CHECK_FALSE(is_syncfs(directory));
}

}  // namespace plumb::fuse
