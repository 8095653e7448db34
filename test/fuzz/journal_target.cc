// The journal: a header and a chain of records with right checksums, and whatever ranges the input wants.
#include <cstring>
#include <memory>
#include <vector>

#include "fs/core/check.h"
#include "fs/core/journal.h"
#include "fs/core/volume.h"
#include "fs/media/verify.h"
#include "test/fuzz/seed_image.h"
#include "test/fuzz/targets.h"
#include "test/unit/core_world.h"

namespace plumb::fuzz {
namespace {

constexpr std::size_t kMaxRecords = 12;
constexpr std::size_t kMaxRanges = 8;
constexpr std::size_t kMaxRangeBytes = 2048;

enum Flag : std::uint8_t { kCachedDevice = 1, kReadOnly = 2 };

// A place that means something to recovery.
std::uint64_t home_of(const SeedImage& seed, std::uint8_t how, std::uint32_t number) {
  const std::uint64_t size = seed.main->size_bytes();
  switch (how % 6) {
    case 0:
      return number;
    case 1:
      return number % size / seed.block_size * seed.block_size;
    case 2: {
      const auto& list = seed.structures[number % kStructureKinds];
      return list.empty() ? 0 : list[number / kStructureKinds % list.size()].offset_bytes;
    }
    case 3:
      return seed.journal_start - number % 4096;
    case 4:
      return size - number % 8192;
    default:
      return ~std::uint64_t{0} - number % 8192;
  }
}

// Appends records of the input to the ring, each chained to the one before.
class Chain {
 public:
  Chain(const SeedImage& seed, FuzzDevice& device) : seed_(seed), device_(device) {
    for (std::uint64_t i = 0; i < 2; ++i) {
      media::JournalHeader header;
      std::memcpy(&header, device.bytes() + seed.journal_start + i * media::kJournalHeaderStride, sizeof header);
      if (header.magic == media::kJournalMagic && header.update >= header_.update) header_ = header;
    }
    at_ = header_.tail_offset;
    sequence_ = header_.tail_sequence;
    crc_ = header_.tail_seed;
  }

  // False: the input's record does not fit into the ring.
  bool add(Input& input) {
    const auto how = input.take<std::uint8_t>();
    std::vector<std::byte> record(sizeof(media::RecordHeader));
    media::RecordHeader header{};
    header.magic = media::kRecordMagic;
    header.epoch = header_.epoch;
    header.sequence = sequence_++;
    header.kind = (how & 0x10) != 0 ? media::kRecordPad : media::kRecordTransaction;
    for (std::size_t ranges = how % kMaxRanges; ranges != 0; --ranges) {
      add_range(input, record);
      header.ranges = header.ranges + 1;
    }
    if ((how & 0x20) != 0) header.ranges = input.take<std::uint32_t>();
    record.resize((record.size() + media::kRecordAlign - 1) / media::kRecordAlign * media::kRecordAlign);
    if (at_ >= ring_bytes() || record.size() > ring_bytes() - at_) return false;
    header.length_bytes =
        static_cast<std::uint32_t>(header.kind == media::kRecordPad ? ring_bytes() - at_ : record.size());
    if ((how & 0x40) != 0) header.length_bytes = input.take<std::uint32_t>();
    std::memcpy(record.data(), &header, sizeof header);
    const std::span<const std::byte> summed =
        header.kind == media::kRecordPad ? std::span<const std::byte>(record).first(sizeof header) : record;
    crc_ = media::checksum(summed, offsetof(media::RecordHeader, crc), crc_);
    header.crc = crc_;
    std::memcpy(record.data(), &header, sizeof header);
    std::memcpy(device_.bytes() + seed_.journal_start + media::kJournalRingOffset + at_, record.data(), record.size());
    at_ = header.kind == media::kRecordPad ? 0 : (at_ + record.size()) % ring_bytes();
    return true;
  }

 private:
  [[nodiscard]] std::uint64_t ring_bytes() const {
    return (seed_.journal_bytes - media::kJournalRingOffset) / media::kRecordAlign * media::kRecordAlign;
  }
  void add_range(Input& input, std::vector<std::byte>& record) {
    const auto how = input.take<std::uint8_t>();
    media::RangeHeader range{};
    range.home_offset = home_of(seed_, how, input.take<std::uint32_t>());
    const auto length = input.take<std::uint16_t>();
    const auto content = input.take_bytes(length % 64);
    const std::size_t bytes = (how & 0x40) != 0 ? length % kMaxRangeBytes : content.size();
    range.length_bytes = (how & 0x80) != 0 ? input.take<std::uint32_t>() : static_cast<std::uint32_t>(bytes);
    const std::size_t at = record.size();
    record.resize(at + sizeof range + (bytes + 7) / 8 * 8);
    std::memcpy(record.data() + at, &range, sizeof range);
    std::memcpy(record.data() + at + sizeof range, content.data(), std::min(content.size(), bytes));
  }

  const SeedImage& seed_;
  FuzzDevice& device_;
  media::JournalHeader header_{};
  std::uint64_t at_ = 0, sequence_ = 0;
  std::uint32_t crc_ = 0;
};

}  // namespace

void fuzz_journal(std::span<const std::uint8_t> bytes) {
  Input input(bytes);
  const SeedImage& seed = seed_image(input.take<std::uint8_t>());
  const auto flags = input.take<std::uint8_t>();
  const auto kind = (flags & kCachedDevice) != 0 ? pmem::DeviceKind::kCached : pmem::DeviceKind::kMemory;
  FuzzDevice main(*seed.main, kind);
  std::unique_ptr<FuzzDevice> realtime;
  if (seed.realtime) realtime = std::make_unique<FuzzDevice>(*seed.realtime, kind);
  static constexpr std::array kHeaders = {StructureKind::kJournalHeader};
  for (unsigned edits = input.take<std::uint8_t>() % 4; edits != 0; --edits)
    apply_edit(seed, kHeaders, input, main, realtime.get());
  Chain chain(seed, main);
  for (std::size_t i = 0; i < kMaxRecords && !input.empty() && chain.add(input); ++i) {
  }

  media::Superblock superblock;
  std::memcpy(&superblock, main.bytes(), sizeof superblock);
  Journal journal(main, media::journal_geometry(superblock));
  const std::uint64_t journal_end = seed.journal_start + seed.journal_bytes;
  const auto replayed = journal.replay_into([&](std::uint64_t home, std::span<const std::byte> range) {
    const std::uint64_t end = home + range.size();
    require(home >= media::kReservedHeadBytes && end <= main.size_bytes() && end >= home &&
                (end <= seed.journal_start || home >= journal_end),
            "journal: a range outside the metadata is applied");
    require(range.empty() || home / seed.block_size == (end - 1) / seed.block_size,
            "journal: a range is applied that crosses a block");
    return Status{};
  });
  (void)check_volume({main, realtime.get()}, {});
  MountOptions options = test::quiet_mount();
  options.read_only = (flags & kReadOnly) != 0;
  {
    const auto volume = Volume::mount({main, realtime.get()}, options);
    require(replayed.has_value() || !volume, "journal: a mount succeeds where the journal cannot be replayed");
  }
  (void)check_volume({main, realtime.get()}, {});
}

}  // namespace plumb::fuzz
