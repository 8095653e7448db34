// Four processes on one file: two with the preload library, which read, write and map its blocks themselves, and two
// that go by FUSE. A lock makes one operation of all happen at a time; its outcome must be that of a model which the
// processes share. So whatever one of them does is seen by the others at once: bytes, size, holes.
//
// The processes that go by FUSE do not map: a FUSE map beside direct stores is not coherent (fs/DESIGN.md).
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

#include "test/direct/direct.h"

namespace direct_test {
namespace {

constexpr std::uint64_t kMost = 1u << 20;
constexpr int kWorkers = 4;

struct Shared {
  pthread_mutex_t mutex;
  std::uint64_t done, limit, size;
  std::uint64_t reads, writes, sizes, map_reads, map_writes, direct_maps, kernel_maps;
  char failure[512];
  unsigned char model[kMost];
};

class Worker {
 public:
  Worker(Shared& shared, std::string name, std::string mount_point, bool direct, std::uint64_t seed)
      : shared_(shared),
        name_(std::move(name)),
        mount_point_(std::move(mount_point)),
        path_(mount_point_ + "/mixed"),
        direct_(direct),
        random_(seed) {
    reopen();
  }

  bool step() {
    if (::pthread_mutex_lock(&shared_.mutex) != 0) return false;  // somebody died with it
    const bool more = shared_.done < shared_.limit && shared_.failure[0] == 0;
    if (more) {
      try {
        operate();
      } catch (const Failure& failure) {
        std::snprintf(shared_.failure, sizeof shared_.failure, "%s (%s), operation %llu: %s", name_.c_str(),
                      direct_ ? "direct" : "FUSE", static_cast<unsigned long long>(shared_.done), failure.what());
      }
      ++shared_.done;
    }
    ::pthread_mutex_unlock(&shared_.mutex);
    return more;
  }

 private:
  void reopen() {
    unmap();
    if (fd_ >= 0) ::close(fd_);
    if (append_ >= 0) ::close(append_);
    fd_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    append_ = ::open(path_.c_str(), O_RDWR | O_APPEND | O_CLOEXEC);
    if (fd_ < 0 || append_ < 0) fail_errno(path_);
  }

  void unmap() {
    if (map_ != nullptr) ::munmap(map_, map_bytes_);
    map_ = nullptr;
  }

  void remap() {
    unmap();
    if (shared_.size == 0) return;
    map_bytes_ = (shared_.size + 4095) / 4096 * 4096;
    void* const at = ::mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (at == MAP_FAILED) fail_errno("mmap of " + std::to_string(map_bytes_));
    map_ = static_cast<unsigned char*>(at);
    if (is_direct_map(at, mount_point_)) {
      ++shared_.direct_maps;
      return;
    }
    ++shared_.kernel_maps;
    unmap();
  }

  std::pair<std::uint64_t, std::uint64_t> range(std::uint64_t end, std::uint64_t most) {
    const std::uint64_t at = random_.below(end);
    return {at, 1 + random_.below(std::min(most, end - at))};
  }

  void compare(const unsigned char* seen, std::uint64_t at, std::uint64_t length, const char* what) {
    const unsigned char* const wanted = shared_.model + at;
    if (std::memcmp(seen, wanted, length) == 0) return;
    std::uint64_t i = 0;
    while (seen[i] == wanted[i]) ++i;
    throw Failure(std::string(what) + " of " + std::to_string(at) + "+" + std::to_string(length) + ": byte " +
                  std::to_string(at + i) + " is " + std::to_string(seen[i]) + ", not " + std::to_string(wanted[i]) +
                  "; size " + std::to_string(shared_.size));
  }

  void fill(std::uint64_t length) {
    for (std::uint64_t i = 0; i < length; i += 8) {
      const std::uint64_t value = random_.next() | 1;
      std::memcpy(buffer_ + i, &value, 8);
    }
  }

  void read() {
    const auto [at, length] = range(kMost, 65536);
    const ssize_t got = ::pread(fd_, buffer_, length, static_cast<off_t>(at));
    if (got < 0) fail_errno("pread");
    const std::uint64_t expected = at >= shared_.size ? 0 : std::min(length, shared_.size - at);
    if (static_cast<std::uint64_t>(got) != expected)
      throw Failure("pread of " + std::to_string(at) + "+" + std::to_string(length) + " returned " +
                    std::to_string(got) + ", not " + std::to_string(expected));
    compare(buffer_, at, expected, "pread");
    ++shared_.reads;
  }

  void write() {
    const auto [at, length] = range(random_.below(8) == 0 ? kMost : std::max<std::uint64_t>(shared_.size, 1), 32768);
    fill(length);
    if (::pwrite(fd_, buffer_, length, static_cast<off_t>(at)) != static_cast<ssize_t>(length)) fail_errno("pwrite");
    std::memcpy(shared_.model + at, buffer_, length);
    shared_.size = std::max(shared_.size, at + length);
    ++shared_.writes;
  }

  void append() {
    const std::uint64_t length = 1 + random_.below(8192);
    if (shared_.size + length > kMost) return truncate();
    fill(length);
    if (::write(append_, buffer_, length) != static_cast<ssize_t>(length)) fail_errno("append");
    std::memcpy(shared_.model + shared_.size, buffer_, length);
    shared_.size += length;
  }

  void truncate() {
    const std::uint64_t size = random_.below(kMost);
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) fail_errno("ftruncate");
    if (size < shared_.size) std::memset(shared_.model + size, 0, shared_.size - size);
    shared_.size = size;
  }

  void allocate() {
    const auto [at, length] = range(kMost, 200'000);
    const int modes[] = {0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                         FALLOC_FL_KEEP_SIZE};
    const int mode = modes[random_.below(4)];
    if (::fallocate(fd_, mode, static_cast<off_t>(at), static_cast<off_t>(length)) != 0) fail_errno("fallocate");
    if (mode == 0) shared_.size = std::max(shared_.size, at + length);
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 && at < shared_.size)
      std::memset(shared_.model + at, 0, std::min(length, shared_.size - at));
  }

  void size() {
    struct stat status {};
    if (::fstat(fd_, &status) != 0) fail_errno("fstat");
    if (static_cast<std::uint64_t>(status.st_size) != shared_.size)
      throw Failure("fstat says " + std::to_string(status.st_size) + " bytes, not " + std::to_string(shared_.size));
    ++shared_.sizes;
  }

  void use_map(bool store) {
    if (map_ == nullptr || random_.below(50) == 0) remap();
    const std::uint64_t end = std::min<std::uint64_t>(map_ == nullptr ? 0 : map_bytes_, shared_.size);
    if (end == 0) return;
    const auto [at, length] = range(end, 32768);
    if (!store) {
      compare(map_ + at, at, length, "load");
      ++shared_.map_reads;
      return;
    }
    fill(length);
    std::memcpy(map_ + at, buffer_, length);
    std::memcpy(shared_.model + at, buffer_, length);
    if (random_.below(4) == 0 && ::msync(map_, map_bytes_, MS_SYNC) != 0) fail_errno("msync");
    ++shared_.map_writes;
  }

  void operate() {
    const std::uint64_t choice = random_.below(direct_ ? 100 : 82);
    if (choice < 30) return read();
    if (choice < 60) return write();
    if (choice < 65) return append();
    if (choice < 68) return truncate();
    if (choice < 73) return allocate();
    if (choice < 78) return size();
    if (choice < 80) {
      if ((random_.below(2) == 0 ? ::fsync(fd_) : ::fdatasync(fd_)) != 0) fail_errno("fsync");
      return;
    }
    if (choice < 82) return reopen();
    use_map(choice < 91);
  }

  Shared& shared_;
  const std::string name_, mount_point_, path_;
  const bool direct_;
  Random random_;
  int fd_ = -1, append_ = -1;
  unsigned char* map_ = nullptr;
  std::uint64_t map_bytes_ = 0;
  alignas(8) unsigned char buffer_[65536 + 8];
};

}  // namespace

// FD NUMBER MOUNT_POINT DIRECT SEED
int mixed_worker(const std::vector<std::string>& arguments) {
  auto& shared = *static_cast<Shared*>(map_shared(std::stoi(arguments.at(0)), sizeof(Shared)));
  const auto worker = std::make_unique<Worker>(shared, "process " + arguments.at(1), arguments.at(2),
                                               arguments.at(3) == "1", std::stoull(arguments.at(4)));
  while (worker->step()) {
  }
  return 0;
}

void run_mixed(const MixedOptions& options) {
  const int fd = make_shared(sizeof(Shared));
  auto& shared = *static_cast<Shared*>(map_shared(fd, sizeof(Shared)));
  pthread_mutexattr_t attributes;
  ::pthread_mutexattr_init(&attributes);
  ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  ::pthread_mutex_init(&shared.mutex, &attributes);
  shared.limit = options.operations;
  const std::string path = options.mount_point + "/mixed";
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) fail_errno(path);
  ::close(file);
  std::vector<pid_t> children;
  for (int i = 0; i < kWorkers; ++i) {
    const bool direct = i % 2 == 0;
    children.push_back(spawn_worker({"mixed-worker", std::to_string(fd), std::to_string(i), options.mount_point,
                                     direct ? "1" : "0", std::to_string(options.seed * kWorkers + i)},
                                    direct ? options.preload : "", fd));
  }
  bool died = false;
  for (const pid_t child : children) {
    int status = 0;
    if (::waitpid(child, &status, 0) < 0) fail_errno("waitpid");
    died = died || !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  }
  if (shared.failure[0] != 0) throw Failure(shared.failure);
  if (died) throw Failure("a process died");
  if (shared.done < shared.limit) throw Failure("only " + std::to_string(shared.done) + " operations were done");
  std::printf(
      "%llu operations: %llu reads, %llu writes, %llu loads and %llu stores through %llu direct maps (%llu by "
      "the kernel); no difference\n",
      static_cast<unsigned long long>(shared.done), static_cast<unsigned long long>(shared.reads),
      static_cast<unsigned long long>(shared.writes), static_cast<unsigned long long>(shared.map_reads),
      static_cast<unsigned long long>(shared.map_writes), static_cast<unsigned long long>(shared.direct_maps),
      static_cast<unsigned long long>(shared.kernel_maps));
  if (shared.limit >= 1000 && (shared.direct_maps == 0 || shared.map_writes == 0))
    throw Failure("nothing was mapped directly: the test has not tested anything");
}

}  // namespace direct_test
