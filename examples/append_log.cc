// A durable log: every line that this program has acknowledged survives a power cut.
//
//     append_log FILE [--batch N] < lines
//
// Appends each line of its input to FILE and prints "N durable" when N lines are. The pattern is the same on every
// POSIX file system: O_APPEND, write(2) in full, fdatasync(2), and only then the acknowledgement. On a plumbfs the
// fdatasync costs what the batch is long, not what the file is long, and on a memory device with writeback=immediate
// (the default) it finds nothing left to do.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <string_view>

namespace {

bool report(const char* what, const char* path) {
  std::fprintf(stderr, "append_log: %s %s: %s\n", what, path, std::strerror(errno));
  return false;
}

// write(2) may write less than asked, or be interrupted before it wrote anything.
bool write_fully(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// A new file is only as durable as its name: the directory is synced, too.
bool sync_directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool synced = ::fsync(fd) == 0;
  ::close(fd);
  return synced;
}

bool append_all(int fd, const char* path, unsigned batch) {
  std::string pending;
  unsigned long acknowledged = 0;
  unsigned long lines = 0;
  bool more = true;
  while (more) {
    std::string line;
    more = static_cast<bool>(std::getline(std::cin, line));
    if (more) {
      pending += line + "\n";
      ++lines;
    }
    if (pending.empty() || (more && lines - acknowledged < batch)) continue;
    if (!write_fully(fd, pending)) return report("cannot write to", path);
    // An error here is told once; after it nobody knows which lines are on the medium, so nothing is acknowledged.
    if (::fdatasync(fd) != 0) return report("cannot sync", path);
    pending.clear();
    acknowledged = lines;
    std::printf("%lu durable\n", acknowledged);
    std::fflush(stdout);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const bool batched = argc == 4 && std::string_view(argv[2]) == "--batch";
  const long batch = batched ? std::strtol(argv[3], nullptr, 10) : 1;
  if ((argc != 2 && !batched) || batch < 1) {
    std::fputs("usage: append_log FILE [--batch N] < lines\n", stderr);
    return 2;
  }
  const char* const path = argv[1];
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) {
    report("cannot open", path);
    return 1;
  }
  bool ok = sync_directory_of(path);
  if (!ok) report("cannot sync the directory of", path);
  ok = ok && append_all(fd, path, static_cast<unsigned>(batch));
  return ::close(fd) == 0 && ok ? 0 : 1;
}
