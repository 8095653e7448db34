// Extended attributes.
#include <sys/xattr.h>

#include <algorithm>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr std::size_t kLargest = 65536;

Code set(const std::string& path, const std::string& name, const Bytes& value, int flags = 0) {
  return code(::lsetxattr(path.c_str(), name.c_str(), value.data(), value.size(), flags));
}

Bytes get(const std::string& path, const std::string& name) {
  Bytes value(kLargest);
  const ssize_t length = ::lgetxattr(path.c_str(), name.c_str(), value.data(), value.size());
  REQUIRE(code(length) == kOk);
  value.resize(static_cast<std::size_t>(length));
  return value;
}

Code get_code(const std::string& path, const std::string& name) {
  return code(::lgetxattr(path.c_str(), name.c_str(), nullptr, 0));
}

std::set<std::string> names(const std::string& path) {
  std::string buffer(kLargest, '\0');
  const ssize_t length = ::llistxattr(path.c_str(), buffer.data(), buffer.size());
  REQUIRE(code(length) == kOk);
  CHECK(::llistxattr(path.c_str(), nullptr, 0) == length);
  std::set<std::string> result;
  for (std::size_t at = 0; at < static_cast<std::size_t>(length); at += std::strlen(buffer.data() + at) + 1) {
    REQUIRE(result.insert(buffer.data() + at).second);
  }
  result.erase("security.selinux");
  return result;
}

/// A reference file system may hold less than one needs here.
void must_set(const std::string& path, const std::string& name, const Bytes& value) {
  const Code result = set(path, name, value);
  if (result == ENOSPC || result == E2BIG || result == ERANGE) lacking("room for large or many extended attributes");
  REQUIRE(result == kOk);
}

}  // namespace

TEST_CASE("xattr: set, get, list and remove in every namespace", "[xattr]") {
  const TestDirectory dir;
  make_file("file");
  make_directory("directory");
  for (const char* path : {"file", "directory"}) {
    CAPTURE(path);
    for (const char* name : {"user.one", "user.", "trusted.two", "security.three"}) {
      CAPTURE(name);
      const Code result = set(path, name, {1, 2, 0, 3});
      if (std::string(name) == "user.") {
        CHECK(result == EINVAL);
        continue;
      }
      REQUIRE(result == kOk);
      CHECK(get(path, name) == Bytes{1, 2, 0, 3});
    }
    CHECK(names(path) == std::set<std::string>{"user.one", "trusted.two", "security.three"});
    REQUIRE(code(::removexattr(path, "trusted.two")) == kOk);
    CHECK(get_code(path, "trusted.two") == ENODATA);
    CHECK(code(::removexattr(path, "trusted.two")) == ENODATA);
    CHECK(names(path) == std::set<std::string>{"user.one", "security.three"});
  }
  CHECK(set("file", "unknown.name", {1}) == EOPNOTSUPP);
}

TEST_CASE("xattr: CREATE and REPLACE", "[xattr]") {
  const TestDirectory dir;
  make_file("file");
  CHECK(set("file", "user.a", {1}, XATTR_REPLACE) == ENODATA);
  CHECK(set("file", "user.a", {1}, XATTR_CREATE) == kOk);
  CHECK(set("file", "user.a", {2}, XATTR_CREATE) == EEXIST);
  CHECK(get("file", "user.a") == Bytes{1});
  CHECK(set("file", "user.a", {3}, XATTR_REPLACE) == kOk);
  CHECK(get("file", "user.a") == Bytes{3});
  CHECK(set("file", "user.a", {4}) == kOk);
  CHECK(get("file", "user.a") == Bytes{4});
}

TEST_CASE("xattr: a buffer that is too small is ERANGE, one of no size asks for the length", "[xattr]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(set("file", "user.a", pattern(100)) == kOk);
  Bytes buffer(99);
  CHECK(code(::getxattr("file", "user.a", buffer.data(), buffer.size())) == ERANGE);
  CHECK(::getxattr("file", "user.a", nullptr, 0) == 100);
  CHECK(code(::listxattr("file", reinterpret_cast<char*>(buffer.data()), 3)) == ERANGE);
  CHECK(get_code("file", "user.missing") == ENODATA);
  CHECK(get_code("missing", "user.a") == ENOENT);
}

TEST_CASE("xattr: values of every size up to 64 KiB", "[xattr]") {
  const TestDirectory dir;
  make_file("file");
  for (const std::size_t size : {0UL, 1UL, 16UL, 100UL, 255UL, 256UL, 1000UL, 1024UL, 2000UL, 4000UL, 4096UL, 4097UL,
                                 10'000UL, 32'768UL, 65'535UL, 65'536UL}) {
    CAPTURE(size);
    must_set("file", "user.size", pattern(size, static_cast<std::uint32_t>(size)));
    CHECK(get("file", "user.size") == pattern(size, static_cast<std::uint32_t>(size)));
  }
  CHECK(set("file", "user.size", Bytes(65'537)) == E2BIG);
  CHECK(get("file", "user.size").size() == 65'536);
  // Shrinking again leaves nothing of the longer value.
  for (const std::size_t size : {4096UL, 3UL, 0UL, 65'536UL, 1UL}) {
    must_set("file", "user.size", pattern(size, 77));
    CHECK(get("file", "user.size") == pattern(size, 77));
  }
}

TEST_CASE("xattr: names up to 255 bytes, of any byte", "[xattr]") {
  const TestDirectory dir;
  make_file("file");
  const std::string longest = "user." + std::string(250, 'n');
  must_set("file", longest, {1});
  CHECK(get("file", longest) == Bytes{1});
  CHECK(set("file", longest + "n", {1}) == ERANGE);
  std::string odd = "user.";
  for (int byte = 1; byte < 256; byte += 2) odd += static_cast<char>(byte);
  must_set("file", odd, {2});
  CHECK(names("file") == std::set<std::string>{longest, odd});
}

TEST_CASE("xattr: hundreds on one file, and several of 64 KiB", "[xattr]") {
  const TestDirectory dir;
  make_file("file");
  std::set<std::string> expected;
  for (std::uint32_t i = 0; i < 500; ++i) {
    const std::string name = "user.attribute." + std::to_string(i);
    must_set("file", name, pattern(i % 200, i));
    expected.insert(name);
  }
  CHECK(names("file") == expected);
  for (std::uint32_t i = 0; i < 8; ++i) {
    must_set("file", "user.large." + std::to_string(i), pattern(kLargest, i));
    expected.insert("user.large." + std::to_string(i));
  }
  for (std::uint32_t i = 0; i < 500; i += 3) {
    const std::string name = "user.attribute." + std::to_string(i);
    REQUIRE(::removexattr("file", name.c_str()) == 0);
    expected.erase(name);
  }
  CHECK(names("file") == expected);
  for (std::uint32_t i = 0; i < 500; ++i) {
    if (i % 3 != 0) REQUIRE(get("file", "user.attribute." + std::to_string(i)) == pattern(i % 200, i));
  }
  for (std::uint32_t i = 0; i < 8; ++i) REQUIRE(get("file", "user.large." + std::to_string(i)) == pattern(kLargest, i));
}

TEST_CASE("xattr: belong to the inode, not to the name", "[xattr]") {
  const TestDirectory dir;
  make_file("a");
  make_file("other");
  REQUIRE(set("a", "user.x", {1}) == kOk);
  REQUIRE(::link("a", "b") == 0);
  REQUIRE(::rename("a", "c") == 0);
  CHECK(get("b", "user.x") == Bytes{1});
  CHECK(get("c", "user.x") == Bytes{1});
  REQUIRE(::rename("other", "c") == 0);
  CHECK(get_code("c", "user.x") == ENODATA);
  REQUIRE(::unlink("b") == 0);
  make_file("b");
  CHECK(names("b").empty());
}

TEST_CASE("xattr: change ctime and nothing else", "[xattr][time]") {
  const TestDirectory dir;
  make_file("file", "abc");
  const struct timespec old[2] = {{1000, 0}, {1000, 0}};
  REQUIRE(::utimensat(AT_FDCWD, "file", old, 0) == 0);
  const struct stat before = status("file");
  ::usleep(20'000);
  REQUIRE(set("file", "user.x", {1}) == kOk);
  const struct stat after = status("file");
  CHECK(after.st_mtim.tv_sec == 1000);
  CHECK((after.st_ctim.tv_sec != before.st_ctim.tv_sec || after.st_ctim.tv_nsec != before.st_ctim.tv_nsec));
}

TEST_CASE("xattr: user attributes are for files and directories, by their rights", "[xattr][rights]") {
  const TestDirectory dir;
  make_file("file", {}, 0644);
  make_directory("sticky", 01777);
  REQUIRE(::symlink("file", "link") == 0);
  REQUIRE(::mkfifo("fifo", 0666) == 0);
  REQUIRE(set("file", "user.x", {1}) == kOk);
  CHECK(set("link", "user.x", {1}) == EPERM);
  CHECK(set("fifo", "user.x", {1}) == EPERM);
  CHECK(set("link", "trusted.x", {1}) == kOk);
  CHECK(get("link", "trusted.x") == Bytes{1});
  CHECK(as_user(kUser, [] { return errno_of(::setxattr("file", "user.x", "1", 1, 0)); }) == EACCES);
  CHECK(as_user(kUser, [] { return errno_of(::getxattr("file", "user.x", nullptr, 0)); }) == kOk);
  CHECK(as_user(kUser, [] { return errno_of(::setxattr("sticky", "user.x", "1", 1, 0)); }) == EPERM);
  CHECK(as_user(kUser, [] { return errno_of(::setxattr("file", "trusted.x", "1", 1, 0)); }) == EPERM);
  REQUIRE(set("file", "trusted.x", {1}) == kOk);
  CHECK(as_user(kUser, [] { return errno_of(::getxattr("file", "trusted.x", nullptr, 0)); }) == ENODATA);
  REQUIRE(::chmod("file", 0600) == 0);
  CHECK(as_user(kUser, [] { return errno_of(::getxattr("file", "user.x", nullptr, 0)); }) == EACCES);
}

TEST_CASE("xattr: file capabilities go with the first write", "[xattr][setid]") {
  const TestDirectory dir;
  make_file("file", "abc", 0755);
  // struct vfs_cap_data, revision 2, cap_net_raw+ep
  const Bytes capability = {1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  REQUIRE(set("file", "security.capability", capability) == kOk);
  CHECK(get("file", "security.capability") == capability);
  write_at(open_file("file", O_WRONLY).get(), "x", 0);
  CHECK(get_code("file", "security.capability") == ENODATA);
  REQUIRE(set("file", "security.capability", capability) == kOk);
  REQUIRE(::truncate("file", 1) == 0);
  CHECK(get_code("file", "security.capability") == ENODATA);
  REQUIRE(set("file", "security.capability", capability) == kOk);
  (void)open_file("file", O_WRONLY | O_TRUNC);
  CHECK(get_code("file", "security.capability") == ENODATA);
  REQUIRE(set("file", "security.capability", capability) == kOk);
  REQUIRE(::chown("file", kUser, kUser) == 0);
  CHECK(get_code("file", "security.capability") == ENODATA);
}

TEST_CASE("xattr: processes that set different attributes of one file lose none", "[xattr][concurrent]") {
  const TestDirectory dir;
  make_file("file");
  REQUIRE(all_succeed(4, [](unsigned number) {
    for (int i = 0; i < 50; ++i) {
      const std::string name = "user." + std::to_string(number) + "." + std::to_string(i % 10);
      if (::setxattr("file", name.c_str(), &i, sizeof(i), 0) != 0) return errno;
    }
    return 0;
  }));
  CHECK(names("file").size() == 40);
}
