// The one lock of the library: learning of files, maps of files, and the memory for both.
//
// Not for reads, writes and closes of files that are known: those take no lock. A call that a signal handler may make
// only tries, and leaves the work to the kernel when another thread has it. No handler runs in the thread that holds
// it: it might never come back.
//
// A thread that holds it already is told so by lock(), and must not touch what the lock guards: it is in a system call
// that an allocator makes, or in the handler of a fault.
#pragma once

#include <linux/futex.h>

#include <atomic>
#include <cstdint>

#include "fs/client/preload/raw.h"
#include "fs/client/preload/unbroken.h"

namespace plumb::preload {

class SlowLock {
 public:
  /// False if this thread holds it.
  bool lock() {
    if (owner_.load(std::memory_order_relaxed) == self()) return false;
    std::uint32_t state = kFree;
    if (!state_.compare_exchange_strong(state, kHeld, std::memory_order_acquire)) {
      while (state_.exchange(kWaitedFor, std::memory_order_acquire) != kFree) futex(FUTEX_WAIT_PRIVATE, kWaitedFor);
    }
    owner_.store(self(), std::memory_order_relaxed);
    return true;
  }
  /// False if anybody holds it.
  bool try_lock() {
    std::uint32_t state = kFree;
    if (!state_.compare_exchange_strong(state, kHeld, std::memory_order_acquire)) return false;
    owner_.store(self(), std::memory_order_relaxed);
    return true;
  }
  void unlock() {
    owner_.store(0, std::memory_order_relaxed);
    if (state_.exchange(kFree, std::memory_order_release) == kWaitedFor) futex(FUTEX_WAKE_PRIVATE, 1);
  }
  /// In the child of a fork: its thread has another number than the one that took the lock.
  void adopt() { owner_.store(self(), std::memory_order_relaxed); }

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kHeld = 1;
  static constexpr std::uint32_t kWaitedFor = 2;

  static std::uint32_t self() { return static_cast<std::uint32_t>(raw::call(SYS_gettid)); }
  void futex(int operation, std::uint32_t value) {
    raw::call(SYS_futex, reinterpret_cast<std::uint32_t*>(&state_), operation, value, nullptr);
  }

  std::atomic<std::uint32_t> state_{kFree};
  std::atomic<std::uint32_t> owner_{0};
};

extern SlowLock slow_lock;

/// Holds slow_lock, or not: look.
class Slow {
 public:
  enum class How { kWait, kTry };
  explicit Slow(How how) : held_(how == How::kWait ? slow_lock.lock() : slow_lock.try_lock()) {}
  ~Slow() {
    if (held_) slow_lock.unlock();
  }
  Slow(const Slow&) = delete;
  Slow& operator=(const Slow&) = delete;
  explicit operator bool() const { return held_; }

 private:
  NoHandlers no_handlers_;
  bool held_;
};

}  // namespace plumb::preload
