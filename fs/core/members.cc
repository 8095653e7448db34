#include "fs/core/members.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "fs/media/uuid_text.h"
#include "fs/media/verify.h"

namespace plumb {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostEntries = 10'000;  // of a directory that is searched

bool is_wanted(const media::MemberLabel& label, const media::Superblock& superblock) {
  return label.uuid == superblock.devices[1].uuid && label.filesystem_uuid == superblock.uuid;
}

std::vector<std::string> entries_of(const fs::path& directory, const std::string& prefix = {}) {
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::directory_iterator at(directory, fs::directory_options::skip_permission_denied, error), end;
       !error && at != end && paths.size() < kMostEntries; at.increment(error))
    if (at->path().filename().string().starts_with(prefix)) paths.push_back(at->path().string());
  return paths;
}

std::vector<std::string> places_to_look(const std::string& main_path, const std::string& hint) {
  std::vector<std::string> places;
  if (!hint.empty()) places.push_back(hint);
  std::error_code error;
  const fs::path directory = fs::absolute(main_path, error).parent_path();
  auto add = [&](const std::vector<std::string>& more) { places.insert(places.end(), more.begin(), more.end()); };
  if (!error && directory != "/dev") add(entries_of(directory));
  add(entries_of("/dev", "dax"));
  for (const std::string& block : entries_of("/sys/class/block"))
    places.push_back("/dev/" + fs::path(block).filename().string());
  return places;
}

Result<std::string> find_realtime(const pmem::Device& main, const media::Superblock& superblock) {
  const auto& stored = superblock.realtime_path_hint;
  const std::string hint(stored.data(), strnlen(stored.data(), stored.size()));
  const std::string& path = main.info().path;
  for (const std::string& place : places_to_look(path, hint)) {
    const auto label = peek_label(place);
    if (label && is_wanted(*label, superblock)) return place;
  }
  return fail(ENXIO, path + ": its realtime device, uuid " + media::uuid_text(superblock.devices[1].uuid) +
                         ", was not found" + (hint.empty() ? "" : " at " + hint) +
                         ", beside it, or among the dax and block devices; name it with rtdev=PATH");
}

}  // namespace

Result<media::MemberLabel> peek_label(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail(errno, path);
  if (S_ISCHR(status.st_mode)) {
    // No read(2) on a dax device.
    pmem::OpenOptions how;
    how.read_only = true;
    how.exclusive = false;
    PLUMB_ASSIGN(const auto device, pmem::open_device(path, how));
    return Superblock::read_label(*device);
  }
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) return fail(EINVAL, path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return fail(errno, path);
  Status result = fail(EUCLEAN, path);
  media::MemberLabel label;
  for (const std::uint64_t offset : media::kSuperblockOffsets) {
    if (::pread(fd, &label, sizeof label, static_cast<off_t>(offset)) != static_cast<ssize_t>(sizeof label)) continue;
    result = media::verify_member_label(label);
    if (result) break;
  }
  ::close(fd);
  if (!result) return tl::unexpected(result.error());
  return label;
}

Result<OpenMembers> open_members(std::unique_ptr<pmem::Device> main, const std::string& realtime_path,
                                 const DeviceOpener& open) {
  OpenMembers opened;
  PLUMB_ASSIGN(const Superblock superblock, Superblock::read_main(*main));
  const bool has_realtime = superblock.device_count() > 1;
  if (!has_realtime && !realtime_path.empty())
    return fail(EINVAL, main->info().path + ": has no realtime device; " + realtime_path + " is not needed");
  if (has_realtime) {
    std::string path = realtime_path;
    if (path.empty()) {
      PLUMB_ASSIGN(path, find_realtime(*main, superblock.media()));
    }
    PLUMB_ASSIGN(opened.realtime, open(path));
  }
  opened.main = std::move(main);
  return opened;
}

}  // namespace plumb
