// plumb get PATH..., plumb set PATH FLAG...: the flags of files and directories, by the ioctls that XFS and ext4 have
// too (FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR).

#include <linux/fs.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "tools/common/command_line.h"
#include "tools/common/label_text.h"
#include "tools/plumb/commands.h"
#include "tools/plumb/mounted.h"

namespace plumb::tools {
namespace {

using Json = nlohmann::ordered_json;

struct Flag {
  std::string_view name;
  std::uint32_t bit;
  std::string_view meaning;
};

constexpr std::array<Flag, 8> kFlags = {{
    {"realtime", FS_XFLAG_REALTIME, "data on the realtime device; settable while the file has no blocks"},
    {"rtinherit", FS_XFLAG_RTINHERIT, "new files below the directory are realtime"},
    {"dax", FS_XFLAG_DAX, "no kernel caching on a mount with dax=inode; directories hand it down"},
    {"immutable", FS_XFLAG_IMMUTABLE, "cannot be changed"},
    {"append", FS_XFLAG_APPEND, "can only be appended to"},
    {"noatime", FS_XFLAG_NOATIME, "reading does not change the access time"},
    {"nodump", FS_XFLAG_NODUMP, "left out by dump(8)"},
    {"sync", FS_XFLAG_SYNC, "every write is durable when it returns"},
}};

const Flag* find_flag(std::string_view name) {
  for (const Flag& flag : kFlags)
    if (flag.name == name) return &flag;
  return nullptr;
}

std::string known_flags() {
  std::string text;
  for (const Flag& flag : kFlags) text += (text.empty() ? "" : ", ") + std::string(flag.name);
  return text;
}

Result<std::vector<std::string>> flags_of(const std::string& path) {
  PLUMB_ASSIGN(const auto mounted, MountedPath::open(path));
  PLUMB_TRY(mounted.require_plumbfs());
  struct fsxattr attributes {};
  PLUMB_TRY(mounted.ioctl(FS_IOC_FSGETXATTR, &attributes));
  std::vector<std::string> names;
  for (const Flag& flag : kFlags)
    if ((attributes.fsx_xflags & flag.bit) != 0) names.emplace_back(flag.name);
  return names;
}

Status get(const std::vector<std::string>& paths, bool json) {
  Json all = Json::array();
  for (const std::string& path : paths) {
    PLUMB_ASSIGN(const auto names, flags_of(path));
    if (json) {
      all.push_back({{"path", path}, {"flags", names}});
      continue;
    }
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : " ") + name;
    std::printf("%s: %s\n", printable(path).c_str(), text.empty() ? "(no flags)" : text.c_str());
  }
  if (json) std::puts(all.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
  return {};
}

// Why the daemon would answer EINVAL, as far as can be seen from here.
Status refuse_impossible(const std::string& path, std::uint32_t wanted) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail(errno, path);
  if ((wanted & FS_XFLAG_REALTIME) != 0 && !S_ISREG(status.st_mode))
    return refuse(path + ": only regular files are realtime; rtinherit makes the new files of a directory so");
  if ((wanted & FS_XFLAG_RTINHERIT) != 0 && !S_ISDIR(status.st_mode))
    return refuse(path + ": only directories have rtinherit");
  return {};
}

Status set(const std::string& path, const std::vector<std::string>& names) {
  std::uint32_t on = 0;
  std::uint32_t off = 0;
  for (const std::string& text : names) {
    const bool clear = text.starts_with("no") && find_flag(text) == nullptr;
    const Flag* flag = find_flag(clear ? std::string_view(text).substr(2) : std::string_view(text));
    if (flag == nullptr)
      return refuse("'" + text + "' is no flag; there are " + known_flags() + ", and each with 'no' before it");
    (clear ? off : on) |= flag->bit;
  }
  if ((on & off) != 0) return refuse("a flag cannot be set and cleared at once");
  PLUMB_TRY(refuse_impossible(path, on));
  PLUMB_ASSIGN(const auto mounted, MountedPath::open(path));
  PLUMB_TRY(mounted.require_plumbfs());
  struct fsxattr attributes {};
  PLUMB_TRY(mounted.ioctl(FS_IOC_FSGETXATTR, &attributes));
  const std::uint32_t before = attributes.fsx_xflags;
  attributes.fsx_xflags = (before | on) & ~off;
  if (attributes.fsx_xflags == before) return {};
  const Status done = mounted.set_flags(attributes);
  if (done) return {};
  const std::uint32_t changed = attributes.fsx_xflags ^ before;
  if (done.error().code == EINVAL && (changed & (FS_XFLAG_REALTIME | FS_XFLAG_RTINHERIT)) != 0)
    return refuse(path + ": the file system has no realtime device, or the file has blocks already " +
                  "(truncate it to 0 first)");
  return done;
}

}  // namespace

void add_get_command(CLI::App& app, int& status) {
  struct Arguments {
    std::vector<std::string> paths;
    bool json = false;
  };
  auto* const command = app.add_subcommand("get", "Show the flags of files and directories");
  const auto arguments = std::make_shared<Arguments>();
  command->add_flag("--json", arguments->json, "As one JSON array");
  command->add_option("PATH", arguments->paths, "Files or directories of a mounted file system")->required();
  command->callback([arguments, &status] {
    if (const Status done = get(arguments->paths, arguments->json); !done) {
      complain(kPlumbProgram, describe(done.error(), arguments->paths.front()));
      status = kPlumbError;
    }
  });
}

void add_set_command(CLI::App& app, int& status) {
  struct Arguments {
    std::string path;
    std::vector<std::string> flags;
  };
  auto* const command = app.add_subcommand("set", "Set or clear flags of a file or directory");
  const auto arguments = std::make_shared<Arguments>();
  command->add_option("PATH", arguments->path, "A file or directory of a mounted file system")->required();
  command->add_option("FLAG", arguments->flags, "One or more of the flags below; 'no' before it clears it")->required();
  std::string footer = "Flags:\n";
  for (const Flag& flag : kFlags)
    footer +=
        "  " + std::string(flag.name) + std::string(12 - flag.name.size(), ' ') + std::string(flag.meaning) + "\n";
  command->footer(footer);
  command->callback([arguments, &status] {
    if (const Status done = set(arguments->path, arguments->flags); !done) {
      complain(kPlumbProgram, describe(done.error(), arguments->path));
      status = kPlumbError;
    }
  });
}

}  // namespace plumb::tools
