// What the POSIX tests share: a directory for each test, descriptors that close themselves, children with other rights.
//
// The tests know no file system. They work in $PLUMBFS_TEST_DIR, which is a mounted plumbfs or, to check the tests
// themselves, a directory of ext4 or tmpfs. What a reference file system lacks is skipped there, and only there.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace posix {

using Bytes = std::vector<std::uint8_t>;

inline constexpr std::size_t kPage = 4096;
inline constexpr uid_t kUser = 12345;   // owns nothing
inline constexpr uid_t kOther = 23456;  // a second one
inline constexpr gid_t kGroup = 34567;  // belongs to nobody

/// An errno that prints as its name; 0 is "ok".
struct Code {
  int value = 0;
  friend bool operator==(Code a, Code b) { return a.value == b.value; }
  friend bool operator==(Code a, int b) { return a.value == b; }
};
inline constexpr int kOk = 0;

/// The outcome of a system call: CHECK(code(::mkdir("d", 0755)) == EEXIST).
template <typename T>
[[nodiscard]] Code code(T result) {
  return {result < 0 ? errno : 0};
}

/// Makes a directory of its own in $PLUMBFS_TEST_DIR and works in it: all paths of a test are relative, so that a child
/// with other rights needs no way from the root. Deletes everything at the end, immutable files too.
class TestDirectory {
 public:
  TestDirectory();
  ~TestDirectory();
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  int before_ = -1;
};

/// A descriptor that is closed at the end of its scope.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    close();
    fd_ = std::exchange(other.fd_, -1);
    return *this;
  }
  ~Fd() { close(); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// Opens, or fails the test.
[[nodiscard]] Fd open_file(const std::string& path, int flags, mode_t mode = 0644);
/// A file with this content; an existing one is replaced.
void make_file(const std::string& path, std::string_view content = {}, mode_t mode = 0644);
void make_directory(const std::string& path, mode_t mode = 0755);
/// `size` bytes, none of them zero, that differ from those of another seed.
[[nodiscard]] Bytes pattern(std::size_t size, std::uint32_t seed = 1);

/// All of the file, or fails the test. Short reads and writes fail it as well.
[[nodiscard]] std::string read_file(const std::string& path);
[[nodiscard]] Bytes read_at(int fd, std::size_t length, std::uint64_t offset);
void write_at(int fd, const Bytes& data, std::uint64_t offset);
void write_at(int fd, std::string_view data, std::uint64_t offset);
/// True if all `length` bytes at `offset` are there and zero.
[[nodiscard]] bool zeros_at(int fd, std::size_t length, std::uint64_t offset);

[[nodiscard]] struct stat status(const std::string& path);  // lstat
[[nodiscard]] struct stat status(int fd);
[[nodiscard]] bool exists(const std::string& path);
[[nodiscard]] mode_t permissions(const std::string& path);  // the lower 12 bits
/// Names without . and .. ; a name that comes twice fails the test.
[[nodiscard]] std::set<std::string> list(const std::string& path);

/// Runs `body` in a child and gives back what it returned (0..255); a child that dies of a signal gives 256 + signal.
[[nodiscard]] Code in_child(const std::function<int()>& body);
/// The same with the rights of another user. `groups` are its supplementary groups.
[[nodiscard]] Code as_user(uid_t uid, const std::function<int()>& body, std::vector<gid_t> groups = {});
/// For the body of a child: the errno of a call.
template <typename T>
[[nodiscard]] int errno_of(T result) {
  return result < 0 ? errno : 0;
}
/// Runs several children at once, each with its number; true if all return 0.
[[nodiscard]] bool all_succeed(unsigned count, const std::function<int(unsigned)>& body);

/// True on a FUSE mount, that is, on plumbfs.
[[nodiscard]] bool on_plumbfs();
/// True under the preload library (test/posix/run --preload). The blocks of a file that a program has open stay its own
/// then, what is punched or cut off included, until it is closed; what else is not as without is in plumbfs_preload(7).
[[nodiscard]] bool on_direct_path();
/// Skips the test there.
void not_on_direct_path(const char* why);
/// Skips the test on a reference file system. On plumbfs it goes on.
void only_on_plumbfs(const char* what_the_others_lack);
/// For a call that a reference file system refuses because it lacks the feature: skips there, fails on plumbfs.
void lacking(const char* feature);
/// Skips if the kernel is older.
void needs_kernel(int major, int minor, const char* for_what);

}  // namespace posix

template <>
struct Catch::StringMaker<posix::Code> {
  static std::string convert(posix::Code code);
};
template <>
struct Catch::StringMaker<posix::Bytes> {
  static std::string convert(const posix::Bytes& bytes);  // the length, some of it and a hash
};
