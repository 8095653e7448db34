// A journal without a header.
//
// A record carries the checksum of the record before it as the seed of its own, so any two that follow each other prove
// themselves; only the first one of the ring that is left cannot be checked. All of them are laid over the volume, in
// order, in DRAM: the state after the last one is right, wherever the tail was, because every later change of a byte is
// there too. What must not happen is that a record from before the tail is stored into a block that has become data
// since. A block becomes data only after the tail has passed every record about it as metadata, so the records up to
// the last one that names such a block are behind the tail. The new header has its tail there, and recovery does the
// rest.
#include <algorithm>
#include <cstring>

#include "fs/core/repair_impl.h"
#include "fs/media/verify.h"

namespace plumb::repairer {
namespace {

// Beyond every sequence number and epoch that a file system gets to by itself.
constexpr std::uint64_t kFarSequence = std::uint64_t{1} << 40;
constexpr std::uint64_t kFarEpoch = std::uint64_t{1} << 62;

struct Found {
  std::uint64_t offset = 0, length = 0;  // in the ring
  media::RecordHeader header;
  std::uint32_t seed = 0;
};

class Ring {
 public:
  Ring(const pmem::Device& device, const media::Superblock& superblock)
      : device_(device),
        start_(superblock.journal_start + media::kJournalRingOffset),
        bytes_((superblock.journal_bytes - media::kJournalRingOffset) / media::kRecordAlign * media::kRecordAlign) {}

  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

  /// A record may begin here; not proved.
  [[nodiscard]] std::optional<Found> at(std::uint64_t offset) const {
    Found found;
    found.offset = offset;
    if (!device_.load(start_ + offset, std::as_writable_bytes(std::span<media::RecordHeader, 1>(&found.header, 1))))
      return std::nullopt;
    const media::RecordHeader& header = found.header;
    found.length = header.length_bytes;
    const bool pad = header.kind == media::kRecordPad;
    if (header.magic != media::kRecordMagic || (!pad && header.kind != media::kRecordTransaction) ||
        found.length < sizeof header || found.length % media::kRecordAlign != 0 || found.length > bytes_ - offset ||
        (!pad && found.length > bytes_ / 4))
      return std::nullopt;
    return found;
  }
  [[nodiscard]] bool proves(const Found& record, std::uint32_t seed) const {
    const bool pad = record.header.kind == media::kRecordPad;
    std::vector<std::byte> bytes(pad ? sizeof record.header : record.length);
    return device_.load(start_ + record.offset, bytes) &&
           media::checksum(bytes, offsetof(media::RecordHeader, crc), seed) == record.header.crc;
  }
  [[nodiscard]] std::vector<std::byte> load(const Found& record) const {
    std::vector<std::byte> bytes(record.length);
    if (!device_.load(start_ + record.offset, bytes)) bytes.clear();
    return bytes;
  }

 private:
  const pmem::Device& device_;
  const std::uint64_t start_, bytes_;
};

bool follows(const Found& next, const Found& before) {
  return next.header.epoch == before.header.epoch && next.header.sequence == before.header.sequence + 1;
}

// The newest row of records that prove each other, oldest first.
std::vector<Found> newest_row(const Ring& ring) {
  std::vector<Found> best;
  absl::flat_hash_set<std::uint64_t> seen;  // offsets of records in a row
  for (std::uint64_t offset = 0; offset < ring.bytes(); offset += media::kRecordAlign) {
    if (seen.contains(offset)) continue;
    const auto first = ring.at(offset);
    if (!first) continue;
    std::vector<Found> row;
    // The first record of a file system has the seed that mkfs wrote.
    if (first->header.sequence == 1 && ring.proves(*first, 0)) row.push_back(*first);
    Found before = *first;
    for (std::uint64_t walked = before.length; walked < ring.bytes();) {
      auto next = ring.at((before.offset + before.length) % ring.bytes());
      if (!next || !follows(*next, before) || !ring.proves(*next, before.header.crc)) break;
      next->seed = before.header.crc;
      seen.insert(next->offset);
      walked += next->length;
      row.push_back(*next);
      before = *next;
    }
    if (row.empty()) continue;
    const auto newer = [](const Found& a, const Found& b) {
      return a.header.epoch != b.header.epoch ? a.header.epoch > b.header.epoch : a.header.sequence > b.header.sequence;
    };
    // A row may begin in the middle of another one, where that has wrapped: the longer one counts.
    const bool same_end = !best.empty() && best.back().offset == row.back().offset;
    if (best.empty() || newer(row.back(), best.back()) || (same_end && row.size() > best.size())) best = std::move(row);
  }
  return best;
}

// Calls f(home offset, bytes) for the ranges of a record, as far as they are sane.
template <typename F>
void for_ranges(std::span<const std::byte> record, std::uint64_t device_bytes, const F& f) {
  media::RecordHeader header;
  if (record.size() < sizeof header) return;
  std::memcpy(&header, record.data(), sizeof header);
  if (header.kind != media::kRecordTransaction) return;
  std::size_t at = sizeof header;
  for (std::uint32_t i = 0; i < header.ranges; ++i) {
    media::RangeHeader range;
    if (record.size() - at < sizeof range) return;
    std::memcpy(&range, record.data() + at, sizeof range);
    at += sizeof range;
    const std::uint64_t length = range.length_bytes;
    const std::uint64_t padded = (length + 7) / 8 * 8;
    if (record.size() - at < padded) return;
    const std::uint64_t home = range.home_offset;
    if (home >= media::kReservedHeadBytes && home < device_bytes && length <= device_bytes - home)
      f(home, record.subspan(at, length));
    at += padded;
  }
}

}  // namespace

Result<bool> mend_journal(const Superblock& superblock, const RepairOptions& options, RepairReport& report) {
  const media::Superblock& media = superblock.media();
  pmem::Device& device = superblock.device(DeviceRole::kMain);
  const Ring ring(device, media);
  const auto note = [&](std::string object, std::string what, bool harmless) {
    ++report.repairs_total;
    report.repairs.push_back({std::move(object), std::move(what), harmless});
  };
  std::array<media::JournalHeader, 2> headers;
  std::array<bool, 2> valid{};
  for (std::size_t i = 0; i < valid.size(); ++i) {
    const Status loaded = device.load(media.journal_start + i * media::kJournalHeaderStride,
                                      std::as_writable_bytes(std::span<media::JournalHeader, 1>(&headers[i], 1)));
    valid[i] = loaded && media::verify_journal_header(headers[i], ring.bytes());
  }
  const auto write = [&](std::size_t i, media::JournalHeader header) -> Status {
    header.update = i + 1;
    header.crc = media::checksum(bytes_of(header), offsetof(media::JournalHeader, crc));
    const std::uint64_t offset = media.journal_start + i * media::kJournalHeaderStride;
    PLUMB_TRY(device.store(offset, bytes_of(header)));
    // Durable before the other header changes, or recovery goes by it: at every instant one of them is this one.
    return device.persist(offset, sizeof header);
  };
  if (valid[0] || valid[1]) {
    const std::size_t best = valid[1] && (!valid[0] || headers[1].update > headers[0].update) ? 1 : 0;
    media::JournalHeader& header = headers[best];
    // What counts is believed. Recovery and the end of the repair write one header each, so both are whole then.
    if (header.update % 2 == 1 - best && header.update < kFarEpoch && header.clean <= 1 && header.deferred <= 1) {
      if (!valid[1 - best]) note("journal header " + std::to_string(2 - best), "written again", true);
      return true;
    }
    note("journal header " + std::to_string(best + 1), "update, clean or deferred set right", true);
    header.clean = header.clean == 1 ? 1 : 0;
    header.deferred = header.deferred == 0 ? 0 : 1;
    PLUMB_TRY(write(1 - best, header));
    PLUMB_TRY(write(best, header));
    return true;
  }
  note("journal header 1 and 2", "made anew from the records that follow each other in the ring", false);
  if (options.preen) return false;

  const std::vector<Found> row = newest_row(ring);
  std::size_t tail = 0;
  if (!row.empty()) {
    RepairReport ignored;
    Planner planner(superblock, options, ignored, kFarSequence);
    std::vector<std::vector<std::uint64_t>> homes(row.size());
    for (std::size_t i = 0; i < row.size(); ++i)
      for_ranges(ring.load(row[i]), superblock.entry(DeviceRole::kMain).size_bytes,
                 [&](std::uint64_t home, std::span<const std::byte> bytes) {
                   homes[i].push_back(home / superblock.block_size());
                   (void)planner.image().overlay(home, bytes);
                 });
    planner.look();
    for (std::size_t i = 0; i < row.size(); ++i)
      if (!std::all_of(homes[i].begin(), homes[i].end(),
                       [&](std::uint64_t block) { return planner.may_replay_into(block); }))
        tail = i + 1;
  }
  media::JournalHeader header;
  header.magic = media::kJournalMagic;
  header.deferred = 1;  // nobody knows
  if (row.empty()) {
    header.epoch = kFarEpoch;
    header.tail_sequence = kFarSequence;
  } else if (tail < row.size()) {
    header.epoch = row[tail].header.epoch;
    header.tail_offset = row[tail].offset;
    header.tail_sequence = row[tail].header.sequence;
    header.tail_seed = row[tail].seed;
  } else {
    const Found& last = row.back();
    header.epoch = last.header.epoch;
    header.tail_offset = (last.offset + last.length) % ring.bytes();
    header.tail_sequence = last.header.sequence + 1;
    header.tail_seed = last.header.crc;
  }
  PLUMB_TRY(write(0, header));
  PLUMB_TRY(write(1, header));
  return true;
}

}  // namespace plumb::repairer
