// What fsck.plumbfs says about a check: problems as they are found in the report, then one closing line.
#pragma once

#include <cstdint>
#include <string>

#include "fs/core/check.h"

namespace plumb::tools {

struct FsckOutcome {
  std::string device;
  CheckReport report;
  bool replayed = false;  // the journal has been replayed by us
};

/// "DEVICE: clean, ..." or "DEVICE: N problems, ...", without a newline.
[[nodiscard]] std::string closing_line(const FsckOutcome& outcome);
[[nodiscard]] std::string problem_line(const std::string& device, const Problem& problem);
[[nodiscard]] std::string verbose_text(const FsckOutcome& outcome);
[[nodiscard]] std::string outcome_json(const FsckOutcome& outcome, int exit_status);

}  // namespace plumb::tools
