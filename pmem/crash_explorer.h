// Makes the device contents that a crash could leave, from the log of a CrashDevice.
//
//   CrashExplorer explorer(device);
//   for (std::size_t point : device.crash_points()) {
//     explorer.for_each_image(point, limits, [&](const CrashImage& image) {
//       CrashDevice after(image, {.kind = device.info().kind});
//       ... recover from `after`, compare with the model; crash again with a CrashExplorer of `after` ...
//       return true;
//     });
//   }
//
// A crash point n is the moment after the first n events of the log. What is legal there is the fault model stated in
// crash_device.h. Going through points in ascending order is cheap; an image costs its pending bytes.
//
// Invariants: the same log, limits and seed give the same images in the same order. Two images of one call that are
// equal in content are given once (if their patches are made of the same pieces).
//
// Thread safety: none; several explorers of one device may run in parallel. The device is not used meanwhile.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pmem/crash_device.h"
#include "pmem/crash_image.h"
#include "pmem/crash_state.h"

namespace plumb::pmem {

/// One word or sector that may hold one of several versions.
struct UnitChoice {
  std::uint64_t offset_bytes;
  std::uint64_t length_bytes;
  std::span<const std::size_t> stores;  // log indexes of the pending stores that touch it, oldest first
};
/// Returns 0 for the durable version, n for the version after stores[n - 1].
using Chooser = std::function<std::size_t(const UnitChoice&)>;

/// Everything that was stored is there: the death of the process, or caches that were evicted just in time.
[[nodiscard]] Chooser everything_evicted();
/// Only what is durable is there.
[[nodiscard]] Chooser nothing_evicted();
/// Each unit takes the latest version with the given probability, else any version; from a seed.
[[nodiscard]] Chooser random_eviction(std::uint64_t seed, double latest_probability);

/// How many images for_each_image makes. All counts are upper bounds.
struct ImageLimits {
  std::size_t exhaustive_stores = 8;  // up to so many pending stores: every subset of them
  std::size_t max_systematic = 600;   // else: prefixes, subsets up to two, complements up to two; sampled above this
  std::size_t random_subsets = 16;    // of whole stores, when not exhaustive
  std::size_t torn_stores = 4;        // so many stores lack their first, middle or last unit
  std::size_t random_torn = 8;        // every unit on its own
  std::uint64_t seed = 1;
};

class CrashExplorer {
 public:
  /// `left_out`: as if these flushes and drains (log indexes) had not been called. A program does not see the
  /// difference, so the images are those of a program without the calls.
  explicit CrashExplorer(const CrashDevice& device, std::set<std::size_t> left_out = {})
      : state_(device, false, std::move(left_out)) {}

  /// The stores that are not durable, or not entirely, at a point.
  [[nodiscard]] const std::vector<PendingStore>& pending_at(std::size_t event_index);
  /// Their log indexes.
  [[nodiscard]] std::vector<std::size_t> pending_stores(std::size_t event_index);

  [[nodiscard]] CrashImage image_at(std::size_t event_index, const Chooser& chooser);
  /// Stores in `present` (log indexes) have reached the medium, other pending ones have not; where they overlap, the
  /// latest present one decides, and its version has everything older in it.
  [[nodiscard]] CrashImage image_with(std::size_t event_index, std::span<const std::size_t> present);

  /// Calls `fn` with image after image until it returns false. Returns how many images were made.
  std::size_t for_each_image(std::size_t event_index, const ImageLimits& limits,
                             const std::function<bool(const CrashImage&)>& fn);

  /// Flush and drain events that could be left out without any image changing, as far as this log shows. The mutation
  /// test need not kill these.
  [[nodiscard]] static std::vector<std::size_t> redundant_fences(const CrashDevice& device);

 private:
  // A range with the same pending stores everywhere.
  struct Segment {
    ByteRange range;
    std::vector<std::size_t> stores;  // positions in state_.pending(), oldest first
    std::vector<std::size_t> events;  // the same as log indexes
  };

  void go_to(std::size_t event_index);
  void make_segments();
  // Adds the bytes of `range` (part of the segment) in its `version` to the patches, if they differ from the durable
  // ones.
  void add_version(const Segment& segment, ByteRange range, std::size_t version, PatchList& patches);
  [[nodiscard]] CrashImage subset_image(const std::vector<bool>& present);
  [[nodiscard]] CrashImage chosen_image(const Chooser& chooser, const std::string& how);
  // All stores but one whole, that one without its unit number `missing`.
  [[nodiscard]] CrashImage torn_image(std::size_t store, std::uint64_t missing_offset_bytes, const std::string& which);
  [[nodiscard]] std::string where() const;

  friend class ImageSeries;

  CrashState state_;
  bool has_segments_ = false;
  std::vector<Segment> segments_;
  std::vector<std::byte> scratch_;
  std::vector<std::byte> durable_scratch_;
};

}  // namespace plumb::pmem
