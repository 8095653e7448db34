// The journal: physical redo records in a ring.
//
// A transaction is one record: (home offset, bytes) ranges, checksummed with the checksum of the record before it as
// seed and stamped with the mount epoch and a sequence number, so that a stale record of an earlier life never
// continues a torn log. A record that is whole is committed; replay stops at the first one that is not.
//
// When homes change
//   memory device: append() stores the record and drains: it is durable when append() returns. Then the ranges are
//   stored to their homes, which need not be durable before the tail passes them. page-cached device: append() stores
//   the record only; homes change in checkpoint(), after the log has been msynced. Until then the changes live in
//   metadata buffers (WAL rule).
// Reuse of the ring (checkpoint): log durable -> homes stored -> homes durable -> tail stored -> tail durable ->
// overwrite.
//
// The two headers are written in turn, so that a torn one leaves the other. Recovery makes the log durable, then homes,
// then writes a header with the next epoch and the end of the log as tail, all before the first append.
//
// Thread safety: append() and checkpoint() under the transaction lock. force() by anyone (group commit). After a
// failure to make the log or a home durable the journal is failed for good: EROFS from append(), EIO from force().
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "fs/core/journal_search.h"
#include "fs/core/mutex.h"
#include "fs/core/types.h"
#include "fs/media/layout.h"
#include "fs/media/verify.h"
#include "pmem/device.h"
#include "pmem/dirty_ranges.h"
#include "pmem/result.h"

namespace plumb {

struct RedoRange {
  std::uint64_t home_offset_bytes;
  std::span<const std::byte> bytes;
};

class Journal {
 public:
  using Apply = std::function<Status(std::uint64_t home_offset_bytes, std::span<const std::byte> bytes)>;
  struct Recovery {
    std::uint64_t records = 0;
    bool was_clean = true;
    bool was_deferred = false;  // the mount before this one deferred the writeback of data
  };

  Journal(pmem::Device& device, const media::JournalGeometry& geometry);

  /// mkfs: two headers, clean, an empty ring. Not drained.
  [[nodiscard]] static Status format(pmem::Device& device, std::uint64_t start_bytes, std::uint64_t epoch);

  /// This mount defers the writeback of data; the headers that are written from now on say so. Before recover(), or
  /// under the transaction lock.
  void set_deferred(bool deferred) { deferred_ = deferred; }
  [[nodiscard]] bool is_deferred() const { return deferred_; }
  /// Reads the headers and replays to the homes; durable and ready for append() when it returns.
  [[nodiscard]] Result<Recovery> recover();
  /// The same into `apply`, without a store to the device; append() is not possible then.
  [[nodiscard]] Result<Recovery> replay_into(const Apply& apply);

  /// One header is damaged, and these records are newer than all that the other one leads to: it was not torn when it
  /// was written, because that happens before the first record behind it. What the other header says is out of date.
  [[nodiscard]] bool header_is_behind(std::span<const FoundRecord> newest);

  /// Before recover(): the caller has looked, and goes by the headers as they are.
  void trust_headers() { headers_trusted_ = true; }

  /// Largest record payload a transaction may have (a quarter of the ring).
  [[nodiscard]] std::uint64_t max_record_bytes() const { return ring_bytes_ / 4; }
  [[nodiscard]] static std::uint64_t record_bytes(std::span<const RedoRange> ranges);

  /// Publishes one record. EROFS after a failure; EFBIG beyond max_record_bytes().
  [[nodiscard]] Result<Sequence> append(std::span<const RedoRange> ranges);
  /// The number append() will give next.
  [[nodiscard]] Sequence next_sequence() const { return Sequence(head_sequence_.load(std::memory_order_relaxed)); }

  /// Returns when every record up to `sequence` is durable.
  [[nodiscard]] Status force(Sequence sequence);
  [[nodiscard]] Status force_all() { return force(Sequence(next_sequence().value - 1)); }
  /// Empties the ring: log, homes and tail durable.
  [[nodiscard]] Status checkpoint();
  /// checkpoint() and the clean mark: the end of a mount.
  [[nodiscard]] Status close();

  /// Homes (stored, not necessarily durable) contain every record up to this one.
  [[nodiscard]] Sequence homed() const { return Sequence(homed_sequence_.load(std::memory_order_acquire)); }
  /// The durable tail is past every record up to this one: replay will not touch what they touched.
  [[nodiscard]] Sequence retired() const { return Sequence(tail_sequence_.load(std::memory_order_acquire) - 1); }
  [[nodiscard]] bool failed() const { return failed_.load(std::memory_order_acquire); }
  /// What made it fail, if an error of the device did.
  [[nodiscard]] std::optional<Error> first_failure() const;

  struct Counters {
    std::atomic<std::uint64_t> records{0}, bytes{0}, forces{0}, checkpoints{0};
  };
  [[nodiscard]] const Counters& counters() const { return counters_; }
  /// Of this mount, once recover() is done; never 0.
  [[nodiscard]] std::uint64_t epoch() const { return epoch_; }

 private:
  struct LiveRecord {  // in the ring, home not yet written (page-cached devices)
    std::uint64_t sequence, offset, length;
  };

  [[nodiscard]] Status read_headers();
  [[nodiscard]] Status refuse_old_header();
  [[nodiscard]] Status scan(const Apply& apply, std::uint64_t& records);
  [[nodiscard]] Status apply_record(std::span<const std::byte> record, const Apply& apply) const;
  [[nodiscard]] Status store_home(std::uint64_t offset, std::span<const std::byte> bytes);
  [[nodiscard]] Status write_header(bool clean);
  [[nodiscard]] Status flush_ring(std::uint64_t from, std::uint64_t to);
  std::uint32_t add_ranges(std::span<const RedoRange> ranges);
  [[nodiscard]] Status make_room(std::uint64_t length_bytes);
  [[nodiscard]] Status put_pad();
  /// The head is now at `offset`, behind the record `sequence`.
  void publish(std::uint64_t offset, std::uint64_t sequence);
  [[nodiscard]] Status home_live_records();
  Status failure(Status status);
  [[nodiscard]] std::uint64_t used_bytes() const;

  pmem::Device& device_;
  const media::JournalGeometry geometry_;
  const std::uint64_t start_;
  const std::uint64_t ring_start_;
  const std::uint64_t ring_bytes_;

  // Writer state, under the transaction lock.
  bool deferred_ = false;
  std::uint64_t epoch_ = 0;
  std::uint64_t header_update_ = 0;
  bool headers_trusted_ = false;
  bool header_damaged_ = false;  // one of them, or they were not written in turn
  std::atomic<std::uint64_t> head_sequence_{1};
  std::uint64_t head_offset_ = 0;
  std::uint32_t head_seed_ = 0;
  std::uint64_t tail_offset_ = 0;
  std::atomic<std::uint64_t> tail_sequence_{1};
  std::uint32_t tail_seed_ = 0;
  std::deque<LiveRecord> live_;
  std::vector<std::byte> scratch_;
  std::atomic<std::uint64_t> homed_sequence_{0};
  pmem::DirtyRanges home_dirty_;  // stored to homes, not yet durable

  Mutex position_mutex_;  // for force(): how far the writer has come, offset and sequence as one
  std::uint64_t published_offset_ PLUMB_GUARDED_BY(position_mutex_) = 0;
  std::uint64_t published_sequence_ PLUMB_GUARDED_BY(position_mutex_) = 0;

  Mutex force_mutex_;  // one msync of the log at a time
  std::uint64_t durable_offset_ PLUMB_GUARDED_BY(force_mutex_) = 0;
  std::atomic<std::uint64_t> durable_sequence_{0};

  std::atomic<bool> failed_{false};
  mutable Mutex failure_mutex_;  // leaf
  std::optional<Error> first_failure_ PLUMB_GUARDED_BY(failure_mutex_);
  Counters counters_;
};

}  // namespace plumb
