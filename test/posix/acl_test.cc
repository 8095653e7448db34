// POSIX ACLs, set and read as the raw attributes that setfacl(1) uses.
#include <sys/xattr.h>

#include "test/posix/support.h"

using namespace posix;

namespace {

constexpr const char* kAccess = "system.posix_acl_access";
constexpr const char* kDefault = "system.posix_acl_default";
constexpr std::uint16_t kUserObject = 1, kNamedUser = 2, kGroupObject = 4, kNamedGroup = 8, kMask = 16, kOthers = 32;
constexpr std::uint32_t kNoId = 0xffffffff;

struct Entry {
  std::uint16_t tag;
  std::uint16_t permissions;
  std::uint32_t id = kNoId;
};

/// The bytes of <linux/posix_acl_xattr.h>: version 2, then little-endian entries.
Bytes acl(const std::vector<Entry>& entries) {
  Bytes bytes = {2, 0, 0, 0};
  const auto put = [&](std::uint64_t value, int count) {
    for (int i = 0; i < count; ++i) bytes.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  };
  for (const Entry& entry : entries) {
    put(entry.tag, 2);
    put(entry.permissions, 2);
    put(entry.id, 4);
  }
  return bytes;
}

Code set(const char* path, const char* name, const std::vector<Entry>& entries) {
  const Bytes value = acl(entries);
  return code(::setxattr(path, name, value.data(), value.size(), 0));
}

void must_set(const char* path, const char* name, const std::vector<Entry>& entries) {
  const Code result = set(path, name, entries);
  if (result == EOPNOTSUPP) lacking("POSIX ACLs");
  REQUIRE(result == kOk);
}

Bytes get(const char* path, const char* name) {
  Bytes value(1024);
  const ssize_t length = ::getxattr(path, name, value.data(), value.size());
  if (length < 0) {
    REQUIRE(Code{errno} == ENODATA);
    return {};
  }
  value.resize(static_cast<std::size_t>(length));
  return value;
}

const std::vector<Entry> kNamed = {
    {kUserObject, 6}, {kNamedUser, 4, kUser}, {kGroupObject, 0}, {kMask, 4}, {kOthers, 0}};

Code open_as(uid_t uid, const char* path, int flags, std::vector<gid_t> groups = {}) {
  return as_user(
      uid, [=] { return errno_of(::open(path, flags)); }, std::move(groups));
}

}  // namespace

TEST_CASE("acl: an access list reads back, and the group bits of the mode are its mask", "[acl]") {
  const TestDirectory dir;
  make_file("file", "x", 0640);
  must_set("file", kAccess, kNamed);
  CHECK(get("file", kAccess) == acl(kNamed));
  CHECK(permissions("file") == 0640);
  must_set("file", kAccess, {{kUserObject, 7}, {kNamedUser, 7, kUser}, {kGroupObject, 5}, {kMask, 6}, {kOthers, 1}});
  CHECK(permissions("file") == 0761);
}

TEST_CASE("acl: chmod changes the mask, and the list follows the mode", "[acl]") {
  const TestDirectory dir;
  make_file("file", "x", 0640);
  must_set("file", kAccess, kNamed);
  REQUIRE(::chmod("file", 0715) == 0);
  CHECK(get("file", kAccess) ==
        acl({{kUserObject, 7}, {kNamedUser, 4, kUser}, {kGroupObject, 0}, {kMask, 1}, {kOthers, 5}}));
  CHECK(open_as(kUser, "file", O_RDONLY) == EACCES);  // masked
  REQUIRE(::chmod("file", 0640) == 0);
  CHECK(open_as(kUser, "file", O_RDONLY) == kOk);
}

TEST_CASE("acl: a list that says no more than the mode is not kept", "[acl]") {
  const TestDirectory dir;
  make_file("file", "x", 0600);
  must_set("file", kAccess, {{kUserObject, 7}, {kGroupObject, 5}, {kOthers, 1}});
  CHECK(permissions("file") == 0751);
  CHECK(get("file", kAccess).empty());
}

TEST_CASE("acl: a list can be removed", "[acl]") {
  const TestDirectory dir;
  make_file("file", "x", 0640);
  must_set("file", kAccess, kNamed);
  CHECK(open_as(kUser, "file", O_RDONLY) == kOk);
  REQUIRE(code(::removexattr("file", kAccess)) == kOk);
  CHECK(get("file", kAccess).empty());
  CHECK(open_as(kUser, "file", O_RDONLY) == EACCES);
}

TEST_CASE("acl: entries decide who may", "[acl][rights]") {
  const TestDirectory dir;
  make_file("file", "x", 0600);
  must_set("file", kAccess,
           {{kUserObject, 6},
            {kNamedUser, 4, kUser},
            {kGroupObject, 0},
            {kNamedGroup, 6, kGroup},
            {kMask, 6},
            {kOthers, 0}});
  CHECK(open_as(kUser, "file", O_RDONLY) == kOk);
  CHECK(open_as(kUser, "file", O_RDWR) == EACCES);
  CHECK(open_as(kOther, "file", O_RDONLY) == EACCES);
  CHECK(open_as(kOther, "file", O_RDWR, {kGroup}) == kOk);
  // An entry for the user counts before those of groups.
  CHECK(open_as(kUser, "file", O_RDWR, {kGroup}) == EACCES);
  must_set("file", kAccess, {{kUserObject, 6}, {kNamedUser, 6, kUser}, {kGroupObject, 0}, {kMask, 4}, {kOthers, 6}});
  CHECK(open_as(kUser, "file", O_RDWR) == EACCES);  // masked
  CHECK(open_as(kUser, "file", O_RDONLY) == kOk);
  CHECK(open_as(kOther, "file", O_RDWR) == kOk);
}

TEST_CASE("acl: a default list is inherited by files, within their mode and without the umask", "[acl][inherit]") {
  const TestDirectory dir;
  make_directory("d");
  const std::vector<Entry> list = {
      {kUserObject, 7}, {kNamedUser, 6, kUser}, {kGroupObject, 5}, {kMask, 7}, {kOthers, 5}};
  must_set("d", kDefault, list);
  CHECK(get("d", kDefault) == acl(list));
  CHECK(get("d", kAccess).empty());
  ::umask(077);
  const Fd fd = open_file("d/file", O_CREAT | O_RDWR, 0666);
  REQUIRE(::mkdir("d/sub", 0770) == 0);
  ::umask(022);
  CHECK(permissions("d/file") == 0664);
  CHECK(get("d/file", kAccess) ==
        acl({{kUserObject, 6}, {kNamedUser, 6, kUser}, {kGroupObject, 5}, {kMask, 6}, {kOthers, 4}}));
  CHECK(get("d/file", kDefault).empty());
  CHECK(permissions("d/sub") == 0770);
  CHECK(get("d/sub", kAccess) ==
        acl({{kUserObject, 7}, {kNamedUser, 6, kUser}, {kGroupObject, 5}, {kMask, 7}, {kOthers, 0}}));
  CHECK(get("d/sub", kDefault) == acl(list));
  CHECK(open_as(kUser, "d/file", O_RDWR) == kOk);
  make_file("outside");
  CHECK(get("outside", kAccess).empty());
}

TEST_CASE("acl: mkdir, mknod, symlink and O_TMPFILE below a default list", "[acl][inherit]") {
  const TestDirectory dir;
  make_directory("d");
  const std::vector<Entry> minimal = {{kUserObject, 7}, {kGroupObject, 5}, {kOthers, 0}};
  must_set("d", kDefault, minimal);
  ::umask(0);
  REQUIRE(::mkfifo("d/fifo", 0666) == 0);
  REQUIRE(::symlink("x", "d/link") == 0);
  const Fd fd = open_file("d/file", O_CREAT | O_RDWR, 0666);
  const int unnamed = ::open("d", O_TMPFILE | O_RDWR, 0666);
  ::umask(022);
  CHECK(permissions("d/fifo") == 0640);
  CHECK(permissions("d/link") == 0777);
  CHECK(permissions("d/file") == 0640);
  CHECK(get("d/file", kAccess).empty());
  if (unnamed >= 0) {
    CHECK((status(unnamed).st_mode & 07777) == 0640);
    ::close(unnamed);
  }
}

TEST_CASE("acl: bad lists and bad places are refused", "[acl]") {
  const TestDirectory dir;
  make_file("file", "x", 0640);
  make_directory("d");
  REQUIRE(::symlink("file", "link") == 0);
  CHECK(set("file", kDefault, kNamed) == EACCES);
  CHECK(set("d", kAccess, {{kUserObject, 7}, {kGroupObject, 5}}) == EINVAL);
  CHECK(set("d", kAccess, {{kUserObject, 7}, {kNamedUser, 5, 1}, {kGroupObject, 5}, {kOthers, 5}}) == EINVAL);
  CHECK(set("d", kAccess, {{kUserObject, 17}, {kGroupObject, 5}, {kOthers, 5}}) == EINVAL);
  const Bytes torn = {2, 0, 0, 0, 1};
  CHECK(code(::setxattr("file", kAccess, torn.data(), torn.size(), 0)) == EINVAL);
  const Bytes good = acl(kNamed);
  CHECK(code(::lsetxattr("link", kAccess, good.data(), good.size(), 0)) == EOPNOTSUPP);
  CHECK(as_user(kUser, [] {
          const Bytes value = acl(kNamed);
          return errno_of(::setxattr("file", kAccess, value.data(), value.size(), 0));
        }) == EPERM);
  CHECK(permissions("file") == 0640);
}

TEST_CASE("acl: setting a list as a foreigner of the group clears set-gid", "[acl][setid]") {
  const TestDirectory dir;
  make_file("file", "x", 0640);
  REQUIRE(::chown("file", kUser, kGroup) == 0);
  REQUIRE(::chmod("file", 02750) == 0);
  CHECK(as_user(kUser, [] {
          const Bytes value = acl(kNamed);
          return errno_of(::setxattr("file", kAccess, value.data(), value.size(), 0));
        }) == kOk);
  CHECK((permissions("file") & S_ISGID) == 0);
}

TEST_CASE("acl: a list of many entries", "[acl]") {
  const TestDirectory dir;
  make_file("file", "x", 0600);
  std::vector<Entry> entries = {{kUserObject, 6}};
  for (std::uint32_t i = 0; i < 100; ++i) entries.push_back({kNamedUser, static_cast<std::uint16_t>(i % 8), 1000 + i});
  entries.insert(entries.end(), {{kGroupObject, 0}, {kMask, 7}, {kOthers, 0}});
  must_set("file", kAccess, entries);
  CHECK(get("file", kAccess) == acl(entries));
  CHECK(open_as(1004, "file", O_RDONLY) == kOk);
  CHECK(open_as(1003, "file", O_RDONLY) == EACCES);
}
