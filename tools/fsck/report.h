// What fsck.plumbfs says: the problems that were found, what was done about them, then one closing line.
#pragma once

#include <cstdint>
#include <string>

#include "fs/core/check.h"
#include "fs/core/repair.h"

namespace plumb::tools {

struct FsckOutcome {
  std::string device;
  CheckReport report;      // before anything was changed
  bool replayed = false;   // the journal has been replayed by us
  bool attempted = false;  // a repair was: the two below say what came of it
  RepairReport repair;

  /// Problems that are there now.
  [[nodiscard]] const CheckReport& now() const { return attempted && !repair.needs_more ? repair.left : report; }
};

/// "DEVICE: clean, ..." or "DEVICE: N problems, ...", without a newline.
[[nodiscard]] std::string closing_line(const FsckOutcome& outcome);
[[nodiscard]] std::string problem_line(const std::string& device, const Problem& problem);
[[nodiscard]] std::string repair_line(const std::string& device, const Repair& repair);
[[nodiscard]] std::string verbose_text(const FsckOutcome& outcome);
[[nodiscard]] std::string outcome_json(const FsckOutcome& outcome, int exit_status);

}  // namespace plumb::tools
