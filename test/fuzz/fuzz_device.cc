#include "test/fuzz/fuzz_device.h"

#include <sys/mman.h>

#include <cstring>
#include <stdexcept>

namespace plumb::fuzz {
namespace {
constexpr std::uint64_t kGuardBytes = 16u << 20;  // before and behind
}

FuzzDevice::FuzzDevice(const pmem::CrashImage& image, pmem::DeviceKind kind) {
  info_.path = "fuzz device";
  info_.type = "fuzz test double";
  info_.kind = kind;
  info_.size_bytes = image.size_bytes();
  void* reserved = ::mmap(nullptr, info_.size_bytes + 2 * kGuardBytes, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) throw std::runtime_error("fuzz device: no address space");
  reserved_ = static_cast<std::byte*>(reserved);
  void* mapped = ::mmap(reserved_ + kGuardBytes, info_.size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
                        image.base()->fd(), 0);
  if (mapped == MAP_FAILED) throw std::runtime_error("fuzz device: the image cannot be mapped");
  base_ = static_cast<std::byte*>(mapped);
}

FuzzDevice::~FuzzDevice() {
  ::munmap(reserved_, info_.size_bytes + 2 * kGuardBytes);
}

Status FuzzDevice::store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  PLUMB_TRY(check_store(offset_bytes, bytes.size()));
  std::memcpy(base_ + offset_bytes, bytes.data(), bytes.size());
  return {};
}

Status FuzzDevice::store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  return store(offset_bytes, bytes);
}

Status FuzzDevice::zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(check_store(offset_bytes, length_bytes));
  std::memset(base_ + offset_bytes, 0, length_bytes);
  return {};
}

Status FuzzDevice::flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  return check_range(offset_bytes, length_bytes);
}

}  // namespace plumb::fuzz
