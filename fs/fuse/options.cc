#include "fs/fuse/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "fs/media/uuid_text.h"

namespace plumb::fuse {
namespace {

constexpr unsigned kMaxSeconds = 86400;
constexpr unsigned kMaxThreads = 1024;

constexpr const char* kDescription =
    "Mounts the plumbfs on DEVICE (a devdax device, a file or a block device) at MOUNTPOINT.";

constexpr const char* kOptionHelp = R"(
Options of -o:
  ro, rw                    read-only, read-write (default)
  dax=always|inode|never    always (default): no page cache of the kernel; never: its page cache, written
                            through; inode: by the DAX flag of each file (chattr +x, FS_XFLAG_DAX)
  writeback=immediate|deferred
                            memory devices: what was replied is durable (default), or only after fsync, sync
                            or the interval
  interval=SECONDS          writeback of deferred data (default 5, 0: never by itself)
  commit=SECONDS            log force on devices behind the page cache (default 5, 0: never by itself)
  sync, dirsync             every operation, or every directory operation, as if followed by fsync
  relatime, noatime, strictatime
                            access times (default relatime)
  allow_other, noallow_other
                            whether other users may use the mount (default: if root mounts). Permissions are
                            always checked by the kernel (default_permissions)
  suid, nosuid, dev, nodev, exec, noexec
                            as in mount(8); suid and dev are the default if root mounts
  uuid=UUID                 refuse any other file system
  rtdev=PATH                the realtime device, where it is not found by its uuid
  assume=pmem               treat a file behind the page cache as persistent memory: for tests only
  assume=persistent         a devdax device without an NVDIMM region behind it is persistent
  threads=N                 most worker threads (default: by the number of processors)
  max_idle_threads=N        worker threads beyond N end when they are idle
  io_uring, no_io_uring     requests by io_uring (default: where the kernel allows it)
  fuseblk                   on a block device, as root: the mount is one of that device, and the kernel passes
                            syncfs(2) and sync(2) on (from Linux 6.18)
  log=FILE                  log to FILE; default: syslog, or stderr with -f
  debug                     log every request; implies -f
  context=, fscontext=, defcontext=, rootcontext=
                            SELinux, see mount(8)

Exit status: 0 mounted; 1 incorrect invocation or permissions; 2 system error; 32 the mount failed.)";

struct State {
  Options options;
  bool nosuid = false;
  bool nodev = false;
  bool noexec = false;
  bool nosymfollow = false;
  std::vector<std::string> contexts;
};

using Problem = std::optional<std::string>;
using Flag = std::function<void(State&)>;
using Setter = std::function<Problem(State&, const std::string& value)>;

Problem parse_number(const std::string& name, const std::string& value, unsigned lowest, unsigned highest,
                     unsigned& out) {
  unsigned number = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc{} || stop != end || number < lowest || number > highest) {
    return name + " takes a number from " + std::to_string(lowest) + " to " + std::to_string(highest) + ", not '" +
           value + "'";
  }
  out = number;
  return {};
}

template <typename T>
Problem parse_word(const std::string& name, const std::string& value,
                   std::initializer_list<std::pair<const char*, T>> words, T& out) {
  std::string list;
  for (const auto& [word, meaning] : words) {
    if (value == word) {
      out = meaning;
      return {};
    }
    if (!list.empty()) list += ", ";
    list += word;
  }
  return name + " is one of " + list + ", not '" + value + "'";
}

Problem parse_uuid(const std::string& value, std::optional<media::Uuid>& out) {
  out = media::parse_uuid(value);
  if (!out) return "uuid takes 8-4-4-4-12 hexadecimal digits, not '" + value + "'";
  return {};
}

const std::map<std::string, Flag>& flags() {
  static const Flag nothing = [](State&) {};
  static const std::map<std::string, Flag> table = {
      {"ro", [](State& s) { s.options.volume.read_only = true; }},
      {"rw", [](State& s) { s.options.volume.read_only = false; }},
      {"sync", [](State& s) { s.options.volume.sync = true; }},
      {"async", [](State& s) { s.options.volume.sync = false; }},
      {"dirsync", [](State& s) { s.options.volume.dirsync = true; }},
      {"relatime", [](State& s) { s.options.volume.atime = AtimeMode::kRelatime; }},
      {"norelatime", [](State& s) { s.options.volume.atime = AtimeMode::kRelatime; }},
      {"atime", [](State& s) { s.options.volume.atime = AtimeMode::kRelatime; }},
      {"nostrictatime", [](State& s) { s.options.volume.atime = AtimeMode::kRelatime; }},
      {"noatime", [](State& s) { s.options.volume.atime = AtimeMode::kNoatime; }},
      {"strictatime", [](State& s) { s.options.volume.atime = AtimeMode::kStrictatime; }},
      {"suid", [](State& s) { s.nosuid = false; }},
      {"nosuid", [](State& s) { s.nosuid = true; }},
      {"dev", [](State& s) { s.nodev = false; }},
      {"nodev", [](State& s) { s.nodev = true; }},
      {"exec", [](State& s) { s.noexec = false; }},
      {"noexec", [](State& s) { s.noexec = true; }},
      {"symfollow", [](State& s) { s.nosymfollow = false; }},
      {"nosymfollow", [](State& s) { s.nosymfollow = true; }},
      {"allow_other", [](State& s) { s.options.allow_other = true; }},
      {"noallow_other", [](State& s) { s.options.allow_other = false; }},
      {"default_permissions", nothing},  // always
      {"io_uring", [](State& s) { s.options.io_uring = Choice::kYes; }},
      {"no_io_uring", [](State& s) { s.options.io_uring = Choice::kNo; }},
      {"debug", [](State& s) { s.options.debug = true; }},
      {"fuseblk", [](State& s) { s.options.fuseblk = true; }},
      // For mount(8), systemd and fstab.
      {"defaults", nothing},
      {"auto", nothing},
      {"noauto", nothing},
      {"user", nothing},
      {"nouser", nothing},
      {"users", nothing},
      {"nousers", nothing},
      {"owner", nothing},
      {"noowner", nothing},
      {"group", nothing},
      {"nogroup", nothing},
      {"nofail", nothing},
      {"_netdev", nothing},
      {"silent", nothing},
      {"loud", nothing},
  };
  return table;
}

const std::map<std::string, Setter>& setters() {
  static const Setter nothing = [](State&, const std::string&) -> Problem { return {}; };
  static const std::map<std::string, Setter> table = {
      {"dax",
       [](State& s, const std::string& v) {
         return parse_word<DaxMode>(
             "dax", v, {{"always", DaxMode::kAlways}, {"inode", DaxMode::kInode}, {"never", DaxMode::kNever}},
             s.options.dax);
       }},
      {"writeback",
       [](State& s, const std::string& v) {
         return parse_word<Writeback>("writeback", v,
                                      {{"immediate", Writeback::kImmediate}, {"deferred", Writeback::kDeferred}},
                                      s.options.volume.writeback);
       }},
      {"assume",
       [](State& s, const std::string& v) {
         return parse_word<Assume>("assume", v, {{"pmem", Assume::kPmem}, {"persistent", Assume::kPersistent}},
                                   s.options.assume);
       }},
      {"interval",
       [](State& s, const std::string& v) {
         return parse_number("interval", v, 0, kMaxSeconds, s.options.volume.interval_seconds);
       }},
      {"commit",
       [](State& s, const std::string& v) {
         return parse_number("commit", v, 0, kMaxSeconds, s.options.volume.commit_seconds);
       }},
      {"threads",
       [](State& s, const std::string& v) { return parse_number("threads", v, 1, kMaxThreads, s.options.threads); }},
      {"max_idle_threads",
       [](State& s, const std::string& v) {
         return parse_number("max_idle_threads", v, 0, kMaxThreads, s.options.max_idle_threads.emplace());
       }},
      {"uuid", [](State& s, const std::string& v) { return parse_uuid(v, s.options.uuid); }},
      {"rtdev",
       [](State& s, const std::string& v) -> Problem {
         if (v.empty()) return "rtdev takes the path of the realtime device";
         s.options.realtime_device = v;
         return {};
       }},
      {"log",
       [](State& s, const std::string& v) -> Problem {
         if (v.empty()) return "log takes the name of a file";
         s.options.log_file = v;
         return {};
       }},
      {"user", nothing},
      {"uhelper", nothing},
      {"helper", nothing},
      {"comment", nothing},
  };
  return table;
}

bool starts_with_any(const std::string& text, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](std::string_view p) { return text.rfind(p, 0) == 0; });
}

// Applies one option of -o; `sloppy` lets unknown ones pass.
Problem apply_option(State& state, const std::string& text, bool sloppy) {
  if (text.empty() || starts_with_any(text, {"x-", "X-"})) return {};
  if (starts_with_any(text, {"context=", "fscontext=", "defcontext=", "rootcontext="})) {
    state.contexts.push_back(text);
    return {};
  }
  if (text == "remount") return "remount is not supported: unmount, and mount again with the new options";
  if (text == "nodefault_permissions" || text == "no_default_permissions") {
    return "default_permissions is always on: nothing else checks permissions, and allow_other depends on it";
  }
  static const std::array<std::string_view, 8> kWithoutEffect = {"nodiratime", "diratime", "lazytime", "nolazytime",
                                                                 "mand",       "nomand",   "iversion", "noiversion"};
  if (std::find(kWithoutEffect.begin(), kWithoutEffect.end(), text) != kWithoutEffect.end()) {
    state.options.warnings.push_back("the option " + text + " has no effect here");
    return {};
  }
  const std::size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  if (equals == std::string::npos) {
    if (const auto found = flags().find(name); found != flags().end()) {
      found->second(state);
      return {};
    }
    if (setters().contains(name)) return "the option " + name + " needs a value: " + name + "=...";
  } else {
    if (const auto found = setters().find(name); found != setters().end()) {
      return found->second(state, text.substr(equals + 1));
    }
    if (flags().contains(name)) return "the option " + name + " takes no value";
  }
  if (sloppy) {
    state.options.warnings.push_back("ignored the unknown option '" + text + "'");
    return {};
  }
  return "unknown option '" + text + "'";
}

// The options for the kernel, in the form of -o.
std::vector<std::string> kernel_options(const State& state, bool as_root) {
  const Options& options = state.options;
  std::vector<std::string> kernel = {options.volume.read_only ? "ro" : "rw", "default_permissions"};
  if (options.allow_other) kernel.emplace_back("allow_other");
  // Without a word from us libfuse mounts nosuid,nodev; fusermount3 gives a user nothing else anyway.
  if (state.nosuid || as_root) kernel.emplace_back(state.nosuid ? "nosuid" : "suid");
  if (state.nodev || as_root) kernel.emplace_back(state.nodev ? "nodev" : "dev");
  if (state.noexec) kernel.emplace_back("noexec");
  if (state.nosymfollow) kernel.emplace_back("nosymfollow");
  if (options.volume.sync) kernel.emplace_back("sync");
  if (options.volume.dirsync) kernel.emplace_back("dirsync");
  if (options.volume.atime == AtimeMode::kNoatime) kernel.emplace_back("noatime");
  kernel.insert(kernel.end(), state.contexts.begin(), state.contexts.end());
  return kernel;
}

bool is_mount_helper(const char* program) {
  const std::string_view path = program;
  const std::size_t slash = path.rfind('/');
  return path.substr(slash == std::string_view::npos ? 0 : slash + 1).rfind("mount.", 0) == 0;
}

}  // namespace

std::vector<std::string> split_options(std::string_view text) {
  std::vector<std::string> result(1);
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\' && i + 1 < text.size()) {
      result.back() += text[++i];
    } else if (c == ',' && !quoted) {
      result.emplace_back();
    } else {
      if (c == '"') quoted = !quoted;
      result.back() += c;
    }
  }
  std::erase(result, std::string());
  return result;
}

tl::expected<Options, EarlyExit> parse_options(int argc, const char* const* argv, bool as_root) {
  State state;
  Options& options = state.options;
  options.allow_other = as_root;
  const bool helper = argc > 0 && is_mount_helper(argv[0]);
  const std::string program = helper ? "mount.fuse.plumbfs" : "plumbfs";

  CLI::App app(kDescription, program);
  app.footer(kOptionHelp);
  std::vector<std::string> option_lists;
  bool sloppy = false;
  bool read_only = false;
  bool read_write = false;
  bool ignored_flag = false;
  std::string ignored_value;
  app.set_version_flag("--version", std::string("plumbfs ") + PLUMBFS_VERSION);
  app.add_option("DEVICE", options.device, "Device or file with the file system")->required();
  app.add_option("MOUNTPOINT", options.mountpoint, "Directory to mount it on")->required();
  app.add_option("-o", option_lists, "Mount options, separated by commas")->allow_extra_args(false);
  app.add_flag("-d,--debug", options.debug, "Stay in the foreground and log every request");
  app.add_flag("-s", sloppy, "Ignore unknown mount options");
  app.add_flag("-n", ignored_flag, "For mount(8): no effect");
  app.add_flag("-v", ignored_flag, "For mount(8): no effect");
  app.add_flag("-r", read_only, "Same as -o ro");
  app.add_flag("-w", read_write, "Same as -o rw");
  if (helper) {
    app.add_flag("-f", options.fake, "Check the command line, mount nothing");
    app.add_option("-t", ignored_value, "For mount(8): no effect");
    app.add_option("-N", ignored_value, "For mount(8): no effect");
  } else {
    app.add_flag("-f,--foreground", options.foreground, "Stay in the foreground");
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return tl::unexpected(EarlyExit{kExitOk, app.help()});
  } catch (const CLI::CallForVersion&) {
    return tl::unexpected(EarlyExit{kExitOk, std::string("plumbfs ") + PLUMBFS_VERSION + "\n"});
  } catch (const CLI::ParseError& error) {
    return tl::unexpected(EarlyExit{kExitUsage, program + ": " + error.what() + "\n" + "Usage: " + program +
                                                    " DEVICE MOUNTPOINT [-o OPTION,...]; " + program +
                                                    " --help says more\n"});
  }

  if (read_only) options.volume.read_only = true;
  if (read_write) options.volume.read_only = false;
  for (const std::string& list : option_lists) {
    for (const std::string& option : split_options(list)) {
      if (const Problem problem = apply_option(state, option, sloppy)) {
        return tl::unexpected(EarlyExit{kExitUsage, program + ": " + *problem + "\n"});
      }
    }
  }
  if (options.debug) options.foreground = true;
  if (options.fuseblk && !as_root) {
    return tl::unexpected(EarlyExit{kExitUsage, program + ": only root can mount with the option fuseblk\n"});
  }
  options.kernel = kernel_options(state, as_root);
  return std::move(options);
}

tl::expected<Options, std::string> parse_raw_options(const std::vector<std::string>& lists, bool as_root) {
  static const std::array<std::string_view, 5> kOfVolumes = {"commit", "dirsync", "fuseblk", "rtdev", "uuid"};
  State state;
  state.options.allow_other = as_root;
  for (const std::string& list : lists) {
    for (const std::string& option : split_options(list)) {
      const std::string name = option.substr(0, option.find('='));
      const bool of_volumes = std::find(kOfVolumes.begin(), kOfVolumes.end(), name) != kOfVolumes.end();
      if (of_volumes || option == "dax=inode") {
        return tl::unexpected("the option " + option + " is one of file systems, and here is none");
      }
      if (const Problem problem = apply_option(state, option, false)) return tl::unexpected(*problem);
    }
  }
  state.options.kernel = kernel_options(state, as_root);
  return std::move(state.options);
}

}  // namespace plumb::fuse
