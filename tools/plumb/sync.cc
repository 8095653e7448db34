// plumb sync PATH: everything that was replied to becomes durable.
//
// sync(2) and sync(1) do not reach the daemon of a plain FUSE mount; this does.

#include <memory>
#include <string>

#include "fs/client/protocol.h"
#include "tools/common/command_line.h"
#include "tools/plumb/commands.h"
#include "tools/plumb/mounted.h"

namespace plumb::tools {
namespace {

Status sync_path(const std::string& path) {
  PLUMB_ASSIGN(const auto mounted, MountedPath::open(path));
  return mounted.ioctl(protocol::kIocSync, nullptr);
}

}  // namespace

void add_sync_command(CLI::App& app, int& status) {
  auto* const command = app.add_subcommand("sync", "Make everything written so far durable");
  const auto path = std::make_shared<std::string>();
  command->add_option("PATH", *path, "Any file or directory of the mounted file system")->required();
  command->callback([path, &status] {
    if (const Status done = sync_path(*path); !done) {
      complain(kPlumbProgram, describe(done.error(), *path));
      status = kPlumbError;
    }
  });
}

}  // namespace plumb::tools
