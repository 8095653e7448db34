// unlink(2), rmdir(2), mkdir(2), and files that are open without a name.
#include <sys/mman.h>

#include <algorithm>
#include <array>

#include "test/posix/support.h"

using namespace posix;

TEST_CASE("unlink: an open file lives on without a name and without a hidden one", "[unlink]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  const Bytes data = pattern(200'000);
  write_at(fd.get(), data, 0);
  REQUIRE(code(::unlink("file")) == kOk);
  CHECK(list(".").empty());  // no .fuse_hidden
  CHECK(status(fd.get()).st_nlink == 0);
  CHECK(read_at(fd.get(), data.size() + 1, 0) == data);
  write_at(fd.get(), data, 150'000);
  CHECK(status(fd.get()).st_size == 350'000);
  CHECK(code(::ftruncate(fd.get(), 100)) == kOk);
  CHECK(code(::fchmod(fd.get(), 0600)) == kOk);
  CHECK(code(::fsync(fd.get())) == kOk);
  CHECK(read_at(fd.get(), 1000, 0) == Bytes(data.begin(), data.begin() + 100));
  CHECK(code(::rmdir(dir.path().c_str())) == kOk);  // nothing hidden keeps the directory full
}

TEST_CASE("unlink: a new file of the same name is another file", "[unlink]") {
  const TestDirectory dir;
  const Fd old = open_file("file", O_CREAT | O_RDWR);
  write_at(old.get(), "old", 0);
  REQUIRE(::unlink("file") == 0);
  const Fd fresh = open_file("file", O_CREAT | O_EXCL | O_RDWR);
  write_at(fresh.get(), "newer", 0);
  CHECK(status(old.get()).st_ino != status(fresh.get()).st_ino);
  CHECK(read_at(old.get(), 10, 0) == Bytes{'o', 'l', 'd'});
  CHECK(read_file("file") == "newer");
}

TEST_CASE("unlink: descriptors of a deleted file cannot give it a name again", "[unlink]") {
  const TestDirectory dir;
  const Fd fd = open_file("file", O_CREAT | O_RDWR);
  REQUIRE(::unlink("file") == 0);
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  CHECK(code(::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, "again", AT_SYMLINK_FOLLOW)) == ENOENT);
  CHECK(list(".").empty());
}

TEST_CASE("unlink: errors of the man page", "[unlink]") {
  const TestDirectory dir;
  make_file("file");
  make_directory("directory");
  make_file("directory/x");
  CHECK(code(::unlink("directory")) == EISDIR);
  CHECK(code(::unlink("missing")) == ENOENT);
  CHECK(code(::unlink("file/x")) == ENOTDIR);
  CHECK(code(::rmdir("file")) == ENOTDIR);
  CHECK(code(::rmdir("missing")) == ENOENT);
  const Code full = code(::rmdir("directory"));
  CHECK((full == ENOTEMPTY || full == EEXIST));
  CHECK(code(::rmdir("directory/.")) == EINVAL);
  CHECK(code(::rmdir("directory/..")) == ENOTEMPTY);
  CHECK(code(::mkdir("file", 0755)) == EEXIST);
  CHECK(code(::mkdir("directory", 0755)) == EEXIST);
  CHECK(code(::mkdir("missing/x", 0755)) == ENOENT);
  CHECK(code(::mkdir("file/x", 0755)) == ENOTDIR);
}

TEST_CASE("unlink: a deleted directory that is open is empty and takes nothing", "[unlink][directory]") {
  const TestDirectory dir;
  make_directory("d");
  const Fd fd = open_file("d", O_RDONLY | O_DIRECTORY);
  REQUIRE(code(::rmdir("d")) == kOk);
  CHECK(status(fd.get()).st_nlink == 0);
  CHECK(code(::openat(fd.get(), "x", O_CREAT | O_RDWR, 0644)) == ENOENT);
  CHECK(code(::mkdirat(fd.get(), "x", 0755)) == ENOENT);
  CHECK(code(::symlinkat("x", fd.get(), "x")) == ENOENT);
  make_file("file");
  CHECK(code(::linkat(AT_FDCWD, "file", fd.get(), "x", 0)) == ENOENT);
  CHECK(code(::renameat(AT_FDCWD, "file", fd.get(), "x")) == ENOENT);
  CHECK(exists("file"));
}

TEST_CASE("mkdir: mode, link counts and the way up", "[directory]") {
  const TestDirectory dir;
  ::umask(027);
  REQUIRE(code(::mkdir("d", 0777)) == kOk);
  ::umask(022);
  CHECK(permissions("d") == 0750);
  CHECK(status("d").st_nlink == 2);
  const nlink_t before = status(".").st_nlink;
  for (int i = 0; i < 100; ++i) make_directory("d/" + std::to_string(i));
  CHECK(status("d").st_nlink == 102);
  CHECK(status(".").st_nlink == before);
  for (int i = 0; i < 100; i += 2) REQUIRE(::rmdir(("d/" + std::to_string(i)).c_str()) == 0);
  CHECK(status("d").st_nlink == 52);
  CHECK(status("d/1/..").st_ino == status("d").st_ino);
}

TEST_CASE("unlink: hundreds of files deleted while open keep their content", "[unlink]") {
  const TestDirectory dir;
  std::vector<Fd> files;
  for (std::uint32_t i = 0; i < 300; ++i) {
    const std::string name = "f" + std::to_string(i);
    files.push_back(open_file(name, O_CREAT | O_RDWR));
    write_at(files.back().get(), pattern(1000 + i, i), 0);
    REQUIRE(::unlink(name.c_str()) == 0);
  }
  CHECK(list(".").empty());
  for (std::uint32_t i = 0; i < 300; ++i) REQUIRE(read_at(files[i].get(), 5000, 0) == pattern(1000 + i, i));
}
