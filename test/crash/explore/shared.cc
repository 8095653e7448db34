#include "test/crash/explore/shared.h"

#include <sys/mman.h>

#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace plumb::test {
namespace {

// Zeros, which is what the atomics begin with.
void* map_shared(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error(std::string("mmap: ") + std::strerror(errno));
  return memory;
}

template <typename T>
std::span<T> map_span(std::size_t count) {
  return {static_cast<T*>(map_shared(count * sizeof(T))), count};
}

}  // namespace

Shared::Shared(std::uint64_t states, std::size_t units)
    : control_(new (map_shared(sizeof(Control))) Control()),
      states_(map_span<std::atomic<std::uint64_t>>(std::bit_ceil(2 * states))),
      done_(map_span<std::atomic<std::uint8_t>>(units)) {}

Shared::~Shared() {
  munmap(done_.data(), done_.size_bytes());
  munmap(states_.data(), states_.size_bytes());
  munmap(control_, sizeof(Control));
}

bool Shared::insert_state(std::uint64_t state) {
  const std::uint64_t wanted = state == 0 ? 1 : state;
  const std::size_t mask = states_.size() - 1;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    std::atomic<std::uint64_t>& slot = states_[(wanted + i) & mask];
    std::uint64_t found = 0;
    if (slot.compare_exchange_strong(found, wanted, std::memory_order_relaxed)) {
      control_->distinct.fetch_add(1, std::memory_order_relaxed);
      return true;
    }
    if (found == wanted) return false;
  }
  return false;
}

}  // namespace plumb::test
