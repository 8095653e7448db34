// A device served raw: what is durable when, fixed size, errors once to each handle.

#include "fs/core/raw_file.h"

#include <linux/falloc.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pmem/crash_explorer.h"
#include "test/unit/core_world.h"

namespace plumb {
namespace {

using pmem::CrashDevice;
using pmem::DeviceKind;
using test::code_of;
using test::must;

constexpr std::uint64_t kSize = 256 * 1024;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

std::string text_of(const ReadPin& pin) {
  std::string text;
  for (const iovec& piece : pin.iov) text.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
  return text;
}

std::size_t pending(const CrashDevice& device) {
  return pmem::CrashExplorer(device).pending_stores(device.event_count()).size();
}

RawFileOptions quiet(Writeback writeback = Writeback::kImmediate) {
  return {.writeback = writeback, .background_thread = false};
}

}  // namespace

TEST_CASE("raw: opening stores nothing", "[raw]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const auto writeback = GENERATE(Writeback::kImmediate, Writeback::kDeferred);
  CrashDevice device(kSize, {.kind = kind});
  const auto file = must(RawFile::open(device, quiet(writeback)));
  CHECK(device.store_calls() == 0);
  REQUIRE(file->close());
  CHECK(device.store_calls() == 0);
}

TEST_CASE("raw: on a memory device a write is durable when it returns", "[raw]") {
  CrashDevice device(kSize, {.kind = DeviceKind::kMemory});
  const auto file = must(RawFile::open(device, quiet()));
  CHECK(device.flush_calls() == 0);
  for (const std::size_t length : {1, 63, 64, 4096, 10000}) {
    REQUIRE(must(file->write(4096 + 5, bytes_of(std::string(length, 'x')))) == length);
    CHECK(pending(device) == 0);
    CHECK(file->statistics().dirty_bytes == 0);
  }
  REQUIRE(file->allocate(FALLOC_FL_ZERO_RANGE, 4096, 5000));
  CHECK(pending(device) == 0);
  const auto handle = file->open_handle();
  REQUIRE(file->fsync(*handle));
  CHECK(file->statistics().writeback_ranges == 0);
  CHECK(file->statistics().writeback_drains == 0);
}

TEST_CASE("raw: otherwise it waits for fsync, which flushes what is dirty and no more", "[raw]") {
  const bool cached = GENERATE(true, false);
  CrashDevice device(kSize, {.kind = cached ? DeviceKind::kCached : DeviceKind::kMemory});
  const auto file = must(RawFile::open(device, quiet(Writeback::kDeferred)));
  const auto handle = file->open_handle();
  const auto before = device.flush_calls();
  must(file->write(8192, bytes_of(std::string(4096, 'a'))));
  must(file->write(65536, bytes_of(std::string(100, 'b'))));
  CHECK(file->statistics().dirty_bytes == 4196);
  CHECK(pending(device) != 0);
  REQUIRE(file->fsync(*handle));
  CHECK(pending(device) == 0);
  CHECK(device.flush_calls() == before + 2);
  CHECK(file->statistics().writeback_ranges == 2);
  CHECK(file->statistics().writeback_bytes == 4196);
  CHECK(file->statistics().writeback_drains == 1);
  CHECK(file->statistics().dirty_bytes == 0);
  REQUIRE(file->fsync(*handle));
  CHECK(file->statistics().writeback_drains == 1);

  must(file->write(0, bytes_of("last words")));
  REQUIRE(file->close());
  CHECK(pending(device) == 0);
}

TEST_CASE("raw: option sync makes every write durable", "[raw]") {
  CrashDevice device(kSize, {.kind = DeviceKind::kCached});
  const auto file = must(RawFile::open(device, {.sync = true, .background_thread = false}));
  must(file->write(100, bytes_of("synced")));
  CHECK(pending(device) == 0);
}

TEST_CASE("raw: what an earlier server may have left is made durable before anybody asks", "[raw]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  CrashDevice device(kSize, {.kind = kind});
  {
    const auto killed = must(RawFile::open(device, quiet(Writeback::kDeferred)));
    must(killed->write(4096, bytes_of("not synced")));
  }
  REQUIRE(pending(device) != 0);
  const auto file = must(RawFile::open(device, quiet(Writeback::kDeferred)));
  CHECK(pending(device) == 0);
}

TEST_CASE("raw: the size is fixed", "[raw]") {
  CrashDevice device(kSize, {.kind = DeviceKind::kMemory});
  const auto file = must(RawFile::open(device, quiet()));
  CHECK(file->size_bytes() == kSize);
  CHECK(must(file->write(kSize - 3, bytes_of("abcdef"))) == 3);
  CHECK(text_of(file->read(kSize - 5, 100)) == std::string("\0\0abc", 5));
  CHECK(code_of(file->write(kSize, bytes_of("x"))) == ENOSPC);
  CHECK(code_of(file->write(kSize + 4096, bytes_of("x"))) == ENOSPC);
  CHECK(code_of(file->write(~std::uint64_t{0} - 2, bytes_of("abcdef"))) == ENOSPC);
  CHECK(must(file->write(kSize, {})) == 0);
  CHECK(file->read(kSize, 10).length_bytes == 0);
  CHECK(file->read(~std::uint64_t{0}, 10).length_bytes == 0);
}

TEST_CASE("raw: allocate and seek", "[raw]") {
  CrashDevice device(kSize, {.kind = DeviceKind::kMemory});
  const auto file = must(RawFile::open(device, quiet()));
  must(file->write(0, bytes_of("0123456789")));
  CHECK(file->allocate(0, 0, kSize));
  CHECK(code_of(file->allocate(0, 1, kSize)) == ENOSPC);
  CHECK(code_of(file->allocate(FALLOC_FL_KEEP_SIZE, kSize, 1)) == ENOSPC);
  CHECK(code_of(file->allocate(FALLOC_FL_ZERO_RANGE, 0, kSize + 1)) == ENOSPC);
  CHECK(code_of(file->allocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4096)) == EOPNOTSUPP);
  CHECK(file->allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
  CHECK(text_of(file->read(0, 10)) == std::string("01\0\0\0"
                                                  "56789",
                                                  10));
  CHECK(file->allocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 8, 2 * kSize));
  CHECK(text_of(file->read(0, 10)) == std::string("01\0\0\0"
                                                  "567\0\0",
                                                  10));

  CHECK(must(file->seek(5, SEEK_DATA)) == 5);
  CHECK(must(file->seek(5, SEEK_HOLE)) == kSize);
  CHECK(code_of(file->seek(kSize, SEEK_DATA)) == ENXIO);
  CHECK(code_of(file->seek(kSize, SEEK_HOLE)) == ENXIO);
  CHECK(code_of(file->seek(0, SEEK_SET)) == EINVAL);
}

TEST_CASE("raw: read-only stores and flushes nothing", "[raw]") {
  CrashDevice device(kSize, {.kind = DeviceKind::kCached});
  const auto file = must(RawFile::open(device, {.read_only = true}));
  CHECK(code_of(file->write(0, bytes_of("x"))) == EROFS);
  CHECK(code_of(file->allocate(FALLOC_FL_ZERO_RANGE, 0, 10)) == EROFS);
  CHECK(file->read(0, 10).length_bytes == 10);
  REQUIRE(file->close());
  CHECK(device.store_calls() == 0);
  CHECK(device.flush_calls() == 0);
}

TEST_CASE("raw: an error of writeback is told once to each handle, and the ranges stay dirty", "[raw]") {
  CrashDevice device(kSize, {.kind = DeviceKind::kCached});
  const auto file = must(RawFile::open(device, quiet()));
  const auto first = file->open_handle();
  const auto second = file->open_handle();
  must(file->write(0, bytes_of("x")));
  device.fail_flush_call(device.flush_calls(), ENOSPC);
  CHECK(code_of(file->fsync(*first)) == ENOSPC);
  CHECK(file->statistics().dirty_bytes == 1);
  const auto later = file->open_handle();
  CHECK(code_of(file->fsync(*second)) == EIO);
  CHECK(code_of(file->fsync(*first)) == 0);
  CHECK(code_of(file->fsync(*second)) == 0);
  CHECK(code_of(file->fsync(*later)) == 0);
  CHECK(file->statistics().dirty_bytes == 0);
}

TEST_CASE("raw: poison is EIO", "[raw][sigbus]") {
  CrashDevice device(kSize, {.kind = DeviceKind::kMemory});
  const auto file = must(RawFile::open(device, quiet()));
  device.poison(8192, 1);
  CHECK(code_of(file->write(8192, bytes_of("x"))) == EIO);
  CHECK(code_of(file->write(4096, bytes_of("x"))) == 0);
}

}  // namespace plumb
