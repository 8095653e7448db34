#include "fs/core/journal_search.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "absl/container/flat_hash_map.h"
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
  /// What its checksum covers; nothing if it cannot be read.
  [[nodiscard]] std::vector<std::byte> load(const Found& record) const {
    std::vector<std::byte> bytes(record.header.kind == media::kRecordPad ? sizeof record.header : record.length);
    if (!device_.load(start_ + record.offset, bytes)) bytes.clear();
    return bytes;
  }

 private:
  const pmem::Device& device_;
  const std::uint64_t start_, bytes_;
};

// Whatever the epoch: a mount goes on in the chain of the one before it.
bool follows(const Found& next, const Found& before) {
  return next.header.epoch >= before.header.epoch && next.header.sequence == before.header.sequence + 1;
}

// The ranges of a transaction fill it, as they do in a record that is whole.
bool is_filled(std::span<const std::byte> bytes, const media::RecordHeader& header) {
  std::size_t at = sizeof header;
  for (std::uint32_t i = 0; i < header.ranges; ++i) {
    media::RangeHeader range;
    if (bytes.size() - at < sizeof range) return false;
    std::memcpy(&range, bytes.data() + at, sizeof range);
    at += sizeof range;
    const std::uint64_t padded = (std::uint64_t{range.length_bytes} + 7) / 8 * 8;
    if (padded == 0 || bytes.size() - at < padded) return false;
    at += padded;
  }
  return header.ranges != 0 && bytes.size() - at < media::kRecordAlign;
}

// The seed with which these bytes have this checksum. A CRC is linear in its seed: 32 equations over GF(2).
std::uint32_t seed_for(std::span<const std::byte> bytes, std::uint32_t crc) {
  constexpr std::size_t kAt = offsetof(media::RecordHeader, crc);
  const std::uint32_t base = media::checksum(bytes, kAt, 0);
  std::array<std::uint64_t, 32> rows{};  // low half: what a bit of the seed does to the checksum; high half: which bits
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = std::uint64_t{media::checksum(bytes, kAt, std::uint32_t{1} << i) ^ base} | std::uint64_t{1} << (32 + i);
  std::uint64_t wanted = crc ^ base;
  for (std::size_t bit = 0; bit < 32; ++bit) {
    const auto pivot = std::find_if(rows.begin() + static_cast<std::ptrdiff_t>(bit), rows.end(),
                                    [bit](std::uint64_t row) { return (row >> bit & 1) != 0; });
    if (pivot == rows.end()) return 0;  // cannot be: different seeds have different checksums
    std::swap(rows[bit], *pivot);
    for (std::size_t i = bit + 1; i < rows.size(); ++i)
      if ((rows[i] >> bit & 1) != 0) rows[i] ^= rows[bit];
    if ((wanted >> bit & 1) != 0) wanted ^= rows[bit];
  }
  return static_cast<std::uint32_t>(wanted >> 32);
}

struct Row {
  std::vector<Found> records;  // proved
  Found first;                 // what proves the first of them; not proved
};

class Search {
 public:
  Search(const Ring& ring, EpochRange epochs) : ring_(ring), epochs_(epochs) {}

  std::vector<Found> newest() {
    for (std::uint64_t offset = 0; offset < ring_.bytes(); offset += media::kRecordAlign) {
      const auto found = ring_.at(offset);
      if (!found || found->header.epoch < epochs_.first || found->header.epoch > epochs_.last) continue;
      ends_.emplace((offset + found->length) % ring_.bytes(), *found);
      if (!seen_.contains(offset)) follow(*found);
    }
    const Row* best = nullptr;
    for (const Row& row : rows_)
      if (is_believed(row) && (best == nullptr || is_newer(row.records.back(), best->records.back()))) best = &row;
    return best == nullptr ? std::vector<Found>{} : last_epoch_of(*best);
  }

 private:
  static bool is_newer(const Found& a, const Found& b) {
    return a.header.epoch != b.header.epoch ? a.header.epoch > b.header.epoch : a.header.sequence > b.header.sequence;
  }

  void follow(const Found& first) {
    Row row{{}, first};
    // The first record of a file system has the seed that mkfs wrote.
    if (first.header.sequence == 1 && ring_.proves(first, 0)) row.records.push_back(first);
    Found before = first;
    for (std::uint64_t walked = before.length; walked < ring_.bytes();) {
      auto next = ring_.at((before.offset + before.length) % ring_.bytes());
      if (!next || !follows(*next, before) || !ring_.proves(*next, before.header.crc)) break;
      next->seed = before.header.crc;
      walked += next->length;
      row.records.push_back(*next);
      before = *next;
      if (seen_.insert(next->offset).second) continue;
      // It was the first of a row that is here already: that one goes on from here.
      const auto rest = std::find_if(rows_.begin(), rows_.end(),
                                     [&](const Row& other) { return other.first.offset == before.offset; });
      if (rest == rows_.end()) return;
      row.records.insert(row.records.end(), rest->records.begin(), rest->records.end());
      rows_.erase(rest);
      break;
    }
    seen_.insert(first.offset);
    if (!row.records.empty()) rows_.push_back(std::move(row));
  }

  // Not if it hangs on a record that the one before it disproves, which was torn, nor if it lies in the bytes of a
  // record of another row.
  bool is_believed(const Row& row) const {
    const Found& first = row.first;
    if (const auto before = ends_.find(first.offset); before != ends_.end() &&
                                                      before->second.header.sequence + 1 == first.header.sequence &&
                                                      !ring_.proves(first, before->second.header.crc))
      return false;
    return std::none_of(rows_.begin(), rows_.end(), [&](const Row& other) {
      return &other != &row && std::any_of(other.records.begin(), other.records.end(), [&](const Found& record) {
        return record.header.kind == media::kRecordTransaction && first.offset > record.offset &&
               first.offset < record.offset + record.length;
      });
    });
  }

  // A mount begins its epoch with everything before it in place. The first record cannot be proved if what was before
  // it is gone; what proves it is that the next one goes by its checksum, and that it is filled.
  std::vector<Found> last_epoch_of(const Row& row) const {
    const std::uint64_t epoch = row.records.back().header.epoch;
    std::vector<Found> last;
    const bool proved_by_itself = row.records.front().offset == row.first.offset;
    if (row.first.header.epoch == epoch && !proved_by_itself) {
      Found first = row.first;
      const std::vector<std::byte> bytes = ring_.load(first);
      const bool pad = first.header.kind == media::kRecordPad;
      if (!bytes.empty() && (pad || is_filled(bytes, first.header))) {
        first.seed = seed_for(bytes, first.header.crc);
        last.push_back(first);
      }
    }
    std::copy_if(row.records.begin(), row.records.end(), std::back_inserter(last),
                 [epoch](const Found& record) { return record.header.epoch == epoch; });
    return last;
  }

  const Ring& ring_;
  const EpochRange epochs_;
  std::vector<Row> rows_;
  absl::flat_hash_set<std::uint64_t> seen_;         // offsets of records that were looked at
  absl::flat_hash_map<std::uint64_t, Found> ends_;  // by the offset behind it
};

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
  return Search(ring, epochs).newest();
}

}  // namespace plumb
