#include "fs/fuse/launch.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <optional>

#include "fs/fuse/options.h"

namespace plumb::fuse {
namespace {

// The child reports one byte when the mount is up; otherwise its end is the report.
int wait_for(pid_t child, int pipe) {
  char ready = 0;
  ssize_t got = 0;
  do {
    got = read(pipe, &ready, 1);
  } while (got < 0 && errno == EINTR);
  if (got == 1) return kExitOk;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) return WEXITSTATUS(status);
  std::fprintf(stderr, "%s: the daemon died before the mount was up (%s %d)\n", program_invocation_short_name,
               WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
  return kExitFailed;
}

void point_to_null_device() {
  const int null_device = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null_device < 0) return;
  for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null_device, standard);
  if (null_device > STDERR_FILENO) close(null_device);
}

}  // namespace

Launch::~Launch() {
  const int pipe = pipe_.exchange(-1);
  if (pipe >= 0) close(pipe);
}

Result<std::optional<int>> Launch::go_to_background() {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail(errno, "cannot make a pipe");
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    const int error = errno;
    close(ends[0]);
    close(ends[1]);
    return fail(error, "cannot start the daemon");
  }
  if (child > 0) {
    close(ends[1]);
    return std::optional<int>(wait_for(child, ends[0]));
  }
  close(ends[0]);
  pipe_ = ends[1];
  setsid();
  return std::optional<int>();
}

void Launch::report_ready() {
  const int pipe = pipe_.exchange(-1);
  if (pipe < 0) return;
  std::fflush(nullptr);
  point_to_null_device();
  static_cast<void>(!chdir("/"));
  const char ready = 1;
  static_cast<void>(!write(pipe, &ready, 1));
  close(pipe);
}

}  // namespace plumb::fuse
