// plumb run COMMAND: with libplumbfs_preload.so, which reads, writes and maps files of plumbfs without the daemon.

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "tools/common/command_line.h"
#include "tools/plumb/commands.h"

namespace plumb::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLibrary = "libplumbfs_preload.so";

// As the shell: 126 for what cannot be executed, 127 for what is not there.
constexpr int kCannotExecute = 126;
constexpr int kNotFound = 127;

// Beside this program, in the build directory, or where it was installed; empty if nowhere.
std::string find_library() {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path directory = program.parent_path();
  for (const fs::path& candidate :
       {directory / kLibrary, directory / "../lib" / kLibrary, directory / "../lib/plumbfs" / kLibrary,
        fs::path(PLUMBFS_PRELOAD_DIR) / kLibrary}) {
    if (fs::is_regular_file(candidate, ignored)) return fs::canonical(candidate, ignored).string();
  }
  return {};
}

struct Arguments {
  bool require_direct = false;
  bool stats = false;
};

int run_command(const Arguments& arguments, char** command) {
  const std::string library = find_library();
  if (library.empty()) {
    complain(kPlumbProgram,
             std::string("run: ") + kLibrary + " was not found beside plumb nor in " + PLUMBFS_PRELOAD_DIR);
    return kPlumbError;
  }
  if (library.find_first_of(" :") != std::string::npos) {
    complain(kPlumbProgram, "run: " + library + ": the dynamic linker takes no path with blanks or colons");
    return kPlumbError;
  }
  const char* const others = std::getenv("LD_PRELOAD");
  const std::string preload = others == nullptr || *others == '\0' ? library : library + ":" + others;
  ::setenv("LD_PRELOAD", preload.c_str(), 1);
  if (arguments.require_direct) ::setenv("PLUMBFS_REQUIRE_DIRECT", "1", 1);
  if (arguments.stats) ::setenv("PLUMBFS_PRELOAD_STATS", "stderr", 1);

  ::execvp(command[0], command);
  const int error = errno;
  complain(kPlumbProgram, std::string("run: ") + command[0] + ": " + std::strerror(error));
  return error == ENOENT ? kNotFound : kCannotExecute;
}

}  // namespace

int count_own_arguments(int argc, char** argv) {
  if (argc < 2 || std::string_view(argv[1]) != "run") return argc;
  int own = 2;
  while (own < argc && argv[own][0] == '-' && std::string_view(argv[own]) != "--") ++own;
  return own;
}

void add_run_command(CLI::App& app, int& status, char** rest) {
  auto* const command = app.add_subcommand("run", "Run a command whose file access bypasses the daemon");
  const auto arguments = std::make_shared<Arguments>();
  command->add_flag("--require-direct", arguments->require_direct,
                    "Opening a file of a plumbfs fails where it would go through the daemon");
  command->add_flag("--stats", arguments->stats, "At its end each process prints to stderr what was direct");
  command->footer(
      "COMMAND [ARGUMENT...] follows the options, or --.\n"
      "Exit status: that of the command; 126 if it cannot be executed, 127 if it is not there.");
  command->callback([arguments, &status, rest] {
    char** const words = *rest != nullptr && std::string_view(*rest) == "--" ? rest + 1 : rest;
    if (*words == nullptr) {
      complain(kPlumbProgram, "run: a command is needed; see plumb run --help");
      status = kPlumbUsage;
      return;
    }
    status = run_command(*arguments, words);
  });
}

}  // namespace plumb::tools
