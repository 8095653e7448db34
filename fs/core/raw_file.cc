#include "fs/core/raw_file.h"

#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <utility>

#include "fs/core/file_bytes.h"

namespace plumb {
namespace {

constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr std::uint64_t kZeroPieceBytes = 1 << 20;
// The kernel writes a page-cached device back by itself after 30 s; six times the default interval is the same.
constexpr unsigned kCachedIntervalFactor = 6;

std::int64_t clock_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  return now.tv_sec * kNanosecondsPerSecond + now.tv_nsec;
}

}  // namespace

RawFile::RawFile(pmem::Device& device, const RawFileOptions& options)
    : device_(device), options_(options), modified_nanoseconds_(clock_nanoseconds()) {}

Result<std::unique_ptr<RawFile>> RawFile::open(pmem::Device& device, const RawFileOptions& options) {
  std::unique_ptr<RawFile> file(new RawFile(device, options));
  if (options.read_only) return file;
  PLUMB_TRY(file->make_earlier_stores_durable());
  const bool waits = !file->is_immediate();
  if (waits && options.interval_seconds != 0 && options.background_thread) {
    file->timer_ = std::thread([raw = file.get()] { raw->timer_loop(); });
  }
  return file;
}

RawFile::~RawFile() {
  {
    const MutexLock lock(timer_mutex_);
    stop_ = true;
  }
  timer_condition_.notify_all();
  if (timer_.joinable()) timer_.join();
}

Status RawFile::close() {
  {
    const MutexLock lock(timer_mutex_);
    stop_ = true;
  }
  timer_condition_.notify_all();
  if (timer_.joinable()) timer_.join();
  return sync();
}

bool RawFile::is_immediate() const {
  return device_.is_memory() && options_.writeback == Writeback::kImmediate;
}

Status RawFile::make_earlier_stores_durable() {
  if (is_immediate() || device_.info().is_volatile) return {};
  return device_.persist(0, device_.size_bytes());
}

Timestamp RawFile::modified() const {
  const std::int64_t time = modified_nanoseconds_.load(std::memory_order_relaxed);
  return {.seconds = time / kNanosecondsPerSecond,
          .nanoseconds = static_cast<std::uint32_t>(time % kNanosecondsPerSecond)};
}

std::unique_ptr<RawHandle> RawFile::open_handle() const {
  auto handle = std::make_unique<RawHandle>();
  handle->seen_error = error_count_.load(std::memory_order_acquire);
  return handle;
}

ReadPin RawFile::read(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  ReadPin pin;
  if (offset_bytes >= size_bytes()) return pin;
  pin.length_bytes = std::min(length_bytes, size_bytes() - offset_bytes);
  if (pin.length_bytes == 0) return pin;
  const std::byte* bytes = device_.view(offset_bytes, pin.length_bytes);
  pin.iov.push_back({.iov_base = const_cast<std::byte*>(bytes), .iov_len = pin.length_bytes});
  return pin;
}

Result<std::uint64_t> RawFile::write(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  if (read_only()) return fail(EROFS);
  if (bytes.empty()) return 0;
  if (offset_bytes >= size_bytes()) return fail(ENOSPC);
  const std::uint64_t length_bytes = std::min<std::uint64_t>(bytes.size(), size_bytes() - offset_bytes);
  const auto fitting = bytes.first(length_bytes);
  // Streaming stores, unless the caches are to keep the data until somebody asks for it to be durable.
  const bool stream = is_immediate() || !device_.is_memory();
  const Status status = store_file_bytes(device_, offset_bytes, fitting, stream);
  const Status after = stored(offset_bytes, length_bytes);
  PLUMB_TRY(status);
  PLUMB_TRY(after);
  return length_bytes;
}

Status RawFile::stored(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  modified_nanoseconds_.store(clock_nanoseconds(), std::memory_order_relaxed);
  if (is_immediate()) return device_.drain();  // durable before the reply
  // After the store: a walk that took the range before it would not have flushed it.
  dirty_.add(offset_bytes, length_bytes);
  return options_.sync ? sync() : Status{};
}

Status RawFile::allocate(int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  constexpr int kZeroing = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE;
  if ((mode & ~(kZeroing | FALLOC_FL_KEEP_SIZE)) != 0 || (mode & kZeroing) == kZeroing) return fail(EOPNOTSUPP);
  if (read_only()) return fail(EROFS);
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const bool fits = offset_bytes <= size_bytes() && length_bytes <= size_bytes() - offset_bytes;
  if ((mode & kZeroing) == 0) return fits ? Status{} : fail(ENOSPC);
  if (!fits && !keep_size) return fail(ENOSPC);
  if (offset_bytes >= size_bytes()) return {};
  const std::uint64_t end = offset_bytes + std::min(length_bytes, size_bytes() - offset_bytes);
  for (std::uint64_t at = offset_bytes; at < end; at += kZeroPieceBytes) {
    const std::uint64_t piece = std::min(kZeroPieceBytes, end - at);
    const Status status = zero_file_bytes(device_, at, piece);
    const Status after = stored(at, piece);
    PLUMB_TRY(status);
    PLUMB_TRY(after);
  }
  return {};
}

Result<std::uint64_t> RawFile::seek(std::uint64_t offset_bytes, int whence) const {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return fail(EINVAL);
  if (offset_bytes >= size_bytes()) return fail(ENXIO);
  return whence == SEEK_DATA ? offset_bytes : size_bytes();
}

Status RawFile::sync() {
  // A second caller waits for the first: what that one took is durable when this one returns.
  const MutexLock walk(writeback_mutex_);
  const Status status = write_back_ranges(device_, dirty_, &writeback_counters_);
  if (!status) error_count_.fetch_add(1, std::memory_order_acq_rel);
  return status;
}

Status RawFile::fsync(RawHandle& handle) {
  const Status status = sync();
  const std::uint64_t errors = error_count_.load(std::memory_order_acquire);
  if (handle.seen_error.exchange(errors, std::memory_order_acq_rel) != errors) {
    return status ? fail(EIO, device_.info().path + ": an earlier writeback failed") : status;
  }
  return status;
}

DeviceStatistics RawFile::statistics() const {
  DeviceStatistics result = statistics_of(device_, writeback_counters_);
  result.dirty_bytes = dirty_.bytes();
  return result;
}

void RawFile::timer_loop() {
  const auto interval =
      std::chrono::seconds(options_.interval_seconds) * (device_.is_memory() ? 1 : kCachedIntervalFactor);
  auto next = std::chrono::steady_clock::now() + interval;
  while (true) {
    {
      MutexLock lock(timer_mutex_);
      while (!stop_ && std::chrono::steady_clock::now() < next) {
        lock.wait_for(timer_condition_, next - std::chrono::steady_clock::now());
      }
      if (stop_) return;
    }
    static_cast<void>(sync());  // an error is kept for the next fsync of each handle
    next = std::chrono::steady_clock::now() + interval;
  }
}

}  // namespace plumb
