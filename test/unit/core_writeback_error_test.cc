// Who is told of an error of writeback, and how often.
#include <fcntl.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <string>
#include <vector>

#include "fs/core/volume_impl.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::CrashDevice;
using pmem::DeviceKind;

// Files "f" and "other", durable and with blocks: writes to them need no other flush than that of their data and the
// log.
struct Fixture {
  explicit Fixture(DeviceKind kind) : device(16u << 20, {.kind = kind, .name = "main"}) {
    must(Volume::format(device, fixed_format(4096)));
    World w(device, options());
    for (const char* name : {"f", "other"}) {
      w.create(name);
      w.write(name, 0, std::string(8192, '0'));
    }
    w.unmount();
  }
  // Data waits for somebody to make it durable, on either kind.
  MountOptions options() {
    MountOptions options = quiet_mount();
    options.writeback = Writeback::kDeferred;
    options.on_notice = [this](const std::string& line) { notices.push_back(line); };
    return options;
  }
  void fail_next_flush() { device.fail_flush_call(device.flush_calls(), EIO); }

  CrashDevice device;
  std::vector<std::string> notices;
};

auto kinds() {
  return GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
}

int fsync_code(World& w, FileHandle& handle) {
  return code_of(w->fsync(handle, FsyncMode::kFull));
}

}  // namespace

TEST_CASE("writeback errors: fsync tells each open file once, whoever met it", "[core][writeback]") {
  Fixture f(kinds());
  World w(f.device, f.options());
  const auto writer = w.open("f");
  const auto reader = w.open("f", O_RDONLY);
  const auto other = w.open("other");
  w.write(*writer, 0, "new");
  f.fail_next_flush();
  CHECK(fsync_code(w, *writer) == EIO);
  const auto later = w.open("f");
  CHECK(fsync_code(w, *writer) == 0);
  CHECK(fsync_code(w, *reader) == EIO);
  CHECK(fsync_code(w, *reader) == 0);
  CHECK(fsync_code(w, *later) == 0);  // somebody has been told before it was opened
  CHECK(fsync_code(w, *other) == 0);
  // The next error is another one.
  w.write(*writer, 0, "more");
  f.fail_next_flush();
  CHECK(code_of(w->fsync(*later, FsyncMode::kDataOnly)) == EIO);
  CHECK(fsync_code(w, *later) == 0);
  CHECK(fsync_code(w, *writer) == EIO);
  CHECK(fsync_code(w, *writer) == 0);
}

TEST_CASE("writeback errors: one that nobody was told is told to who opens the file after it", "[core][writeback]") {
  Fixture f(kinds());
  World w(f.device, f.options());
  const auto early = w.open("f");
  w.write("f", 0, "new");
  f.fail_next_flush();
  CHECK(code_of(w->sync()) == EIO);
  const auto late = w.open("f");
  CHECK(fsync_code(w, *late) == EIO);
  CHECK(fsync_code(w, *late) == 0);
  const auto later = w.open("f");
  CHECK(fsync_code(w, *later) == 0);
  CHECK(fsync_code(w, *early) == EIO);
  CHECK(fsync_code(w, *early) == 0);
}

TEST_CASE("writeback errors: an O_SYNC write is told, and its fsync not again", "[core][writeback]") {
  Fixture f(kinds());
  const int flags = GENERATE(O_SYNC, O_DSYNC);
  World w(f.device, f.options());
  const auto sync = w.open("f", O_RDWR | flags);
  const auto plain = w.open("f");
  f.fail_next_flush();
  CHECK(code_of(w.try_write(*sync, 0, "new")) == EIO);
  CHECK(fsync_code(w, *sync) == 0);
  CHECK(code_of(w.try_write(*sync, 0, "newer")) == 0);
  CHECK(fsync_code(w, *plain) == EIO);
  CHECK(fsync_code(w, *plain) == 0);
  // Met by somebody else: told by the next write that syncs.
  w.write(*plain, 0, "x");
  f.fail_next_flush();
  CHECK(fsync_code(w, *plain) == EIO);
  CHECK(code_of(w.try_write(*sync, 0, "newest")) == EIO);
  CHECK(code_of(w.try_write(*sync, 0, "newest")) == 0);
}

TEST_CASE("writeback errors: sync tells, goes on with the other files, and each file tells too", "[core][writeback]") {
  Fixture f(kinds());
  World w(f.device, f.options());
  const auto first = w.open("f");
  const auto second = w.open("other");
  w.write(*first, 0, "new");
  w.write(*second, 0, "new");
  f.fail_next_flush();
  CHECK(code_of(w->sync()) == EIO);
  // One of them has failed, the other is written.
  const std::vector<int> codes{fsync_code(w, *first), fsync_code(w, *second)};
  CHECK(std::count(codes.begin(), codes.end(), EIO) == 1);
  CHECK(std::count(codes.begin(), codes.end(), 0) == 1);
  CHECK(code_of(w->sync()) == 0);
}

TEST_CASE("writeback errors: unmount tells, and the volume does not count as unmounted", "[core][writeback]") {
  Fixture f(kinds());
  {
    World w(f.device, f.options());
    w.write("f", 0, "new");
    f.fail_next_flush();
    CHECK(code_of(w->unmount()) == EIO);
  }
  World again(f.device, f.options());
  CHECK(again->counters().unsafe_shutdowns == 1);
  CHECK(again.read("f", 0, 3) == "new");
  again.unmount();
}

TEST_CASE("writeback errors: a log that cannot be written makes the volume read-only, with one line",
          "[core][writeback]") {
  Fixture f(DeviceKind::kCached);
  World w(f.device, f.options());
  const auto handle = w.open("f");
  w.write(*handle, 10'000, "longer");
  // Data first, then the log.
  f.device.fail_flush_call(f.device.flush_calls() + 1, ENOSPC);
  CHECK(fsync_code(w, *handle) == ENOSPC);
  CHECK(w->read_only());
  CHECK(fsync_code(w, *handle) == EIO);
  CHECK(code_of(w.try_write(*handle, 0, "x")) == EROFS);
  CHECK(code_of(w->sync()) == EIO);
  CHECK(w.read("f", 10'000) == "longer");
  w->impl().report_failed_log();
  w->impl().report_failed_log();
  REQUIRE(f.notices.size() == 1);
  CHECK(f.notices[0].find("main: the log cannot be written, and the file system is read-only") == 0);
  CHECK(f.notices[0].find("injected failure of a flush") != std::string::npos);
  CHECK_FALSE(w->unmount());
}
