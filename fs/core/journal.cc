#include "fs/core/journal.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "fs/core/writeback.h"

namespace plumb {
namespace {

using media::JournalHeader;
using media::RangeHeader;
using media::RecordHeader;

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}

template <typename T>
std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span<const T, 1>(&object, 1));
}

JournalHeader sealed(JournalHeader header) {
  header.crc = media::checksum(bytes_of(header), offsetof(JournalHeader, crc));
  return header;
}

}  // namespace

Journal::Journal(pmem::Device& device, const media::JournalGeometry& geometry)
    : device_(device),
      geometry_(geometry),
      start_(geometry.start_bytes),
      ring_start_(start_ + media::kJournalRingOffset),
      ring_bytes_((geometry.length_bytes - media::kJournalRingOffset) / media::kRecordAlign * media::kRecordAlign) {}

Status Journal::format(pmem::Device& device, std::uint64_t start_bytes, std::uint64_t epoch) {
  PLUMB_TRY(device.zero(start_bytes, media::kJournalRingOffset + media::kRecordAlign));
  for (std::uint64_t i = 0; i < 2; ++i) {
    JournalHeader header;
    header.magic = media::kJournalMagic;
    header.update = i + 1;
    header.epoch = epoch;
    header.tail_sequence = 1;
    header.clean = 1;
    PLUMB_TRY(device.store(start_bytes + i * media::kJournalHeaderStride, bytes_of(sealed(header))));
  }
  return device.flush(start_bytes, media::kJournalRingOffset + media::kRecordAlign);
}

Status Journal::read_headers() {
  std::optional<JournalHeader> best;
  Status first_error;
  std::array<std::uint64_t, 2> updates{};
  for (std::uint64_t i = 0; i < 2; ++i) {
    JournalHeader header;
    const std::uint64_t offset = start_ + i * media::kJournalHeaderStride;
    Status status = device_.load(offset, std::as_writable_bytes(std::span<JournalHeader, 1>(&header, 1)));
    if (status) status = media::verify_journal_header(header, ring_bytes_);
    if (!status) {
      status.error().offset_bytes = offset;
      if (first_error) first_error = status;
      header_damaged_ = true;
      continue;
    }
    updates[i] = header.update;
    if (!best || header.update > best->update) best = header;
  }
  // They are written in turn.
  if (updates[0] + 1 != updates[1] && updates[1] + 1 != updates[0]) header_damaged_ = true;
  if (!best) return first_error;
  epoch_ = best->epoch;
  header_update_ = best->update;
  tail_offset_ = best->tail_offset;
  tail_sequence_ = best->tail_sequence;
  tail_seed_ = best->tail_seed;
  head_offset_ = tail_offset_;
  head_sequence_ = best->tail_sequence;
  head_seed_ = tail_seed_;
  return {};
}

bool Journal::header_is_behind(std::span<const FoundRecord> newest) {
  if (newest.empty() || !read_headers() || !header_damaged_) return false;
  std::uint64_t records = 0;
  const Status walked = scan([](std::uint64_t, std::span<const std::byte>) { return Status{}; }, records);
  if (!walked) return false;
  // A later mount goes on where these records end: the next one is proved by them, and has the next epoch.
  RecordHeader next;
  const Status loaded =
      device_.load(ring_start_ + head_offset_, std::as_writable_bytes(std::span<RecordHeader, 1>(&next, 1)));
  const std::uint64_t length = next.length_bytes;
  if (loaded && next.magic == media::kRecordMagic && next.epoch == epoch_ + 1 && next.sequence == head_sequence_ &&
      length >= sizeof next && length <= ring_bytes_ - head_offset_) {
    std::vector<std::byte> record(next.kind == media::kRecordPad ? sizeof next : length);
    if (device_.load(ring_start_ + head_offset_, record) &&
        media::checksum(record, offsetof(RecordHeader, crc), head_seed_) == next.crc)
      return true;
  }
  // Or a later record has taken the place of the one at the tail. Room is used again only when a header has let go of
  // it.
  return records == 0 && std::any_of(newest.begin(), newest.end(), [this](const FoundRecord& record) {
           return record.header.sequence > tail_sequence_ && record.offset <= tail_offset_ &&
                  tail_offset_ < record.offset + record.length;
         });
}

// A header that is damaged, rather than torn, may be the one that counted: then mounting with the other one would undo
// what has been committed since.
Status Journal::refuse_old_header() {
  if (!header_damaged_ || headers_trusted_) return {};
  Journal other(device_, geometry_);
  // A mount writes headers of its own epoch, so the damaged one has this epoch or the next.
  const EpochRange epochs{epoch_, epoch_ + 1};
  if (!other.header_is_behind(newest_records(device_, ring_start_, ring_bytes_, epochs))) return {};
  return fail(EUCLEAN,
              "journal: the newer header is damaged, and the other one does not know the latest records; "
              "fsck.plumbfs -y finds them",
              start_);
}

// Walks the records from the tail to the first that is not the next one, and leaves the head there.
Status Journal::scan(const Apply& apply, std::uint64_t& records) {
  std::uint64_t walked = 0;
  while (walked < ring_bytes_) {
    RecordHeader header;
    const std::uint64_t room = ring_bytes_ - head_offset_;
    PLUMB_TRY(device_.load(ring_start_ + head_offset_, std::as_writable_bytes(std::span<RecordHeader, 1>(&header, 1))));
    const std::uint64_t length = header.length_bytes;
    if (header.magic != media::kRecordMagic || header.epoch != epoch_ || header.sequence != head_sequence_ ||
        length < sizeof header || length % media::kRecordAlign != 0 || length > room || length > ring_bytes_ - walked)
      break;
    const bool pad = header.kind == media::kRecordPad;
    if (!pad && length > max_record_bytes()) break;
    if (!pad && header.kind != media::kRecordTransaction) break;
    std::vector<std::byte> record(pad ? sizeof header : length);
    PLUMB_TRY(device_.load(ring_start_ + head_offset_, record));
    const std::uint32_t crc = media::checksum(record, offsetof(RecordHeader, crc), head_seed_);
    if (crc != header.crc) break;
    if (!pad) {
      Status applied = apply_record(record, apply);
      if (!applied && applied.error().code == EUCLEAN) applied.error().offset_bytes = ring_start_ + head_offset_;
      PLUMB_TRY(std::move(applied));
    }
    head_seed_ = crc;
    head_offset_ = (head_offset_ + length) % ring_bytes_;
    head_sequence_ = head_sequence_ + 1;
    walked += length;
    records += pad ? 0 : 1;
  }
  return {};
}

Status Journal::apply_record(std::span<const std::byte> record, const Apply& apply) const {
  RecordHeader header;
  std::memcpy(&header, record.data(), sizeof header);
  std::size_t at = sizeof header;
  for (std::uint32_t i = 0; i < header.ranges; ++i) {
    RangeHeader range;
    if (record.size() - at < sizeof range) return fail(EUCLEAN, "journal: record ends inside a range");
    std::memcpy(&range, record.data() + at, sizeof range);
    at += sizeof range;
    const std::uint64_t length = range.length_bytes;
    const std::uint64_t home = range.home_offset;
    if (record.size() - at < round_up(length, 8)) return fail(EUCLEAN, "journal: range longer than its record");
    PLUMB_TRY(media::verify_redo_range(geometry_, home, length));
    PLUMB_TRY(apply(home, record.subspan(at, length)));
    at += round_up(length, 8);
  }
  return {};
}

Result<Journal::Recovery> Journal::replay_into(const Apply& apply) {
  PLUMB_TRY(read_headers());
  PLUMB_TRY(refuse_old_header());
  Recovery recovery;
  const std::uint64_t tail = tail_sequence_;
  PLUMB_TRY(scan(apply, recovery.records));
  JournalHeader header;
  const std::uint64_t slot = start_ + (header_update_ % 2 == 1 ? 0 : 1) * media::kJournalHeaderStride;
  PLUMB_TRY(device_.load(slot, std::as_writable_bytes(std::span<JournalHeader, 1>(&header, 1))));
  recovery.was_clean = header.clean != 0 && head_sequence_ == tail;
  failed_ = true;  // nothing may be appended: the homes are behind
  return recovery;
}

Result<Journal::Recovery> Journal::recover() {
  // What this mount sees of the log and its headers must be what a power cut would leave of them: they may be only in
  // the page cache, or in the processor's caches after a killed daemon. This separates them from the homes and the
  // header that are stored below on the strength of them.
  PLUMB_TRY(device_.persist(start_, media::kJournalRingOffset + ring_bytes_));
  PLUMB_TRY(read_headers());
  PLUMB_TRY(refuse_old_header());
  Recovery recovery;
  const std::uint64_t tail = tail_sequence_;
  PLUMB_TRY(scan([this](std::uint64_t home, std::span<const std::byte> bytes) { return store_home(home, bytes); },
                 recovery.records));
  JournalHeader header;
  const std::uint64_t slot = start_ + (header_update_ % 2 == 1 ? 0 : 1) * media::kJournalHeaderStride;
  PLUMB_TRY(device_.load(slot, std::as_writable_bytes(std::span<JournalHeader, 1>(&header, 1))));
  recovery.was_clean = header.clean != 0 && head_sequence_ == tail;
  recovery.was_deferred = header.deferred != 0;
  // Until the caller has flushed what the last mount had not, the header has to say so: it may end before.
  if (!recovery.was_clean && recovery.was_deferred) deferred_ = true;
  // Homes durable before the header lets go of the records.
  PLUMB_TRY(write_back_ranges(device_, home_dirty_));
  epoch_ += 1;
  tail_offset_ = head_offset_;
  tail_sequence_ = head_sequence_.load();
  tail_seed_ = head_seed_;
  PLUMB_TRY(write_header(false));
  homed_sequence_ = head_sequence_ - 1;
  publish(head_offset_, head_sequence_ - 1);
  MutexLock force_lock(force_mutex_);
  durable_sequence_ = head_sequence_ - 1;
  durable_offset_ = head_offset_;
  return recovery;
}

Status Journal::store_home(std::uint64_t offset, std::span<const std::byte> bytes) {
  PLUMB_TRY(device_.store(offset, bytes));
  home_dirty_.add(offset, bytes.size());
  return {};
}

// Everything before is durable when this is called; the tail it names is durable when it returns.
Status Journal::write_header(bool clean) {
  JournalHeader header;
  header.magic = media::kJournalMagic;
  header.update = ++header_update_;
  header.epoch = epoch_;
  header.tail_offset = tail_offset_;
  header.tail_sequence = tail_sequence_.load();
  header.tail_seed = tail_seed_;
  header.clean = clean ? 1 : 0;
  header.deferred = deferred_ ? 1 : 0;
  const std::uint64_t offset = start_ + (header_update_ % 2 == 1 ? 0 : 1) * media::kJournalHeaderStride;
  PLUMB_TRY(device_.store(offset, bytes_of(sealed(header))));
  return device_.persist(offset, sizeof header);
}

std::uint64_t Journal::record_bytes(std::span<const RedoRange> ranges) {
  std::uint64_t length = sizeof(RecordHeader);
  for (const RedoRange& range : ranges) length += sizeof(RangeHeader) + round_up(range.bytes.size(), 8);
  return round_up(length, media::kRecordAlign);
}

std::uint64_t Journal::used_bytes() const {
  return (head_offset_ + ring_bytes_ - tail_offset_) % ring_bytes_;
}

Status Journal::failure(Status status) {
  if (status) return status;
  {
    const MutexLock lock(failure_mutex_);
    if (!first_failure_) first_failure_ = status.error();
  }
  failed_.store(true, std::memory_order_release);
  return status;
}

std::optional<Error> Journal::first_failure() const {
  const MutexLock lock(failure_mutex_);
  return first_failure_;
}

Status Journal::make_room(std::uint64_t length_bytes) {
  const std::uint64_t room_at_end = ring_bytes_ - head_offset_;
  const std::uint64_t need = length_bytes + (length_bytes > room_at_end ? room_at_end : 0);
  // The head never meets the tail: one record unit stays free.
  if (used_bytes() + need + media::kRecordAlign > ring_bytes_) PLUMB_TRY(checkpoint());
  if (length_bytes > ring_bytes_ - head_offset_) PLUMB_TRY(put_pad());
  return {};
}

Status Journal::put_pad() {
  RecordHeader header;
  header.magic = media::kRecordMagic;
  header.epoch = epoch_;
  header.sequence = head_sequence_.load();
  header.length_bytes = static_cast<std::uint32_t>(ring_bytes_ - head_offset_);
  header.kind = media::kRecordPad;
  header.crc = media::checksum(bytes_of(header), offsetof(RecordHeader, crc), head_seed_);
  PLUMB_TRY(device_.store_nt(ring_start_ + head_offset_, bytes_of(header)));
  // Not drained: the record behind it is, and without it nobody needs the pad.
  head_seed_ = header.crc;
  live_.push_back({head_sequence_, head_offset_, 0});
  publish(0, head_sequence_);
  return {};
}

void Journal::publish(std::uint64_t offset, std::uint64_t sequence) {
  MutexLock lock(position_mutex_);
  head_offset_ = offset;
  published_offset_ = offset;
  published_sequence_ = sequence;
  head_sequence_ = sequence + 1;
}

// Puts the ranges into the scratch record; returns their number. Bytes of a range that would look like a record, at a
// place where one could begin, become a range of their own, whose header is there then: nobody can write a file's
// attribute, say, that passes for a piece of the log when the headers are lost (journal_search.h).
std::uint32_t Journal::add_ranges(std::span<const RedoRange> ranges) {
  const media::Le32 magic(media::kRecordMagic);
  std::uint32_t pieces = 0;
  const auto add = [&](std::uint64_t home, std::span<const std::byte> bytes) {
    RangeHeader header;
    header.home_offset = home;
    header.length_bytes = static_cast<std::uint32_t>(bytes.size());
    const auto header_bytes = bytes_of(header);
    scratch_.insert(scratch_.end(), header_bytes.begin(), header_bytes.end());
    scratch_.insert(scratch_.end(), bytes.begin(), bytes.end());
    scratch_.resize(round_up(scratch_.size(), 8));
    ++pieces;
  };
  for (const RedoRange& range : ranges) {
    std::uint64_t home = range.home_offset_bytes;
    std::span<const std::byte> rest = range.bytes;
    const auto take = [&](std::size_t count) {
      add(home, rest.first(count));
      home += count;
      rest = rest.subspan(count);
    };
    const auto is_magic_at = [&](std::size_t at) {
      return at + sizeof magic <= rest.size() && std::memcmp(rest.data() + at, &magic, sizeof magic) == 0;
    };
    while (!rest.empty()) {
      const std::uint64_t start = scratch_.size() + sizeof(RangeHeader);
      std::size_t cut = round_up(start, media::kRecordAlign) - start;
      if (cut == 0 && is_magic_at(0)) {
        // A piece of one byte comes first, so that the others lie behind another header.
        const std::size_t count = std::min<std::size_t>(rest.size(), 8);
        add(home + count - 1, rest.subspan(count - 1, 1));
        add(home, rest.first(count - 1));
        home += count;
        rest = rest.subspan(count);
        continue;
      }
      if (cut == 0) cut = media::kRecordAlign;
      while (cut < rest.size() && !is_magic_at(cut)) cut += media::kRecordAlign;
      take(std::min(cut, rest.size()));
    }
  }
  return pieces;
}

Result<Sequence> Journal::append(std::span<const RedoRange> ranges) {
  if (failed()) return fail(EROFS, "journal: read-only after an earlier error of the log device");
  scratch_.assign(sizeof(RecordHeader), std::byte{0});
  const std::uint32_t pieces = add_ranges(ranges);
  scratch_.resize(round_up(scratch_.size(), media::kRecordAlign));
  const std::uint64_t length = scratch_.size();
  if (length > max_record_bytes()) return fail(EFBIG, "journal: transaction larger than a quarter of the ring");
  PLUMB_TRY(failure(make_room(length)));

  RecordHeader header;
  header.magic = media::kRecordMagic;
  header.epoch = epoch_;
  header.sequence = head_sequence_.load();
  header.length_bytes = static_cast<std::uint32_t>(length);
  header.kind = media::kRecordTransaction;
  header.ranges = pieces;
  std::memcpy(scratch_.data(), &header, sizeof header);
  header.crc = media::checksum(scratch_, offsetof(RecordHeader, crc), head_seed_);
  std::memcpy(scratch_.data(), &header, sizeof header);

  const Sequence sequence{head_sequence_};
  PLUMB_TRY(failure(device_.store_nt(ring_start_ + head_offset_, scratch_)));
  if (device_.is_memory()) {
    // The commit point: separates "the record may be torn" from "it is durable"; homes change only behind it.
    PLUMB_TRY(failure(device_.drain()));
    durable_sequence_.store(sequence.value, std::memory_order_release);
    for (const RedoRange& range : ranges) PLUMB_TRY(failure(store_home(range.home_offset_bytes, range.bytes)));
    homed_sequence_.store(sequence.value, std::memory_order_release);
  } else {
    live_.push_back({sequence.value, head_offset_, length});
  }
  head_seed_ = header.crc;
  counters_.records.fetch_add(1, std::memory_order_relaxed);
  counters_.bytes.fetch_add(length, std::memory_order_relaxed);
  publish((head_offset_ + length) % ring_bytes_, sequence.value);
  return sequence;
}

Status Journal::flush_ring(std::uint64_t from, std::uint64_t to) {
  if (from == to) return {};
  if (from < to) return device_.flush(ring_start_ + from, to - from);
  PLUMB_TRY(device_.flush(ring_start_ + from, ring_bytes_ - from));
  return to == 0 ? Status{} : device_.flush(ring_start_, to);
}

Status Journal::force(Sequence sequence) {
  if (durable_sequence_.load(std::memory_order_acquire) >= sequence.value) return {};
  MutexLock force_lock(force_mutex_);
  // Somebody may have forced our record with theirs while we waited (group commit).
  if (durable_sequence_.load(std::memory_order_acquire) >= sequence.value) return {};
  if (failed()) return fail(EIO, "journal: an earlier write of the log failed");
  if (device_.is_memory()) {
    durable_sequence_.store(sequence.value, std::memory_order_release);  // only pads lie between
    return {};
  }
  std::uint64_t to = 0;
  std::uint64_t published = 0;
  {
    MutexLock lock(position_mutex_);
    to = published_offset_;
    published = published_sequence_;
  }
  counters_.forces.fetch_add(1, std::memory_order_relaxed);
  PLUMB_TRY(failure(flush_ring(durable_offset_, to)));
  // Separates records whose callers may be told "durable" from the rest.
  PLUMB_TRY(failure(device_.drain()));
  durable_offset_ = to;
  durable_sequence_.store(published, std::memory_order_release);
  return {};
}

// Page-cached devices: the durable records are applied from the ring, exactly as replay would.
Status Journal::home_live_records() {
  std::vector<std::byte> record;
  while (!live_.empty()) {
    const LiveRecord& live = live_.front();
    if (live.length != 0) {
      record.resize(live.length);
      PLUMB_TRY(device_.load(ring_start_ + live.offset, record));
      PLUMB_TRY(apply_record(
          record, [this](std::uint64_t home, std::span<const std::byte> bytes) { return store_home(home, bytes); }));
      homed_sequence_.store(live.sequence, std::memory_order_release);
    }
    live_.pop_front();
  }
  return {};
}

Status Journal::checkpoint() {
  if (failed()) return fail(EIO, "journal: an earlier write of the log failed");
  PLUMB_TRY(force_all());  // WAL rule: the log is durable before a home changes
  PLUMB_TRY(failure(home_live_records()));
  // Homes durable before the tail passes their records.
  PLUMB_TRY(failure(write_back_ranges(device_, home_dirty_)));
  tail_offset_ = head_offset_;
  tail_seed_ = head_seed_;
  tail_sequence_.store(head_sequence_, std::memory_order_release);
  counters_.checkpoints.fetch_add(1, std::memory_order_relaxed);
  return failure(write_header(false));
}

Status Journal::close() {
  PLUMB_TRY(checkpoint());
  return failure(write_header(true));
}

}  // namespace plumb
