#include "pmem/sigbus_guard.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

namespace plumb::pmem {

namespace sigbus_internal {
constinit thread_local Frame* innermost = nullptr;
}  // namespace sigbus_internal

namespace {

using sigbus_internal::Frame;
using sigbus_internal::innermost;

struct MappingSlot {
  std::atomic<const std::byte*> base{nullptr};
  std::atomic<std::size_t> length_bytes{0};
};

constinit std::array<MappingSlot, 64> mapping_slots{};
struct sigaction previous_action {};

bool is_registered(const std::byte* address) {
  return std::any_of(mapping_slots.begin(), mapping_slots.end(), [address](const MappingSlot& slot) {
    const std::byte* base = slot.base.load(std::memory_order_acquire);
    return base != nullptr && address >= base && address < base + slot.length_bytes.load(std::memory_order_relaxed);
  });
}

// A fault is about a whole page at least: copying code may touch the words around the guarded range, and for a machine
// check the kernel reports the start of the poisoned unit, which may be well before the byte that was touched.
std::uintptr_t fault_unit_bytes(const siginfo_t& info) {
  constexpr int kPageShift = 12;
  const int shift = info.si_code == BUS_MCEERR_AR ? std::max<int>(info.si_addr_lsb, kPageShift) : kPageShift;
  return std::uintptr_t{1} << std::min(shift, 40);
}

// Jumps to the innermost recovery point whose range the fault touched; returns if there is none.
void recover(const siginfo_t& info, const ucontext_t& interrupted) {
  const std::uintptr_t unit = fault_unit_bytes(info);
  const auto reported = reinterpret_cast<std::uintptr_t>(info.si_addr);
  const std::uintptr_t first = reported & ~(unit - 1);
  for (Frame* frame = innermost; frame != nullptr; frame = frame->outer) {
    const auto begin = reinterpret_cast<std::uintptr_t>(frame->begin);
    const auto end = reinterpret_cast<std::uintptr_t>(frame->end);
    if (first >= end || first + unit <= begin) continue;
    frame->fault.address = frame->begin + (std::max(reported, begin) - begin);
    frame->fault.is_poison = info.si_code == BUS_MCEERR_AR;
    // The jump leaves the handler without the kernel putting the mask of the interrupted code back.
    pthread_sigmask(SIG_SETMASK, &interrupted.uc_sigmask, nullptr);
    siglongjmp(frame->recovery_point, 1);
  }
}

// Nobody here wanted the signal: do what would have been done without this handler.
void pass_on(int signal_number, siginfo_t* info, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0) {
    previous_action.sa_sigaction(signal_number, info, context);
    return;
  }
  if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal_number);
    return;
  }
  if (previous_action.sa_handler == SIG_IGN && info->si_code <= 0) return;
  struct sigaction default_action {};
  default_action.sa_handler = SIG_DFL;
  sigaction(signal_number, &default_action, nullptr);
  // Blocked in here, so it is delivered on return: the core shows the place that was interrupted.
  raise(signal_number);
}

void on_sigbus(int signal_number, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  if (info->si_code == BUS_MCEERR_AO) {
    if (!is_registered(static_cast<const std::byte*>(info->si_addr))) {
      pass_on(signal_number, info, context);
    }
  } else {
    if (info->si_code > 0) recover(*info, *static_cast<const ucontext_t*>(context));
    pass_on(signal_number, info, context);
  }
  errno = saved_errno;
}

}  // namespace

void install_sigbus_handler() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, &previous_action) == 0;
  }();
  static_cast<void>(installed);
}

void register_mapping(const std::byte* base, std::size_t length_bytes) {
  for (MappingSlot& slot : mapping_slots) {
    // Base first: a length of 0 in between only forgoes the tolerance, another mapping's length would not.
    const std::byte* expected = nullptr;
    if (slot.base.compare_exchange_strong(expected, base, std::memory_order_acq_rel)) {
      slot.length_bytes.store(length_bytes, std::memory_order_release);
      return;
    }
  }
}

void unregister_mapping(const std::byte* base) {
  for (MappingSlot& slot : mapping_slots) {
    if (slot.base.load(std::memory_order_acquire) != base) continue;
    slot.length_bytes.store(0, std::memory_order_relaxed);
    slot.base.store(nullptr, std::memory_order_release);
    return;
  }
}

bool guarded_copy(void* destination, const void* source, std::size_t length_bytes) {
  const auto* from = static_cast<const std::byte*>(source);
  return !run_guarded({from, length_bytes}, [=] { std::memcpy(destination, source, length_bytes); });
}

}  // namespace plumb::pmem
