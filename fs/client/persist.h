// Stores that are durable on a memory device, without libpmem: for programs that did not ask for it.
//
// The instructions are chosen once, by what the processor has. No environment variable switches anything off.
//
// Thread safety: no state that changes.
#pragma once

#include <cstddef>

namespace plumb::client {

/// Width of streaming stores.
enum class CopyWidth : unsigned char { kSse2, kAvx, kAvx512 };

[[nodiscard]] bool is_supported(CopyWidth width) noexcept;

/// Flushes the cache lines of [address, address + length) and fences: memory devices.
void persist(const void* address, std::size_t length) noexcept;
/// Copies and fences: durable on a memory device. Streaming stores for whole cache lines, others are flushed. The
/// ranges do not overlap.
void copy_persist(void* to, const void* from, std::size_t length) noexcept;
/// The same with stores of this width, which the processor must support.
void copy_persist_with(CopyWidth width, void* to, const void* from, std::size_t length) noexcept;

}  // namespace plumb::client
