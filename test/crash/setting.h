// What a crash test runs on: devices, block size, mode of writeback.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "fs/core/volume.h"
#include "test/crash/machine.h"

namespace plumb::test {

struct Setting {
  const char* name;
  MachineKinds kinds;
  std::uint32_t block_size_bytes;
  Writeback writeback = Writeback::kImmediate;
  std::uint32_t realtime_extent_bytes = 64u << 10;

  [[nodiscard]] bool has_realtime() const { return kinds.realtime.has_value(); }
  /// Metadata is durable when an operation has been answered.
  [[nodiscard]] bool has_memory_log() const { return kinds.main == pmem::DeviceKind::kMemory; }
  /// So are the bytes of a file with these flags.
  [[nodiscard]] bool is_immediate(std::uint32_t inode_flags) const;
  [[nodiscard]] MountOptions mount_options() const;
};

/// Both kinds and both modes, with the block sizes that matter.
[[nodiscard]] const std::vector<Setting>& settings();
/// With a realtime device: all mixes of kinds.
[[nodiscard]] const std::vector<Setting>& realtime_settings();

}  // namespace plumb::test
