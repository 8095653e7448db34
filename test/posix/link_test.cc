// Hard links, symbolic links and special files.
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include <array>

#include "test/posix/support.h"

using namespace posix;

namespace {
std::string read_link(const std::string& path) {
  std::string buffer(8192, '\0');
  const ssize_t length = ::readlink(path.c_str(), buffer.data(), buffer.size());
  REQUIRE(code(length) == kOk);
  buffer.resize(static_cast<std::size_t>(length));
  return buffer;
}
}  // namespace

TEST_CASE("link: names of one file share all of it", "[link]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("a", "abc");
  REQUIRE(code(::link("a", "d/b")) == kOk);
  CHECK(status("a").st_nlink == 2);
  CHECK(status("a").st_ino == status("d/b").st_ino);
  write_at(open_file("d/b", O_WRONLY).get(), "xyz", 0);
  CHECK(read_file("a") == "xyz");
  REQUIRE(code(::unlink("a")) == kOk);
  CHECK(status("d/b").st_nlink == 1);
  CHECK(read_file("d/b") == "xyz");
}

TEST_CASE("link: errors of the man page", "[link]") {
  const TestDirectory dir;
  make_file("file");
  make_file("other");
  make_directory("directory");
  REQUIRE(::symlink("file", "symlink") == 0);
  CHECK(code(::link("file", "other")) == EEXIST);
  CHECK(code(::link("directory", "new")) == EPERM);
  CHECK(code(::link("missing", "new")) == ENOENT);
  CHECK(code(::link("file", "missing/new")) == ENOENT);
  CHECK(code(::link("file", "other/new")) == ENOTDIR);
  CHECK(as_user(kUser, [] { return errno_of(::link("file", "new")); }) != kOk);
  CHECK(code(::linkat(AT_FDCWD, "symlink", AT_FDCWD, "to_link", 0)) == kOk);
  CHECK(S_ISLNK(status("to_link").st_mode));
  CHECK(code(::linkat(AT_FDCWD, "symlink", AT_FDCWD, "to_file", AT_SYMLINK_FOLLOW)) == kOk);
  CHECK(status("to_file").st_ino == status("file").st_ino);
  CHECK(status("file").st_nlink == 2);
}

TEST_CASE("link: the largest number of links is kept, then EMLINK", "[link][slow]") {
  only_on_plumbfs("a limit that a test can reach");
  const TestDirectory dir;
  make_file("file");
  const auto name = [](unsigned i) { return "l" + std::to_string(i); };
  unsigned made = 1;
  Code result;
  while (made < 70'000 && (result = code(::link("file", name(made).c_str()))) == kOk) ++made;
  CHECK(result == EMLINK);
  CHECK(made >= 32'000);
  CHECK(status("file").st_nlink == made);
  CHECK_FALSE(exists(name(made)));
  REQUIRE(::unlink(name(1).c_str()) == 0);
  CHECK(code(::link("file", "again")) == kOk);
  CHECK(code(::link("file", "once_more")) == EMLINK);
  CHECK(status("file").st_nlink == made);
}

TEST_CASE("symlink: every length up to 4095 bytes reads back", "[symlink]") {
  const TestDirectory dir;
  std::string target;
  for (std::size_t i = 0; i < 4096; ++i) target += static_cast<char>(1 + (i * 7) % 255);
  for (const std::size_t length : {1UL, 2UL, 55UL, 59UL, 60UL, 63UL, 64UL, 127UL, 128UL, 255UL, 256UL, 511UL, 1023UL,
                                   1024UL, 1025UL, 2048UL, 4094UL, 4095UL}) {
    CAPTURE(length);
    const std::string name = "l" + std::to_string(length);
    const Code result = code(::symlink(target.substr(0, length).c_str(), name.c_str()));
    if (result == ENAMETOOLONG && length == 4095) lacking("symbolic links of 4095 bytes");
    REQUIRE(result == kOk);
    CHECK(read_link(name) == target.substr(0, length));
    CHECK(status(name).st_size == static_cast<off_t>(length));
  }
  CHECK(code(::symlink(std::string(4096, 'x').c_str(), "long")) == ENAMETOOLONG);
  CHECK(code(::symlink("", "empty")) == ENOENT);
  CHECK(code(::symlink("x", "l1")) == EEXIST);
  std::array<char, 3> small{};
  CHECK(::readlink("l64", small.data(), small.size()) == 3);
  CHECK(std::string(small.data(), 3) == target.substr(0, 3));
  make_file("file");
  CHECK(code(::readlink("file", small.data(), small.size())) == EINVAL);
}

TEST_CASE("symlink: is followed, or not, as asked", "[symlink]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("d/file", "x");
  REQUIRE(::symlink("d", "to_d") == 0);
  REQUIRE(::symlink("../d/file", "d/up") == 0);
  CHECK(read_file("to_d/file") == "x");
  CHECK(read_file("to_d/up") == "x");
  CHECK(code(::rmdir("to_d")) == ENOTDIR);
  CHECK(code(::unlink("to_d")) == kOk);
  CHECK(list("d") == std::set<std::string>{"file", "up"});
  REQUIRE(::fchownat(AT_FDCWD, "d/up", 1, 2, AT_SYMLINK_NOFOLLOW) == 0);
  CHECK(status("d/up").st_uid == 1);
  CHECK(status("d/file").st_uid == 0);
  REQUIRE(::symlink("b", "a") == 0);
  REQUIRE(::symlink("a", "b") == 0);
  struct stat ignored {};
  CHECK(code(::stat("a", &ignored)) == ELOOP);
}

TEST_CASE("mknod: a fifo carries bytes between processes", "[mknod]") {
  const TestDirectory dir;
  REQUIRE(code(::mkfifo("fifo", 0640)) == kOk);
  CHECK(S_ISFIFO(status("fifo").st_mode));
  CHECK(permissions("fifo") == 0640);
  CHECK(all_succeed(2, [](unsigned end) {
    const int fd = ::open("fifo", end == 0 ? O_WRONLY : O_RDONLY);
    std::array<char, 5> buffer{};
    if (end == 0) return ::write(fd, "hello", 5) == 5 ? 0 : 1;
    return ::read(fd, buffer.data(), 5) == 5 && std::memcmp(buffer.data(), "hello", 5) == 0 ? 0 : 2;
  }));
}

TEST_CASE("mknod: a socket can be bound and connected to", "[mknod]") {
  const TestDirectory dir;
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, "socket");
  const auto* name = reinterpret_cast<const struct sockaddr*>(&address);
  const Fd server(::socket(AF_UNIX, SOCK_STREAM, 0));
  REQUIRE(code(::bind(server.get(), name, sizeof(address))) == kOk);
  REQUIRE(::listen(server.get(), 1) == 0);
  CHECK(S_ISSOCK(status("socket").st_mode));
  const Fd client(::socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK(code(::connect(client.get(), name, sizeof(address))) == kOk);
  CHECK(code(::bind(client.get(), name, sizeof(address))) != kOk);
  CHECK(code(::open("socket", O_RDWR)) == ENXIO);
  REQUIRE(::unlink("socket") == 0);
  const Fd late(::socket(AF_UNIX, SOCK_STREAM, 0));
  CHECK(code(::connect(late.get(), name, sizeof(address))) == ENOENT);
}

TEST_CASE("mknod: device nodes keep their type and number", "[mknod]") {
  const TestDirectory dir;
  const std::array<std::pair<unsigned, unsigned>, 5> numbers = {
      {{1, 3}, {0, 0}, {255, 255}, {8, 300}, {4095, 1048575}}};
  for (const auto& [major, minor] : numbers) {
    const std::string name = std::to_string(major) + "." + std::to_string(minor);
    CAPTURE(name);
    REQUIRE(code(::mknod(("c" + name).c_str(), S_IFCHR | 0600, makedev(major, minor))) == kOk);
    REQUIRE(code(::mknod(("b" + name).c_str(), S_IFBLK | 0600, makedev(major, minor))) == kOk);
    CHECK(S_ISCHR(status("c" + name).st_mode));
    CHECK(S_ISBLK(status("b" + name).st_mode));
    CHECK(status("c" + name).st_rdev == makedev(major, minor));
    CHECK(status("b" + name).st_rdev == makedev(major, minor));
  }
  REQUIRE(code(::mknod("regular", S_IFREG | 0600, 0)) == kOk);
  CHECK(S_ISREG(status("regular").st_mode));
  CHECK(code(::mknod("regular", S_IFIFO | 0600, 0)) == EEXIST);
  REQUIRE(::chmod(".", 0777) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::mknod("no", S_IFCHR | 0600, makedev(1, 3))); }) == EPERM);
}
