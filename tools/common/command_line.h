// What every tool does the same way: parse its arguments, say what went wrong in one line, print its version.
//
// Messages for people go to stderr as "PROGRAM: OBJECT: what happened"; results go to stdout. Thread safety: none
// needed, the tools are single-threaded.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "pmem/result.h"

namespace plumb::tools {

/// Gives `app` --version and the wording that all tools share.
void prepare(CLI::App& app, const std::string& program);

/// Parses. A value is the exit status to leave with at once: 0 after --help and --version, `usage_status` after a usage
/// error, which has been printed with a hint to --help.
[[nodiscard]] std::optional<int> parse(CLI::App& app, int argc, char** argv, const std::string& program,
                                       int usage_status);

/// main() of every tool: calls `run`; an exception (out of memory, mostly) becomes a line and `error_status`.
[[nodiscard]] int guarded(const char* program, int error_status, int (*run)(int, char**), int argc, char** argv);

/// "PROGRAM: text" on stderr.
void complain(std::string_view program, std::string_view text);

/// An error whose detail says everything, so that no strerror is added to it.
[[nodiscard]] inline tl::unexpected<Error> refuse(std::string detail) {
  return fail(0, std::move(detail));
}

/// The error as one clause that names `object`, whether or not its own detail does.
[[nodiscard]] std::string describe(const Error& error, std::string_view object);

}  // namespace plumb::tools
