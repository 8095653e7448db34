#include "test/crash/recovery_view.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "fs/core/superblock.h"
#include "fs/media/verify.h"
#include "test/unit/core_world.h"

namespace plumb::test {
namespace {

template <typename T>
T read(const MachineImage& image, std::uint64_t offset) {
  const std::vector<std::byte> bytes = image.main.read(offset, sizeof(T));
  T object;
  std::memcpy(static_cast<void*>(&object), bytes.data(), sizeof object);
  return object;
}

}  // namespace

RecoveryView::RecoveryView(const Machine& recorded) : recorded_(recorded) {
  const media::Superblock sb = must(Superblock::read(recorded.members())).media();
  journal_start_ = sb.journal_start;
  ring_start_ = journal_start_ + media::kJournalRingOffset;
  ring_bytes_ = (sb.journal_bytes - media::kJournalRingOffset) / media::kRecordAlign * media::kRecordAlign;
  pmem::DirtyRanges stored;
  const pmem::CrashDevice& device = recorded.main();
  for (std::size_t i = 0; i < device.event_count(); ++i) {
    const pmem::CrashEvent& event = device.event(i);
    if (!event.is_store() || event.offset_bytes < ring_start_ || event.offset_bytes >= ring_start_ + ring_bytes_)
      continue;
    stored.add(event.words_offset_bytes, event.words_length_bytes);
  }
  stored_ = stored.take_snapshot();
}

std::vector<pmem::ByteRange> RecoveryView::unread(const MachineImage& image) const {
  std::optional<media::JournalHeader> best;
  for (std::uint64_t i = 0; i < 2; ++i) {
    const auto header = read<media::JournalHeader>(image, journal_start_ + i * media::kJournalHeaderStride);
    if (media::verify_journal_header(header, ring_bytes_) && (!best || header.update > best->update)) best = header;
  }
  if (!best) return {};
  const std::uint64_t tail = best->tail_offset;
  std::uint64_t sequence = best->tail_sequence;
  std::uint32_t seed = best->tail_seed;
  std::uint64_t read_bytes = 0;  // from the tail on
  while (read_bytes < ring_bytes_) {
    const std::uint64_t at = (tail + read_bytes) % ring_bytes_;
    const auto header = read<media::RecordHeader>(image, ring_start_ + at);
    const std::uint64_t length = header.length_bytes;
    const bool is_next = header.magic == media::kRecordMagic && header.epoch == best->epoch &&
                         header.sequence == sequence && length >= sizeof header &&
                         length <= std::min(ring_bytes_ - at, ring_bytes_ - read_bytes);
    if (!is_next) {
      read_bytes += media::kRecordAlign;
      break;
    }
    read_bytes += length;
    const bool is_pad = header.kind == media::kRecordPad;
    const std::vector<std::byte> record = image.main.read(ring_start_ + at, is_pad ? sizeof header : length);
    const std::uint32_t crc = media::checksum(record, offsetof(media::RecordHeader, crc), seed);
    if (crc != header.crc) break;
    seed = crc;
    ++sequence;
  }
  if (read_bytes >= ring_bytes_) return {};
  const std::uint64_t from = ring_start_ + (tail + read_bytes) % ring_bytes_;
  const std::uint64_t to = ring_start_ + tail;
  if (from < to) return {{from, to}};
  std::vector<pmem::ByteRange> ranges{{from, ring_start_ + ring_bytes_}};
  if (tail != 0) ranges.push_back({ring_start_, to});
  return ranges;
}

std::uint64_t RecoveryView::hash(const MachineImage& image) const {
  std::uint64_t unseen = 0;
  for (const pmem::ByteRange& range : unread(image)) {
    for (const pmem::ByteRange& stored : stored_) {
      const std::uint64_t from = std::max(range.offset_bytes, stored.offset_bytes);
      const std::uint64_t to = std::min(range.end_bytes, stored.end_bytes);
      if (from >= to) continue;
      unseen ^= pmem::content_hash_change(from, recorded_.main().initial_image().read(from, to - from),
                                          image.main.read(from, to - from));
    }
  }
  return image.content_hash_but(unseen);
}

}  // namespace plumb::test
