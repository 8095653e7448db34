#include "tools/fsck/options.h"

#include "tools/common/command_line.h"

namespace plumb::tools {

std::variant<FsckOptions, int> parse_fsck_options(int argc, char** argv) {
  constexpr const char* kProgram = "fsck.plumbfs";
  FsckOptions options;
  bool no = false;
  bool yes = false;
  CLI::App app(
      "Checks every structure of a plumbfs that is not mounted.\n"
      "This version repairs nothing: with -y, -p or -a it replays the journal of a file system that\n"
      "was not unmounted and is otherwise sound. Without them it never writes.",
      kProgram);
  prepare(app, kProgram);
  auto* const no_flag = app.add_flag("-n,--no-repair", no, "Write nothing (the default)");
  auto* const yes_flag = app.add_flag("-y,--yes", yes, "Replay the journal if need be");
  auto* const preen_flag =
      app.add_flag("-p,-a,--preen", options.preen, "As -y, but believe a file system that was unmounted cleanly");
  no_flag->excludes(yes_flag)->excludes(preen_flag);
  app.add_flag("-f,--force", options.force, "Check even what was unmounted cleanly (with -p)");
  app.add_flag("--zeros", options.zeros, "Check that free blocks read as zeros, too; reads the whole device");
  app.add_option("--rtdev", options.realtime_device, "The realtime device (default: found by its uuid)")
      ->type_name("DEVICE");
  app.add_flag("--json", options.json, "Print the result as one JSON object");
  app.add_flag("-v,--verbose", options.verbose, "Print what was counted");
  app.add_option("DEVICE", options.device, "Dax device, block device or file")->required();
  app.footer(
      "Exit status: 0 no errors, 4 errors left, 8 the check could not be done, 16 usage error,\n"
      "32 cancelled, 128 broken installation.");
  if (const auto status = parse(app, argc, argv, kProgram, kFsckUsage)) return *status;
  options.repair = yes || options.preen;
  return options;
}

}  // namespace plumb::tools
