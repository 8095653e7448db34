// Names: their length and their bytes.
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
#pragma GCC diagnostic ignored "-Warray-bounds"  // false positives on inlined std::string, GCC bug 105329
#pragma GCC diagnostic ignored "-Wstringop-overflow"
#endif
#include <random>

#include "test/posix/support.h"

using namespace posix;

namespace {
const std::string kLongest(255, 'n');
const std::string kTooLong(256, 'n');
}  // namespace

TEST_CASE("name: 255 bytes are a name everywhere, 256 are ENAMETOOLONG everywhere", "[name]") {
  const TestDirectory dir;
  make_file(kLongest, "x");
  CHECK(read_file(kLongest) == "x");
  REQUIRE(code(::rename(kLongest.c_str(), (std::string(254, 'm') + "1").c_str())) == kOk);
  REQUIRE(code(::link((std::string(254, 'm') + "1").c_str(), (std::string(254, 'm') + "2").c_str())) == kOk);
  REQUIRE(code(::mkdir((std::string(254, 'm') + "3").c_str(), 0755)) == kOk);
  REQUIRE(code(::symlink("x", (std::string(254, 'm') + "4").c_str())) == kOk);
  CHECK(list(".").size() == 4);
  make_file("file");
  const char* name = kTooLong.c_str();
  struct stat ignored {};
  CHECK(code(::open(name, O_CREAT | O_RDWR, 0644)) == ENAMETOOLONG);
  CHECK(code(::open(name, O_RDONLY)) == ENAMETOOLONG);
  CHECK(code(::mkdir(name, 0755)) == ENAMETOOLONG);
  CHECK(code(::mkfifo(name, 0644)) == ENAMETOOLONG);
  CHECK(code(::symlink("x", name)) == ENAMETOOLONG);
  CHECK(code(::link("file", name)) == ENAMETOOLONG);
  CHECK(code(::rename("file", name)) == ENAMETOOLONG);
  CHECK(code(::rename(name, "new")) == ENAMETOOLONG);
  CHECK(code(::unlink(name)) == ENAMETOOLONG);
  CHECK(code(::rmdir(name)) == ENAMETOOLONG);
  CHECK(code(::stat(name, &ignored)) == ENAMETOOLONG);
}

TEST_CASE("name: any byte but / and NUL is a letter", "[name]") {
  const TestDirectory dir;
  std::set<std::string> expected;
  for (int byte = 1; byte < 256; ++byte) {
    if (byte == '/' || byte == '.') continue;
    const std::string name(1, static_cast<char>(byte));
    make_file(name, "content of " + name);
    expected.insert(name);
  }
  CHECK(list(".") == expected);
  for (const std::string& name : expected) REQUIRE(read_file(name) == "content of " + name);
  for (const std::string& name : expected) REQUIRE(::unlink(name.c_str()) == 0);
  CHECK(list(".").empty());
}

TEST_CASE("name: long random names of any bytes", "[name]") {
  const TestDirectory dir;
  const unsigned seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937 random(seed);
  std::set<std::string> expected;
  for (int i = 0; i < 300; ++i) {
    std::string name;
    const std::size_t length = 1 + random() % 255;
    while (name.size() < length) {
      const char c = static_cast<char>(1 + random() % 255);
      if (c != '/') name += c;
    }
    if (name == "." || name == ".." || !expected.insert(name).second) continue;
    make_file(name);
  }
  CHECK(list(".") == expected);
}

TEST_CASE("name: names that differ little are different", "[name]") {
  const TestDirectory dir;
  const std::set<std::string> names = {"a",   "A",   "a ",       " a",        "a.",   ".a",  "..a",
                                       "...", "a\n", "\xc3\xa4", "a\xcc\x88", "\xff", "\xfe"};
  for (const std::string& name : names) make_file(name, name);
  CHECK(list(".") == names);
  for (const std::string& name : names) CHECK(read_file(name) == name);
}

TEST_CASE("name: paths of 4096 bytes are too long, deep directories are not", "[name]") {
  const TestDirectory dir;
  std::string path;
  while (path.size() < 4090) path += "./";
  struct stat ignored {};
  CHECK(code(::stat(path.c_str(), &ignored)) == kOk);
  while (path.size() < 4096) path += "./";
  CHECK(code(::stat(path.c_str(), &ignored)) == ENAMETOOLONG);
  // Deeper than any path reaches, by way of descriptors.
  constexpr int kDepth = 400;
  Fd at = open_file(".", O_RDONLY | O_DIRECTORY);
  const std::string name(50, 'd');
  for (int i = 0; i < kDepth; ++i) {
    REQUIRE(code(::mkdirat(at.get(), name.c_str(), 0755)) == kOk);
    at = Fd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(at);
  }
  for (int i = 0; i < kDepth; ++i) {
    at = Fd(::openat(at.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    REQUIRE(at);
    REQUIRE(code(::unlinkat(at.get(), name.c_str(), AT_REMOVEDIR)) == kOk);
  }
  CHECK(list(".").empty());
}
