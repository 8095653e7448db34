// readdir(3), telldir(3), seekdir(3), large and changing directories.
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <random>

#include "test/posix/support.h"

using namespace posix;

namespace {

/// An open directory stream.
class Stream {
 public:
  explicit Stream(const char* path) : stream_(::opendir(path)) { REQUIRE(stream_ != nullptr); }
  ~Stream() { ::closedir(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  /// The next name, empty at the end.
  std::string next() {
    errno = 0;
    const dirent* entry = ::readdir(stream_);
    if (entry == nullptr) {
      REQUIRE(Code{errno} == kOk);
      return {};
    }
    return entry->d_name;
  }
  [[nodiscard]] std::vector<std::string> rest() {
    std::vector<std::string> names;
    for (std::string name = next(); !name.empty(); name = next()) names.push_back(name);
    return names;
  }
  [[nodiscard]] DIR* get() const { return stream_; }

 private:
  DIR* stream_;
};

std::string name_of(unsigned i) {
  return "entry." + std::to_string(i);
}

void make_entries(const char* directory, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    const std::string path = std::string(directory) + "/" + name_of(i);
    const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    REQUIRE(code(fd) == kOk);
    ::close(fd);
  }
}

}  // namespace

TEST_CASE("readdir: gives ., .. and every entry with its type and inode number", "[directory]") {
  const TestDirectory dir;
  make_directory("d");
  make_directory("d/sub");
  make_file("d/file");
  REQUIRE(::symlink("x", "d/link") == 0);
  REQUIRE(::mkfifo("d/fifo", 0644) == 0);
  const std::map<std::string, unsigned char> types = {{".", DT_DIR},    {"..", DT_DIR},   {"sub", DT_DIR},
                                                      {"file", DT_REG}, {"link", DT_LNK}, {"fifo", DT_FIFO}};
  const Stream stream("d");
  std::set<std::string> seen;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name;
    CAPTURE(name);
    REQUIRE(types.contains(name));
    CHECK(seen.insert(name).second);
    CHECK(entry->d_type == types.at(name));
    CHECK(entry->d_ino == status("d/" + name).st_ino);
  }
  CHECK(seen.size() == types.size());
}

TEST_CASE("readdir: rewinddir shows what is new", "[directory]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("d/a");
  Stream stream("d");
  CHECK(stream.rest().size() == 3);
  make_file("d/b");
  REQUIRE(::unlink("d/a") == 0);
  ::rewinddir(stream.get());
  std::vector<std::string> names = stream.rest();
  std::sort(names.begin(), names.end());
  CHECK(names == std::vector<std::string>{".", "..", "b"});
}

TEST_CASE("readdir: a directory of 20000 entries", "[directory][slow]") {
  const TestDirectory dir;
  make_directory("d");
  constexpr unsigned kCount = 20'000;
  make_entries("d", kCount);
  const std::set<std::string> names = list("d");
  CHECK(names.size() == kCount);
  for (unsigned i = 0; i < kCount; ++i) REQUIRE(names.contains(name_of(i)));
  for (unsigned i = 0; i < kCount; i += 997) CHECK(exists("d/" + name_of(i)));
  CHECK_FALSE(exists("d/" + name_of(kCount)));
  CHECK(code(::rmdir("d")) == ENOTEMPTY);
  for (unsigned i = 0; i < kCount; ++i) {
    if (i % 10 != 0) REQUIRE(::unlink(("d/" + name_of(i)).c_str()) == 0);
  }
  CHECK(list("d").size() == kCount / 10);
  for (unsigned i = 0; i < kCount; i += 10) REQUIRE(::unlink(("d/" + name_of(i)).c_str()) == 0);
  CHECK(list("d").empty());
  CHECK(code(::rmdir("d")) == kOk);
}

TEST_CASE("readdir: deleting what was read leaves nothing behind", "[directory]") {
  const TestDirectory dir;
  make_directory("d");
  make_entries("d", 3000);
  unsigned deleted = 0;
  Stream stream("d");
  for (std::string name = stream.next(); !name.empty(); name = stream.next()) {
    if (name == "." || name == "..") continue;
    REQUIRE(code(::unlink(("d/" + name).c_str())) == kOk);  // also: nothing is seen twice
    ++deleted;
  }
  CHECK(deleted == 3000);
  CHECK(code(::rmdir("d")) == kOk);
}

TEST_CASE("readdir: entries that stay are seen exactly once while others come and go", "[directory][concurrent]") {
  const TestDirectory dir;
  make_directory("d");
  constexpr unsigned kStay = 2000;
  make_entries("d", kStay);
  make_file("stop");
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // until "stop" is gone
    for (unsigned i = 0; ::access("stop", F_OK) == 0; ++i) {
      const std::string name = "d/other." + std::to_string(i % 700);
      const std::string second = "d/moved." + std::to_string(i % 500);
      const int fd = ::open(name.c_str(), O_CREAT | O_WRONLY, 0644);
      if (fd >= 0) ::close(fd);
      if (i % 3 == 0) ::rename(name.c_str(), second.c_str());
      if (i % 3 == 1) ::unlink(name.c_str());
      if (i % 7 == 0) ::unlink(second.c_str());
    }
    ::_exit(0);
  }
  bool good = true;
  for (int round = 0; round < 12; ++round) {
    std::map<std::string, unsigned> seen;
    Stream stream("d");
    for (const std::string& name : stream.rest()) ++seen[name];
    for (unsigned i = 0; i < kStay && good; ++i) {
      const unsigned times = seen.contains(name_of(i)) ? seen[name_of(i)] : 0;
      if (times != 1) {
        UNSCOPED_INFO(name_of(i) << " was seen " << times << " times in round " << round);
        good = false;
      }
    }
    for (const char* name : {".", ".."}) good = good && seen[name] == 1;
  }
  REQUIRE(::unlink("stop") == 0);
  int ended = 0;
  REQUIRE(::waitpid(child, &ended, 0) == child);
  CHECK(good);
}

TEST_CASE("telldir: every position can be returned to, also after others are deleted", "[directory][seek]") {
  const TestDirectory dir;
  make_directory("d");
  constexpr unsigned kCount = 1500;
  make_entries("d", kCount);
  Stream stream("d");
  std::vector<std::string> order;
  std::vector<off_t> positions;
  while (true) {
    positions.push_back(::telldir(stream.get()));
    REQUIRE(positions.back() >= 0);
    const std::string name = stream.next();
    if (name.empty()) break;
    order.push_back(name);
  }
  REQUIRE(order.size() == kCount + 2);
  std::mt19937 random(1);
  for (int i = 0; i < 300; ++i) {
    const std::size_t at = random() % order.size();
    ::seekdir(stream.get(), positions[at]);
    REQUIRE(stream.next() == order[at]);
  }
  ::seekdir(stream.get(), positions[order.size()]);
  CHECK(stream.next().empty());
  // In another stream too, and the rest is complete.
  std::set<std::string> gone;
  for (std::size_t i = 0; i < order.size(); i += 3) {
    if (order[i] == "." || order[i] == "..") continue;
    REQUIRE(::unlink(("d/" + order[i]).c_str()) == 0);
    gone.insert(order[i]);
  }
  Stream other("d");
  for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{500}, std::size_t{501}, std::size_t{1400}}) {
    CAPTURE(at);
    ::seekdir(other.get(), positions[at]);
    std::vector<std::string> expected;
    for (std::size_t i = at; i < order.size(); ++i) {
      if (!gone.contains(order[i])) expected.push_back(order[i]);
    }
    CHECK(other.rest() == expected);
  }
}

TEST_CASE("readdir: small buffers give the same entries", "[directory]") {
  const TestDirectory dir;
  make_directory("d");
  make_entries("d", 500);
  for (unsigned i = 0; i < 50; ++i) make_file("d/" + std::string(240, 'l') + std::to_string(i));
  const Fd fd = open_file("d", O_RDONLY | O_DIRECTORY);
  std::set<std::string> seen;
  while (true) {
    alignas(8) std::array<char, 300> buffer{};
    const auto got = ::syscall(SYS_getdents64, fd.get(), buffer.data(), buffer.size());
    REQUIRE(code(got) == kOk);
    if (got == 0) break;
    for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
      const auto* entry = reinterpret_cast<const dirent*>(buffer.data() + at);  // as the kernel's dirent64
      REQUIRE(seen.insert(entry->d_name).second);
      at += entry->d_reclen;
    }
  }
  CHECK(seen.size() == 552);
  alignas(8) std::array<char, 10> tiny{};
  REQUIRE(::lseek(fd.get(), 0, SEEK_SET) == 0);
  CHECK(code(::syscall(SYS_getdents64, fd.get(), tiny.data(), tiny.size())) == EINVAL);
}

TEST_CASE("directory: cannot be read or written as a file", "[directory]") {
  const TestDirectory dir;
  make_directory("d");
  const Fd fd = open_file("d", O_RDONLY);
  std::array<char, 10> buffer{};
  CHECK(code(::read(fd.get(), buffer.data(), buffer.size())) == EISDIR);
  CHECK(code(::write(fd.get(), buffer.data(), buffer.size())) == EBADF);
  CHECK(code(::ftruncate(fd.get(), 0)) == EINVAL);
}

TEST_CASE("directory: 300 subdirectories, moved around", "[directory]") {
  const TestDirectory dir;
  make_directory("a");
  make_directory("b");
  for (unsigned i = 0; i < 300; ++i) make_directory("a/" + name_of(i));
  for (unsigned i = 0; i < 300; i += 2) {
    REQUIRE(::rename(("a/" + name_of(i)).c_str(), ("b/" + name_of(i)).c_str()) == 0);
  }
  CHECK(status("a").st_nlink == 152);
  CHECK(status("b").st_nlink == 152);
  CHECK(list("a").size() == 150);
  CHECK(list("b").size() == 150);
}
