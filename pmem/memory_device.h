// A Device whose mapping is the medium: devdax, a file that MAP_SYNC accepts, tmpfs or hugetlbfs, or a file that the
// user asserts to be such (tests).
//
// Invariants
//   - no store is torn inside an aligned 8-byte word (word_store.h);
//   - store_nt and zero leave nothing that needs a flush: the unaligned ends are stored through the cache and written
//   back
//     here, the lines in between bypass it;
//   - the fence is issued on every platform: with eADR too, as non-temporal stores wait in write-combining buffers.
//
// Thread safety: that of Device. drain() covers what its own thread stored and flushed.
#pragma once

#include <memory>
#include <string>

#include "pmem/device.h"
#include "pmem/mapping.h"

namespace plumb::pmem {

/// What sysfs says about the nd region behind a memory device.
struct MemoryPlatform {
  bool caches_are_persistent = false;  // eADR of this device's region (persistence_domain cpu_cache)
  std::string deep_flush_path;         // the region's flush file, empty if there is nothing to do
};

class MemoryDevice final : public Device {
 public:
  MemoryDevice(DeviceInfo info, Mapping mapping, MemoryPlatform platform);

  [[nodiscard]] Status store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  [[nodiscard]] Status store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  [[nodiscard]] Status zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  [[nodiscard]] Status flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  [[nodiscard]] Status drain() override;
  [[nodiscard]] Status deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;

 private:
  void write_back_lines(const std::byte* address, std::size_t length_bytes) const;
  void stream(std::byte* destination, const std::byte* source, std::size_t length_bytes) const;
  void stream_zeros(std::byte* destination, std::size_t length_bytes) const;
  void store_zeros_and_write_back(std::byte* destination, std::size_t length_bytes) const;

  Mapping mapping_;
  MemoryPlatform platform_;
};

}  // namespace plumb::pmem
