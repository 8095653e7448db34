#include "test/kill/daemon.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/prctl.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <deque>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

namespace kill_test {
namespace {

using namespace std::chrono_literals;
constexpr auto kMountLimit = 60s;  // far beyond what recovery takes: it only ends a hanging test
constexpr auto kUnmountLimit = 120s;
constexpr auto kPoll = 2ms;

unsigned count_mounts(const std::string& mount_point) {
  std::ifstream file("/proc/self/mountinfo");
  unsigned count = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string field;
    for (int i = 0; i < 5; ++i) fields >> field;  // the fifth is the mount point
    count += field == mount_point ? 1 : 0;
  }
  return count;
}

}  // namespace

Daemon::Daemon(Programs programs) : programs_(std::move(programs)) {}

Daemon::~Daemon() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (unsigned i = count_mounts(programs_.mount_point); i > 0; --i) {
    (void)run({"fusermount3", "-uz", programs_.mount_point});
  }
}

pid_t Daemon::spawn(const std::vector<std::string>& arguments) {
  const pid_t child = ::fork();
  if (child < 0) throw Failure(std::string("fork: ") + std::strerror(errno));
  if (child > 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int log = ::open(programs_.log.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0644);
  const int null = ::open("/dev/null", O_RDONLY);
  if (log < 0 || null < 0) ::_exit(126);
  ::dup2(null, 0);
  ::dup2(log, 1);
  ::dup2(log, 2);
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  ::_exit(127);
}

int Daemon::run(const std::vector<std::string>& arguments) {
  const pid_t child = spawn(arguments);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) throw Failure(std::string("waitpid: ") + std::strerror(errno));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

std::string Daemon::log_tail() const {
  std::ifstream file(programs_.log);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back("    " + line + "\n");
    if (lines.size() > 20) lines.pop_front();
  }
  std::string text = "\n  the last lines of the log:\n";
  for (const std::string& line : lines) text += line;
  return text;
}

void Daemon::start() {
  const std::string options =
      "allow_other,default_permissions" + (programs_.options.empty() ? "" : "," + programs_.options);
  pid_ = spawn({programs_.plumbfs, programs_.device, programs_.mount_point, "-f", "-o", options});
}

bool Daemon::running() {
  if (pid_ <= 0) return false;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == 0) return true;
  pid_ = -1;
  return false;
}

void Daemon::wait_until_mounted() {
  const auto limit = std::chrono::steady_clock::now() + kMountLimit;
  while (true) {
    // Not stat(2): that the kernel may answer from its cache, also for the dead mount that is still there.
    struct statfs fs {};
    if (::statfs(programs_.mount_point.c_str(), &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC) break;
    if (!running()) throw Failure("the daemon ended instead of mounting" + log_tail());
    if (std::chrono::steady_clock::now() > limit) throw Failure("the daemon does not mount" + log_tail());
    std::this_thread::sleep_for(kPoll);
  }
  most_mounts_ = std::max(most_mounts_, count_mounts(programs_.mount_point));
}

void Daemon::kill_hard() {
  if (!running()) throw Failure("the daemon ended by itself" + log_tail());
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Daemon::unmount() {
  for (int tries = 0; run({"fusermount3", "-u", programs_.mount_point}) != 0; ++tries) {
    if (tries == 50) throw Failure("the file system cannot be unmounted" + log_tail());
    std::this_thread::sleep_for(100ms);
  }
  const auto limit = std::chrono::steady_clock::now() + kUnmountLimit;
  int status = 0;
  while (::waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > limit)
      throw Failure("the daemon does not end after the unmount" + log_tail());
    std::this_thread::sleep_for(kPoll);
  }
  pid_ = -1;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw Failure("the daemon ended with wait status " + std::to_string(status) + " after the unmount" + log_tail());
  }
}

void Daemon::check(bool zeros) {
  std::vector<std::string> arguments = {programs_.fsck, "-n"};
  if (zeros) arguments.emplace_back("--zeros");
  arguments.push_back(programs_.device);
  const int status = run(arguments);
  if (status != 0) {
    throw Failure("fsck.plumbfs -n" + std::string(zeros ? " --zeros" : "") + " says " + std::to_string(status) +
                  log_tail());
  }
}

}  // namespace kill_test
