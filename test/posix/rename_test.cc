// rename(2) and renameat2(2).
#include <linux/fs.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "test/posix/support.h"

using namespace posix;

namespace {
Code exchange(const char* a, const char* b, unsigned flags = RENAME_EXCHANGE) {
  return code(::renameat2(AT_FDCWD, a, AT_FDCWD, b, flags));
}
}  // namespace

TEST_CASE("rename: moves a file and replaces another", "[rename]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("a", "content a");
  make_file("d/b", "content b");
  const ino_t inode = status("a").st_ino;
  const Fd replaced = open_file("d/b", O_RDONLY);
  REQUIRE(code(::rename("a", "d/b")) == kOk);
  CHECK_FALSE(exists("a"));
  CHECK(status("d/b").st_ino == inode);
  CHECK(read_file("d/b") == "content a");
  CHECK(read_at(replaced.get(), 100, 0) == Bytes{'c', 'o', 'n', 't', 'e', 'n', 't', ' ', 'b'});
  CHECK(status(replaced.get()).st_nlink == 0);
  CHECK(list("d") == std::set<std::string>{"b"});
}

TEST_CASE("rename: two names of one file stay as they are", "[rename]") {
  const TestDirectory dir;
  make_file("a", "x");
  REQUIRE(::link("a", "b") == 0);
  CHECK(code(::rename("a", "b")) == kOk);
  CHECK(code(::rename("a", "a")) == kOk);
  CHECK(list(".") == std::set<std::string>{"a", "b"});
  CHECK(status("a").st_nlink == 2);
}

TEST_CASE("rename: rules between files and directories", "[rename]") {
  const TestDirectory dir;
  make_file("file");
  make_directory("full");
  make_file("full/x");
  make_directory("empty");
  make_directory("source");
  CHECK(code(::rename("file", "empty")) == EISDIR);
  CHECK(code(::rename("source", "file")) == ENOTDIR);
  const Code over_full = code(::rename("source", "full"));
  CHECK((over_full == ENOTEMPTY || over_full == EEXIST));
  CHECK(code(::rename("missing", "x")) == ENOENT);
  CHECK(code(::rename("file", "missing/x")) == ENOENT);
  CHECK(code(::rename("file", "file/x")) == ENOTDIR);
  CHECK(code(::rename("source", "source/below")) == EINVAL);
  make_directory("source/below");
  CHECK(code(::rename("source", "source/below/deep")) == EINVAL);
  const Code up = code(::rename("source/below", "source"));
  CHECK((up == ENOTEMPTY || up == EEXIST));
  const Code dot = code(::rename("source/.", "other"));
  CHECK((dot == EINVAL || dot == EBUSY));
  const Code dotdot = code(::rename("source/below/..", "other"));
  CHECK((dotdot == EINVAL || dotdot == EBUSY || dotdot == ENOTEMPTY));
  CHECK(code(::rename("full", "empty")) == kOk);
  CHECK(list("empty") == std::set<std::string>{"x"});
  CHECK(code(::rename("file", "slash/")) == ENOTDIR);
  CHECK(code(::rename("empty", "slash/")) == kOk);
  CHECK(list(".") == std::set<std::string>{"file", "slash", "source"});
}

TEST_CASE("rename: a moved directory keeps its content, and .. and link counts follow", "[rename]") {
  const TestDirectory dir;
  make_directory("one");
  make_directory("two");
  make_directory("one/moved");
  make_file("one/moved/file", "x");
  CHECK(status("one").st_nlink == 3);
  CHECK(status("two").st_nlink == 2);
  REQUIRE(code(::rename("one/moved", "two/here")) == kOk);
  CHECK(status("one").st_nlink == 2);
  CHECK(status("two").st_nlink == 3);
  CHECK(status("two/here/..").st_ino == status("two").st_ino);
  CHECK(read_file("two/here/file") == "x");
  // Replacing an empty directory takes its link from the parent.
  make_directory("one/moved");
  make_directory("one/other");
  REQUIRE(code(::rename("two/here", "one/moved")) == kOk);
  CHECK(status("one").st_nlink == 4);
  CHECK(status("two").st_nlink == 2);
  CHECK(status("one/moved/..").st_ino == status("one").st_ino);
}

TEST_CASE("rename: an open directory stays usable where it went", "[rename]") {
  const TestDirectory dir;
  make_directory("a");
  make_directory("b");
  const Fd fd = open_file("a", O_RDONLY | O_DIRECTORY);
  REQUIRE(::rename("a", "b/c") == 0);
  const Fd made(::openat(fd.get(), "new", O_CREAT | O_RDWR, 0644));
  REQUIRE(made);
  CHECK(exists("b/c/new"));
}

TEST_CASE("rename: NOREPLACE refuses an existing target of any type", "[rename][flags]") {
  const TestDirectory dir;
  make_file("a", "a");
  make_file("b", "b");
  make_directory("d");
  REQUIRE(::symlink("nowhere", "l") == 0);
  for (const char* target : {"b", "d", "l", "a"}) CHECK(exchange("a", target, RENAME_NOREPLACE) == EEXIST);
  CHECK(exchange("a", "new", RENAME_NOREPLACE) == kOk);
  CHECK(read_file("new") == "a");
  CHECK(read_file("b") == "b");
  CHECK(exchange("missing", "x", RENAME_NOREPLACE) == ENOENT);
}

TEST_CASE("rename: EXCHANGE swaps two files", "[rename][flags]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("a", "content a");
  make_file("d/b", "content b");
  REQUIRE(exchange("a", "d/b") == kOk);
  CHECK(read_file("a") == "content b");
  CHECK(read_file("d/b") == "content a");
  CHECK(exchange("a", "missing") == ENOENT);
  CHECK(exchange("missing", "a") == ENOENT);
  CHECK(exchange("a", "a") == kOk);
  CHECK(exchange("a", "d/b", RENAME_EXCHANGE | RENAME_NOREPLACE) == EINVAL);
}

TEST_CASE("rename: EXCHANGE swaps a file with a full directory", "[rename][flags]") {
  const TestDirectory dir;
  make_directory("one");
  make_directory("two");
  make_directory("one/tree");
  make_file("one/tree/x", "x");
  make_file("two/file", "file");
  REQUIRE(exchange("one/tree", "two/file") == kOk);
  CHECK(read_file("one/tree") == "file");
  CHECK(read_file("two/file/x") == "x");
  CHECK(status("one").st_nlink == 2);
  CHECK(status("two").st_nlink == 3);
  CHECK(status("two/file/..").st_ino == status("two").st_ino);
  CHECK(exchange("two", "two/file") == EINVAL);
  CHECK(exchange("two/file", "two") == EINVAL);
}

TEST_CASE("rename: WHITEOUT leaves a character device 0:0 behind", "[rename][flags]") {
  const TestDirectory dir;
  make_file("a", "content");
  make_file("b", "old");
  const Code result = exchange("a", "b", RENAME_WHITEOUT);
  if (result == EINVAL) lacking("RENAME_WHITEOUT");
  REQUIRE(result == kOk);
  CHECK(read_file("b") == "content");
  CHECK(S_ISCHR(status("a").st_mode));
  CHECK(status("a").st_rdev == makedev(0, 0));
  CHECK(status("a").st_nlink == 1);
  CHECK(exchange("b", "a", RENAME_WHITEOUT | RENAME_EXCHANGE) == EINVAL);
  CHECK(code(::unlink("a")) == kOk);
}

TEST_CASE("rename: ctime of the moved inode and mtime of both directories move", "[rename][time]") {
  const TestDirectory dir;
  make_directory("one");
  make_directory("two");
  make_file("one/f");
  const struct timespec old[2] = {{1000, 0}, {1000, 0}};
  for (const char* path : {"one", "two", "one/f"}) REQUIRE(::utimensat(AT_FDCWD, path, old, 0) == 0);
  const struct timespec before = status("one/f").st_ctim;
  ::usleep(20'000);
  REQUIRE(::rename("one/f", "two/f") == 0);
  const struct timespec after = status("two/f").st_ctim;
  CHECK((after.tv_sec > before.tv_sec || (after.tv_sec == before.tv_sec && after.tv_nsec > before.tv_nsec)));
  CHECK(status("two/f").st_mtim.tv_sec == 1000);
  CHECK(status("one").st_mtim.tv_sec > 1000);
  CHECK(status("two").st_mtim.tv_sec > 1000);
}

TEST_CASE("rename: rights are asked of both directories and of a moved directory", "[rename][rights]") {
  const TestDirectory dir;
  make_directory("mine", 0755);
  make_directory("theirs", 0755);
  make_directory("open", 0777);
  make_file("mine/f");
  make_directory("open/foreign", 0755);
  make_directory("open/target", 0777);
  REQUIRE(::chown("mine", kUser, kUser) == 0);
  REQUIRE(::chown("mine/f", kUser, kUser) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::rename("mine/f", "theirs/f")); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::rename("theirs/x", "mine/x")); }) == ENOENT);
  // Moving a directory changes its .. entry: it must be writable itself.
  CHECK(as_user(kUser, [] { return errno_of(::rename("open/foreign", "open/target/f")); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::rename("open/foreign", "open/renamed")); }) == kOk);
  CHECK(as_user(kUser, [] { return errno_of(::rename("mine/f", "open/f")); }) == kOk);
}
