// What does one fsync flush? Reads the counters of a mounted plumbfs around it.
//
//     fsync_cost DIRECTORY
//
// Makes a file of 16 MiB in DIRECTORY, which must be on a plumbfs, syncs it, then changes 4 KiB in its middle, syncs
// again, and prints the counters' difference for both: on a page-cached device, or with writeback=deferred, 16 MiB and
// then one page. With writeback=immediate on a memory device nothing is left to flush. `plumb stat` shows the same
// counters.

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fs/client/protocol.h"

namespace {

constexpr std::size_t kFileBytes = 16u << 20;
constexpr std::size_t kPageBytes = 4096;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "fsync_cost: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

// The counters are one JSON object; a program with a JSON library parses it, this one looks for the first number of a
// name.
std::uint64_t counter(int fd, const char* name) {
  const auto statistics = std::make_unique<plumb::protocol::Statistics>();
  if (::ioctl(fd, plumb::protocol::kIocStatistics, statistics.get()) != 0) fail("not on a plumbfs");
  const std::string text(statistics->text, statistics->length_bytes);
  const std::string quoted = "\"" + std::string(name) + "\":";
  const std::size_t at = text.find(quoted);
  return at == std::string::npos ? 0 : std::strtoull(text.c_str() + at + quoted.size(), nullptr, 10);
}

void write_at(int fd, std::size_t offset_bytes, std::size_t length_bytes, char fill) {
  const std::vector<char> bytes(length_bytes, fill);
  const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes));
  if (written != static_cast<ssize_t>(bytes.size())) fail("pwrite");
}

void sync_and_print(int fd, const char* what) {
  const std::uint64_t ranges = counter(fd, "writeback_ranges");
  const std::uint64_t bytes = counter(fd, "writeback_bytes");
  if (::fsync(fd) != 0) fail("fsync");
  std::printf("%-18s %llu bytes in %llu ranges\n", what,
              static_cast<unsigned long long>(counter(fd, "writeback_bytes") - bytes),
              static_cast<unsigned long long>(counter(fd, "writeback_ranges") - ranges));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: fsync_cost DIRECTORY\n", stderr);
    return 2;
  }
  std::string name = std::string(argv[1]) + "/fsync_cost.XXXXXX";
  const int fd = ::mkstemp(name.data());
  if (fd < 0) fail(argv[1]);
  ::unlink(name.c_str());  // gone when the program ends, however it ends
  write_at(fd, 0, kFileBytes, 'a');
  sync_and_print(fd, "16 MiB written:");
  write_at(fd, kFileBytes / 2, kPageBytes, 'b');
  sync_and_print(fd, "one page changed:");
  ::close(fd);
  return 0;
}
