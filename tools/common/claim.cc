#include "tools/common/claim.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "pmem/client_lock.h"
#include "tools/common/label_text.h"

namespace plumb::tools {
namespace {

constexpr std::chrono::seconds kPatience{30};
constexpr std::chrono::milliseconds kPoll{50};
constexpr std::array<std::string_view, 2> kOurNames = {"plumbfs", "plumb"};  // plumb: raw, info
constexpr std::array<std::string_view, 3> kOurTypes = {"fuse.plumbfs", "fuseblk.plumbfs", "fuse.plumbraw"};

namespace fs = std::filesystem;

// What the path names: a block or character device by its number, anything else by file system and inode.
struct Identity {
  bool is_block = false;
  bool is_char = false;
  dev_t device_number = 0;
  dev_t file_device = 0;
  ino_t file_inode = 0;

  [[nodiscard]] bool same_as(const Identity& other) const {
    if (is_block || is_char || other.is_block || other.is_char)
      return is_block == other.is_block && is_char == other.is_char && device_number == other.device_number;
    return file_device == other.file_device && file_inode == other.file_inode;
  }
};

bool identify(const std::string& path, Identity& identity) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return false;
  identity.is_block = S_ISBLK(status.st_mode);
  identity.is_char = S_ISCHR(status.st_mode);
  if (identity.is_block || identity.is_char) identity.device_number = status.st_rdev;
  identity.file_device = status.st_dev;
  identity.file_inode = status.st_ino;
  return true;
}

std::string number_text(dev_t number) {
  return std::to_string(major(number)) + ":" + std::to_string(minor(number));
}

// mountinfo and swaps write blanks, tabs, newlines and backslashes of a path as \ooo (proc(5)).
std::string unescape(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 3 >= text.size()) {
      out += text[i];
      continue;
    }
    int value = 0;
    for (std::size_t k = 1; k <= 3; ++k) value = value * 8 + (text[i + k] - '0');
    out += static_cast<char>(value);
    i += 3;
  }
  return out;
}

std::vector<std::string> lines_of(const fs::path& path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

std::vector<fs::path> entries_of(const fs::path& directory) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error))
    entries.push_back(at->path());
  return entries;
}

template <std::size_t N>
bool is_one_of(const std::array<std::string_view, N>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// A mount of ours whose daemon has died stays in the table: with the claim in hand it means nothing.
enum class PlumbfsMounts { kCount, kIgnore };

std::string mount_of(const Identity& identity, PlumbfsMounts plumbfs = PlumbfsMounts::kCount) {
  for (const std::string& line : lines_of("/proc/self/mountinfo")) {
    const std::vector<std::string> words = words_of(line);
    std::size_t separator = 6;  // optional fields end with "-": proc(5)
    while (separator < words.size() && words[separator] != "-") ++separator;
    if (separator + 2 >= words.size()) continue;
    const std::string& type = words[separator + 1];
    if (plumbfs == PlumbfsMounts::kIgnore && is_one_of(kOurTypes, type)) continue;
    const std::string source = unescape(words[separator + 2]);
    bool same = identity.is_block && words[2] == number_text(identity.device_number);
    Identity mounted;
    if (!same && source.starts_with('/') && identify(source, mounted))
      // Bind mounts of a file have that file's own file system as source: only devices and plumbfs name what they sit
      // on.
      same = (mounted.is_block || mounted.is_char || type.starts_with("fuse")) && mounted.same_as(identity);
    if (same) return "is mounted on " + unescape(words[4]) + " (" + type + ")";
  }
  return {};
}

std::string swap_of(const Identity& identity) {
  for (const std::string& line : lines_of("/proc/swaps")) {
    const std::vector<std::string> words = words_of(line);
    Identity swap;
    if (!words.empty() && words[0].starts_with('/') && identify(unescape(words[0]), swap) && swap.same_as(identity))
      return "is in use as swap space";
  }
  return {};
}

std::string loop_of(const Identity& identity) {
  if (identity.is_block || identity.is_char) return {};
  for (const fs::path& block : entries_of("/sys/block")) {
    const std::vector<std::string> backing = lines_of(block / "loop/backing_file");
    Identity file;
    if (!backing.empty() && identify(backing.front(), file) && file.same_as(identity))
      return "is the file under /dev/" + block.filename().string();
  }
  return {};
}

// RAID, device mapper and the like that sit on a block device, and mounted partitions of it.
std::string holder_of(const Identity& identity) {
  if (!identity.is_block) return {};
  const fs::path node = "/sys/dev/block/" + number_text(identity.device_number);
  for (const fs::path& holder : entries_of(node / "holders")) return "is part of /dev/" + holder.filename().string();
  for (const fs::path& child : entries_of(node)) {
    std::error_code error;
    if (!fs::exists(child / "partition", error)) continue;
    const std::string name = "/dev/" + child.filename().string();
    Identity partition;
    if (!identify(name, partition)) continue;
    for (const std::string& user : {mount_of(partition), swap_of(partition), holder_of(partition)})
      if (!user.empty()) return "has a partition in use: " + name + " " + user;
  }
  return {};
}

// The process that took an flock or OFD lock on the file or device node: proc_locks(5).
DeviceUser locker_of(const Identity& identity) {
  char wanted[64];
  std::snprintf(wanted, sizeof wanted, "%02x:%02x:%llu", major(identity.file_device), minor(identity.file_device),
                static_cast<unsigned long long>(identity.file_inode));
  for (const std::string& line : lines_of("/proc/locks")) {
    const std::vector<std::string> words = words_of(line);
    // "1: FLOCK ADVISORY WRITE 1234 fe:00:131 0 EOF"; a waiter has "->" as its second word.
    if (words.size() < 6 || words[1] == "->" || words[5] != wanted) continue;
    if (words[1] != "FLOCK" && words[1] != "OFDLCK") continue;
    const std::vector<std::string> name = lines_of("/proc/" + words[4] + "/comm");
    // It may have ended and left the lock to a child.
    if (name.empty()) return {"is locked by another process", false};
    return {"is in use by process " + words[4] + " (" + printable(name.front()) + ")",
            is_one_of(kOurNames, name.front())};
  }
  return {};
}

// Uses that show in the kernel's tables, claimed or not.
std::string table_user_of(const Identity& identity, PlumbfsMounts plumbfs) {
  std::string user = mount_of(identity, plumbfs);
  for (auto* look : {swap_of, loop_of, holder_of})
    if (user.empty()) user = look(identity);
  return user;
}

}  // namespace

DeviceUser user_of_device(const std::string& path) {
  Identity identity;
  if (!identify(path, identity)) return {};
  const std::string user = table_user_of(identity, PlumbfsMounts::kCount);
  return user.empty() ? locker_of(identity) : DeviceUser{user, false};
}

std::string user_despite_claim(const std::string& path) {
  Identity identity;
  return identify(path, identity) ? table_user_of(identity, PlumbfsMounts::kIgnore) : std::string();
}

DeviceUser lasting_user_of_device(const std::string& path) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  DeviceUser user = user_of_device(path);
  while (user.passing && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kPoll);
    user = user_of_device(path);
  }
  return user;
}

Result<std::unique_ptr<pmem::Device>> claim_device(const std::string& path, const pmem::OpenOptions& options) {
  auto device = pmem::open_device(path, options);
  if (!device && device.error().code == EBUSY) {
    const DeviceUser user = lasting_user_of_device(path);
    if (!user.what.empty()) return fail(EBUSY, path + " " + user.what);
    device = pmem::open_device(path, options);  // whoever it was has gone
  }
  if (!device || options.read_only) return device;
  const std::string user = user_despite_claim(path);
  if (!user.empty()) return fail(EBUSY, path + " " + user);
  // They store where files of theirs were, whatever is there by now.
  PLUMB_ASSIGN(const auto clients, pmem::ClientLocks::open(path));
  if (clients->any())
    return fail(EBUSY, path + " is mapped by programs that outlived its mount; they have to end first (fuser -v " +
                           path + " names them)");
  return device;
}

}  // namespace plumb::tools
