// Keeps freed blocks from being reused while a reply still copies from them.
//
// A reader pins before it looks up an extent and unpins when its copy is done; synchronize() returns when every pin
// taken before it is gone. Two generations of counters, sharded by thread, as in the kernel's SRCU: no lock on the read
// path. A pin is short and never held across a wait for a lock.
//
// Thread safety: all functions from any thread; a pin may be dropped by another thread. One synchronize() at a time
// runs.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

#include "fs/core/mutex.h"

namespace plumb {

class Epochs {
 public:
  using Token = std::atomic<std::uint64_t>;

  [[nodiscard]] Token* pin() {
    const std::size_t shard = std::hash<std::thread::id>{}(std::this_thread::get_id()) % kShards;
    Token& count = shards_[shard].counts[generation_.load(std::memory_order_seq_cst) & 1];
    count.fetch_add(1, std::memory_order_seq_cst);
    return &count;
  }
  static void unpin(Token* token) { token->fetch_sub(1, std::memory_order_release); }

  void synchronize() {
    MutexLock lock(mutex_);
    // Twice: a reader may have read the generation before the first flip and counted itself after the wait for it.
    for (int pass = 0; pass < 2; ++pass) {
      const std::uint64_t old = generation_.fetch_add(1, std::memory_order_seq_cst) & 1;
      while (pinned(old)) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

 private:
  static constexpr std::size_t kShards = 32;
  struct alignas(64) Shard {
    std::array<Token, 2> counts{};
  };

  [[nodiscard]] bool pinned(std::uint64_t generation) const {
    std::uint64_t sum = 0;
    for (const Shard& shard : shards_) sum += shard.counts[generation].load(std::memory_order_seq_cst);
    return sum != 0;
  }

  std::array<Shard, kShards> shards_{};
  std::atomic<std::uint64_t> generation_{0};
  Mutex mutex_;
};

}  // namespace plumb
