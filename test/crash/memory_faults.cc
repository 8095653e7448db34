#include "test/crash/memory_faults.h"

#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace plumb::test {
namespace {

constexpr std::uint64_t kNever = ~std::uint64_t{0};
thread_local std::uint64_t left = kNever;
thread_local const std::function<void()>* on_failure = nullptr;

}  // namespace

MemoryFault::MemoryFault(std::uint64_t granted, std::function<void()> instead) : instead_(std::move(instead)) {
  on_failure = &instead_;
  left = granted;
}

MemoryFault::~MemoryFault() {
  left = kNever;
}

static void* allocate(std::size_t size, std::size_t alignment) {
  if (left != kNever && left-- == 0) {
    left = kNever;
    (*on_failure)();
  }
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  void* memory = alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, rounded) : std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace plumb::test

void* operator new(std::size_t size) {
  return plumb::test::allocate(size == 0 ? 1 : size, 1);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return plumb::test::allocate(size == 0 ? 1 : size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
