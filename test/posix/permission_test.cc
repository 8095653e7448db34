// Who may, and what becomes of set-id bits, set-gid directories and sticky directories.
#include "test/posix/support.h"

using namespace posix;

namespace {
constexpr mode_t kSetId = S_ISUID | S_ISGID;

/// A file with both set-id bits that kUser may write to but does not own.
void make_setid(const char* path, mode_t mode = kSetId | 0777) {
  make_file(path, "0123456789");
  REQUIRE(::chown(path, 0, 0) == 0);
  REQUIRE(::chmod(path, mode) == 0);
  REQUIRE(permissions(path) == mode);
}
}  // namespace

TEST_CASE("setid: a write by another user clears both bits", "[setid]") {
  const TestDirectory dir;
  make_setid("file");
  CHECK(as_user(kUser, [] { return ::pwrite(::open("file", O_WRONLY), "x", 1, 0) == 1 ? 0 : errno; }) == kOk);
  CHECK(permissions("file") == 0777);
}

TEST_CASE("setid: an append by another user clears both bits", "[setid]") {
  const TestDirectory dir;
  make_setid("file");
  CHECK(as_user(kUser, [] { return ::write(::open("file", O_WRONLY | O_APPEND), "x", 1) == 1 ? 0 : errno; }) == kOk);
  CHECK(permissions("file") == 0777);
}

TEST_CASE("setid: truncate, ftruncate and O_TRUNC by another user clear both bits", "[setid]") {
  const TestDirectory dir;
  make_setid("one");
  make_setid("two");
  make_setid("three");
  CHECK(as_user(kUser, [] { return errno_of(::truncate("one", 3)); }) == kOk);
  CHECK(as_user(kUser, [] { return errno_of(::ftruncate(::open("two", O_WRONLY), 3)); }) == kOk);
  CHECK(as_user(kUser, [] { return errno_of(::open("three", O_WRONLY | O_TRUNC)); }) == kOk);
  CHECK(permissions("one") == 0777);
  CHECK(permissions("two") == 0777);
  CHECK(permissions("three") == 0777);
}

TEST_CASE("setid: fallocate and copy_file_range by another user clear both bits", "[setid]") {
  const TestDirectory dir;
  make_setid("one");
  make_setid("two");
  make_file("source", "abc");
  CHECK(as_user(kUser, [] { return errno_of(::fallocate(::open("one", O_WRONLY), 0, 0, 100)); }) == kOk);
  CHECK(as_user(kUser, [] {
          const int from = ::open("source", O_RDONLY);
          return errno_of(::copy_file_range(from, nullptr, ::open("two", O_WRONLY), nullptr, 3, 0));
        }) == kOk);
  CHECK(permissions("one") == 0777);
  CHECK(permissions("two") == 0777);
}

TEST_CASE("setid: set-gid without group execution is mandatory locking of old, and stays", "[setid]") {
  const TestDirectory dir;
  make_setid("file", S_ISGID | 0666);
  CHECK(as_user(kUser, [] { return ::pwrite(::open("file", O_WRONLY), "x", 1, 0) == 1 ? 0 : errno; }) == kOk);
  const mode_t after = permissions("file");
  // Kernels before 6.2 kept the bit, later ones clear it for a writer outside of the group.
  CHECK((after == 0666 || after == (S_ISGID | 0666)));
}

TEST_CASE("setid: a write by root keeps the bits", "[setid]") {
  const TestDirectory dir;
  make_setid("file");
  write_at(open_file("file", O_WRONLY).get(), "x", 0);
  CHECK(permissions("file") == (kSetId | 0777));
}

TEST_CASE("setid: chown clears the bits of a program, also for root", "[setid]") {
  const TestDirectory dir;
  make_setid("file");
  REQUIRE(::chown("file", kUser, kGroup) == 0);
  CHECK(permissions("file") == 0777);
  REQUIRE(::chmod("file", kSetId | 0755) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::chown("file", kUser, kGroup)); }, {kGroup}) == kOk);
  CHECK(permissions("file") == 0755);
  make_directory("d");
  REQUIRE(::chmod("d", kSetId | 0755) == 0);
  REQUIRE(::chown("d", kUser, kGroup) == 0);
  CHECK(permissions("d") == (kSetId | 0755));  // a directory keeps them
}

TEST_CASE("setid: chmod by an owner outside of the group cannot set set-gid", "[setid]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(::chown("file", kUser, kGroup) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::chmod("file", 02755)); }) == kOk);
  CHECK(permissions("file") == 0755);
  CHECK(as_user(kUser, [] { return errno_of(::chmod("file", 02755)); }, {kGroup}) == kOk);
  CHECK(permissions("file") == 02755);
}

TEST_CASE("setgid directory: new entries take its group, new directories its bit", "[setgid]") {
  const TestDirectory dir;
  make_directory("d");
  REQUIRE(::chown("d", 0, kGroup) == 0);
  REQUIRE(::chmod("d", 02777) == 0);
  CHECK(as_user(kUser, [] {
          if (::open("d/file", O_CREAT | O_RDWR, 0644) < 0) return errno;
          if (::mkdir("d/sub", 0755) != 0) return errno;
          if (::mkfifo("d/fifo", 0644) != 0) return errno;
          if (::symlink("x", "d/link") != 0) return errno;
          // The bit cannot be had for a program of a group one is not in.
          return errno_of(::open("d/program", O_CREAT | O_RDWR, 02775));
        }) == kOk);
  for (const char* path : {"d/file", "d/sub", "d/fifo", "d/link", "d/program"}) {
    CAPTURE(path);
    CHECK(status(path).st_gid == kGroup);
    CHECK(status(path).st_uid == kUser);
  }
  CHECK(permissions("d/sub") == 02755);
  CHECK(permissions("d/file") == 0644);
  CHECK((permissions("d/program") & S_ISGID) == 0);
  make_directory("plain");
  REQUIRE(::chown("plain", 0, kGroup) == 0);
  make_file("plain/file");
  CHECK(status("plain/file").st_gid == 0);
}

TEST_CASE("sticky: only owners delete and rename in a sticky directory", "[sticky]") {
  const TestDirectory dir;
  make_directory("d");
  REQUIRE(::chmod("d", 01777) == 0);
  make_file("d/root");
  make_file("d/user");
  make_file("d/user2");
  make_directory("d/sub");
  REQUIRE(::chown("d/user", kUser, kUser) == 0);
  REQUIRE(::chown("d/user2", kUser, kUser) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::unlink("d/root")); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::rename("d/root", "d/x")); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::rename("d/user", "d/root")); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::rmdir("d/sub")); }) == EPERM);
  CHECK(as_user(kOther, [] { return errno_of(::unlink("d/user")); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::unlink("d/user")); }) == kOk);
  REQUIRE(::chown("d", kOther, kOther) == 0);
  REQUIRE(::chmod("d", 01777) == 0);
  CHECK(as_user(kOther, [] { return errno_of(::unlink("d/user2")); }) == kOk);  // owner of the directory
}

TEST_CASE("rights: mode bits decide for owner, group and others", "[rights]") {
  const TestDirectory dir;
  make_file("file", "x");
  REQUIRE(::chown("file", kUser, kGroup) == 0);
  const auto may = [](uid_t uid, int flags, std::vector<gid_t> groups) {
    return as_user(
        uid, [=] { return errno_of(::open("file", flags)); }, std::move(groups));
  };
  REQUIRE(::chmod("file", 0407) == 0);
  CHECK(may(kUser, O_RDONLY, {}) == kOk);
  CHECK(may(kUser, O_WRONLY, {}) == EACCES);
  CHECK(may(kOther, O_RDONLY, {kGroup}) == EACCES);  // the group counts, not others
  CHECK(may(kOther, O_RDWR, {}) == kOk);
  REQUIRE(::chmod("file", 0040) == 0);
  CHECK(may(kUser, O_RDONLY, {kGroup}) == EACCES);  // the owner counts, not the group
  CHECK(may(kOther, O_RDONLY, {kGroup}) == kOk);
  CHECK(may(0, O_RDWR, {}) == kOk);
}

TEST_CASE("rights: directories need execution to pass and writing to change", "[rights]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("d/file", "x");
  REQUIRE(::chown("d", kUser, kUser) == 0);
  REQUIRE(::chmod("d", 0600) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::open("d/file", O_RDONLY)); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::open("d", O_RDONLY)); }) == kOk);
  REQUIRE(::chmod("d", 0500) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::open("d/file", O_RDONLY)); }) == kOk);
  CHECK(as_user(kUser, [] { return errno_of(::open("d/new", O_CREAT | O_RDWR, 0644)); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::unlink("d/file")); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::mkdir("d/sub", 0755)); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::symlink("x", "d/l")); }) == EACCES);
  const Code linked = as_user(kUser, [] { return errno_of(::link("d/file", "d/l")); });
  CHECK((linked == EACCES || linked == EPERM));  // EPERM by fs.protected_hardlinks
  REQUIRE(::chmod("d", 0100) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::open("d", O_RDONLY)); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::open("d/file", O_RDONLY)); }) == kOk);
}

TEST_CASE("rights: chown and chmod are for owners", "[rights]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(::chown("file", kUser, kUser) == 0);
  CHECK(as_user(kOther, [] { return errno_of(::chmod("file", 0777)); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::chown("file", kOther, static_cast<gid_t>(-1))); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::chown("file", static_cast<uid_t>(-1), kGroup)); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::chown("file", static_cast<uid_t>(-1), kGroup)); }, {kGroup}) == kOk);
  CHECK(status("file").st_gid == kGroup);
  REQUIRE(::chown("file", 0x7ffffffe, 0x7ffffffd) == 0);
  CHECK(status("file").st_uid == 0x7ffffffe);
  CHECK(status("file").st_gid == 0x7ffffffd);
}

TEST_CASE("rights: access(2) agrees with them, for root too", "[rights]") {
  const TestDirectory dir;
  make_file("file", "x", 0640);
  CHECK(code(::access("file", R_OK | W_OK)) == kOk);
  CHECK(code(::access("file", X_OK)) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::access("file", R_OK)); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::access("file", F_OK)); }) == kOk);
  REQUIRE(::chmod("file", 0755) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::access("file", R_OK | X_OK)); }) == kOk);
}

TEST_CASE("rights: a program on the mount can be executed", "[rights]") {
  const TestDirectory dir;
  make_file("script", "#!/bin/sh\nexit 7\n", 0755);
  CHECK(in_child([] {
          ::execl("./script", "script", nullptr);
          return 1;
        }) == 7);
  REQUIRE(::chmod("script", 0644) == 0);
  CHECK(in_child([] {
          ::execl("./script", "script", nullptr);
          return errno;
        }) == EACCES);
}
