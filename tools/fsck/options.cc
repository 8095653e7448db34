#include "tools/fsck/options.h"

#include "tools/common/command_line.h"

namespace plumb::tools {

std::variant<FsckOptions, int> parse_fsck_options(int argc, char** argv) {
  constexpr const char* kProgram = "fsck.plumbfs";
  FsckOptions options;
  bool no = false;
  bool yes = false;
  CLI::App app(
      "Checks every structure of a plumbfs that is not mounted, and repairs it when asked to.\n"
      "With -y it repairs whatever is wrong; with -p or -a only what loses nothing and needs no\n"
      "decision. Either replays the journal. Without them it never writes.",
      kProgram);
  prepare(app, kProgram);
  auto* const no_flag = app.add_flag("-n,--no-repair", no, "Write nothing (the default)");
  auto* const yes_flag = app.add_flag("-y,--yes", yes, "Repair everything; what has no name goes to /lost+found");
  auto* const preen_flag = app.add_flag("-p,-a,--preen", options.preen,
                                        "Repair what loses nothing; believe a file system that was unmounted cleanly");
  no_flag->excludes(yes_flag)->excludes(preen_flag);
  app.add_flag("-f,--force", options.force, "Check even what was unmounted cleanly (with -p)");
  app.add_flag("--zeros", options.zeros,
               "Check that free blocks read as zeros, too, and zero them; reads the whole device");
  app.add_option("--rtdev", options.realtime_device, "The realtime device (default: found by its uuid)")
      ->type_name("DEVICE");
  app.add_flag("--json", options.json, "Print the result as one JSON object");
  app.add_flag("-v,--verbose", options.verbose, "Print what was counted");
  app.add_option("DEVICE", options.device, "Dax device, block device or file")->required();
  app.footer(
      "Exit status: 0 no errors, 1 errors corrected, 4 errors left, 8 the check could not be done,\n"
      "16 usage error, 32 cancelled, 128 broken installation.");
  if (const auto status = parse(app, argc, argv, kProgram, kFsckUsage)) return *status;
  options.repair = yes || options.preen;
  return options;
}

}  // namespace plumb::tools
