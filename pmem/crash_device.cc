#include "pmem/crash_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "pmem/sigbus_guard.h"
#include "pmem/word_store.h"

namespace plumb::pmem {

namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::size_t kArenaChunkBytes = std::size_t{64} << 10;

std::uint32_t this_thread_number() {
  static std::atomic<std::uint32_t> next{0};
  thread_local const std::uint32_t number = next.fetch_add(1);
  return number;
}

const char* type_name(CrashEvent::Type type) {
  switch (type) {
    case CrashEvent::Type::kStore:
      return "store";
    case CrashEvent::Type::kStoreNt:
      return "store_nt";
    case CrashEvent::Type::kZero:
      return "zero";
    case CrashEvent::Type::kFlush:
      return "flush";
    case CrashEvent::Type::kDrain:
      return "drain";
    case CrashEvent::Type::kMark:
      break;
  }
  return "mark";
}

}  // namespace

std::string CrashEvent::describe() const {
  std::string result = type_name(type);
  if (type == Type::kMark) return result + " \"" + text + "\"";
  if (type != Type::kDrain) {
    result += " " + std::to_string(offset_bytes) + "+" + std::to_string(length_bytes);
  }
  if (outcome == Outcome::kDropped) result += " (dropped)";
  if (outcome == Outcome::kFailed) result += " (failed)";
  return result;
}

CrashDevice::CrashDevice(std::uint64_t size_bytes, CrashDeviceOptions options)
    : CrashDevice(CrashImage(std::make_shared<ImageBase>(size_bytes), nullptr, {}, "zeros"), std::move(options)) {}

CrashDevice::CrashDevice(CrashImage image, CrashDeviceOptions options)
    : clock_(options.clock ? std::move(options.clock) : std::make_shared<CrashClock>()),
      initial_(std::move(image)),
      working_(initial_) {
  assert(initial_.size_bytes() % kPageBytes == 0);
  install_sigbus_handler();
  info_.path = std::move(options.name);
  info_.kind = options.kind;
  info_.type = "crash test double";
  info_.size_bytes = initial_.size_bytes();
  base_ = working_.data();
}

CrashDevice::~CrashDevice() = default;

// --- recording ----------------------------------------------------------------------------------

CrashDevice::Verdict CrashDevice::next_call(CallPlan& plan) {
  const std::uint64_t number = plan.calls++;
  if (const auto it = plan.failing.find(number); it != plan.failing.end()) {
    return {CrashEvent::Outcome::kFailed, it->second};
  }
  if (plan.dropped.contains(number)) return {CrashEvent::Outcome::kDropped, 0};
  return {};
}

Status CrashDevice::injected_error(const Verdict& verdict, const char* what, std::uint64_t offset_bytes) {
  if (verdict.outcome != CrashEvent::Outcome::kFailed) return {};
  counters_.errors.fetch_add(1, std::memory_order_relaxed);
  return fail(verdict.error, info_.path + ": injected failure of " + what, offset_bytes);
}

CrashEvent& CrashDevice::append(CrashEvent::Type type, std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  CrashEvent& event = events_.emplace_back();
  event.type = type;
  event.thread = this_thread_number();
  event.tick = clock_->tick();
  event.offset_bytes = offset_bytes;
  event.length_bytes = length_bytes;
  return event;
}

// Copies the words around a store that has just been done.
void CrashDevice::keep_words(CrashEvent& event) {
  const std::uint64_t begin = event.offset_bytes / kWordBytes * kWordBytes;
  const std::uint64_t end = (event.offset_bytes + event.length_bytes + kWordBytes - 1) / kWordBytes * kWordBytes;
  event.words_offset_bytes = begin;
  event.words_length_bytes = end - begin;
  const bool is_whole = begin == event.offset_bytes && end == begin + event.length_bytes;
  if (event.type == CrashEvent::Type::kZero && is_whole) return;
  // A chunk is never grown past its capacity: pointers into it stay.
  if (words_.empty() || words_.back().capacity() - words_.back().size() < end - begin) {
    words_.emplace_back().reserve(std::max<std::size_t>(kArenaChunkBytes, end - begin));
  }
  std::vector<std::byte>& chunk = words_.back();
  const std::size_t position = chunk.size();
  chunk.insert(chunk.end(), base_ + begin, base_ + end);
  event.words = chunk.data() + position;
}

// For kZero `bytes` has a length and no data.
Status CrashDevice::record_store(CrashEvent::Type type, std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  PLUMB_TRY(check_store(offset_bytes, bytes.size()));
  if (bytes.empty()) return {};
  MutexLock lock(mutex_);
  const Verdict verdict = next_call(stores_);
  PLUMB_TRY(injected_error(verdict, "a store", offset_bytes));
  clear_poison(offset_bytes, bytes.size());
  std::byte* destination = base_ + offset_bytes;
  working_.note_change(offset_bytes, bytes.size());
  const Fault fault = run_guarded({destination, bytes.size()}, [&] {
    if (type == CrashEvent::Type::kZero) {
      std::memset(destination, 0, bytes.size());
    } else {
      std::memcpy(destination, bytes.data(), bytes.size());
    }
  });
  // What was stored before a poisoned page stays unrecorded: the page is lost, and so is the store.
  if (fault) return fault_error(fault.address, fault.is_poison);
  keep_words(append(type, offset_bytes, bytes.size()));
  counters_.stored_bytes.fetch_add(bytes.size(), std::memory_order_relaxed);
  return {};
}

Status CrashDevice::store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  return record_store(CrashEvent::Type::kStore, offset_bytes, bytes);
}

Status CrashDevice::store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
  return record_store(CrashEvent::Type::kStoreNt, offset_bytes, bytes);
}

Status CrashDevice::zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(check_store(offset_bytes, length_bytes));
  return record_store(CrashEvent::Type::kZero, offset_bytes, {base_, length_bytes});
}

Status CrashDevice::flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(check_range(offset_bytes, length_bytes));
  if (length_bytes == 0) return {};
  MutexLock lock(mutex_);
  const Verdict verdict = next_call(flushes_);
  append(CrashEvent::Type::kFlush, offset_bytes, length_bytes).outcome = verdict.outcome;
  PLUMB_TRY(injected_error(verdict, "a flush", offset_bytes));
  // As clwb of what is not there; msync does not touch it.
  for (std::uint64_t at = offset_bytes; has_poison_ && is_memory() && at < offset_bytes + length_bytes;) {
    const std::uint64_t end = std::min(offset_bytes + length_bytes, (at / kPageBytes + 1) * kPageBytes);
    if (!is_readable(at, end - at)) {
      events_.back().outcome = CrashEvent::Outcome::kFailed;
      return fault_error(base_ + at, true);
    }
    at = end;
  }
  counters_.flush_calls.fetch_add(1, std::memory_order_relaxed);
  counters_.flushed_bytes.fetch_add(length_bytes, std::memory_order_relaxed);
  return {};
}

Status CrashDevice::drain() {
  MutexLock lock(mutex_);
  const Verdict verdict = next_call(drains_);
  append(CrashEvent::Type::kDrain, 0, 0).outcome = verdict.outcome;
  PLUMB_TRY(injected_error(verdict, "a drain", Error::kNoOffset));
  counters_.drains.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Status CrashDevice::deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  PLUMB_TRY(flush(offset_bytes, length_bytes));
  return drain();
}

// --- the log ------------------------------------------------------------------------------------

std::size_t CrashDevice::mark(std::string text) {
  MutexLock lock(mutex_);
  append(CrashEvent::Type::kMark, 0, 0).text = std::move(text);
  return events_.size() - 1;
}

std::size_t CrashDevice::event_count() const {
  MutexLock lock(mutex_);
  return events_.size();
}

const CrashEvent& CrashDevice::event(std::size_t index) const {
  MutexLock lock(mutex_);
  assert(index < events_.size());
  return events_[index];  // a deque does not move its elements
}

std::vector<std::size_t> CrashDevice::fences() const {
  const CrashEvent::Type type = is_memory() ? CrashEvent::Type::kDrain : CrashEvent::Type::kFlush;
  MutexLock lock(mutex_);
  std::vector<std::size_t> indexes;
  for (std::size_t i = 0; i < events_.size(); ++i) {
    if (events_[i].type == type) indexes.push_back(i);
  }
  return indexes;
}

std::vector<std::size_t> CrashDevice::marks() const {
  MutexLock lock(mutex_);
  std::vector<std::size_t> indexes;
  for (std::size_t i = 0; i < events_.size(); ++i) {
    if (events_[i].type == CrashEvent::Type::kMark) indexes.push_back(i);
  }
  return indexes;
}

std::vector<std::size_t> CrashDevice::crash_points() const {
  std::vector<std::size_t> points = fences();
  const std::vector<std::size_t> at_marks = marks();
  points.insert(points.end(), at_marks.begin(), at_marks.end());
  points.push_back(event_count());
  std::sort(points.begin(), points.end());
  points.erase(std::unique(points.begin(), points.end()), points.end());
  return points;
}

std::size_t CrashDevice::events_before(std::uint64_t tick) const {
  MutexLock lock(mutex_);
  const auto it =
      std::partition_point(events_.begin(), events_.end(), [tick](const CrashEvent& e) { return e.tick < tick; });
  return static_cast<std::size_t>(it - events_.begin());
}

CrashImage CrashDevice::current_image() const {
  MutexLock lock(mutex_);
  auto copy = std::make_shared<ImageBase>(info_.size_bytes);
  for (std::uint64_t at = 0; at < info_.size_bytes; at += kPageBytes) {
    // Poisoned pages read as zeros in the copy, and zeros are left out so that it stays sparse.
    const std::byte* page = base_ + at;
    static_cast<void>(run_guarded({page, kPageBytes}, [&] {
      const bool has_data = std::any_of(page, page + kPageBytes, [](std::byte b) { return b != std::byte{0}; });
      if (has_data) copy->write(at, {page, kPageBytes});
    }));
  }
  return CrashImage(std::move(copy), nullptr, {}, "contents after " + std::to_string(events_.size()) + " events");
}

void CrashDevice::forget_history() {
  CrashImage now = current_image();
  MutexLock lock(mutex_);
  initial_ = std::move(now);
  events_.clear();
  words_.clear();
}

// --- faults -------------------------------------------------------------------------------------

void CrashDevice::drop_flush_call(std::uint64_t n) {
  MutexLock lock(mutex_);
  flushes_.dropped.insert(n);
}

void CrashDevice::drop_drain_call(std::uint64_t n) {
  MutexLock lock(mutex_);
  drains_.dropped.insert(n);
}

void CrashDevice::fail_store_call(std::uint64_t n, int error) {
  MutexLock lock(mutex_);
  stores_.failing[n] = error;
}

void CrashDevice::fail_flush_call(std::uint64_t n, int error) {
  MutexLock lock(mutex_);
  flushes_.failing[n] = error;
}

void CrashDevice::fail_drain_call(std::uint64_t n, int error) {
  MutexLock lock(mutex_);
  drains_.failing[n] = error;
}

void CrashDevice::clear_faults() {
  MutexLock lock(mutex_);
  for (CallPlan* plan : {&stores_, &flushes_, &drains_}) {
    plan->dropped.clear();
    plan->failing.clear();
  }
}

void CrashDevice::poison(std::uint64_t offset_bytes, std::uint64_t length_bytes, Poison kind) {
  assert(check_range(offset_bytes, length_bytes));
  const std::uint64_t begin = offset_bytes / kPageBytes * kPageBytes;
  const std::uint64_t end = (offset_bytes + length_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  // Pages beyond the end of a file: touching them is SIGBUS, as touching poison is.
  const int nothing = memfd_create("plumb-poison", MFD_CLOEXEC);
  void* address = mmap(base_ + begin, end - begin, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, nothing, 0);
  assert(address != MAP_FAILED);
  static_cast<void>(address);
  close(nothing);
  working_.note_other_mapping();
  MutexLock lock(mutex_);
  has_poison_ = true;
  for (std::uint64_t page = begin; page < end; page += kPageBytes) {
    if (kind == Poison::kClearedByStore)
      clearable_.insert(page);
    else
      clearable_.erase(page);
  }
}

// The pages that a store is about to cover wholly get memory again.
void CrashDevice::clear_poison(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
  for (auto it = clearable_.lower_bound(offset_bytes);
       it != clearable_.end() && *it + kPageBytes <= offset_bytes + length_bytes; it = clearable_.erase(it)) {
    void* address =
        mmap(base_ + *it, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    assert(address != MAP_FAILED);
    static_cast<void>(address);
  }
}

std::uint64_t CrashDevice::store_calls() const {
  MutexLock lock(mutex_);
  return stores_.calls;
}

std::uint64_t CrashDevice::flush_calls() const {
  MutexLock lock(mutex_);
  return flushes_.calls;
}

std::uint64_t CrashDevice::drain_calls() const {
  MutexLock lock(mutex_);
  return drains_.calls;
}

}  // namespace plumb::pmem
