#include "fs/core/acl.h"

#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>
#include <random>
#include <string>
#include <utility>

namespace plumb::acl {
namespace {

Acl minimal(std::uint16_t user, std::uint16_t group, std::uint16_t other) {
  return {{kUserObj, user, kNoId}, {kGroupObj, group, kNoId}, {kOther, other, kNoId}};
}

// u::rwx u:1000:rw g::r-x g:50:rwx m::rwx o::r--
Acl extended() {
  return {{kUserObj, 7, kNoId}, {kUser, 6, 1000},  {kGroupObj, 5, kNoId},
          {kGroup, 7, 50},      {kMask, 7, kNoId}, {kOther, 4, kNoId}};
}

int parse_error(const Acl& acl) {
  const auto result = parse(serialize(acl));
  return result ? 0 : result.error().code;
}

}  // namespace

TEST_CASE("acl: the bytes are those of the kernel's xattr format", "[acl]") {
  const std::string bytes = serialize({{kUserObj, 6, kNoId}, {kUser, 4, 0x01020304}});
  const unsigned char expected[] = {2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255,  //
                                    2, 0, 4, 0, 4, 3, 2, 1};
  REQUIRE(bytes == std::string(reinterpret_cast<const char*>(expected), sizeof expected));
}

TEST_CASE("acl: parse reverses serialize", "[acl]") {
  for (const Acl& acl : {Acl{}, minimal(6, 4, 4), extended()}) {
    const auto parsed = parse(serialize(acl));
    REQUIRE(parsed.has_value());
    CHECK(*parsed == acl);
  }
}

TEST_CASE("acl: ids of unnamed entries are ignored", "[acl]") {
  Acl acl = minimal(7, 5, 5);
  acl[0].id = 77;
  const auto parsed = parse(serialize(acl));
  REQUIRE(parsed.has_value());
  CHECK(*parsed == minimal(7, 5, 5));
}

TEST_CASE("acl: malformed values are refused", "[acl]") {
  const std::string good = serialize(extended());
  CHECK(parse("").error().code == EINVAL);
  CHECK(parse(good.substr(0, 3)).error().code == EINVAL);
  CHECK(parse(good.substr(0, good.size() - 1)).error().code == EINVAL);
  CHECK(parse(good + "x").error().code == EINVAL);
  std::string other_version = good;
  other_version[0] = 1;
  CHECK(parse(other_version).error().code == EOPNOTSUPP);
}

TEST_CASE("acl: invalid combinations of entries are refused", "[acl]") {
  SECTION("a required entry is missing") {
    CHECK(parse_error({{kUserObj, 7, kNoId}}) == EINVAL);
    CHECK(parse_error({{kUserObj, 7, kNoId}, {kGroupObj, 5, kNoId}}) == EINVAL);
    CHECK(parse_error({{kGroupObj, 5, kNoId}, {kOther, 5, kNoId}}) == EINVAL);
    CHECK(parse_error({{kUserObj, 7, kNoId}, {kOther, 5, kNoId}}) == EINVAL);
  }
  SECTION("an entry is there twice") {
    CHECK(parse_error({{kUserObj, 7, kNoId}, {kUserObj, 7, kNoId}, {kGroupObj, 5, kNoId}, {kOther, 5, kNoId}}) ==
          EINVAL);
    CHECK(parse_error({{kUserObj, 7, kNoId}, {kGroupObj, 5, kNoId}, {kOther, 5, kNoId}, {kOther, 5, kNoId}}) == EINVAL);
  }
  SECTION("a named entry without a mask") {
    CHECK(parse_error({{kUserObj, 7, kNoId}, {kUser, 7, 1}, {kGroupObj, 5, kNoId}, {kOther, 5, kNoId}}) == EINVAL);
    CHECK(parse_error({{kUserObj, 7, kNoId}, {kGroupObj, 5, kNoId}, {kGroup, 5, 3}, {kOther, 5, kNoId}}) == EINVAL);
  }
  SECTION("the order is wrong") {
    Acl acl = extended();
    std::swap(acl[1], acl[3]);
    CHECK(parse_error(acl) == EINVAL);
  }
  SECTION("unknown permission, unknown tag, no id") {
    CHECK(parse_error(minimal(8, 5, 5)) == EINVAL);
    Acl acl = extended();
    acl[1].tag = 0x40;
    CHECK(parse_error(acl) == EINVAL);
    acl = extended();
    acl[1].id = kNoId;
    CHECK(parse_error(acl) == EINVAL);
  }
  SECTION("a mask without named entries is fine") {
    CHECK(parse_error({{kUserObj, 7, kNoId}, {kGroupObj, 5, kNoId}, {kMask, 1, kNoId}, {kOther, 5, kNoId}}) == 0);
  }
}

TEST_CASE("acl: equivalent mode", "[acl]") {
  std::uint32_t mode = S_IFREG | S_ISUID | 0777;
  CHECK(equivalent_mode(minimal(6, 4, 0), mode));
  CHECK(mode == (S_IFREG | S_ISUID | 0640));

  mode = S_IFDIR | 01000;
  Acl acl = extended();
  acl[4].perm = 6;
  CHECK_FALSE(equivalent_mode(acl, mode));
  CHECK(mode == (S_IFDIR | 01764));  // the group bits are the mask's

  mode = S_IFREG | 0123;
  CHECK(equivalent_mode({}, mode));
  CHECK(mode == (S_IFREG | 0123));
}

TEST_CASE("acl: a file inherits the default ACL, restricted by its mode", "[acl]") {
  const Inherited got = inherit(extended(), S_IFREG | 0640);
  CHECK(got.mode == (S_IFREG | 0640));
  CHECK_FALSE(got.default_acl.has_value());
  REQUIRE(got.access.has_value());
  const Acl expected = {{kUserObj, 6, kNoId}, {kUser, 6, 1000},  {kGroupObj, 5, kNoId},
                        {kGroup, 7, 50},      {kMask, 4, kNoId}, {kOther, 0, kNoId}};
  CHECK(*parse(*got.access) == expected);
}

TEST_CASE("acl: a directory also inherits the default ACL as its own", "[acl]") {
  const Inherited got = inherit(extended(), S_IFDIR | S_ISGID | 0777);
  CHECK(got.mode == (S_IFDIR | S_ISGID | 0774));
  REQUIRE(got.default_acl.has_value());
  CHECK(*parse(*got.default_acl) == extended());
  REQUIRE(got.access.has_value());
  CHECK(*parse(*got.access) == extended());
}

TEST_CASE("acl: a minimal default ACL gives a mode and no access ACL", "[acl]") {
  const Inherited file = inherit(minimal(7, 4, 0), S_IFREG | 0666);
  CHECK(file.mode == (S_IFREG | 0640));
  CHECK_FALSE(file.access.has_value());
  const Inherited directory = inherit(minimal(7, 4, 0), S_IFDIR | 0777);
  CHECK(directory.mode == (S_IFDIR | 0740));
  CHECK(directory.default_acl.has_value());
}

TEST_CASE("acl: symbolic links and empty ACLs inherit nothing", "[acl]") {
  const Inherited link = inherit(extended(), S_IFLNK | 0777);
  CHECK(link.mode == (S_IFLNK | 0777));
  CHECK_FALSE(link.access.has_value());
  const Inherited none = inherit({}, S_IFREG | 0666);
  CHECK(none.mode == (S_IFREG | 0666));
  CHECK_FALSE(none.access.has_value());
  CHECK_FALSE(none.default_acl.has_value());
}

TEST_CASE("acl: chmod changes the mask where there is one, else the group", "[acl]") {
  Acl with_mask = extended();
  apply_chmod(with_mask, S_IFREG | 0610);
  const Acl expected = {{kUserObj, 6, kNoId}, {kUser, 6, 1000},  {kGroupObj, 5, kNoId},
                        {kGroup, 7, 50},      {kMask, 1, kNoId}, {kOther, 0, kNoId}};
  CHECK(with_mask == expected);

  Acl plain = minimal(7, 7, 7);
  apply_chmod(plain, 0421);
  CHECK(plain == minimal(4, 2, 1));
}

TEST_CASE("acl: after chmod the ACL stands for exactly that mode", "[acl]") {
  for (std::uint32_t mode = 0; mode <= 0777; ++mode) {
    Acl acl = extended();
    apply_chmod(acl, mode);
    std::uint32_t back = S_IFREG;
    CHECK_FALSE(equivalent_mode(acl, back));
    REQUIRE(back == (S_IFREG | mode));
  }
}

TEST_CASE("acl: parse takes any bytes", "[acl]") {
  const std::uint32_t seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = serialize(extended());
    for (int changes = static_cast<int>(random() % 4); changes >= 0; --changes) {
      bytes[random() % bytes.size()] = static_cast<char>(random());
    }
    bytes.resize(random() % (bytes.size() + 1));
    const auto parsed = parse(bytes);
    if (parsed) REQUIRE(*parse(serialize(*parsed)) == *parsed);
  }
}

}  // namespace plumb::acl
