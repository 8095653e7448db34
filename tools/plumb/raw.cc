// plumb raw DEVICE MOUNTPOINT: an unformatted device as one regular file, until it is unmounted.
//
// Order: the device is claimed, then looked at, and only then served. What holds a file system is refused: whoever
// wants to write to the bytes of one has to say so.

#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fs/fuse/raw_session.h"
#include "pmem/device.h"
#include "tools/common/claim.h"
#include "tools/common/command_line.h"
#include "tools/common/contents.h"
#include "tools/plumb/commands.h"

namespace plumb::tools {
namespace {

using DeviceResult = Result<std::unique_ptr<pmem::Device>>;

// Claims for writing also where only reading is wanted: readers do not exclude each other, and a mount must be.
DeviceResult claim_for(const fuse::Options& options) {
  pmem::OpenOptions how;
  how.assume_pmem = options.assume == fuse::Assume::kPmem;
  how.assert_persistent = options.assume == fuse::Assume::kPersistent;
  auto device = claim_device(options.device, how);
  const bool forbidden = !device && (device.error().code == EROFS || device.error().code == EACCES);
  if (!forbidden || !options.volume.read_only) return device;
  how.read_only = true;
  device = claim_device(options.device, how);
  if (!device) return device;
  const std::string user = user_despite_claim(options.device);
  if (!user.empty()) return fail(EBUSY, options.device + " " + user);
  return device;
}

DeviceResult open_to_serve(const fuse::Options& options, bool force) {
  auto device = claim_for(options);
  if (!device) {
    Error error = std::move(device).error();
    return refuse(describe(error, options.device));
  }
  if (force) return device;
  const auto contents = contents_of(**device);
  if (!contents) {
    return refuse(options.device + ": cannot find out what is on it: " + contents.error().detail +
                  "; --force serves it anyway");
  }
  if (!contents->empty()) {
    return refuse(options.device + " holds " + *contents + "; --force serves its bytes all the same");
  }
  return device;
}

int status_of(fuse::RawExit exit) {
  switch (exit) {
    case fuse::kRawOk:
      return kPlumbOk;
    case fuse::kRawUsage:
      return kPlumbUsage;
    case fuse::kRawFailed:
      break;
  }
  return kPlumbError;
}

}  // namespace

void add_raw_command(CLI::App& app, int& status) {
  struct Arguments {
    std::string device;
    std::string mountpoint;
    std::vector<std::string> option_lists;
    bool foreground = false;
    bool debug = false;
    bool force = false;
  };
  auto* const command = app.add_subcommand("raw", "Serve a device without a file system as one regular file");
  const auto arguments = std::make_shared<Arguments>();
  command->add_flag("-f,--foreground", arguments->foreground, "Stay in the foreground; log to stderr");
  command->add_flag("-d,--debug", arguments->debug, "As -f, and log every request");
  command->add_flag("--force", arguments->force, "Also a device that holds a file system");
  command->add_option("-o", arguments->option_lists, "Mount options, separated by commas; see plumb(8)")
      ->allow_extra_args(false);
  command->add_option("DEVICE", arguments->device, "Dax device, block device or file")->required();
  command
      ->add_option("MOUNTPOINT", arguments->mountpoint,
                   "Directory that will show the file, or a regular file that will be it")
      ->required();
  command->callback([arguments, &status] {
    auto options = fuse::parse_raw_options(arguments->option_lists, ::geteuid() == 0);
    if (!options) {
      complain(kPlumbProgram, "raw: " + options.error());
      status = kPlumbUsage;
      return;
    }
    options->device = arguments->device;
    options->mountpoint = arguments->mountpoint;
    options->debug = options->debug || arguments->debug;
    options->foreground = arguments->foreground || options->debug;
    const bool force = arguments->force;
    status = status_of(fuse::run_raw(std::move(*options),
                                     [force](const fuse::Options& asked) { return open_to_serve(asked, force); }));
  });
}

}  // namespace plumb::tools
