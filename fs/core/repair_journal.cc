// A journal without a header, or with one that is older than its records.
//
// The records that follow each other (journal_search.h) are laid over the volume, in order, in DRAM: the state after
// the last one is right, wherever the tail was, because every later change of a byte is there too. What must not happen
// is that a record from before the tail is stored into a block that has become data since. A block becomes data only
// after the tail has passed every record about it as metadata, so the records up to the last one that names such a
// block are behind the tail. The new header has its tail there, and recovery does the rest.
#include <algorithm>
#include <cstring>

#include "fs/core/journal_search.h"
#include "fs/core/repair_impl.h"
#include "fs/media/verify.h"

namespace plumb::repairer {
namespace {

// Beyond every sequence number and count of mounts that a file system gets to by itself.
constexpr std::uint64_t kFarSequence = std::uint64_t{1} << 40;
constexpr std::uint64_t kFarMounts = EpochRange::kMounts / 2;

// Calls f(home offset, bytes) for the ranges of a record, as far as they are sane.
template <typename F>
void for_ranges(std::span<const std::byte> record, const media::JournalGeometry& geometry, const F& f) {
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
    if (media::verify_redo_range(geometry, home, length)) f(home, record.subspan(at, length));
    at += padded;
  }
}

std::vector<std::byte> load_record(const pmem::Device& device, std::uint64_t ring_start, const FoundRecord& record) {
  std::vector<std::byte> bytes(record.length);
  if (!device.load(ring_start + record.offset, bytes)) bytes.clear();
  return bytes;
}

}  // namespace

Result<bool> mend_journal(const Superblock& superblock, const RepairOptions& options, RepairReport& report) {
  const media::Superblock& media = superblock.media();
  pmem::Device& device = superblock.device(DeviceRole::kMain);
  const std::uint64_t ring_start = media.journal_start + media::kJournalRingOffset;
  const std::uint64_t ring_bytes =
      (media.journal_bytes - media::kJournalRingOffset) / media::kRecordAlign * media::kRecordAlign;
  const auto note = [&](std::string object, std::string what, bool harmless) {
    ++report.repairs_total;
    report.repairs.push_back({std::move(object), std::move(what), harmless});
  };
  std::array<media::JournalHeader, 2> headers;
  std::array<bool, 2> valid{};
  for (std::size_t i = 0; i < valid.size(); ++i) {
    const Status loaded = device.load(media.journal_start + i * media::kJournalHeaderStride,
                                      std::as_writable_bytes(std::span<media::JournalHeader, 1>(&headers[i], 1)));
    valid[i] = loaded && media::verify_journal_header(headers[i], ring_bytes);
  }
  const auto write = [&](std::size_t i, media::JournalHeader header) -> Status {
    header.update = i + 1;
    header.crc = media::checksum(bytes_of(header), offsetof(media::JournalHeader, crc));
    const std::uint64_t offset = media.journal_start + i * media::kJournalHeaderStride;
    PLUMB_TRY(device.store(offset, bytes_of(header)));
    // Durable before the other header changes, or recovery goes by it: at every instant one of them is this one.
    return device.persist(offset, sizeof header);
  };
  const std::vector<FoundRecord> row = newest_records(device, ring_start, ring_bytes, EpochRange::of(media.uuid));
  if (!Journal(device, media::journal_geometry(media)).header_is_behind(row) && (valid[0] || valid[1])) {
    const std::size_t best = valid[1] && (!valid[0] || headers[1].update > headers[0].update) ? 1 : 0;
    media::JournalHeader& header = headers[best];
    // What counts is believed. Recovery and the end of the repair write one header each, so both are whole then.
    if (header.update % 2 == 1 - best && header.clean <= 1 && header.deferred <= 1) {
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
  note("journal headers", "made anew from the records that follow each other in the ring", false);
  if (options.preen) return false;

  std::size_t tail = 0;
  if (!row.empty()) {
    RepairReport ignored;
    Planner planner(superblock, options, ignored, kFarSequence);
    std::vector<std::vector<std::uint64_t>> homes(row.size());
    for (std::size_t i = 0; i < row.size(); ++i)
      for_ranges(load_record(device, ring_start, row[i]), media::journal_geometry(media),
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
    header.epoch = EpochRange::of(media.uuid).first + kFarMounts;
    header.tail_sequence = kFarSequence;
  } else if (tail < row.size()) {
    header.epoch = row[tail].header.epoch;
    header.tail_offset = row[tail].offset;
    header.tail_sequence = row[tail].header.sequence;
    header.tail_seed = row[tail].seed;
  } else {
    const FoundRecord& last = row.back();
    header.epoch = last.header.epoch;
    header.tail_offset = (last.offset + last.length) % ring_bytes;
    header.tail_sequence = last.header.sequence + 1;
    header.tail_seed = last.header.crc;
  }
  PLUMB_TRY(write(0, header));
  PLUMB_TRY(write(1, header));
  return true;
}

}  // namespace plumb::repairer
