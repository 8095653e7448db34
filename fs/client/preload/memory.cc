#include "fs/client/preload/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "fs/client/preload/raw.h"

namespace plumb::preload {
namespace {

constexpr std::size_t kSmallest = 32;
constexpr std::size_t kLargest = 64 * 1024;  // beyond it a mapping of its own
constexpr std::size_t kChunk = 1024 * 1024;
constexpr unsigned kClasses = 12;  // 32 bytes .. 64 KiB
static_assert(kSmallest << (kClasses - 1) == kLargest);

struct Free {
  Free* next;
};
constinit Free* free_lists[kClasses] = {};
constinit std::byte* chunk = nullptr;
constinit std::size_t chunk_left = 0;

unsigned class_of(std::size_t bytes) {
  const std::size_t size = std::bit_ceil(std::max(bytes, kSmallest));
  return static_cast<unsigned>(std::countr_zero(size) - std::countr_zero(kSmallest));
}

std::byte* map_memory(std::size_t bytes) {
  const long address = raw::call(SYS_mmap, nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw::failed(address)) __builtin_trap();
  return reinterpret_cast<std::byte*>(address);
}

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes > kLargest) return map_memory(bytes);
  const unsigned list = class_of(bytes);
  const std::size_t size = kSmallest << list;
  if (Free* const found = free_lists[list]; found != nullptr) {
    free_lists[list] = found->next;
    return std::memset(static_cast<void*>(found), 0, size);
  }
  if (chunk_left < size) {
    chunk = map_memory(kChunk);
    chunk_left = kChunk;
  }
  std::byte* const fresh = chunk;
  chunk += size;
  chunk_left -= size;
  return fresh;
}

void release(void* memory, std::size_t bytes) {
  if (memory == nullptr) return;
  if (bytes > kLargest) {
    raw::call(SYS_munmap, memory, bytes);
    return;
  }
  Free* const element = static_cast<Free*>(memory);
  Free*& list = free_lists[class_of(bytes)];
  element->next = list;
  list = element;
}

}  // namespace plumb::preload

// The size is in front.
namespace {
constexpr std::size_t kHead = 16;
}  // namespace

extern "C" void* plumb_wrapped_malloc(std::size_t bytes) __asm__("__wrap_malloc");
void* plumb_wrapped_malloc(std::size_t bytes) {
  auto* const memory = static_cast<std::byte*>(plumb::preload::allocate(bytes + kHead));
  std::memcpy(memory, &bytes, sizeof(bytes));
  return memory + kHead;
}

extern "C" void plumb_wrapped_free(void* memory) __asm__("__wrap_free");
void plumb_wrapped_free(void* memory) {
  if (memory == nullptr) return;
  std::byte* const start = static_cast<std::byte*>(memory) - kHead;
  std::size_t bytes = 0;
  std::memcpy(&bytes, start, sizeof(bytes));
  plumb::preload::release(start, bytes + kHead);
}
