// fsck.plumbfs: checks and repairs a file system that is not mounted. All looking is in fs/core/check.h, all repairing
// in fs/core/repair.h; this claims, calls and prints.

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "fs/core/check.h"
#include "fs/core/members.h"
#include "fs/core/repair.h"
#include "fs/core/volume.h"
#include "fs/media/uuid_text.h"
#include "pmem/device.h"
#include "tools/common/claim.h"
#include "tools/common/command_line.h"
#include "tools/common/superblocks.h"
#include "tools/fsck/options.h"
#include "tools/fsck/progress.h"
#include "tools/fsck/report.h"

namespace plumb::tools {
namespace {

constexpr const char* kProgram = "fsck.plumbfs";

// Safe at any moment: checking writes nothing, and replay and repair survive the death of the process.
void on_cancel(int /*signal*/) {
  static constexpr char kText[] = "\nfsck.plumbfs: cancelled\n";
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, kText, sizeof kText - 1);
  ::_exit(kFsckCancelled);
}

void cancel_on_signals() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    action.sa_handler = on_cancel;
    ::sigaction(signal, &action, nullptr);
  }
}

int complain_operational(const Error& error, const std::string& device) {
  complain(kProgram, describe(error, device));
  return kFsckOperational;
}

// A device whose check ended early: damage so bad that there is no report, or something that has nothing to do with
// damage?
int complain_no_report(const Error& error, pmem::Device& device) {
  const std::string& path = device.info().path;
  const SuperblockCopies superblocks = read_superblocks(device);
  if (const auto label = Superblock::read_label(device))
    return complain_operational(
        Error{0,
              path + " is the realtime device of the plumbfs " + media::uuid_text(label->filesystem_uuid) +
                  "; check its main device, which has the metadata of both",
              0},
        path);
  if (superblocks.current() == nullptr && !superblocks.any_magic())
    return complain_operational(Error{0, path + " holds no plumbfs, or both copies of its superblock are lost", 0},
                                path);
  complain(kProgram, describe(error, path));
  return error.code == EUCLEAN || error.code == EBADMSG ? kFsckErrorsLeft : kFsckOperational;
}

// Recovery is what a mount does first; a mount that does nothing else replays the journal and marks the volume clean.
Status replay(const Members& members) {
  MountOptions options;
  options.background_threads = false;
  PLUMB_ASSIGN(const auto volume, Volume::mount(members, options));
  return volume->unmount();
}

using Progress = std::function<void(std::uint64_t, std::uint64_t, std::string_view)>;

Progress show_on(ProgressLine& progress) {
  if (!progress.active()) return {};
  return [&progress](std::uint64_t done, std::uint64_t total, std::string_view phase) {
    progress.show(done, total, phase);
  };
}

Result<CheckReport> check(const Members& members, const FsckOptions& options) {
  ProgressLine progress(!options.json, options.device);
  CheckOptions how;
  how.zeros = options.zeros;
  how.progress = show_on(progress);
  return check_volume(members, how);
}

Result<RepairReport> repair(const Members& members, const FsckOptions& options) {
  ProgressLine progress(!options.json, options.device);
  RepairOptions how;
  how.preen = options.preen;
  how.zeros = options.zeros;
  how.progress = show_on(progress);
  return repair_volume(members, how);
}

// -p and -a without -f: believed when both copies of the superblock and the journal header say "clean".
bool may_be_believed(const FsckOptions& options, const pmem::Device& device) {
  if (!options.preen || options.force || options.zeros || options.json) return false;
  const SuperblockCopies superblocks = read_superblocks(device);
  for (const SuperblockCopy& copy : superblocks.copies)
    if (!copy.status) return false;
  return was_unmounted(device, superblocks.current()->superblock).value_or(false);
}

int report(const FsckOptions& options, const FsckOutcome& outcome) {
  int status = outcome.now().problems_total > 0 ? kFsckErrorsLeft : kFsckClean;
  if (status == kFsckClean && outcome.report.problems_total > 0) status = kFsckCorrected;
  if (options.json) {
    std::fputs(outcome_json(outcome, status).c_str(), stdout);
    return status;
  }
  for (const Problem& problem : outcome.report.problems) std::puts(problem_line(options.device, problem).c_str());
  const std::uint64_t shown = outcome.report.problems.size();
  if (shown < outcome.report.problems_total)
    std::printf("%s: ... and %llu more\n", options.device.c_str(),
                static_cast<unsigned long long>(outcome.report.problems_total - shown));
  if (outcome.attempted && !outcome.repair.needs_more) {
    for (const Repair& repair : outcome.repair.repairs) std::puts(repair_line(options.device, repair).c_str());
    if (outcome.repair.repairs.size() < outcome.repair.repairs_total)
      std::printf("%s: ... and %llu more repairs\n", options.device.c_str(),
                  static_cast<unsigned long long>(outcome.repair.repairs_total - outcome.repair.repairs.size()));
    for (const Problem& problem : outcome.now().problems)
      std::puts(("left: " + problem_line(options.device, problem)).c_str());
  }
  if (options.verbose) std::fputs(verbose_text(outcome).c_str(), stdout);
  std::puts(closing_line(outcome).c_str());
  return status;
}

int run(int argc, char** argv) {
  const auto parsed = parse_fsck_options(argc, argv);
  if (const int* status = std::get_if<int>(&parsed)) return *status;
  const auto& options = std::get<FsckOptions>(parsed);

  cancel_on_signals();
  pmem::OpenOptions how;
  how.read_only = !options.repair;
  auto device = claim_device(options.device, how);
  if (!device && device.error().code == EBUSY)
    return complain_operational(
        Error{0, device.error().detail + "; a file system is checked while it is not mounted", 0}, options.device);
  if (!device) return complain_operational(device.error(), options.device);
  if (may_be_believed(options, **device)) {
    std::printf("%s: clean\n", options.device.c_str());
    return kFsckClean;
  }

  FsckOutcome outcome;
  outcome.device = options.device;
  const DeviceOpener open = [&how](const std::string& path) { return claim_device(path, how); };
  // Without a superblock there is nothing to open beside it.
  if (const auto superblock = Superblock::read_main(**device); !superblock)
    return complain_no_report(superblock.error(), **device);
  const auto devices = open_members(std::move(*device), options.realtime_device, open);
  if (!devices) return complain_operational(devices.error(), options.device);
  auto checked = check(devices->members(), options);
  if (!checked) return complain_no_report(checked.error(), *devices->main);
  outcome.report = std::move(*checked);
  if (options.repair && !outcome.report.was_clean && outcome.report.problems_total == 0) {
    if (const Status replayed = replay(devices->members()); !replayed)
      return complain_operational(replayed.error(), options.device);
    outcome.replayed = true;
  }
  if (options.repair && outcome.report.problems_total > 0) {
    auto repaired = repair(devices->members(), options);
    if (!repaired) return complain_operational(repaired.error(), options.device);
    outcome.repair = std::move(*repaired);
    outcome.attempted = true;
  }
  return report(options, outcome);
}

}  // namespace
}  // namespace plumb::tools

int main(int argc, char** argv) {
  namespace tools = plumb::tools;
  return tools::guarded(tools::kProgram, tools::kFsckOperational, tools::run, argc, argv);
}
