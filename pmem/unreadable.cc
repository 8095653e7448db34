#include "pmem/unreadable.h"

namespace plumb::pmem {
namespace {

// By halves: usually little is bad.
void find(const Device& device, std::uint64_t offset_bytes, std::uint64_t units, std::uint64_t unit_bytes,
          std::vector<std::uint64_t>& found) {
  if (units == 0 || device.is_readable(offset_bytes, units * unit_bytes)) return;
  if (units == 1) {
    found.push_back(offset_bytes);
    return;
  }
  const std::uint64_t half = units / 2;
  find(device, offset_bytes, half, unit_bytes, found);
  find(device, offset_bytes + half * unit_bytes, units - half, unit_bytes, found);
}

}  // namespace

Result<bool> flush_readable(Device& device, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  const Status all = device.flush(offset_bytes, length_bytes);
  if (all) return true;
  constexpr std::uint64_t kUnitBytes = 1024;
  const std::uint64_t begin = offset_bytes / kUnitBytes * kUnitBytes;
  const std::uint64_t end = (offset_bytes + length_bytes + kUnitBytes - 1) / kUnitBytes * kUnitBytes;
  const std::vector<std::uint64_t> bad = unreadable_units(device, begin, end - begin, kUnitBytes);
  if (bad.empty()) return tl::unexpected(all.error());
  std::uint64_t from = begin;
  for (const std::uint64_t offset : bad) {
    if (offset > from) PLUMB_TRY(device.flush(from, offset - from));
    from = offset + kUnitBytes;
  }
  if (end > from) PLUMB_TRY(device.flush(from, end - from));
  return false;
}

std::vector<std::uint64_t> unreadable_units(const Device& device, std::uint64_t offset_bytes,
                                            std::uint64_t length_bytes, std::uint64_t unit_bytes) {
  std::vector<std::uint64_t> found;
  find(device, offset_bytes, length_bytes / unit_bytes, unit_bytes, found);
  return found;
}

}  // namespace plumb::pmem
