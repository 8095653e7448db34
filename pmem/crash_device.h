// A Device for crash tests: records what is done to it, so that crash_explorer.h can make every device content that a
// crash could leave.
//
// Fault model, of either kind. This is the contract of device.h, taken at its word; nothing stronger may be relied
// upon.
//
//   memory kind   The unit is the aligned 8-byte word. A store gives each word it touches a new version (the whole word
//   as
//                 it reads after the store; a word is never torn). flush(range) by a thread captures, for the 64-byte
//                 lines around the range, the versions at that moment; drain() by the same thread makes what it
//                 captured durable, and its own non-temporal stores (store_nt, zero). After a crash each word
//                 independently holds its last durable version or any later one: caches evict when they like, in any
//                 order. So: a flush without a drain is nothing; a drain by another thread is nothing; a store after
//                 the flush is not covered by it; a flush does not see another thread's non-temporal store before that
//                 thread's drain.
//   cached kind   The unit is the aligned 512-byte sector, with a version for each store that touches it. flush(range)
//   makes
//                 the current versions of the 4096-byte pages around the range durable at once. After a power cut each
//                 sector independently holds its last durable version or any later one. A flush that failed makes
//                 nothing durable, and marks its pages clean: flushing again changes nothing until a store touches the
//                 page again. drain() does nothing.
//   both          The death of the process alone loses nothing: current_image().
//
// Not modelled: bits that rot, writes to the wrong place, stores that the compiler or the processor tears inside a
// word.
//
// Mutation testing: calls are numbered from 0 over the life of the device, separately for stores, flushes and drains.
// drop_flush_call(n) makes the n-th flush a lie: it returns success and does nothing. Some test must then find a wrong
// image, unless the call was redundant (CrashExplorer::redundant_fences()).
//
// Several devices: give them one CrashClock, and their events are ordered by tick. Any pair of legal images at one tick
// is legal: one device may be ahead of the other.
//
// Thread safety: that of Device; recording takes a mutex. What reads the log (event, fences, explorers) runs while
// nobody stores, flushes or drains. Lock rank: leaf.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "pmem/crash_image.h"
#include "pmem/device.h"
#include "pmem/mutex.h"

namespace plumb::pmem {

/// Orders the events of several devices.
class CrashClock {
 public:
  [[nodiscard]] std::uint64_t tick() { return next_.fetch_add(1); }

 private:
  std::atomic<std::uint64_t> next_{0};
};

struct CrashEvent {
  enum class Type : std::uint8_t { kStore, kStoreNt, kZero, kFlush, kDrain, kMark };
  enum class Outcome : std::uint8_t { kDone, kDropped, kFailed };

  Type type = Type::kMark;
  Outcome outcome = Outcome::kDone;
  std::uint32_t thread = 0;  // small number, the same for all events of a thread
  std::uint64_t tick = 0;
  std::uint64_t offset_bytes = 0;  // as the caller gave it
  std::uint64_t length_bytes = 0;
  // Of a store: the whole words around it, as they read after it. Null: zeros.
  std::uint64_t words_offset_bytes = 0;
  std::uint64_t words_length_bytes = 0;
  const std::byte* words = nullptr;
  std::string text;  // of a mark

  [[nodiscard]] bool is_store() const { return type == Type::kStore || type == Type::kStoreNt || type == Type::kZero; }
  /// "store_nt 4096+64"; for messages.
  [[nodiscard]] std::string describe() const;
};

struct CrashDeviceOptions {
  DeviceKind kind = DeviceKind::kMemory;
  std::string name = "crash device";
  std::shared_ptr<CrashClock> clock = nullptr;  // null: one of its own
};

class CrashDevice final : public Device {
 public:
  /// All zeros, and durably so. The size is a multiple of 4096.
  CrashDevice(std::uint64_t size_bytes, CrashDeviceOptions options);
  /// Starts from an image, which is durable: what a machine finds after the crash.
  CrashDevice(CrashImage image, CrashDeviceOptions options);
  ~CrashDevice() override;

  [[nodiscard]] Status store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  [[nodiscard]] Status store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) override;
  [[nodiscard]] Status zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  [[nodiscard]] Status flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;
  [[nodiscard]] Status drain() override;
  /// flush and drain.
  [[nodiscard]] Status deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) override;

  // --- the log -------------------------------------------------------------------------------

  /// Puts a text into the log: "replied mkdir a". Returns its event index.
  std::size_t mark(std::string text);
  [[nodiscard]] std::size_t event_count() const;
  [[nodiscard]] const CrashEvent& event(std::size_t index) const;
  /// Indexes of the events that make something durable: drains; flushes on the cached kind. The crash point of such an
  /// index is the moment before it took effect.
  [[nodiscard]] std::vector<std::size_t> fences() const;
  /// Indexes of the marks.
  [[nodiscard]] std::vector<std::size_t> marks() const;
  /// Fences, marks and the end: where images differ in what they must show.
  [[nodiscard]] std::vector<std::size_t> crash_points() const;
  /// How many events had happened when the clock showed this tick.
  [[nodiscard]] std::size_t events_before(std::uint64_t tick) const;

  [[nodiscard]] const CrashImage& initial_image() const { return initial_; }
  /// What the device reads now: what the death of the process leaves. Copies the device.
  [[nodiscard]] CrashImage current_image() const;
  /// Makes the current content durable and empties the log (after mkfs). Ends the validity of explorers.
  void forget_history();

  // --- faults --------------------------------------------------------------------------------

  void drop_flush_call(std::uint64_t n);
  void drop_drain_call(std::uint64_t n);
  void fail_store_call(std::uint64_t n, int error);  // nothing is stored
  void fail_flush_call(std::uint64_t n, int error);
  void fail_drain_call(std::uint64_t n, int error);
  void clear_faults();
  /// Every access to the 4096-byte pages around the range is EIO from now on (SIGBUS through view()). Whether a store
  /// clears it is up to the medium.
  enum class Poison : std::uint8_t {
    kForGood,         // no store goes there
    kClearedByStore,  // a store or zero of at least a whole page makes that page usable
  };
  void poison(std::uint64_t offset_bytes, std::uint64_t length_bytes, Poison kind = Poison::kForGood);

  [[nodiscard]] std::uint64_t store_calls() const;
  [[nodiscard]] std::uint64_t flush_calls() const;
  [[nodiscard]] std::uint64_t drain_calls() const;

 private:
  // The calls of one function, and what is to happen to some of them.
  struct CallPlan {
    std::uint64_t calls = 0;
    std::set<std::uint64_t> dropped;
    std::map<std::uint64_t, int> failing;
  };
  struct Verdict {
    CrashEvent::Outcome outcome = CrashEvent::Outcome::kDone;
    int error = 0;
  };

  [[nodiscard]] Verdict next_call(CallPlan& plan) PLUMB_REQUIRES(mutex_);
  CrashEvent& append(CrashEvent::Type type, std::uint64_t offset_bytes, std::uint64_t length_bytes)
      PLUMB_REQUIRES(mutex_);
  void keep_words(CrashEvent& event) PLUMB_REQUIRES(mutex_);
  [[nodiscard]] Status record_store(CrashEvent::Type type, std::uint64_t offset_bytes,
                                    std::span<const std::byte> bytes);
  [[nodiscard]] Status injected_error(const Verdict& verdict, const char* what, std::uint64_t offset_bytes);
  void clear_poison(std::uint64_t offset_bytes, std::uint64_t length_bytes) PLUMB_REQUIRES(mutex_);

  std::shared_ptr<CrashClock> clock_;
  CrashImage initial_;
  ImageCopy working_;  // base_
  mutable Mutex mutex_;
  std::deque<CrashEvent> events_ PLUMB_GUARDED_BY(mutex_);
  std::deque<std::vector<std::byte>> words_ PLUMB_GUARDED_BY(mutex_);  // arena of events_
  CallPlan stores_ PLUMB_GUARDED_BY(mutex_);
  CallPlan flushes_ PLUMB_GUARDED_BY(mutex_);
  CallPlan drains_ PLUMB_GUARDED_BY(mutex_);
  bool has_poison_ PLUMB_GUARDED_BY(mutex_) = false;
  std::set<std::uint64_t> clearable_ PLUMB_GUARDED_BY(mutex_);  // offsets of poisoned pages that a store clears
};

}  // namespace plumb::pmem
