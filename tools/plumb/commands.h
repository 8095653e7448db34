// The subcommands of plumb(1), one file each. Each function adds its subcommand to `app`; when the subcommand was given
// on the command line, CLI11 calls it and it leaves its exit status in `status`, having printed everything.
//
// A new one: its file, a line here, a line in main.cc, a section in plumb.8.
#pragma once

#include <CLI/CLI.hpp>

namespace plumb::tools {

inline constexpr const char* kPlumbProgram = "plumb";

// Exit statuses, documented in plumb(8).
inline constexpr int kPlumbOk = 0;
inline constexpr int kPlumbError = 1;
inline constexpr int kPlumbUsage = 2;

void add_stat_command(CLI::App& app, int& status);
void add_sync_command(CLI::App& app, int& status);
void add_info_command(CLI::App& app, int& status);
void add_badblocks_command(CLI::App& app, int& status);
void add_get_command(CLI::App& app, int& status);
void add_set_command(CLI::App& app, int& status);
void add_raw_command(CLI::App& app, int& status);
/// What follows the options of `plumb run` is a command with options of its own: CLI11 gets the arguments before it
/// only.
int count_own_arguments(int argc, char** argv);
/// `rest`: the arguments that CLI11 does not get, up to a null pointer.
void add_run_command(CLI::App& app, int& status, char** rest);

}  // namespace plumb::tools
