#include "pmem/memory_device.h"

#include <fcntl.h>
#include <libpmem.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "pmem/sigbus_guard.h"
#include "pmem/word_store.h"

namespace plumb::pmem {

namespace {

constexpr std::size_t kLineBytes = 64;
// Below this, stores through the cache and clwb beat streaming stores (libpmem's own measured threshold).
constexpr std::size_t kStreamThresholdBytes = 256;
constexpr unsigned kStreamFlags = PMEM_F_MEM_NONTEMPORAL | PMEM_F_MEM_NODRAIN;

std::size_t bytes_to_next_line(const std::byte* address) {
  return (kLineBytes - reinterpret_cast<std::uintptr_t>(address) % kLineBytes) % kLineBytes;
}

}  // namespace

MemoryDevice::MemoryDevice(DeviceInfo info, Mapping mapping, MemoryPlatform platform)
    : mapping_(std::move(mapping)), platform_(std::move(platform)) {
  info_ = std::move(info);
  info_.kind = DeviceKind::kMemory;
  base_ = mapping_.base();
}

// pmem_flush() does nothing in a process whose nd regions all have eADR, even for memory of none of them; persistence
// of the caches is a property of the device. pmem_deep_flush() writes back always.
void MemoryDevice::write_back_lines(const std::byte* address, std::size_t length_bytes) const {
  if (platform_.caches_are_persistent) {
    pmem_flush(address, length_bytes);
  } else {
    pmem_deep_flush(address, length_bytes);
  }
}

// libpmem copies the unaligned ends with stores of its own choice of size; those are done here instead, word by word.
void MemoryDevice::stream(std::byte* destination, const std::byte* source, std::size_t length_bytes) const {
  if (length_bytes < kStreamThresholdBytes) {
    store_words(destination, source, length_bytes);
    write_back_lines(destination, length_bytes);
    return;
  }
  const std::size_t head = bytes_to_next_line(destination);
  const std::size_t middle = (length_bytes - head) / kLineBytes * kLineBytes;
  const std::size_t tail = length_bytes - head - middle;
  if (head != 0) {
    store_words(destination, source, head);
    write_back_lines(destination, head);
  }
  pmem_memcpy(destination + head, source + head, middle, kStreamFlags);
  if (tail != 0) {
    store_words(destination + head + middle, source + head + middle, tail);
    write_back_lines(destination + head + middle, tail);
  }
}

void MemoryDevice::store_zeros_and_write_back(std::byte* destination, std::size_t length_bytes) const {
  static constexpr std::array<std::byte, kStreamThresholdBytes> kZeros{};
  if (length_bytes == 0) return;
  store_words(destination, kZeros.data(), length_bytes);
  write_back_lines(destination, length_bytes);
}

void MemoryDevice::stream_zeros(std::byte* destination, std::size_t length_bytes) const {
  if (length_bytes < kStreamThresholdBytes) {
    store_zeros_and_write_back(destination, length_bytes);
    return;
  }
  const std::size_t head = bytes_to_next_line(destination);
  const std::size_t middle = (length_bytes - head) / kLineBytes * kLineBytes;
  store_zeros_and_write_back(destination, head);
  pmem_memset(destination + head, 0, middle, kStreamFlags);
  store_zeros_and_write_back(destination + head + middle, length_bytes - head - middle);
}

Status MemoryDevice::store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  PLUMB_TRY(check_store(offset_bytes, bytes.size()));
  std::byte* destination = base_ + offset_bytes;
  const Fault fault =
      run_guarded({destination, bytes.size()}, [&] { store_words(destination, bytes.data(), bytes.size()); });
  if (fault) return fault_error(fault.address, fault.is_poison);
  counters_.stored_bytes.fetch_add(bytes.size(), std::memory_order_relaxed);
  return {};
}

Status MemoryDevice::store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  PLUMB_TRY(check_store(offset_bytes, bytes.size()));
  std::byte* destination = base_ + offset_bytes;
  const Fault fault =
      run_guarded({destination, bytes.size()}, [&] { stream(destination, bytes.data(), bytes.size()); });
  if (fault) return fault_error(fault.address, fault.is_poison);
  counters_.stored_bytes.fetch_add(bytes.size(), std::memory_order_relaxed);
  return {};
}

Status MemoryDevice::zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(check_store(offset_bytes, length_bytes));
  std::byte* destination = base_ + offset_bytes;
  const Fault fault = run_guarded({destination, length_bytes}, [&] { stream_zeros(destination, length_bytes); });
  if (fault) return fault_error(fault.address, fault.is_poison);
  counters_.stored_bytes.fetch_add(length_bytes, std::memory_order_relaxed);
  return {};
}

Status MemoryDevice::flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(check_range(offset_bytes, length_bytes));
  const std::byte* address = base_ + offset_bytes;
  // clwb of an address without storage faults like a load.
  const Fault fault = run_guarded({address, length_bytes}, [&] { write_back_lines(address, length_bytes); });
  if (fault) return fault_error(fault.address, fault.is_poison);
  counters_.flush_calls.fetch_add(1, std::memory_order_relaxed);
  counters_.flushed_bytes.fetch_add(length_bytes, std::memory_order_relaxed);
  return {};
}

Status MemoryDevice::drain() {
  // sfence. Before it: lines this thread wrote back and streaming stores, on their way. After it: in the persistence
  // domain.
  pmem_drain();
  counters_.drains.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Status MemoryDevice::deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(flush(offset_bytes, length_bytes));
  // The lines must have reached the memory controller before it is told to empty its queues.
  PLUMB_TRY(drain());
  if (platform_.deep_flush_path.empty()) return {};
  // By hand: pmem_deep_drain() hides the errors of this file.
  const int fd = open(platform_.deep_flush_path.c_str(), O_WRONLY | O_CLOEXEC);
  const int open_errno = errno;
  const bool written = fd >= 0 && write(fd, "1", 1) == 1;
  const int error = fd >= 0 ? errno : open_errno;
  if (fd >= 0) close(fd);
  if (written) return {};
  counters_.errors.fetch_add(1, std::memory_order_relaxed);
  return fail(error, "deep flush through " + platform_.deep_flush_path, offset_bytes);
}

}  // namespace plumb::pmem
