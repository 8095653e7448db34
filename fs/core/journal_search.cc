#include "fs/core/journal_search.h"

#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "fs/media/verify.h"

namespace plumb {
namespace {

using Found = FoundRecord;

class Ring {
 public:
  Ring(const pmem::Device& device, std::uint64_t start, std::uint64_t bytes)
      : device_(device), start_(start), bytes_(bytes) {}

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

 private:
  const pmem::Device& device_;
  const std::uint64_t start_, bytes_;
};

bool follows(const Found& next, const Found& before) {
  return next.header.epoch == before.header.epoch && next.header.sequence == before.header.sequence + 1;
}

}  // namespace

EpochRange EpochRange::of(const media::Uuid& uuid) {
  std::uint64_t value = 0;
  std::memcpy(&value, uuid.data(), sizeof value);
  const std::uint64_t first = (value >> 2) + 1;
  return {first, first + kMounts - 1};
}

std::vector<FoundRecord> newest_records(const pmem::Device& device, std::uint64_t ring_start, std::uint64_t ring_bytes,
                                        EpochRange epochs) {
  const Ring ring(device, ring_start, ring_bytes);
  std::vector<Found> best;
  absl::flat_hash_set<std::uint64_t> seen;  // offsets of records in a row
  for (std::uint64_t offset = 0; offset < ring.bytes(); offset += media::kRecordAlign) {
    if (seen.contains(offset)) continue;
    const auto first = ring.at(offset);
    if (!first || first->header.epoch < epochs.first || first->header.epoch > epochs.last) continue;
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

}  // namespace plumb
