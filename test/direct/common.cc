#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>

#include "fs/client/protocol.h"
#include "test/direct/direct.h"

namespace direct_test {

void fail_errno(const std::string& what) {
  throw Failure(what + ": " + std::strerror(errno));
}

pid_t spawn_worker(const std::vector<std::string>& arguments, const std::string& preload, int shared) {
  const pid_t child = ::fork();
  if (child < 0) fail_errno("fork");
  if (child > 0) return child;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!preload.empty()) ::setenv("LD_PRELOAD", preload.c_str(), 1);
  ::fcntl(shared, F_SETFD, 0);
  std::vector<char*> pointers;
  std::string self = "/proc/self/exe";
  pointers.push_back(self.data());
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  ::execv("/proc/self/exe", pointers.data());
  ::_exit(127);
}

bool is_direct_map(const void* address, const std::string& mount_point) {
  std::ifstream file("/proc/self/maps");
  const auto wanted = reinterpret_cast<std::uintptr_t>(address);
  for (std::string line; std::getline(file, line);) {
    std::uintptr_t begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) != 2) continue;
    if (wanted < begin || wanted >= end) continue;
    return line.find('/') != std::string::npos && line.find(mount_point + "/") == std::string::npos;
  }
  return false;
}

int make_shared(std::size_t bytes) {
  const int fd = ::memfd_create("plumb_direct", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) fail_errno("shared memory");
  return fd;
}

void* map_shared(int fd, std::size_t bytes) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) fail_errno("shared memory");
  return at;
}

std::string statistics(const std::string& mount_point) {
  const int fd = ::open(mount_point.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail_errno(mount_point);
  const auto answer = std::make_unique<plumb::protocol::Statistics>();
  const int outcome = ::ioctl(fd, plumb::protocol::kIocStatistics, answer.get());
  ::close(fd);
  if (outcome != 0) fail_errno("statistics of " + mount_point);
  return {answer->text, answer->length_bytes};
}

std::uint64_t Random::next() {
  // splitmix64
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace direct_test
