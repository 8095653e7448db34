#include "fs/fuse/mount_point.h"

#include <fcntl.h>
#include <mntent.h>
#include <spawn.h>
#include <spdlog/spdlog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace plumb::fuse {
namespace {

constexpr const char* kHelper = "fusermount3";
constexpr int kMaxStackedMounts = 16;

// Runs fusermount3 with `arguments`; its exit status, or -1.
int run_helper(std::initializer_list<const char*> arguments) {
  std::vector<char*> argv = {const_cast<char*>(kHelper)};
  for (const char* argument : arguments) argv.push_back(const_cast<char*>(argument));
  argv.push_back(nullptr);
  pid_t child = 0;
  if (posix_spawnp(&child, kHelper, nullptr, nullptr, argv.data(), environ) != 0) return -1;
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool detach(const char* path) {
  if (geteuid() == 0) return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
  return run_helper({"-u", "-z", "-q", "--", path}) == 0;
}

bool is_dead(int error) {
  return error == ENOTCONN || error == ECONNABORTED;
}

// 0, or why the daemon behind `path` does not answer. Not by stat(2): the kernel remembers its answer of before.
int ask_for_life(const char* path) {
  struct statvfs unused {};
  return statvfs(path, &unused) == 0 ? 0 : errno;
}

// realpath(3) of a dead mount point fails with the error of the mount; that of its parent does not.
Result<std::string> resolve(const std::string& path) {
  std::array<char, PATH_MAX> resolved{};
  if (realpath(path.c_str(), resolved.data()) != nullptr) return std::string(resolved.data());
  const int error = errno;
  if (!is_dead(error)) return fail(error, "the mount point " + path);
  std::string trimmed = path;
  while (trimmed.size() > 1 && trimmed.back() == '/') trimmed.pop_back();
  const std::size_t slash = trimmed.rfind('/');
  const std::string parent = slash == std::string::npos ? "." : trimmed.substr(0, slash + 1);
  if (realpath(parent.c_str(), resolved.data()) == nullptr) return fail(errno, "the mount point " + path);
  return std::string(resolved.data()) + "/" + trimmed.substr(slash == std::string::npos ? 0 : slash + 1);
}

bool in_path(const std::string& program) {
  const char* variable = std::getenv("PATH");
  std::string_view directories = variable == nullptr ? "/usr/bin:/bin" : variable;
  while (!directories.empty()) {
    const std::size_t colon = directories.find(':');
    const std::string directory(directories.substr(0, colon));
    if (access((directory + "/" + program).c_str(), X_OK) == 0) return true;
    directories.remove_prefix(colon == std::string_view::npos ? directories.size() : colon + 1);
  }
  return false;
}

bool is_ours(std::string_view type) {
  return type == "fuse.plumbfs" || type == "fuseblk.plumbfs" || type == "fuse.plumbraw";
}

// Writes back what programs have stored through shared mappings and nobody has synced.
void write_back_mappings(const std::string& mount_point) {
  const int root = open(mount_point.c_str(), O_RDONLY | O_CLOEXEC);
  if (root < 0) return;
  if (syncfs(root) != 0) spdlog::warn("writeback of mapped files failed before the unmount: {}", strerror(errno));
  close(root);
}

}  // namespace

Result<std::string> prepare_mount_point(const std::string& path, MountTarget target) {
  PLUMB_ASSIGN(const std::string absolute, resolve(path));
  for (int i = 0;; ++i) {
    const int error = ask_for_life(absolute.c_str());
    if (error == 0) break;
    if (!is_dead(error)) return fail(error, "the mount point " + path);
    if (i == kMaxStackedMounts || !detach(absolute.c_str())) {
      return fail(error, "the mount point " + path + " is that of a dead daemon and cannot be detached");
    }
    spdlog::info("detached the mount of a dead daemon from {}", absolute);
  }
  struct stat attributes {};
  if (stat(absolute.c_str(), &attributes) != 0) return fail(errno, "the mount point " + path);
  const bool fits =
      S_ISDIR(attributes.st_mode) || (target == MountTarget::kDirectoryOrFile && S_ISREG(attributes.st_mode));
  if (!fits) return fail(ENOTDIR, "the mount point " + path);
  return absolute;
}

Status check_fuse_device() {
  const int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (device < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENODEV || error == ENXIO) {
      return fail(error,
                  "/dev/fuse is not there: load the kernel's fuse module (modprobe fuse), or give the container "
                  "the device");
    }
    return fail(error, "/dev/fuse cannot be opened");
  }
  close(device);
  if (geteuid() != 0 && !in_path(kHelper)) {
    return fail(EPERM, "only root can mount where fusermount3 is not installed");
  }
  return {};
}

std::string where_mounted(const std::string& device) {
  struct stat wanted {};
  if (stat(device.c_str(), &wanted) != 0) return {};
  const std::unique_ptr<FILE, int (*)(FILE*)> mounts(setmntent("/proc/self/mounts", "re"), endmntent);
  if (!mounts) return {};
  std::array<char, 2 * PATH_MAX> buffer{};
  mntent entry{};
  while (getmntent_r(mounts.get(), &entry, buffer.data(), static_cast<int>(buffer.size())) != nullptr) {
    if (!is_ours(entry.mnt_type)) continue;
    struct stat mounted {};
    if (stat(entry.mnt_fsname, &mounted) != 0) continue;
    const bool same_node = S_ISREG(wanted.st_mode) ? mounted.st_dev == wanted.st_dev && mounted.st_ino == wanted.st_ino
                                                   : mounted.st_rdev == wanted.st_rdev;
    if ((mounted.st_mode & S_IFMT) != (wanted.st_mode & S_IFMT) || !same_node) continue;
    // The mount of a block device holds it, whether or not its daemon lives.
    const bool holds = std::string_view(entry.mnt_type) == "fuseblk.plumbfs";
    if (holds || !is_dead(ask_for_life(entry.mnt_dir))) return entry.mnt_dir;
  }
  return {};
}

void unmount(const std::string& mount_point) {
  const char* path = mount_point.c_str();
  const bool gone = geteuid() == 0 ? umount2(path, UMOUNT_NOFOLLOW) == 0 || errno == EINVAL
                                   : run_helper({"-u", "-q", "--", path}) == 0;
  if (gone) return;
  spdlog::info("{} is in use: detaching it", mount_point);
  write_back_mappings(mount_point);
  if (!detach(path)) spdlog::warn("{} could not be detached: {}", mount_point, strerror(errno));
}

}  // namespace plumb::fuse
