#include "pmem/cached_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "pmem/sigbus_guard.h"

namespace plumb::pmem {

CachedDevice::CachedDevice(DeviceInfo info, Mapping mapping)
    : mapping_(std::move(mapping)), page_bytes_(static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE))) {
  info_ = std::move(info);
  info_.kind = DeviceKind::kCached;
  base_ = mapping_.base();
}

Status CachedDevice::store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  PLUMB_TRY(check_store(offset_bytes, bytes.size()));
  if (bytes.empty()) return {};
  std::byte* destination = base_ + offset_bytes;
  const Fault fault =
      run_guarded({destination, bytes.size()}, [&] { std::memcpy(destination, bytes.data(), bytes.size()); });
  if (fault) return fault_error(fault.address, fault.is_poison);
  counters_.stored_bytes.fetch_add(bytes.size(), std::memory_order_relaxed);
  return {};
}

Status CachedDevice::store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  return store(offset_bytes, bytes);
}

Status CachedDevice::zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(check_store(offset_bytes, length_bytes));
  std::byte* destination = base_ + offset_bytes;
  const Fault fault = run_guarded({destination, length_bytes}, [&] { std::memset(destination, 0, length_bytes); });
  if (fault) return fault_error(fault.address, fault.is_poison);
  counters_.stored_bytes.fetch_add(length_bytes, std::memory_order_relaxed);
  return {};
}

Status CachedDevice::flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(check_range(offset_bytes, length_bytes));
  if (length_bytes == 0) return {};
  const std::uint64_t begin = offset_bytes / page_bytes_ * page_bytes_;
  const std::uint64_t end = (offset_bytes + length_bytes + page_bytes_ - 1) / page_bytes_ * page_bytes_;
  counters_.flush_calls.fetch_add(1, std::memory_order_relaxed);
  counters_.flushed_bytes.fetch_add(end - begin, std::memory_order_relaxed);

  const std::uint64_t failures_before = failed_flushes_.load(std::memory_order_acquire);
  int error = 0;
  if (msync(base_ + begin, end - begin, MS_SYNC) != 0) {
    error = errno == ENOMEM || errno == EINVAL ? EIO : errno;
    failed_flushes_.fetch_add(1, std::memory_order_acq_rel);
  } else if (failed_flushes_.load(std::memory_order_acquire) != failures_before) {
    // Another thread's msync took the error that may have been about these pages.
    error = EIO;
  }
  if (error == 0) return {};
  counters_.errors.fetch_add(1, std::memory_order_relaxed);
  return fail(error, "writing back to " + info_.path + " failed, the pages are lost", begin);
}

Status CachedDevice::drain() {
  // Nothing to wait for: msync waited. Counted, so that statistics show the callers' fences on either kind.
  counters_.drains.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Status CachedDevice::deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  // msync ends in the file system's fsync, which empties the cache of the disk as well.
  return flush(offset_bytes, length_bytes);
}

}  // namespace plumb::pmem
