// A Device behind the kernel's page cache: an ordinary file or a block device.
//
// Invariants
//   - flush() returns success only if no flush that ran at the same time failed: the kernel reports a failed writeback
//   to
//     one msync of this description, which need not be the one whose pages were lost;
//   - a failed flush is final for its pages: the kernel may have marked them clean, so that flushing them again
//   succeeds
//     without writing anything. The caller treats them as lost.
//
// Thread safety: that of Device.
#pragma once

#include <atomic>

#include "pmem/device.h"
#include "pmem/mapping.h"

namespace plumb::pmem {

class CachedDevice final : public Device {
 public:
  CachedDevice(DeviceInfo info, Mapping mapping);

  [[nodiscard]] Status store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  /// An ordinary store: flush it.
  [[nodiscard]] Status store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  [[nodiscard]] Status zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  /// msync of the pages around the range. counters().flushed_bytes counts whole pages.
  [[nodiscard]] Status flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  [[nodiscard]] Status drain() override;
  [[nodiscard]] Status deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;

 private:
  Mapping mapping_;
  std::uint64_t page_bytes_;
  std::atomic<std::uint64_t> failed_flushes_{0};
};

}  // namespace plumb::pmem
