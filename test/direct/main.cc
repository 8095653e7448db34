// The direct path under test: several processes, and processes that are killed. test/direct/run runs it.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "test/direct/direct.h"

int main(int count, char** arguments) {
  using namespace direct_test;
  const std::vector<std::string> words(arguments + 1, arguments + count);
  try {
    if (!words.empty() && words[0] == "mixed-worker") return mixed_worker({words.begin() + 1, words.end()});
    if (!words.empty() && words[0] == "kill-worker") return kill_worker({words.begin() + 1, words.end()});
    CLI::App app("Tests of the direct path on a mount", "plumb_direct");
    app.require_subcommand(1);
    MixedOptions mixed;
    CLI::App& mixed_app = *app.add_subcommand("mixed", "Processes with and without the preload library on one file");
    mixed_app.add_option("--preload", mixed.preload, "The preload library")->required();
    mixed_app.add_option("--operations", mixed.operations, "Of all processes together")->required();
    mixed_app.add_option("--seed", mixed.seed, "Decides the operations")->required();
    mixed_app.add_option("mount_point", mixed.mount_point)->required();
    KillOptions kill;
    CLI::App& kill_app = *app.add_subcommand("kill", "Clients and the daemon killed in direct stores");
    kill_app.add_option("--plumbfs", kill.plumbfs, "The daemon")->required();
    kill_app.add_option("--fsck", kill.fsck, "fsck.plumbfs")->required();
    kill_app.add_option("--preload", kill.preload, "The preload library")->required();
    kill_app.add_option("--log", kill.log, "Where the daemon's messages go")->required();
    kill_app.add_option("--options", kill.mount_options, "Of the mount");
    kill_app.add_option("--rounds", kill.rounds, "Kills")->required();
    kill_app.add_option("--seed", kill.seed, "Decides operations and moments")->required();
    kill_app.add_option("device", kill.device)->required();
    kill_app.add_option("mount_point", kill.mount_point)->required();
    CLI11_PARSE(app, count, arguments);
    if (mixed_app.parsed()) run_mixed(mixed);
    if (kill_app.parsed()) run_kill(kill);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "FAILED: %s\n", failure.what());
    return 1;
  }
  return 0;
}
