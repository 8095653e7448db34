// Timestamps: setting them, moving by themselves, relatime, birth.
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include <array>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr std::int64_t kDay = 86'400;

Code set_times(const std::string& path, struct timespec atime, struct timespec mtime) {
  const struct timespec times[2] = {atime, mtime};
  return code(::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW));
}

bool newer(struct timespec a, struct timespec b) {
  return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}
bool same(struct timespec a, struct timespec b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

struct timespec now() {
  struct timespec time {};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return time;
}

void read_byte(const std::string& path, int flags = 0) {
  const Fd fd = open_file(path, O_RDONLY | flags);
  // Where the kernel caches a file (dax=never), FUSE does not hear of reads from its cache.
  REQUIRE(::posix_fadvise(fd.get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
  REQUIRE(read_at(fd.get(), 1, 0).size() == 1);
}

/// Sets atime and mtime, reads, and tells whether atime has moved.
bool read_moves_atime(std::int64_t atime, std::int64_t mtime, int flags = 0) {
  REQUIRE(set_times("file", {atime, 0}, {mtime, 0}) == kOk);
  read_byte("file", flags);
  return status("file").st_atim.tv_sec != atime;
}

struct statx_timestamp birth(const std::string& path) {
  struct statx result {};
  REQUIRE(code(::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BTIME, &result)) == kOk);
  if ((result.stx_mask & STATX_BTIME) == 0) {
    needs_kernel(6, 6, "birth time over FUSE");
    lacking("the time of birth");
  }
  return result.stx_btime;
}

}  // namespace

TEST_CASE("time: utimensat keeps nanoseconds, each of the two alone", "[time]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(set_times("file", {1'000'000'001, 123'456'789}, {2'000'000'002, 999'999'999}) == kOk);
  CHECK(same(status("file").st_atim, {1'000'000'001, 123'456'789}));
  CHECK(same(status("file").st_mtim, {2'000'000'002, 999'999'999}));
  REQUIRE(set_times("file", {0, UTIME_OMIT}, {5, 7}) == kOk);
  CHECK(same(status("file").st_atim, {1'000'000'001, 123'456'789}));
  CHECK(same(status("file").st_mtim, {5, 7}));
  const struct timespec before = now();
  REQUIRE(set_times("file", {0, UTIME_NOW}, {0, UTIME_OMIT}) == kOk);
  CHECK(status("file").st_atim.tv_sec >= before.tv_sec - 1);
  CHECK(same(status("file").st_mtim, {5, 7}));
  CHECK(set_times("file", {0, 1'000'000'000}, {0, 0}) == EINVAL);
  REQUIRE(::symlink("file", "link") == 0);
  REQUIRE(set_times("link", {11, 0}, {12, 0}) == kOk);
  CHECK(status("link").st_mtim.tv_sec == 12);
  CHECK(status("file").st_mtim.tv_sec == 5);
}

TEST_CASE("time: dates before 1970 and far after 2446", "[time]") {
  const TestDirectory dir;
  make_file("file");
  for (const std::int64_t seconds : {std::int64_t{-1}, std::int64_t{-86'400} * 365, std::int64_t{-2'147'483'640},
                                     std::int64_t{2'147'483'648}, std::int64_t{4'294'967'296}}) {
    CAPTURE(seconds);
    REQUIRE(set_times("file", {seconds, 999'999'999}, {seconds, 1}) == kOk);
    CHECK(same(status("file").st_atim, {seconds, 999'999'999}));
    CHECK(same(status("file").st_mtim, {seconds, 1}));
  }
  for (const std::int64_t seconds : {std::int64_t{15'032'385'536}, std::int64_t{253'402'300'799},
                                     std::int64_t{-62'135'596'800}, std::int64_t{1} << 40}) {
    CAPTURE(seconds);
    REQUIRE(set_times("file", {seconds, 3}, {seconds, 4}) == kOk);
    if (!on_plumbfs() && status("file").st_mtim.tv_sec != seconds) lacking("dates after 2446 or before 1901");
    CHECK(same(status("file").st_atim, {seconds, 3}));
    CHECK(same(status("file").st_mtim, {seconds, 4}));
  }
}

TEST_CASE("time: who may set them", "[time][rights]") {
  const TestDirectory dir;
  make_file("writable", "x", 0666);
  make_file("readable", "x", 0644);
  REQUIRE(::chmod(".", 0777) == 0);
  const auto set_now = [](const char* path) { return errno_of(::utimensat(AT_FDCWD, path, nullptr, 0)); };
  CHECK(as_user(kUser, [&] { return set_now("writable"); }) == kOk);
  CHECK(as_user(kUser, [&] { return set_now("readable"); }) == EACCES);
  CHECK(as_user(kUser, [] { return set_times("writable", {1, 1}, {1, 1}).value; }) == EPERM);
  REQUIRE(::chown("readable", kUser, kUser) == 0);
  CHECK(as_user(kUser, [] { return set_times("readable", {1, 1}, {1, 1}).value; }) == kOk);
}

TEST_CASE("time: writing, changing and reading move the right ones", "[time]") {
  const TestDirectory dir;
  make_file("file", "abc");
  const auto settle = [] {
    REQUIRE(set_times("file", {1000, 0}, {1000, 0}) == kOk);
    const struct timespec ctime = status("file").st_ctim;
    ::usleep(15'000);
    return ctime;
  };
  struct timespec ctime = settle();
  write_at(open_file("file", O_WRONLY).get(), "x", 0);
  CHECK(status("file").st_mtim.tv_sec > 1000);
  CHECK(newer(status("file").st_ctim, ctime));
  CHECK(status("file").st_atim.tv_sec == 1000);
  ctime = settle();
  REQUIRE(::chmod("file", 0600) == 0);
  CHECK(status("file").st_mtim.tv_sec == 1000);
  CHECK(newer(status("file").st_ctim, ctime));
  ctime = settle();
  REQUIRE(::truncate("file", 1) == 0);
  CHECK(status("file").st_mtim.tv_sec > 1000);
  CHECK(newer(status("file").st_ctim, ctime));
  ctime = settle();
  REQUIRE(::link("file", "second") == 0);
  CHECK(status("file").st_mtim.tv_sec == 1000);
  CHECK(newer(status("file").st_ctim, ctime));
  ctime = settle();
  REQUIRE(::unlink("second") == 0);
  CHECK(newer(status("file").st_ctim, ctime));
  ctime = settle();
  REQUIRE(::chown("file", 1, 1) == 0);
  CHECK(newer(status("file").st_ctim, ctime));
  ctime = settle();
  REQUIRE(code(::fallocate(open_file("file", O_RDWR).get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1)) == kOk);
  CHECK(status("file").st_mtim.tv_sec > 1000);
}

TEST_CASE("time: a directory moves with its entries", "[time]") {
  const TestDirectory dir;
  make_directory("d");
  const auto moved = [](const char* what, const auto& change) {
    REQUIRE(set_times("d", {1000, 0}, {1000, 0}) == kOk);
    INFO(what);
    change();
    CHECK(status("d").st_mtim.tv_sec > 1000);
  };
  moved("create", [] { make_file("d/f"); });
  moved("mkdir", [] { make_directory("d/e"); });
  moved("rename", [] { REQUIRE(::rename("d/f", "d/g") == 0); });
  moved("link", [] { REQUIRE(::link("d/g", "d/h") == 0); });
  moved("unlink", [] { REQUIRE(::unlink("d/h") == 0); });
  moved("rmdir", [] { REQUIRE(::rmdir("d/e") == 0); });
  REQUIRE(set_times("d", {1000, 0}, {1000, 0}) == kOk);
  write_at(open_file("d/g", O_WRONLY).get(), "x", 0);
  CHECK(status("d").st_mtim.tv_sec == 1000);
}

TEST_CASE("time: relatime moves atime when it is not after mtime, or older than a day", "[time][relatime]") {
  not_on_direct_path("direct reads do not move atime");
  const TestDirectory dir;
  make_file("file", "abc");
  const std::int64_t today = now().tv_sec;
  CHECK(read_moves_atime(today - 1000, today - 500));
  CHECK(read_moves_atime(today - 2 * kDay, today - 3 * kDay));
  // ctime is now: atime must be after it too, or relatime sees a change. Set into the future to be past it.
  CHECK_FALSE(read_moves_atime(today + 1000, today - 500));
}

TEST_CASE("time: O_NOATIME reads leave atime, for the owner only", "[time][relatime]") {
  not_on_direct_path("direct reads do not move atime");
  const TestDirectory dir;
  make_file("file", "abc");
  const std::int64_t today = now().tv_sec;
  CHECK_FALSE(read_moves_atime(today - 1000, today - 500, O_NOATIME));
  CHECK(as_user(kUser, [] { return errno_of(::open("file", O_RDONLY | O_NOATIME)); }) == EPERM);
}

TEST_CASE("time: reading a directory moves its atime by the same rules", "[time][relatime]") {
  const TestDirectory dir;
  make_directory("d");
  REQUIRE(set_times("d", {1000, 0}, {2000, 0}) == kOk);
  CHECK(list("d").empty());
  CHECK(status("d").st_atim.tv_sec > 2000);
}

TEST_CASE("time: birth is set once", "[time][btime]") {
  const TestDirectory dir;
  const struct timespec before = now();
  make_file("file", "abc");
  const struct statx_timestamp born = birth("file");
  CHECK(born.tv_sec >= before.tv_sec - 1);
  CHECK(born.tv_sec <= now().tv_sec + 1);
  ::usleep(15'000);
  write_at(open_file("file", O_WRONLY).get(), "xyz", 0);
  REQUIRE(set_times("file", {1, 1}, {1, 1}) == kOk);
  REQUIRE(::chmod("file", 0600) == 0);
  REQUIRE(::rename("file", "other") == 0);
  REQUIRE(::truncate("other", 0) == 0);
  const struct statx_timestamp after = birth("other");
  CHECK(after.tv_sec == born.tv_sec);
  CHECK(after.tv_nsec == born.tv_nsec);
  make_file("file");
  const struct statx_timestamp second = birth("file");
  CHECK((second.tv_sec > born.tv_sec || (second.tv_sec == born.tv_sec && second.tv_nsec > born.tv_nsec)));
}

TEST_CASE("time: a failed operation moves nothing", "[time]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("d/f");
  REQUIRE(set_times("d", {1000, 0}, {1000, 0}) == kOk);
  const struct stat before = status("d");
  CHECK(code(::mkdir("d/f", 0755)) == EEXIST);
  CHECK(code(::unlink("d/missing")) == ENOENT);
  CHECK(code(::link("d", "d/x")) == EPERM);
  const struct stat after = status("d");
  CHECK(same(after.st_mtim, before.st_mtim));
  CHECK(same(after.st_ctim, before.st_ctim));
}
