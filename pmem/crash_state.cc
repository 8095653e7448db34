#include "pmem/crash_state.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>
#include <utility>

namespace plumb::pmem {

namespace {

constexpr std::uint64_t kWordUnitBytes = 8;
constexpr std::uint64_t kSectorBytes = 512;
constexpr std::uint64_t kLineBytes = 64;
// Above this, images get slower to open than one copy of the device costs.
constexpr std::size_t kMaxOverlayPages = 64;

ByteRange hull(std::uint64_t offset_bytes, std::uint64_t length_bytes, std::uint64_t unit) {
  return {offset_bytes / unit * unit, (offset_bytes + length_bytes + unit - 1) / unit * unit};
}

ByteRange intersection(ByteRange a, ByteRange b) {
  const ByteRange both{std::max(a.offset_bytes, b.offset_bytes), std::min(a.end_bytes, b.end_bytes)};
  return both.offset_bytes < both.end_bytes ? both : ByteRange{};
}

void subtract(std::vector<ByteRange>& ranges, ByteRange cut) {
  std::vector<ByteRange> rest;
  for (const ByteRange& range : ranges) {
    if (intersection(range, cut).length_bytes() == 0) {
      rest.push_back(range);
      continue;
    }
    if (range.offset_bytes < cut.offset_bytes) rest.push_back({range.offset_bytes, cut.offset_bytes});
    if (range.end_bytes > cut.end_bytes) rest.push_back({cut.end_bytes, range.end_bytes});
  }
  ranges = std::move(rest);
}

bool intersects(const PendingStore& store, ByteRange range) {
  return std::any_of(store.ranges.begin(), store.ranges.end(),
                     [range](const ByteRange& r) { return intersection(r, range).length_bytes() != 0; });
}

}  // namespace

CrashState::CrashState(const CrashDevice& device, bool track_redundancy, std::set<std::size_t> left_out)
    : device_(device),
      is_memory_(device.is_memory()),
      track_redundancy_(track_redundancy),
      left_out_(std::move(left_out)),
      unit_bytes_(device.is_memory() ? kWordUnitBytes : kSectorBytes) {
  restart();
}

void CrashState::restart() {
  position_ = 0;
  durable_hash_ = 0;
  pending_.clear();
  captures_.clear();
  lost_pages_.clear();
  redundant_.clear();
  overlay_.clear();
  overlay_patches_.reset();
  base_.reset();
  shared_base_ = device_.initial_image().base();
  // Later patches of an image lie anywhere in it: take the pages that they touch.
  device_.initial_image().for_each_patch([this](std::uint64_t offset, std::span<const std::byte> bytes) {
    for (std::uint64_t page = offset / kPageBytes; page * kPageBytes < offset + bytes.size(); ++page) {
      std::unique_ptr<Page>& copy = overlay_[page];
      if (copy != nullptr) continue;
      copy = std::make_unique<Page>();
      std::memcpy(copy->data(), shared_base_->data() + page * kPageBytes, kPageBytes);
      device_.initial_image().apply_patches(page * kPageBytes, *copy);
    }
  });
}

void CrashState::seek(std::size_t event_index) {
  assert(event_index <= device_.event_count());
  if (event_index < position_) restart();
  for (; position_ < event_index; ++position_) {
    if (!left_out_.contains(position_)) apply(device_.event(position_));
  }
}

// --- the fault model ----------------------------------------------------------------------------

void CrashState::apply(const CrashEvent& event) {
  switch (event.type) {
    case CrashEvent::Type::kStore:
    case CrashEvent::Type::kStoreNt:
    case CrashEvent::Type::kZero: {
      const ByteRange units = hull(event.offset_bytes, event.length_bytes, unit_bytes_);
      pending_.push_back({position_, {units}});
      // A store makes the whole page dirty again, also what a failed flush had left clean.
      if (lost_pages_.empty()) break;
      for (std::uint64_t page = event.offset_bytes / kPageBytes;
           page * kPageBytes < event.offset_bytes + event.length_bytes; ++page) {
        lost_pages_.erase(page);
      }
      break;
    }
    case CrashEvent::Type::kFlush:
      apply_flush(event);
      break;
    case CrashEvent::Type::kDrain:
      if (is_memory_) apply_drain(event);
      break;
    case CrashEvent::Type::kMark:
      break;
  }
}

void CrashState::apply_flush(const CrashEvent& event) {
  const ByteRange range = hull(event.offset_bytes, event.length_bytes, is_memory_ ? kLineBytes : kPageBytes);
  if (is_memory_) {
    if (event.outcome == CrashEvent::Outcome::kDone) {
      captures_.push_back({event.thread, position_, range, false});
    }
    return;
  }
  if (track_redundancy_ && !has_pending(range)) redundant_.push_back(position_);
  if (event.outcome == CrashEvent::Outcome::kDone) {
    make_pages_durable(range);
  } else if (event.outcome == CrashEvent::Outcome::kFailed) {
    for (std::uint64_t at = range.offset_bytes; at < range.end_bytes; at += kPageBytes) {
      if (has_pending({at, at + kPageBytes})) lost_pages_.insert(at / kPageBytes);
    }
  }
}

void CrashState::make_pages_durable(ByteRange pages) {
  std::uint64_t begin = pages.offset_bytes;
  for (auto lost = lost_pages_.lower_bound(begin / kPageBytes);
       lost != lost_pages_.end() && *lost * kPageBytes < pages.end_bytes; ++lost) {
    make_durable({begin, *lost * kPageBytes}, position_, 0);
    begin = (*lost + 1) * kPageBytes;
  }
  make_durable({begin, pages.end_bytes}, position_, 0);
  drop_empty();
}

std::vector<CrashState::Capture> CrashState::captured_by(std::uint32_t thread) const {
  std::vector<Capture> captured;
  for (const PendingStore& store : pending_) {
    const CrashEvent& stored = device_.event(store.event);
    if (stored.type == CrashEvent::Type::kStore || stored.thread != thread) continue;
    // A stream of this thread: durable with everything that is older in its words.
    for (const ByteRange& range : store.ranges) {
      captured.push_back({thread, store.event + 1, range, true});
    }
  }
  for (const Capture& capture : captures_) {
    if (capture.thread == thread) captured.push_back(capture);
  }
  return captured;
}

void CrashState::apply_drain(const CrashEvent& event) {
  const std::vector<Capture> captured = captured_by(event.thread);
  if (track_redundancy_) track_drain(captured);
  if (event.outcome != CrashEvent::Outcome::kDone) return;
  for (const Capture& capture : captured) {
    make_durable(capture.lines, capture.event, event.thread);
  }
  std::erase_if(captures_, [&event](const Capture& c) { return c.thread == event.thread; });
  drop_empty();
}

// True if, without this flush, the drain would leave something pending that it makes durable.
bool CrashState::is_needed(const Capture& capture, const std::vector<Capture>& all) const {
  for (const PendingStore& store : pending_) {
    if (store.event >= capture.event) break;
    if (is_foreign_stream(store.event, capture.thread)) continue;
    for (const ByteRange& range : store.ranges) {
      std::vector<ByteRange> rest;
      if (const ByteRange both = intersection(range, capture.lines); both.length_bytes() != 0) {
        rest.push_back(both);
      }
      for (const Capture& other : all) {
        const bool is_other = other.event != capture.event || other.is_stream;
        if (is_other && other.event > store.event) subtract(rest, other.lines);
      }
      if (!rest.empty()) return true;
    }
  }
  return false;
}

void CrashState::track_drain(const std::vector<Capture>& captured) {
  const auto has_work = [this](const Capture& capture) { return capture.is_stream || has_pending(capture.lines); };
  if (std::none_of(captured.begin(), captured.end(), has_work)) redundant_.push_back(position_);
  for (const Capture& capture : captured) {
    if (!capture.is_stream && !is_needed(capture, captured)) redundant_.push_back(capture.event);
  }
}

std::vector<std::size_t> CrashState::redundant_fences() const {
  std::vector<std::size_t> redundant = redundant_;
  for (const Capture& capture : captures_) redundant.push_back(capture.event);
  std::sort(redundant.begin(), redundant.end());
  return redundant;
}

// Another thread's streaming store waits in that thread's write-combining buffers until its own drain.
bool CrashState::is_foreign_stream(std::size_t event, std::uint32_t thread) const {
  if (!is_memory_) return false;
  const CrashEvent& stored = device_.event(event);
  return stored.type != CrashEvent::Type::kStore && stored.thread != thread;
}

void CrashState::make_durable(ByteRange range, std::size_t end_event, std::uint32_t thread) {
  if (range.offset_bytes >= range.end_bytes) return;
  std::vector<PendingStore*> skipped;
  for (PendingStore& store : pending_) {
    if (store.event >= end_event) break;
    if (!intersects(store, range)) continue;
    if (is_foreign_stream(store.event, thread)) {
      skipped.push_back(&store);
      continue;
    }
    for (const ByteRange& pending : store.ranges) {
      const ByteRange now = intersection(pending, range);
      if (now.length_bytes() == 0) continue;
      write_durable(device_.event(store.event), now);
      // A durable version leaves none of the older ones.
      for (PendingStore* older : skipped) subtract(older->ranges, now);
    }
    subtract(store.ranges, range);
  }
}

bool CrashState::has_pending(ByteRange range) const {
  return std::any_of(pending_.begin(), pending_.end(),
                     [range](const PendingStore& store) { return intersects(store, range); });
}

void CrashState::drop_empty() {
  std::erase_if(pending_, [](const PendingStore& store) { return store.ranges.empty(); });
}

// --- durable content ----------------------------------------------------------------------------

void CrashState::apply_store(const CrashEvent& event, std::uint64_t offset_bytes, std::span<std::byte> out) {
  const ByteRange both = intersection({event.words_offset_bytes, event.words_offset_bytes + event.words_length_bytes},
                                      {offset_bytes, offset_bytes + out.size()});
  if (both.length_bytes() == 0) return;
  std::byte* to = out.data() + (both.offset_bytes - offset_bytes);
  if (event.words == nullptr) {
    std::memset(to, 0, both.length_bytes());
  } else {
    std::memcpy(to, event.words + (both.offset_bytes - event.words_offset_bytes), both.length_bytes());
  }
}

void CrashState::write_durable(const CrashEvent& event, ByteRange range) {
  const ByteRange both =
      intersection(range, {event.words_offset_bytes, event.words_offset_bytes + event.words_length_bytes});
  static constexpr Page kZeros{};
  for (std::uint64_t at = both.offset_bytes; at < both.end_bytes;) {
    const std::uint64_t end = std::min(both.end_bytes, (at / kPageBytes + 1) * kPageBytes);
    const std::byte* source = event.words == nullptr ? kZeros.data() : event.words + (at - event.words_offset_bytes);
    write_base_or_overlay(at, {source, end - at});
    at = end;
  }
}

std::uint64_t CrashState::hash_change(std::uint64_t offset_bytes, std::span<const std::byte> bytes) const {
  std::uint64_t change = 0;
  for (std::size_t done = 0; done < bytes.size();) {
    const std::uint64_t at = offset_bytes + done;
    const std::size_t step = std::min<std::size_t>(bytes.size() - done, kPageBytes - at % kPageBytes);
    const std::byte* before = durable_page(at / kPageBytes) + at % kPageBytes;
    change ^= content_hash_change(at, {before, step}, bytes.subspan(done, step));
    done += step;
  }
  return change;
}

// Within one page, whole words.
void CrashState::write_base_or_overlay(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  durable_hash_ ^= hash_change(offset_bytes, bytes);
  const std::uint64_t page = offset_bytes / kPageBytes;
  const bool is_alone = base_ != nullptr && base_.use_count() == 2;  // base_ and shared_base_
  const auto it = overlay_.find(page);
  if (is_alone && it == overlay_.end()) {
    base_->write(offset_bytes, bytes);
    return;
  }
  overlay_patches_.reset();
  std::unique_ptr<Page>& copy = overlay_[page];
  if (copy == nullptr) {
    copy = std::make_unique<Page>();
    std::memcpy(copy->data(), shared_base_->data() + page * kPageBytes, kPageBytes);
  }
  std::memcpy(copy->data() + offset_bytes % kPageBytes, bytes.data(), bytes.size());
  if (overlay_.size() > kMaxOverlayPages) fold_overlay();
}

void CrashState::fold_overlay() {
  if (base_ == nullptr || base_.use_count() != 2) {
    base_ = shared_base_->clone();
    shared_base_ = base_;
  }
  // The last image may have been dropped by another thread: its reads come before our writes.
  std::atomic_thread_fence(std::memory_order_acquire);
  for (const auto& [page, bytes] : overlay_) {
    base_->write(page * kPageBytes, *bytes);
  }
  overlay_.clear();
  overlay_patches_.reset();
}

const std::byte* CrashState::durable_page(std::uint64_t page) const {
  const auto it = overlay_.find(page);
  return it != overlay_.end() ? it->second->data() : shared_base_->data() + page * kPageBytes;
}

void CrashState::read_durable(std::uint64_t offset_bytes, std::span<std::byte> out) const {
  for (std::size_t done = 0; done < out.size();) {
    const std::uint64_t at = offset_bytes + done;
    const std::size_t step = std::min<std::size_t>(out.size() - done, kPageBytes - at % kPageBytes);
    std::memcpy(out.data() + done, durable_page(at / kPageBytes) + at % kPageBytes, step);
    done += step;
  }
}

CrashImage CrashState::make_image(PatchList patches, std::string description) {
  if (!overlay_.empty() && base_ != nullptr && base_.use_count() == 2) fold_overlay();
  if (!overlay_.empty() && overlay_patches_ == nullptr) {
    auto list = std::make_shared<PatchList>();
    for (const auto& [page, bytes] : overlay_) list->add(page * kPageBytes, *bytes);
    overlay_patches_ = std::move(list);
  }
  std::uint64_t hash = durable_hash_;
  patches.for_each([&](std::uint64_t offset, std::span<const std::byte> bytes) { hash ^= hash_change(offset, bytes); });
  return CrashImage(shared_base_, overlay_patches_, std::move(patches), std::move(description), hash);
}

}  // namespace plumb::pmem
