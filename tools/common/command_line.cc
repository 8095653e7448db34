#include "tools/common/command_line.h"

#include <cstdio>
#include <exception>

#include "tools/common/label_text.h"

namespace plumb::tools {

void prepare(CLI::App& app, const std::string& program) {
  app.set_version_flag("--version", program + " " + PLUMBFS_VERSION, "Show the version and exit");
  app.set_help_flag("-h,--help", "Show this text and exit");
  app.get_formatter()->column_width(34);
}

std::optional<int> parse(CLI::App& app, int argc, char** argv, const std::string& program, int usage_status) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
      app.exit(error);
      return 0;
    }
    complain(program, std::string(error.what()) + "; see " + program + " --help");
    return usage_status;
  }
  return std::nullopt;
}

int guarded(const char* program, int error_status, int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    complain(program, error.what());
    return error_status;
  }
}

void complain(std::string_view program, std::string_view text) {
  // One write: lines of several programs on one terminal do not mix.
  const std::string line = std::string(program) + ": " + printable(text) + "\n";
  std::fflush(stdout);
  std::fputs(line.c_str(), stderr);
}

std::string describe(const Error& error, std::string_view object) {
  std::string text = error.code == 0 ? error.detail : error.message();
  if (text.find(object) == std::string::npos) text = std::string(object) + ": " + text;
  return text;
}

}  // namespace plumb::tools
