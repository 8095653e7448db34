// The rolling state of a crash device's log: what is durable after the first n events, and what is pending.
//
// This is the fault model of crash_device.h as code; crash_explorer.h makes images from it.
//
// Invariants
//   - pending() is in the order of the stores, and holds only stores of which something is not durable;
//   - ranges of a pending store are whole units (words or sectors), disjoint and ascending;
//   - the durable content of a unit is its version after the last store that is durable there; all stores pending there
//   are
//     later ones.
//
// Thread safety: none. The device is not used while its log is read.
#pragma once

#include <absl/container/btree_map.h>

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "pmem/crash_device.h"
#include "pmem/crash_image.h"
#include "pmem/dirty_ranges.h"

namespace plumb::pmem {

struct PendingStore {
  std::size_t event = 0;          // index in the log
  std::vector<ByteRange> ranges;  // units that are not durable
};

class CrashState {
 public:
  /// With `track_redundancy`, seek() also finds redundant_fences(); that is slow for logs with thousands of pending
  /// stores.
  /// `left_out`: as if these flushes and drains (log indexes) had not been called.
  explicit CrashState(const CrashDevice& device, bool track_redundancy = false, std::set<std::size_t> left_out = {});

  /// To the state after the first `event_index` events. Forwards costs the events in between, backwards a new start.
  void seek(std::size_t event_index);
  [[nodiscard]] std::size_t position() const { return position_; }

  [[nodiscard]] std::uint64_t unit_bytes() const { return unit_bytes_; }
  [[nodiscard]] const CrashDevice& device() const { return device_; }
  [[nodiscard]] const std::vector<PendingStore>& pending() const { return pending_; }
  void read_durable(std::uint64_t offset_bytes, std::span<std::byte> out) const;
  /// The bytes of a recorded store that lie in `out`, which shows the device from offset_bytes on.
  static void apply_store(const CrashEvent& event, std::uint64_t offset_bytes, std::span<std::byte> out);

  /// The durable content, plus patches.
  [[nodiscard]] CrashImage make_image(PatchList patches, std::string description);

  /// Flushes and drains so far that changed nothing: nothing was pending, or another flush before the same drain did it
  /// too, or no drain followed.
  [[nodiscard]] std::vector<std::size_t> redundant_fences() const;

 private:
  static constexpr std::uint64_t kPageBytes = 4096;
  using Page = std::array<std::byte, kPageBytes>;

  // What a flush of the memory kind wrote back, waiting for the drain of its thread.
  struct Capture {
    std::uint32_t thread;
    std::size_t event;
    ByteRange lines;
    bool is_stream;  // of a streaming store, which needs no flush: `event` is the one after it
  };

  void restart();
  void apply(const CrashEvent& event);
  void apply_flush(const CrashEvent& event);
  void apply_drain(const CrashEvent& event);
  // What a drain of the thread completes.
  [[nodiscard]] std::vector<Capture> captured_by(std::uint32_t thread) const;
  void track_drain(const std::vector<Capture>& captured);
  [[nodiscard]] bool is_needed(const Capture& capture, const std::vector<Capture>& all) const;
  void make_pages_durable(ByteRange pages);
  // Makes durable what stores before event `end_event` left in `range`, as seen by `thread`.
  void make_durable(ByteRange range, std::size_t end_event, std::uint32_t thread);
  void write_durable(const CrashEvent& event, ByteRange range);
  void write_base_or_overlay(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  void fold_overlay();
  // How the hash of the content changes when these bytes take the place of the durable ones.
  [[nodiscard]] std::uint64_t hash_change(std::uint64_t offset_bytes, std::span<const std::byte> bytes) const;
  void drop_empty();
  [[nodiscard]] bool is_foreign_stream(std::size_t event, std::uint32_t thread) const;
  [[nodiscard]] bool has_pending(ByteRange range) const;
  [[nodiscard]] const std::byte* durable_page(std::uint64_t page) const;

  const CrashDevice& device_;
  const bool is_memory_;
  const bool track_redundancy_;
  const std::set<std::size_t> left_out_;
  const std::uint64_t unit_bytes_;
  std::size_t position_ = 0;
  std::uint64_t durable_hash_ = 0;  // of the words that differ from the initial image
  std::vector<PendingStore> pending_;
  std::vector<Capture> captures_;
  std::set<std::uint64_t> lost_pages_;  // cached kind: flush failed, not stored to since
  std::vector<std::size_t> redundant_;

  // Durable content: base_ is written in place while nobody shares it, else pages go to the overlay.
  std::shared_ptr<ImageBase> base_;  // null until the device's own base has to be left
  std::shared_ptr<const ImageBase> shared_base_;
  absl::btree_map<std::uint64_t, std::unique_ptr<Page>> overlay_;  // by page number
  std::shared_ptr<const PatchList> overlay_patches_;               // overlay_ for images, made when needed
};

}  // namespace plumb::pmem
