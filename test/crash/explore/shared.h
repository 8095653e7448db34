// What the explorer's processes share: which unit comes next, which states were seen, what each of them has done.
//
// Lives in memory that is mapped before the processes are forked. Everything that more than one of them writes is
// atomic; a process writes its own Progress only, and the parent reads all, a little late.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "test/crash/harness.h"

namespace plumb::test {

inline constexpr std::size_t kMostSettings = 16;
inline constexpr std::size_t kMostProcesses = 64;

/// Of one process.
struct Progress {
  std::array<Totals, kMostSettings> totals;
  std::size_t unit = 0;  // at work on
};

class Shared {
 public:
  /// Room for about `states` states and for `units` units. Throws std::runtime_error when there is no memory.
  Shared(std::uint64_t states, std::size_t units);
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared();

  [[nodiscard]] std::size_t take_unit() { return control_->next_unit.fetch_add(1); }
  void finish_unit(std::size_t unit) { done_[unit].store(1, std::memory_order_relaxed); }
  [[nodiscard]] bool is_done(std::size_t unit) const { return done_[unit].load(std::memory_order_relaxed) != 0; }

  /// Returns false if the state was there. A full table takes no more, and says that everything was there.
  bool insert_state(std::uint64_t state);
  [[nodiscard]] std::uint64_t distinct() const { return control_->distinct.load(std::memory_order_relaxed); }

  void stop() { control_->is_stopped.store(true); }
  [[nodiscard]] bool is_stopped() const { return control_->is_stopped.load(); }
  [[nodiscard]] Progress& progress(std::size_t process) { return control_->progress[process]; }

 private:
  struct Control {
    std::atomic<std::size_t> next_unit{0};
    std::atomic<std::uint64_t> distinct{0};
    std::atomic<bool> is_stopped{false};
    std::array<Progress, kMostProcesses> progress;
  };

  Control* control_ = nullptr;
  std::span<std::atomic<std::uint64_t>> states_;  // open addressing, a power of two; 0: free
  std::span<std::atomic<std::uint8_t>> done_;
};

}  // namespace plumb::test
