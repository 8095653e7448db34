#include "test/crash/setting.h"

#include "test/unit/core_world.h"

namespace plumb::test {

bool Setting::is_immediate(std::uint32_t inode_flags) const {
  const bool is_realtime = has_realtime() && (inode_flags & kInodeRealtime) != 0;
  const pmem::DeviceKind kind = is_realtime ? *kinds.realtime : kinds.main;
  return kind == pmem::DeviceKind::kMemory && writeback == Writeback::kImmediate;
}

MountOptions Setting::mount_options() const {
  MountOptions options = quiet_mount();
  options.writeback = writeback;
  return options;
}

const std::vector<Setting>& settings() {
  using pmem::DeviceKind;
  static const std::vector<Setting> all{
      {"memory, 4 KiB blocks", {DeviceKind::kMemory, {}}, 4096},
      {"memory, 1 KiB blocks", {DeviceKind::kMemory, {}}, 1024},
      {"memory, deferred, 1 KiB blocks", {DeviceKind::kMemory, {}}, 1024, Writeback::kDeferred},
      {"page-cached, 4 KiB blocks", {DeviceKind::kCached, {}}, 4096},
      {"page-cached, 1 KiB blocks", {DeviceKind::kCached, {}}, 1024},
  };
  return all;
}

const std::vector<Setting>& realtime_settings() {
  using enum pmem::DeviceKind;
  static const std::vector<Setting> all{
      {"memory + memory, 4 KiB blocks, 64 KiB extents", {kMemory, kMemory}, 4096},
      {"memory + memory, deferred, 1 KiB blocks, 4 KiB extents", {kMemory, kMemory}, 1024, Writeback::kDeferred, 4096},
      {"page-cached + page-cached, 1 KiB blocks, 4 KiB extents", {kCached, kCached}, 1024, Writeback::kImmediate, 4096},
      {"memory + page-cached, 1 KiB blocks, 4 KiB extents", {kMemory, kCached}, 1024, Writeback::kImmediate, 4096},
      {"page-cached + memory, 4 KiB blocks, 64 KiB extents", {kCached, kMemory}, 4096},
      {"page-cached + memory, deferred, 4 KiB blocks, 4 KiB extents",
       {kCached, kMemory},
       4096,
       Writeback::kDeferred,
       4096},
      {"memory + page-cached, deferred, 4 KiB blocks, 64 KiB extents", {kMemory, kCached}, 4096, Writeback::kDeferred},
  };
  return all;
}

}  // namespace plumb::test
