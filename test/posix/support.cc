#include "test/posix/support.h"

#include <ftw.h>
#include <grp.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>

namespace posix {
namespace {

std::string test_root() {
  const char* root = std::getenv("PLUMBFS_TEST_DIR");
  if (root == nullptr || *root == '\0') {
    std::fputs("PLUMBFS_TEST_DIR is not set: the directory to test\n", stderr);
    std::_Exit(2);
  }
  return root;
}

void clear_flags(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return;
  long flags = 0;
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && (flags & (FS_IMMUTABLE_FL | FS_APPEND_FL)) != 0) {
    flags &= ~static_cast<long>(FS_IMMUTABLE_FL | FS_APPEND_FL);
    ::ioctl(fd, FS_IOC_SETFLAGS, &flags);
  }
  ::close(fd);
}

int clear_entry(const char* path, const struct stat* status, int /*type*/, struct FTW* /*where*/) {
  if (S_ISREG(status->st_mode) || S_ISDIR(status->st_mode)) clear_flags(path);
  return 0;
}

int remove_entry(const char* path, const struct stat* /*status*/, int /*type*/, struct FTW* /*where*/) {
  if (std::remove(path) != 0) std::fprintf(stderr, "cannot delete %s: %s\n", path, std::strerror(errno));
  return 0;
}

[[noreturn]] void child_main(const std::function<int()>& body) {
  int result = 255;
  try {
    result = body();
  } catch (...) {  // an assertion in a child cannot be reported there
    result = 254;
  }
  ::_exit(result);
}

Code outcome(pid_t child) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return {254};
  }
  if (WIFSIGNALED(status)) return {256 + WTERMSIG(status)};
  return {WEXITSTATUS(status)};
}

}  // namespace

TestDirectory::TestDirectory() {
  ::umask(022);
  path_ = test_root() + "/t.XXXXXX";
  REQUIRE(::mkdtemp(path_.data()) != nullptr);
  REQUIRE(code(::chmod(path_.c_str(), 0755)) == kOk);
  before_ = ::open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  REQUIRE(code(::chdir(path_.c_str())) == kOk);
}

TestDirectory::~TestDirectory() {
  if (::fchdir(before_) != 0) std::perror("fchdir");
  ::close(before_);
  ::nftw(path_.c_str(), clear_entry, 64, FTW_PHYS);
  ::nftw(path_.c_str(), remove_entry, 64, FTW_PHYS | FTW_DEPTH);
}

Fd open_file(const std::string& path, int flags, mode_t mode) {
  INFO("open " << path);
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  REQUIRE(code(fd) == kOk);
  return Fd(fd);
}

void make_file(const std::string& path, std::string_view content, mode_t mode) {
  const Fd fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  write_at(fd.get(), content, 0);
  REQUIRE(code(::fchmod(fd.get(), mode)) == kOk);
}

void make_directory(const std::string& path, mode_t mode) {
  INFO("mkdir " << path);
  REQUIRE(code(::mkdir(path.c_str(), 0700)) == kOk);
  REQUIRE(code(::chmod(path.c_str(), mode)) == kOk);
}

Bytes pattern(std::size_t size, std::uint32_t seed) {
  Bytes bytes(size);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::uint8_t& byte : bytes) {
    state = state * 1664525U + 1013904223U;
    byte = static_cast<std::uint8_t>((state >> 24) | 1U);
  }
  return bytes;
}

std::string read_file(const std::string& path) {
  const Fd fd = open_file(path, O_RDONLY);
  std::string content;
  std::array<char, 65536> buffer{};
  while (true) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    REQUIRE(code(got) == kOk);
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

Bytes read_at(int fd, std::size_t length, std::uint64_t offset) {
  Bytes bytes(length, 0xee);
  const ssize_t got = ::pread(fd, bytes.data(), length, static_cast<off_t>(offset));
  REQUIRE(code(got) == kOk);
  bytes.resize(static_cast<std::size_t>(got));
  return bytes;
}

void write_at(int fd, const Bytes& data, std::uint64_t offset) {
  const ssize_t done = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
  REQUIRE(code(done) == kOk);
  REQUIRE(static_cast<std::size_t>(done) == data.size());
}

void write_at(int fd, std::string_view data, std::uint64_t offset) {
  write_at(fd, Bytes(data.begin(), data.end()), offset);
}

bool zeros_at(int fd, std::size_t length, std::uint64_t offset) {
  return read_at(fd, length, offset) == Bytes(length, 0);
}

struct stat status(const std::string& path) {
  struct stat result {};
  INFO("lstat " << path);
  REQUIRE(code(::lstat(path.c_str(), &result)) == kOk);
  return result;
}

struct stat status(int fd) {
  struct stat result {};
  REQUIRE(code(::fstat(fd, &result)) == kOk);
  return result;
}

bool exists(const std::string& path) {
  struct stat result {};
  if (::lstat(path.c_str(), &result) == 0) return true;
  INFO("lstat " << path);
  REQUIRE(Code{errno} == ENOENT);
  return false;
}

mode_t permissions(const std::string& path) {
  return status(path).st_mode & 07777;
}

std::set<std::string> list(const std::string& path) {
  DIR* directory = ::opendir(path.c_str());
  REQUIRE(directory != nullptr);
  std::set<std::string> names;
  bool once = true;
  errno = 0;
  while (const dirent* entry = ::readdir(directory)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") once = names.insert(name).second && once;
    errno = 0;
  }
  const Code end{errno};
  ::closedir(directory);
  REQUIRE(end == kOk);
  REQUIRE(once);
  return names;
}

Code in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) child_main(body);
  return outcome(child);
}

Code as_user(uid_t uid, const std::function<int()>& body, std::vector<gid_t> groups) {
  return in_child([&] {
    if (::setgroups(groups.size(), groups.data()) != 0 || ::setresgid(uid, uid, uid) != 0 ||
        ::setresuid(uid, uid, uid) != 0) {
      return 253;
    }
    ::umask(022);
    return body();
  });
}

bool all_succeed(unsigned count, const std::function<int(unsigned)>& body) {
  std::vector<pid_t> children;
  for (unsigned i = 0; i < count; ++i) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) child_main([&] { return body(i); });
    children.push_back(child);
  }
  bool good = true;
  for (unsigned i = 0; i < count; ++i) {
    const Code result = outcome(children[i]);
    if (result == kOk) continue;
    UNSCOPED_INFO("child " << i << " returned " << Catch::StringMaker<Code>::convert(result));
    good = false;
  }
  return good;
}

bool on_plumbfs() {
  static const bool answer = [] {
    struct statfs fs {};
    return ::statfs(test_root().c_str(), &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC;
  }();
  return answer;
}

bool on_direct_path() {
  const char* const preload = std::getenv("LD_PRELOAD");
  return preload != nullptr && std::strstr(preload, "libplumbfs_preload") != nullptr;
}

void not_on_direct_path(const char* why) {
  if (on_direct_path()) SKIP("under the preload library: " << why);
}

void only_on_plumbfs(const char* what_the_others_lack) {
  if (!on_plumbfs()) SKIP("a reference file system, without: " << what_the_others_lack);
}

void lacking(const char* feature) {
  if (on_plumbfs()) FAIL("plumbfs must have " << feature << ", but: " << std::strerror(errno));
  SKIP("a reference file system, without: " << feature);
}

void needs_kernel(int major, int minor, const char* for_what) {
  struct utsname name {};
  int have_major = 0;
  int have_minor = 0;
  REQUIRE(::uname(&name) == 0);
  REQUIRE(std::sscanf(name.release, "%d.%d", &have_major, &have_minor) == 2);
  if (have_major < major || (have_major == major && have_minor < minor)) {
    SKIP("kernel " << name.release << " is older than " << major << "." << minor << ", needed for: " << for_what);
  }
}

}  // namespace posix

std::string Catch::StringMaker<posix::Code>::convert(posix::Code code) {
  if (code.value == 0) return "ok";
  if (code.value > 256) return std::string("died of ") + ::strsignal(code.value - 256);
  const char* name = ::strerrorname_np(code.value);
  return name != nullptr ? name : std::to_string(code.value);
}

std::string Catch::StringMaker<posix::Bytes>::convert(const posix::Bytes& bytes) {
  constexpr std::size_t kShown = 24;
  std::string text = std::to_string(bytes.size()) + " bytes:";
  std::array<char, 32> number{};
  std::uint64_t hash = 14695981039346656037ULL;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    hash = (hash ^ bytes[i]) * 1099511628211ULL;
    if (i >= kShown) continue;
    std::snprintf(number.data(), number.size(), " %02x", bytes[i]);
    text += number.data();
  }
  std::snprintf(number.data(), number.size(), " (hash %016llx)", static_cast<unsigned long long>(hash));
  return text + (bytes.size() > kShown ? " ..." : "") + number.data();
}
