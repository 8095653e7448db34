// The two places that change bytes of a file, of a volume or of a device served raw.
//
// A reply copies from the mapping with no lock held, and POSIX promises nobody that a read and a write at the same time
// are atomic to each other: that race is meant to be, and the thread sanitizer is told so here and nowhere else.
//
// Thread safety: as Device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/base/dynamic_annotations.h"
#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb {

/// `streaming`: past the caches; else the caches keep the bytes until somebody asks for them to be durable.
[[nodiscard]] inline Status store_file_bytes(pmem::Device& device, std::uint64_t at, std::span<const std::byte> bytes,
                                             bool streaming) {
  ABSL_ANNOTATE_IGNORE_WRITES_BEGIN();
  Status status = streaming ? device.store_nt(at, bytes) : device.store(at, bytes);
  ABSL_ANNOTATE_IGNORE_WRITES_END();
  return status;
}

[[nodiscard]] inline Status zero_file_bytes(pmem::Device& device, std::uint64_t at, std::uint64_t length) {
  ABSL_ANNOTATE_IGNORE_WRITES_BEGIN();
  Status status = device.zero(at, length);
  ABSL_ANNOTATE_IGNORE_WRITES_END();
  return status;
}

}  // namespace plumb
