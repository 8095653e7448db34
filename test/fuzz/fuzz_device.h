// A device for fuzzing: a private copy of an image between pages that nobody may touch.
//
// Copies are copy-on-write mappings of one memfd, so that thousands a second are cheap. An access past either end is a
// fault at once. Nothing is recorded, and flush and drain do nothing: what a crash leaves is the crash tests' subject.
//
// Thread safety: as Device.
#pragma once

#include <cstdint>
#include <memory>

#include "pmem/crash_image.h"
#include "pmem/device.h"

namespace plumb::fuzz {

class FuzzDevice final : public pmem::Device {
 public:
  FuzzDevice(const pmem::CrashImage& image, pmem::DeviceKind kind);
  ~FuzzDevice() override;

  /// The bytes, to damage them.
  [[nodiscard]] std::byte* bytes() { return base_; }

  [[nodiscard]] Status store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  [[nodiscard]] Status store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  [[nodiscard]] Status zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  [[nodiscard]] Status flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  [[nodiscard]] Status drain() override { return {}; }
  [[nodiscard]] Status deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override {
    return flush(offset_bytes, length_bytes);
  }

 private:
  std::byte* reserved_ = nullptr;
};

}  // namespace plumb::fuzz
