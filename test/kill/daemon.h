// The daemon under test, as a child process, and the tools around it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

namespace kill_test {

/// A program that does not do what it must.
class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Programs {
  std::string plumbfs, fsck;
  std::string device, mount_point;
  std::string options;  // of the mount
  std::string log;      // what the programs print is appended here
};

class Daemon {
 public:
  explicit Daemon(Programs programs);
  /// Kills the daemon if it runs, and takes the mount away.
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  /// Starts it; a dead mount on the mount point must not be in its way.
  void start();
  void wait_until_mounted();
  [[nodiscard]] bool running();
  /// SIGKILL. The dead mount stays.
  void kill_hard();
  /// The clean way; the daemon must end with status 0.
  void unmount();
  /// The most mounts there ever were on the mount point at once. More than one: a dead one was not detached.
  [[nodiscard]] unsigned most_mounts() const { return most_mounts_; }
  /// fsck.plumbfs -n, which must find nothing.
  void check(bool zeros);

 private:
  pid_t spawn(const std::vector<std::string>& arguments);
  [[nodiscard]] int run(const std::vector<std::string>& arguments);
  [[nodiscard]] std::string log_tail() const;

  Programs programs_;
  pid_t pid_ = -1;
  unsigned most_mounts_ = 0;
};

}  // namespace kill_test
