#include "test/fuzz/fuzz_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

namespace plumb::fuzz {
namespace {
constexpr std::uint64_t kGuardBytes = 16u << 20;  // before and behind

// A file with the bytes of the image, to be mapped privately by every run. The images are the seeds, which live as long
// as the program.
int file_of(const pmem::CrashImage& image) {
  static std::map<const void*, int> files;
  const auto [it, is_new] = files.try_emplace(image.base().get(), -1);
  if (!is_new) return it->second;
  it->second = ::memfd_create("plumb-fuzz-seed", MFD_CLOEXEC);
  const std::vector<std::byte> bytes = image.read(0, image.size_bytes());
  if (it->second < 0 || ::write(it->second, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
    throw std::runtime_error("fuzz device: the image cannot be kept");
  return it->second;
}

}  // namespace

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
                        file_of(image), 0);
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
