// Inode flags: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_IOC_GETVERSION.
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr long kKnown = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NOATIME_FL | FS_NODUMP_FL | FS_SYNC_FL | FS_DIRSYNC_FL;

Code set_flags(const std::string& path, long flags) {
  const Fd fd = open_file(path, O_RDONLY | O_NONBLOCK);
  const Code result = code(::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags));
  if (result == ENOTTY || result == EOPNOTSUPP) lacking("FS_IOC_SETFLAGS");
  return result;
}

/// Adds to what is there: a reference file system has flags of its own, such as extents.
void must_add_flags(const std::string& path, long flags) {
  const Fd fd = open_file(path, O_RDONLY | O_NONBLOCK);
  long old = 0;
  if (::ioctl(fd.get(), FS_IOC_GETFLAGS, &old) != 0) lacking("FS_IOC_GETFLAGS");
  const Code result = set_flags(path, old | flags);
  REQUIRE(result == kOk);
}

void must_clear_flags(const std::string& path) {
  const Code result = set_flags(path, 0);
  REQUIRE(result == kOk);
}

long flags_of(const std::string& path) {
  const Fd fd = open_file(path, O_RDONLY | O_NONBLOCK);
  long flags = 0;
  REQUIRE(code(::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags)) == kOk);
  return flags & kKnown;
}

struct fsxattr extended(const std::string& path) {
  const Fd fd = open_file(path, O_RDONLY);
  struct fsxattr attributes {};
  if (::ioctl(fd.get(), FS_IOC_FSGETXATTR, &attributes) != 0) lacking("FS_IOC_FSGETXATTR");
  return attributes;
}

Code set_extended(const std::string& path, std::uint32_t xflags) {
  struct fsxattr attributes = extended(path);
  attributes.fsx_xflags = xflags;
  const Fd fd = open_file(path, O_RDONLY);
  return code(::ioctl(fd.get(), FS_IOC_FSSETXATTR, &attributes));
}

}  // namespace

TEST_CASE("flags: an immutable file cannot be changed in any way", "[flags]") {
  const TestDirectory dir;
  make_file("file", "abc");
  make_file("other", "x");
  must_add_flags("file", FS_IMMUTABLE_FL);
  CHECK(flags_of("file") == FS_IMMUTABLE_FL);
  CHECK(code(::open("file", O_WRONLY)) == EPERM);
  CHECK(code(::open("file", O_RDWR)) == EPERM);
  CHECK(code(::open("file", O_WRONLY | O_TRUNC)) == EPERM);
  CHECK(code(::open("file", O_WRONLY | O_APPEND)) == EPERM);
  CHECK(code(::truncate("file", 0)) == EPERM);
  CHECK(code(::unlink("file")) == EPERM);
  CHECK(code(::rename("file", "new")) == EPERM);
  CHECK(code(::rename("other", "file")) == EPERM);
  CHECK(code(::link("file", "new")) == EPERM);
  CHECK(code(::chmod("file", 0777)) == EPERM);
  CHECK(code(::chown("file", 1, 1)) == EPERM);
  const struct timespec times[2] = {{1, 0}, {1, 0}};
  CHECK(code(::utimensat(AT_FDCWD, "file", times, 0)) == EPERM);
  CHECK(code(::setxattr("file", "user.x", "1", 1, 0)) == EPERM);
  CHECK(read_file("file") == "abc");
  must_clear_flags("file");
  CHECK(code(::truncate("file", 0)) == kOk);
  CHECK(code(::unlink("file")) == kOk);
}

TEST_CASE("flags: an append-only file only grows", "[flags]") {
  const TestDirectory dir;
  make_file("file", "abc");
  must_add_flags("file", FS_APPEND_FL);
  CHECK(code(::open("file", O_WRONLY)) == EPERM);
  CHECK(code(::open("file", O_WRONLY | O_APPEND | O_TRUNC)) == EPERM);
  const Fd fd = open_file("file", O_WRONLY | O_APPEND);
  CHECK(::write(fd.get(), "def", 3) == 3);
  CHECK(code(::truncate("file", 0)) == EPERM);
  CHECK(code(::ftruncate(fd.get(), 0)) == EPERM);
  CHECK(code(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 3)) == EPERM);
  // Over FUSE the kernel does not know the flag and lets O_APPEND go; what counts is that nothing is overwritten.
  const Code switched = code(::fcntl(fd.get(), F_SETFL, 0));
  CHECK((switched == EPERM || on_plumbfs()));
  const ssize_t overwritten = ::pwrite(fd.get(), "XYZ", 3, 0);
  CHECK((overwritten == 3 || errno == EPERM));
  CHECK(code(::unlink("file")) == EPERM);
  CHECK(code(::rename("file", "new")) == EPERM);
  CHECK(code(::link("file", "new")) == EPERM);
  CHECK(read_file("file").starts_with("abcdef"));
}

TEST_CASE("flags: immutable and append-only directories", "[flags][directory]") {
  const TestDirectory dir;
  make_directory("fixed");
  make_file("fixed/old", "x");
  make_directory("growing");
  make_file("growing/old", "x");
  make_file("outside");
  must_add_flags("fixed", FS_IMMUTABLE_FL);
  must_add_flags("growing", FS_APPEND_FL);
  CHECK(code(::open("fixed/new", O_CREAT | O_RDWR, 0644)) == EPERM);
  CHECK(code(::mkdir("fixed/new", 0755)) == EPERM);
  CHECK(code(::link("outside", "fixed/new")) == EPERM);
  CHECK(code(::rename("outside", "fixed/new")) == EPERM);
  CHECK(code(::unlink("fixed/old")) == EPERM);
  CHECK(code(::rename("fixed/old", "new")) == EPERM);
  write_at(open_file("fixed/old", O_WRONLY).get(), "y", 0);  // the file itself is free
  CHECK(read_file("fixed/old") == "y");
  CHECK(code(::open("growing/new", O_CREAT | O_RDWR, 0644)) == kOk);
  CHECK(code(::mkdir("growing/dir", 0755)) == kOk);
  CHECK(code(::unlink("growing/old")) == EPERM);
  CHECK(code(::rmdir("growing/dir")) == EPERM);
  CHECK(code(::rename("growing/old", "growing/x")) == EPERM);
}

TEST_CASE("flags: only root sets immutable and append, only owners set the others", "[flags][rights]") {
  const TestDirectory dir;
  make_file("mine");
  make_file("theirs", "x", 0666);
  REQUIRE(::chown("mine", kUser, kUser) == 0);
  const auto attempt = [](const char* path, long flag) {
    return as_user(kUser, [=] {
      const int fd = ::open(path, O_RDONLY);
      long flags = 0;
      if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return errno;
      flags |= flag;
      return errno_of(::ioctl(fd, FS_IOC_SETFLAGS, &flags));
    });
  };
  const Code nodump = attempt("mine", FS_NODUMP_FL);
  if (nodump == ENOTTY || nodump == EOPNOTSUPP) lacking("FS_IOC_SETFLAGS");
  CHECK(nodump == kOk);
  CHECK(flags_of("mine") == FS_NODUMP_FL);
  CHECK(attempt("mine", FS_IMMUTABLE_FL) == EPERM);
  CHECK(attempt("mine", FS_APPEND_FL) == EPERM);
  const Code foreign = attempt("theirs", FS_NODUMP_FL);
  CHECK((foreign == EPERM || foreign == EACCES));
  CHECK(flags_of("theirs") == 0);
}

TEST_CASE("flags: noatime, nodump, sync and dirsync are kept, unknown ones refused", "[flags]") {
  const TestDirectory dir;
  make_file("file", "abc");
  make_directory("d");
  for (const long flag : {long{FS_NOATIME_FL}, long{FS_NODUMP_FL}, long{FS_SYNC_FL}}) {
    must_clear_flags("file");
    must_add_flags("file", flag);
    CHECK(flags_of("file") == flag);
  }
  must_add_flags("d", FS_DIRSYNC_FL);
  CHECK(flags_of("d") == FS_DIRSYNC_FL);
  make_file("d/f", "x");
  if (on_plumbfs()) {  // ext4 ignores what it does not know
    long flags = FS_COMPR_FL | FS_ENCRYPT_FL;
    const Fd fd = open_file("file", O_RDONLY);
    const Code unknown = code(::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags));
    CHECK_FALSE(unknown == kOk);
  }
}

TEST_CASE("flags: a noatime file keeps its atime when it is read", "[flags][time]") {
  const TestDirectory dir;
  make_file("file", "abc");
  must_add_flags("file", FS_NOATIME_FL);
  const struct timespec old[2] = {{1000, 0}, {2000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, "file", old, 0) == 0);
  CHECK(read_file("file") == "abc");
  CHECK(status("file").st_atim.tv_sec == 1000);
}

TEST_CASE("flags: FSGETXATTR shows the same flags", "[flags][fsxattr]") {
  const TestDirectory dir;
  make_file("file", "abc");
  const std::uint32_t first = extended("file").fsx_xflags;
  CHECK((first & (FS_XFLAG_IMMUTABLE | FS_XFLAG_NODUMP)) == 0);
  const Code result = set_extended("file", FS_XFLAG_NODUMP | FS_XFLAG_NOATIME);
  REQUIRE(result == kOk);
  CHECK(flags_of("file") == (FS_NODUMP_FL | FS_NOATIME_FL));
  CHECK((extended("file").fsx_xflags & (FS_XFLAG_NODUMP | FS_XFLAG_NOATIME)) == (FS_XFLAG_NODUMP | FS_XFLAG_NOATIME));
  REQUIRE(set_extended("file", FS_XFLAG_IMMUTABLE) == kOk);
  CHECK(code(::open("file", O_WRONLY)) == EPERM);
  REQUIRE(set_extended("file", 0) == kOk);
  CHECK(code(::open("file", O_WRONLY)) == kOk);
}

TEST_CASE("flags: FS_XFLAG_DAX is kept and inherited from the directory", "[flags][fsxattr][dax]") {
  only_on_plumbfs("FS_XFLAG_DAX");
  const TestDirectory dir;
  make_directory("d");
  make_file("file", "abc");
  REQUIRE(set_extended("file", FS_XFLAG_DAX) == kOk);
  CHECK((extended("file").fsx_xflags & FS_XFLAG_DAX) != 0);
  CHECK(read_file("file") == "abc");
  make_file("d/before");
  REQUIRE(set_extended("d", FS_XFLAG_DAX) == kOk);
  make_file("d/after", "x");
  make_directory("d/sub");
  make_file("d/sub/deep", "x");
  CHECK((extended("d/before").fsx_xflags & FS_XFLAG_DAX) == 0);
  CHECK((extended("d/after").fsx_xflags & FS_XFLAG_DAX) != 0);
  CHECK((extended("d/sub").fsx_xflags & FS_XFLAG_DAX) != 0);
  CHECK((extended("d/sub/deep").fsx_xflags & FS_XFLAG_DAX) != 0);
  REQUIRE(set_extended("d", 0) == kOk);
  make_file("d/later");
  CHECK((extended("d/later").fsx_xflags & FS_XFLAG_DAX) == 0);
}

TEST_CASE("generation: changes when an inode number is used again", "[generation]") {
  const TestDirectory dir;
  const auto generation = [](int fd) {
    long value = 0;
    if (::ioctl(fd, FS_IOC_GETVERSION, &value) != 0) lacking("FS_IOC_GETVERSION");
    return static_cast<std::uint32_t>(value);
  };
  std::map<ino_t, std::set<std::uint32_t>> seen;
  bool used_again = false;
  for (int i = 0; i < 3000 && !(used_again && i > 200); ++i) {
    const Fd fd = open_file("file", O_CREAT | O_EXCL | O_RDWR);
    std::set<std::uint32_t>& generations = seen[status(fd.get()).st_ino];
    used_again = used_again || !generations.empty();
    const std::uint32_t here = generation(fd.get());
    REQUIRE(generations.insert(here).second);
    REQUIRE(generation(open_file("file", O_RDONLY).get()) == here);
    REQUIRE(::unlink("file") == 0);
    if (i % 100 == 99) REQUIRE(code(::syncfs(fd.get())) == kOk);  // a number may be kept until its deletion is durable
  }
  if (!used_again) SKIP("no inode number was used again within 3000 files");
}
