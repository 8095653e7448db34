// plumb: looks at and steers a plumbfs, mounted or not.

#include "tools/common/command_line.h"
#include "tools/plumb/commands.h"

namespace plumb::tools {
namespace {

int run(int argc, char** argv) {
  CLI::App app("Looks at and steers a plumbfs.", kPlumbProgram);
  prepare(app, kPlumbProgram);
  app.require_subcommand(0, 1);
  app.footer("Exit status: 0 done, 1 error, 2 usage error. More in plumb(8).");

  int status = kPlumbOk;
  add_stat_command(app, status);
  add_sync_command(app, status);
  add_info_command(app, status);
  add_badblocks_command(app, status);
  add_get_command(app, status);
  add_set_command(app, status);
  add_raw_command(app, status);
  const int own = count_own_arguments(argc, argv);
  add_run_command(app, status, argv + own);

  if (const auto early = parse(app, own, argv, kPlumbProgram, kPlumbUsage)) return *early;
  if (app.get_subcommands().empty()) {
    complain(kPlumbProgram,
             "a subcommand is needed (stat, sync, info, badblocks, get, set, raw, run); see plumb --help");
    return kPlumbUsage;
  }
  return status;
}

}  // namespace
}  // namespace plumb::tools

int main(int argc, char** argv) {
  namespace tools = plumb::tools;
  return tools::guarded(tools::kPlumbProgram, tools::kPlumbError, tools::run, argc, argv);
}
