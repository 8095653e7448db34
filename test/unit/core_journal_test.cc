#include "fs/core/journal.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "fs/core/journal_search.h"
#include "fs/media/verify.h"
#include "pmem/crash_explorer.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::DeviceKind;

constexpr std::uint64_t kSize = 2u << 20;
constexpr std::uint64_t kStart = 1u << 20;
constexpr std::uint64_t kLength = media::kJournalRingOffset + (64u << 10);
constexpr std::uint64_t kHomes = media::kReservedHeadBytes;  // words of 8 bytes that records change
constexpr std::uint64_t kHomeWords = 512;
constexpr media::JournalGeometry kGeometry{kStart, kLength, 4096, kHomes, kSize};

// Homes as they should be, and records that change them.
class Log {
 public:
  explicit Log(DeviceKind kind) : device_(crash_device(kind, kSize)) {
    must(Journal::format(*device_, kStart, 100));
    must(device_->drain());
  }
  pmem::CrashDevice& device() { return *device_; }
  void replace_device(std::unique_ptr<pmem::CrashDevice> device) { device_ = std::move(device); }

  Journal::Recovery open() {
    journal_ = std::make_unique<Journal>(*device_, kGeometry);
    return must(journal_->recover());
  }
  Journal& journal() { return *journal_; }

  // One record of about `bytes` bytes that counts all the words it touches.
  void append(std::uint64_t first_word, std::uint64_t words, std::uint64_t value) {
    const std::vector<std::uint64_t> values(words, value);
    const RedoRange range{kHomes + first_word * 8, std::as_bytes(std::span(values))};
    must(journal_->append(std::span(&range, 1)));
    for (std::uint64_t i = 0; i < words; ++i) expected_[first_word + i] = value;
  }
  void append_random(std::mt19937_64& random) {
    const std::uint64_t first = random() % kHomeWords;
    const std::uint64_t words = 1 + random() % std::min<std::uint64_t>(kHomeWords - first, 300);
    append(first, words, random());
  }
  [[nodiscard]] std::uint64_t home(std::uint64_t word) const {
    std::uint64_t value = 0;
    must(device_->load(kHomes + word * 8, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  void check_homes() const {
    for (const auto& [word, value] : expected_) REQUIRE(home(word) == value);
  }
  std::map<std::uint64_t, std::uint64_t>& expected() { return expected_; }

 private:
  std::unique_ptr<pmem::CrashDevice> device_;
  std::unique_ptr<Journal> journal_;
  std::map<std::uint64_t, std::uint64_t> expected_;
};

constexpr std::uint64_t kRing = kStart + media::kJournalRingOffset;

void change_byte(pmem::Device& device, std::uint64_t offset) {
  std::byte byte{};
  must(device.load(offset, std::span(&byte, 1)));
  byte ^= std::byte{0x40};
  must(device.store(offset, std::span(&byte, 1)));
}

}  // namespace

TEST_CASE("journal: records are replayed after the death of the daemon", "[core][journal]") {
  Log log(GENERATE(DeviceKind::kMemory, DeviceKind::kCached));
  CHECK(log.open().was_clean);
  log.append(0, 10, 1);
  log.append(5, 10, 2);
  const Journal::Recovery recovery = log.open();
  CHECK(recovery.records == 2);
  CHECK_FALSE(recovery.was_clean);
  log.check_homes();
  must(log.journal().close());
  CHECK(log.open().was_clean);
}

TEST_CASE("journal: homes of a page-cached device change in the checkpoint only", "[core][journal]") {
  Log log(DeviceKind::kCached);
  (void)log.open();
  log.append(0, 4, 1);
  must(log.journal().force_all());
  CHECK(log.home(0) == 0);
  CHECK(log.journal().homed() < log.journal().next_sequence());
  must(log.journal().checkpoint());
  log.check_homes();
  CHECK(log.journal().retired().value + 1 == log.journal().next_sequence().value);
}

TEST_CASE("journal: a torn tail entry is ignored, and what follows it", "[core][journal][recovery]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  // Every byte of the second of three records, also the header's and the padding's.
  const std::uint64_t record = Journal::record_bytes({});
  REQUIRE(record == media::kRecordAlign);
  const std::uint64_t length = 128;  // header, range header, 48 bytes
  for (std::uint64_t byte = 0; byte < length; ++byte) {
    Log log(kind);
    (void)log.open();
    log.append(0, 6, 1);
    log.append(0, 6, 2);
    log.append(6, 6, 3);
    for (std::uint64_t word = 0; word < 12; ++word) {
      const std::uint64_t old = 0;  // as if no home had been stored
      must(log.device().store(kHomes + word * 8, std::as_bytes(std::span(&old, 1))));
    }
    change_byte(log.device(), kRing + length + byte);
    CAPTURE(byte);
    CHECK(log.open().records == 1);
    CHECK(log.home(0) == 1);
    CHECK(log.home(6) == 0);
    // The log goes on from there; the third record does not come back.
    log.append(0, 6, 4);
    CHECK(log.open().records == 1);
    CHECK(log.home(0) == 4);
    CHECK(log.home(6) == 0);
  }
}

TEST_CASE("journal: records of an earlier epoch never continue a log", "[core][journal][recovery]") {
  Log log(DeviceKind::kCached);
  (void)log.open();
  for (std::uint64_t i = 0; i < 20; ++i) log.append(0, 6, i);
  (void)log.open();  // tail after 20 records
  must(log.journal().close());
  // The same log again from the start of a ring that still holds them.
  must(Journal::format(log.device(), kStart, 100));
  CHECK(log.open().records == 0);
  CHECK(log.open().records == 0);
  log.append(0, 6, 77);
  CHECK(log.open().records == 1);
  log.check_homes();
}

TEST_CASE("journal: the ring wraps many times, with any record sizes", "[core][journal]") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Log log(GENERATE(DeviceKind::kMemory, DeviceKind::kCached));
  (void)log.open();
  std::uint64_t bytes = 0;
  for (int i = 0; i < 3000; ++i) {
    log.append_random(random);
    if (random() % 50 == 0) must(log.journal().force_all());
    if (random() % 200 == 0) {
      bytes += log.journal().counters().bytes;
      if (random() % 3 == 0) must(log.journal().close());
      (void)log.open();
      log.check_homes();
    }
  }
  bytes += log.journal().counters().bytes;
  CHECK(bytes > 20 * kLength);
  (void)log.open();
  log.check_homes();
}

TEST_CASE("journal: pads of every length", "[core][journal]") {
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  constexpr std::uint64_t kRingBytes = kLength - media::kJournalRingOffset;
  for (std::uint64_t left = media::kRecordAlign; left <= 8 * media::kRecordAlign; left += media::kRecordAlign) {
    CAPTURE(left);
    Log log(kind);
    (void)log.open();
    // Records of 1024 bytes up to the last 1024, then one that leaves `left` bytes to the end of the ring.
    constexpr std::uint64_t kWords = (1024 - sizeof(media::RecordHeader) - sizeof(media::RangeHeader)) / 8;
    for (std::uint64_t at = 0; at < kRingBytes - 1024; at += 1024) log.append(0, kWords, at);
    log.append(0, kWords - left / 8, 7);
    log.append(0, kWords, 8);  // does not fit there unless it is the whole rest
    log.append(3, 1, 9);
    (void)log.open();
    log.check_homes();
  }
}

TEST_CASE("journal: limits", "[core][journal]") {
  Log log(DeviceKind::kMemory);
  (void)log.open();
  const std::vector<std::byte> big(log.journal().max_record_bytes(), std::byte{1});
  const RedoRange range{kHomes, big};
  CHECK(code_of(log.journal().append(std::span(&range, 1))) == EFBIG);
  log.append(0, 1, 5);
  CHECK(log.open().records == 1);
}

TEST_CASE("journal: one header torn is nothing, both is an error", "[core][journal][recovery]") {
  Log log(DeviceKind::kMemory);
  (void)log.open();
  log.append(0, 6, 1);
  must(log.journal().checkpoint());
  log.append(0, 6, 2);
  const std::uint64_t which = GENERATE(0u, 1u);
  change_byte(log.device(), kStart + which * media::kJournalHeaderStride + 16);
  // An older header only means that more is replayed.
  (void)log.open();
  log.check_homes();
  (void)log.open();
  log.check_homes();
  for (std::uint64_t i = 0; i < 2; ++i) change_byte(log.device(), kStart + i * media::kJournalHeaderStride + 16);
  Journal journal(log.device(), kGeometry);
  const auto result = journal.recover();
  CHECK((code_of(result) == EBADMSG || code_of(result) == EUCLEAN));
}

TEST_CASE("journal: a failed flush of the log makes it read-only for good", "[core][journal]") {
  Log log(DeviceKind::kCached);
  (void)log.open();
  log.append(0, 6, 1);
  log.device().fail_flush_call(log.device().flush_calls(), EIO);
  CHECK(code_of(log.journal().force_all()) == EIO);
  CHECK(log.journal().failed());
  CHECK(code_of(log.journal().force_all()) == EIO);
  const RedoRange nothing{kHomes, {}};
  CHECK(code_of(log.journal().append(std::span(&nothing, 1))) == EROFS);
}

TEST_CASE("journal: reading without a store", "[core][journal][recovery]") {
  Log log(DeviceKind::kCached);
  (void)log.open();
  log.append(0, 6, 1);
  log.append(6, 6, 2);
  const std::size_t events = log.device().event_count();
  Journal journal(log.device(), kGeometry);
  std::map<std::uint64_t, std::size_t> seen;
  const auto recovery = journal.replay_into([&](std::uint64_t home, std::span<const std::byte> bytes) -> Status {
    seen[home] = bytes.size();
    return {};
  });
  REQUIRE(recovery);
  CHECK(recovery->records == 2);
  CHECK(seen == std::map<std::uint64_t, std::size_t>{{kHomes, 48}, {kHomes + 48, 48}});
  CHECK(log.device().event_count() == events);
  CHECK(code_of(journal.append({})) == EROFS);
}

TEST_CASE("journal: crash at every event leaves all acknowledged records", "[core][journal][recovery][crash]") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const auto kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  Log log(kind);
  (void)log.open();
  // Near the end of the ring, so that a pad and a checkpoint come.
  while (log.journal().counters().bytes < kLength - 4096 - 3000) log.append(0, 100, 1);
  must(log.journal().checkpoint());
  log.device().forget_history();
  const std::uint64_t before = log.expected()[0];
  // A counter in two words that must agree, and how far it was promised.
  std::vector<std::uint64_t> promised;
  for (std::uint64_t i = 1; i <= 30; ++i) {
    const std::vector<std::uint64_t> values(40 + random() % 60, 1000 + i);
    const RedoRange ranges[2] = {{kHomes, std::as_bytes(std::span(values))},
                                 {kHomes + 200 * 8, std::as_bytes(std::span(values))}};
    must(log.journal().append(ranges));
    if (kind == DeviceKind::kCached && i % 4 == 0) must(log.journal().force_all());
    if (kind == DeviceKind::kMemory || i % 4 == 0) {
      log.device().mark("promised");
      promised.push_back(1000 + i);
    }
    if (i == 17) must(log.journal().checkpoint());
  }
  pmem::CrashExplorer explorer(log.device());
  pmem::ImageLimits limits;
  limits.exhaustive_stores = 4;
  limits.max_systematic = 24;
  limits.random_subsets = 3;
  limits.torn_stores = 2;
  limits.random_torn = 4;
  limits.seed = seed;
  std::size_t marks = 0;
  for (const std::size_t point : log.device().crash_points()) {
    while (marks < promised.size() && log.device().marks()[marks] < point) ++marks;
    const std::uint64_t least = marks == 0 ? before : promised[marks - 1];
    explorer.for_each_image(point, limits, [&](const pmem::CrashImage& image) {
      pmem::CrashDevice after(image, {.kind = kind});
      Journal journal(after, kGeometry);
      INFO(image.description());
      REQUIRE(journal.recover());
      std::uint64_t values[2] = {};
      must(after.load(kHomes, std::as_writable_bytes(std::span(&values[0], 1))));
      must(after.load(kHomes + 200 * 8, std::as_writable_bytes(std::span(&values[1], 1))));
      REQUIRE(values[0] >= least);
      REQUIRE((values[0] == values[1] || values[0] == before));
      return true;
    });
  }
}

namespace {

// What a user would write to pass for the log: two records, of which the first proves the second, with a range that
// stores into the homes. `at`: where in the text it begins.
std::vector<std::byte> forged_log(std::size_t at, std::uint64_t epoch) {
  std::vector<std::byte> text(at + 256, std::byte{0x55});
  std::uint32_t seed = 1;
  for (std::uint64_t i = 0; i < 2; ++i) {
    std::vector<std::byte> record(128, std::byte{0});
    media::RecordHeader header{};
    header.magic = media::kRecordMagic;
    header.epoch = epoch;
    header.sequence = 1'000'000 + i;
    header.length_bytes = static_cast<std::uint32_t>(record.size());
    header.kind = media::kRecordTransaction;
    header.ranges = 1;
    media::RangeHeader range{};
    range.home_offset = kHomes;
    range.length_bytes = 8;
    std::memcpy(record.data(), &header, sizeof header);
    std::memcpy(record.data() + sizeof header, &range, sizeof range);
    header.crc = media::checksum(record, offsetof(media::RecordHeader, crc), seed);
    seed = header.crc;
    std::memcpy(record.data(), &header, sizeof header);
    std::memcpy(text.data() + at + i * record.size(), record.data(), record.size());
  }
  return text;
}

}  // namespace

TEST_CASE("journal: what is logged does not pass for records, wherever it lies", "[core][journal]") {
  const std::uint64_t ring_bytes = 64u << 10;
  for (std::size_t at = 0; at < 64; at += 4) {
    CAPTURE(at);
    Log log(DeviceKind::kMemory);
    (void)log.open();
    log.append(0, 1, 7);
    const std::vector<std::byte> text = forged_log(at, 101);
    // The forged bytes are in place as they stand: without the log's doing they would be found.
    must(log.device().store(kRing + 32768, std::span(text).subspan(at)));
    CHECK(newest_records(log.device(), kRing, ring_bytes, {100, 200}).back().header.sequence >= 1'000'000);
    must(log.device().zero(kRing + 32768, text.size()));
    const RedoRange range{kHomes + 4096 - text.size() / 8 * 8, std::span(text).first(text.size() / 8 * 8)};
    must(log.journal().append(std::span(&range, 1)));
    log.append(1, 1, 8);
    const auto found = newest_records(log.device(), kRing, ring_bytes, {100, 200});
    REQUIRE(!found.empty());
    CHECK(found.back().header.sequence < 1000);
    // And they are replayed as they were given.
    std::vector<std::byte> home(range.bytes.size());
    must(log.device().zero(range.home_offset_bytes, home.size()));
    (void)log.open();
    must(log.device().load(range.home_offset_bytes, home));
    CHECK(std::memcmp(home.data(), range.bytes.data(), home.size()) == 0);
    log.check_homes();
  }
}

TEST_CASE("journal: a header that is older than the records is refused; one that was torn is not", "[core][journal]") {
  Log log(DeviceKind::kMemory);
  (void)log.open();  // update 3, in the first place; epoch 101
  const auto refused = [&] {
    Journal journal(log.device(), kGeometry);
    const auto recovery = journal.recover();
    return !recovery && recovery.error().code == EUCLEAN;
  };
  SECTION("no record behind it") {
    change_byte(log.device(), kStart + 20);
    CHECK(!refused());
  }
  SECTION("one record behind it") {
    log.append(3, 1, 9);
    change_byte(log.device(), kStart + 20);
    CHECK(refused());
  }
  SECTION("the older one") {
    log.append(3, 1, 9);
    change_byte(log.device(), kStart + media::kJournalHeaderStride + 20);
    CHECK(!refused());
  }
  SECTION("the older one, and a torn record with a whole one behind it") {
    log.append(3, 1, 9);
    log.append(4, 20, 9);
    log.append(5, 1, 9);
    change_byte(log.device(), kRing + 64 + 64 + 100);  // in the second of them
    change_byte(log.device(), kStart + media::kJournalHeaderStride + 20);
    CHECK(!refused());
  }
  SECTION("one that the ring has gone round since") {
    std::mt19937_64 random(5);
    for (int i = 0; i < 200; ++i) log.append_random(random);
    must(log.journal().checkpoint());
    must(log.journal().checkpoint());  // both headers are of this mount
    for (int i = 0; i < 20; ++i) log.append_random(random);
    media::JournalHeader headers[2];
    for (std::uint64_t i = 0; i < 2; ++i)
      must(log.device().load(kStart + i * media::kJournalHeaderStride,
                             std::as_writable_bytes(std::span<media::JournalHeader, 1>(&headers[i], 1))));
    const std::uint64_t newer = headers[1].update > headers[0].update ? 1 : 0;
    const bool same_tail = headers[0].tail_sequence == headers[1].tail_sequence;
    change_byte(log.device(), kStart + newer * media::kJournalHeaderStride + 20);
    // The older header leads to everything if it has the same tail, or its records are still there.
    CHECK(same_tail);
    CHECK(!refused());
    log.check_homes();
  }
}
