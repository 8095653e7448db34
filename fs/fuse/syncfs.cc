#include "fs/fuse/syncfs.h"

#include <linux/fuse.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "fs/fuse/capabilities.h"

namespace plumb::fuse {
namespace {

// Handles of directories are 0: nothing opens them.
constexpr std::uint64_t kSyncfsHandle = ~std::uint64_t{0};

// The largest request is a write with its headers; the kernel wants room for one of the size that was agreed on.
constexpr std::size_t kRequestBytes = kMaxWriteBytes + FUSE_MIN_READ_BUFFER;

constexpr auto kWakePeriod = std::chrono::milliseconds(20);

}  // namespace

std::size_t turn_syncfs(void* buffer, std::size_t length_bytes, std::size_t buffer_bytes) {
  fuse_in_header header{};
  constexpr std::size_t kTurnedBytes = sizeof header + sizeof(fuse_fsync_in);
  if (length_bytes < sizeof header || buffer_bytes < kTurnedBytes) return length_bytes;
  std::memcpy(&header, buffer, sizeof header);
  if (header.opcode != FUSE_SYNCFS) return length_bytes;
  header.opcode = FUSE_FSYNCDIR;
  header.len = kTurnedBytes;
  fuse_fsync_in request{};
  request.fh = kSyncfsHandle;
  std::memcpy(buffer, &header, sizeof header);
  std::memcpy(static_cast<char*>(buffer) + sizeof header, &request, sizeof request);
  return kTurnedBytes;
}

bool is_syncfs(const fuse_file_info& file) {
  return file.fh == kSyncfsHandle;
}

int RequestLoop::run() {
  {
    const MutexLock lock(mutex_);
    working_ = threads_;
  }
  std::vector<std::thread> workers;
  for (unsigned i = 0; i < threads_; ++i) workers.emplace_back([this] { work(); });
  int error = 0;
  {
    MutexLock lock(mutex_);
    while (working_ > 0) {
      if (fuse_session_exited(session_) == 0) {
        lock.wait(changed_);
        continue;
      }
      // Out of read(2). Again and again: a signal just before it would be lost.
      for (std::thread& worker : workers) pthread_kill(worker.native_handle(), SIGUSR1);
      lock.wait_for(changed_, kWakePeriod);
    }
    error = error_;
  }
  for (std::thread& worker : workers) worker.join();
  return error;
}

void RequestLoop::end() {
  fuse_session_exit(session_);
  const MutexLock lock(mutex_);
  changed_.notify_all();
}

void RequestLoop::work() {
  std::vector<char> buffer(kRequestBytes);
  int error = 0;
  while (error == 0 && fuse_session_exited(session_) == 0) error = serve_one(buffer);
  // One that ends means that all do.
  if (error != 0) fuse_session_exit(session_);
  const MutexLock lock(mutex_);
  if (error != 0 && error != -ENODEV) error_ = error;
  --working_;
  changed_.notify_all();
}

int RequestLoop::serve_one(std::vector<char>& buffer) {
  const ssize_t got = read(fuse_session_fd(session_), buffer.data(), buffer.size());
  if (got < 0) {
    // ENOENT: whoever asked was interrupted before we read it. ENODEV: unmounted.
    const bool again = errno == EINTR || errno == EAGAIN || errno == ENOENT;
    return again ? 0 : -errno;
  }
  fuse_buf request{};
  request.mem = buffer.data();
  request.size = turn_syncfs(buffer.data(), static_cast<std::size_t>(got), buffer.size());
  fuse_session_process_buf(session_, &request);
  return 0;
}

}  // namespace plumb::fuse
