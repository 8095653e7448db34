// Going into the background: the command returns when the mount is up, or with the reason why it is not.
//
// The process forks before it has threads, opens the device or logs anything. The child does everything and keeps the
// terminal until it is ready; the parent only waits for the outcome.
//
// Thread safety: of Launch, the child's report may come from any thread.
#pragma once

#include <atomic>
#include <optional>

#include "pmem/result.h"

namespace plumb::fuse {

class Launch {
 public:
  /// In the foreground there is no second process, and report() does nothing.
  Launch() = default;
  ~Launch();  // a child that reported nothing: its exit status tells the parent
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  /// Forks. A value in the parent only: the exit status to leave with. Errors if there can be no second process.
  [[nodiscard]] Result<std::optional<int>> go_to_background();

  /// The mount is up: the child lets go of the terminal and of the working directory, and the parent exits with 0.
  void report_ready();

 private:
  std::atomic<int> pipe_{-1};  // the child's end
};

}  // namespace plumb::fuse
