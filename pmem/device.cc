#include "pmem/device.h"

#include <isa-l/mem_routines.h>

#include <cassert>
#include <cstring>
#include <functional>
#include <utility>

#include "pmem/sigbus_guard.h"

namespace plumb::pmem {

std::string Device::durability_sentence() const {
  const std::string what = info_.path + " (" + info_.type + ")";
  if (info_.is_volatile) {
    return what +
           " is volatile memory: everything survives the death of the daemon, nothing survives a "
           "power cut or a reboot.";
  }
  if (info_.assumed_pmem) {
    return what +
           " is treated as persistent memory because you said so: everything survives the death "
           "of the daemon, nothing is promised after a power cut.";
  }
  if (is_memory()) {
    return what +
           " is persistent memory: what was flushed and fenced survives the death of the daemon "
           "and a power cut.";
  }
  return what +
         " is behind the kernel's page cache: everything survives the death of the daemon, what "
         "was synced survives a power cut.";
}

Status Device::check_range(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  if (offset_bytes <= info_.size_bytes && length_bytes <= info_.size_bytes - offset_bytes) {
    return {};
  }
  return fail(EINVAL,
              info_.path + ": " + std::to_string(length_bytes) + " bytes reach past the end (" +
                  std::to_string(info_.size_bytes) + " bytes)",
              offset_bytes);
}

Status Device::check_store(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  if (info_.read_only) return fail(EROFS, info_.path + " is open for reading only", offset_bytes);
  return check_range(offset_bytes, length_bytes);
}

tl::unexpected<Error> Device::fault_error(const std::byte* address, bool is_poison) const {
  counters_.errors.fetch_add(1, std::memory_order_relaxed);
  const char* reason = is_poison ? ": uncorrectable memory error (poison)"
                                 : ": no storage behind the mapping (file truncated, or a hole that its "
                                   "file system has no space for)";
  const auto offset_bytes = static_cast<std::uint64_t>(address - base_);
  {
    const MutexLock lock(fault_mutex_);
    if (faults_.size() < kMaxFaults) faults_.push_back(offset_bytes);
  }
  return fail(EIO, info_.path + reason, offset_bytes);
}

std::vector<std::uint64_t> Device::take_faults() {
  const MutexLock lock(fault_mutex_);
  return std::exchange(faults_, {});
}

std::optional<std::uint64_t> Device::offset_of(const void* address) const {
  const auto* byte = static_cast<const std::byte*>(address);
  const std::less<> before;  // of pointers into different objects too
  if (before(byte, base_) || !before(byte, base_ + info_.size_bytes)) return std::nullopt;
  return static_cast<std::uint64_t>(byte - base_);
}

const std::byte* Device::view(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  assert(offset_bytes <= info_.size_bytes && length_bytes <= info_.size_bytes - offset_bytes);
  static_cast<void>(length_bytes);
  return base_ + offset_bytes;
}

Status Device::load(std::uint64_t offset_bytes, std::span<std::byte> out) const {
  PLUMB_TRY(check_range(offset_bytes, out.size()));
  if (out.empty()) return {};
  const std::byte* source = base_ + offset_bytes;
  const Fault fault = run_guarded({source, out.size()}, [&] { std::memcpy(out.data(), source, out.size()); });
  if (fault) return fault_error(fault.address, fault.is_poison);
  return {};
}

Result<bool> Device::is_zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  PLUMB_TRY(check_range(offset_bytes, length_bytes));
  const std::byte* source = base_ + offset_bytes;
  int nonzero = 0;
  const Fault fault = run_guarded({source, length_bytes}, [&] {
    // The parameter lacks a const that it deserves.
    if (length_bytes != 0) nonzero = isal_zero_detect(const_cast<std::byte*>(source), length_bytes);
  });
  if (fault) return fault_error(fault.address, fault.is_poison);
  return nonzero == 0;
}

bool Device::is_readable(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
  constexpr std::uint64_t kLineBytes = 64;  // what poison takes at least
  const std::byte* begin = view(offset_bytes, length_bytes);
  const std::byte* end = begin + length_bytes;
  const Fault fault = run_guarded({begin, length_bytes}, [&] {
    for (const std::byte* at = begin; at < end; at += kLineBytes) *static_cast<const volatile std::byte*>(at);
    if (begin != end) *static_cast<const volatile std::byte*>(end - 1);  // the range may begin inside a line
  });
  return !fault;
}

}  // namespace plumb::pmem
