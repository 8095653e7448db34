#include "pmem/crash_device.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cstring>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "pmem/crash_explorer.h"
#include "pmem/unreadable.h"

namespace {

using plumb::pmem::CrashClock;
using plumb::pmem::CrashDevice;
using plumb::pmem::CrashEvent;
using plumb::pmem::CrashExplorer;
using plumb::pmem::CrashImage;
using plumb::pmem::DeviceKind;
using plumb::pmem::everything_evicted;
using plumb::pmem::nothing_evicted;
using plumb::pmem::UnitChoice;

constexpr std::uint64_t kSize = 1 << 16;

CrashDevice memory_device() {
  return CrashDevice(kSize, {.kind = DeviceKind::kMemory});
}
CrashDevice cached_device() {
  return CrashDevice(kSize, {.kind = DeviceKind::kCached});
}

std::span<const std::byte> bytes_of(const std::uint64_t& value) {
  return std::as_bytes(std::span(&value, 1));
}

void put(CrashDevice& device, std::uint64_t offset, std::uint64_t value) {
  REQUIRE(device.store(offset, bytes_of(value)));
}
void stream(CrashDevice& device, std::uint64_t offset, std::uint64_t value) {
  REQUIRE(device.store_nt(offset, bytes_of(value)));
}
void flush(CrashDevice& device, std::uint64_t offset) {
  REQUIRE(device.flush(offset, 8));
}
void drain(CrashDevice& device) {
  REQUIRE(device.drain());
}

template <typename Fn>
void in_another_thread(const Fn& fn) {
  std::thread(fn).join();
}

// The values that the word may have at the end of the log.
std::set<std::uint64_t> values_after_crash(const CrashDevice& device, std::uint64_t offset) {
  CrashExplorer explorer(device);
  std::set<std::uint64_t> values;
  explorer.for_each_image(device.event_count(), {.random_torn = 0}, [&](const CrashImage& image) {
    values.insert(image.read_u64(offset));
    return true;
  });
  return values;
}

using Values = std::set<std::uint64_t>;

}  // namespace

TEST_CASE("crash device, memory: a store may be there or not", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 64, 1);
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  put(device, 64, 2);
  CHECK(values_after_crash(device, 64) == Values{0, 1, 2});
}

TEST_CASE("crash device, memory: a flush without a drain is not durable", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 64, 1);
  flush(device, 64);
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{1});
}

TEST_CASE("crash device, memory: a drain without a flush is not durable", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 64, 1);
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{0, 1});
}

TEST_CASE("crash device, memory: a store after the flush is not covered by it", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 64, 1);
  flush(device, 64);
  put(device, 64, 2);
  drain(device);
  // 0 is gone: what was flushed is the oldest that can come back.
  CHECK(values_after_crash(device, 64) == Values{1, 2});
  flush(device, 64);
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{2});
}

TEST_CASE("crash device, memory: a flush covers its cache lines and no more", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 120, 1);
  put(device, 128, 2);
  flush(device, 64);
  drain(device);
  CHECK(values_after_crash(device, 120) == Values{1});
  CHECK(values_after_crash(device, 128) == Values{0, 2});
}

TEST_CASE("crash device, memory: streaming stores need the drain only", "[pmem][crash]") {
  CrashDevice device = memory_device();
  stream(device, 64, 1);
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{1});
  REQUIRE(device.zero(64, 8));
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{0});
}

TEST_CASE("crash device, memory: a streaming store makes older versions of its words obsolete", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 64, 1);
  put(device, 72, 1);
  stream(device, 64, 2);
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{2});
  CHECK(values_after_crash(device, 72) == Values{0, 1});  // the line was not flushed
}

TEST_CASE("crash device, memory: the drain of another thread does not count", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 64, 1);
  flush(device, 64);
  stream(device, 128, 1);
  in_another_thread([&] { drain(device); });
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  CHECK(values_after_crash(device, 128) == Values{0, 1});
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{1});
  CHECK(values_after_crash(device, 128) == Values{1});
}

TEST_CASE("crash device, memory: another thread may flush and drain a store", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 64, 1);
  stream(device, 72, 1);
  in_another_thread([&] {
    flush(device, 64);
    drain(device);
  });
  CHECK(values_after_crash(device, 64) == Values{1});
  CHECK(values_after_crash(device, 72) == Values{0, 1});  // still in the first thread's buffers
}

TEST_CASE("crash device, memory: a torn store is torn at words and at no other place", "[pmem][crash]") {
  CrashDevice device = memory_device();
  const std::vector<std::byte> bytes(20, std::byte{0xFF});
  REQUIRE(device.store(4, bytes));  // the upper half of word 0, all of words 1 and 2
  Values first;
  Values middle;
  Values last;
  std::set<std::vector<std::byte>> images;
  CrashExplorer explorer(device);
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const CrashImage image = explorer.image_at(device.event_count(), plumb::pmem::random_eviction(seed, 0.5));
    first.insert(image.read_u64(0));
    middle.insert(image.read_u64(8));
    last.insert(image.read_u64(16));
    images.insert(image.read(0, 32));
  }
  CHECK(first == Values{0, 0xFFFFFFFF00000000});
  CHECK(middle == Values{0, ~std::uint64_t{0}});
  CHECK(last == Values{0, ~std::uint64_t{0}});
  CHECK(images.size() == 8);  // the words are independent
}

TEST_CASE("crash device, cached: a flush is durable at once, drain does nothing", "[pmem][crash]") {
  CrashDevice device = cached_device();
  put(device, 64, 1);
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  flush(device, 64);
  CHECK(values_after_crash(device, 64) == Values{1});
}

TEST_CASE("crash device, cached: streaming stores need the flush", "[pmem][crash]") {
  CrashDevice device = cached_device();
  stream(device, 64, 1);
  drain(device);
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  REQUIRE(device.flush_after_nt(64, 8));
  CHECK(values_after_crash(device, 64) == Values{1});
}

TEST_CASE("crash device, cached: a flush covers whole pages", "[pmem][crash]") {
  CrashDevice device = cached_device();
  put(device, 4000, 1);
  put(device, 4096, 2);
  flush(device, 0);
  CHECK(values_after_crash(device, 4000) == Values{1});
  CHECK(values_after_crash(device, 4096) == Values{0, 2});
}

TEST_CASE("crash device, cached: a sector shows one moment, sectors are independent", "[pmem][crash]") {
  CrashDevice device = cached_device();
  put(device, 0, 1);
  put(device, 504, 2);
  put(device, 512, 3);
  std::set<std::vector<std::uint64_t>> states;
  CrashExplorer explorer(device);
  explorer.for_each_image(device.event_count(), {.random_torn = 100}, [&](const CrashImage& image) {
    states.insert({image.read_u64(0), image.read_u64(504), image.read_u64(512)});
    return true;
  });
  // Never the second store of a sector without its first.
  const std::set<std::vector<std::uint64_t>> legal = {{0, 0, 0}, {1, 0, 0}, {1, 2, 0}, {0, 0, 3}, {1, 0, 3}, {1, 2, 3}};
  CHECK(states == legal);
}

TEST_CASE("crash device, cached: flushing again after a failed flush is no cure", "[pmem][crash]") {
  CrashDevice device = cached_device();
  put(device, 64, 1);
  device.fail_flush_call(0, EIO);
  CHECK(device.flush(64, 8).error().code == EIO);
  flush(device, 64);  // the page is clean: nothing is written
  CHECK(values_after_crash(device, 64) == Values{0, 1});
  put(device, 128, 2);  // dirties the page again
  flush(device, 64);
  CHECK(values_after_crash(device, 64) == Values{1});
  CHECK(values_after_crash(device, 128) == Values{2});
}

TEST_CASE("crash device: the extreme choosers are the durable and the current content", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 0, 1);
  REQUIRE(device.persist(0, 8));
  put(device, 0, 2);
  put(device, 4096, 3);
  CrashExplorer explorer(device);
  const std::size_t end = device.event_count();
  CHECK(explorer.image_at(end, nothing_evicted()).read_u64(0) == 1);
  CHECK(explorer.image_at(end, nothing_evicted()).read_u64(4096) == 0);
  CHECK(explorer.image_at(end, everything_evicted()).read(0, kSize) == device.current_image().read(0, kSize));
  // And at an earlier point.
  CHECK(explorer.image_at(1, nothing_evicted()).read_u64(0) == 0);
  CHECK(explorer.image_at(1, everything_evicted()).read_u64(0) == 1);
  CHECK(explorer.image_at(end, nothing_evicted()).read_u64(0) == 1);
}

TEST_CASE("crash device: chosen stores are present, others are not", "[pmem][crash]") {
  CrashDevice device = memory_device();
  for (std::uint64_t i = 0; i < 4; ++i) put(device, i * 8, i + 1);
  CrashExplorer explorer(device);
  REQUIRE(explorer.pending_stores(4) == std::vector<std::size_t>{0, 1, 2, 3});
  const CrashImage image = explorer.image_with(4, std::vector<std::size_t>{1, 3});
  CHECK(image.read_u64(0) == 0);
  CHECK(image.read_u64(8) == 2);
  CHECK(image.read_u64(16) == 0);
  CHECK(image.read_u64(24) == 4);
  CHECK(image.description().find("present: 1 3") != std::string::npos);
}

TEST_CASE("crash device: few pending stores are tried in every combination", "[pmem][crash]") {
  CrashDevice device = memory_device();
  for (std::uint64_t i = 0; i < 8; ++i) put(device, i * 8, 1);
  CrashExplorer explorer(device);
  std::set<std::vector<std::byte>> images;
  const std::size_t made = explorer.for_each_image(8, {}, [&](const CrashImage& image) {
    images.insert(image.read(0, 64));
    return true;
  });
  CHECK(made == 256);
  CHECK(images.size() == 256);
}

TEST_CASE("crash device: many pending stores are tried one by one, in pairs and their complements", "[pmem][crash]") {
  constexpr std::uint64_t kStores = 12;
  CrashDevice device = memory_device();
  for (std::uint64_t i = 0; i < kStores; ++i) put(device, i * 8, 1);
  CrashExplorer explorer(device);
  std::vector<std::size_t> by_count(kStores + 1);
  std::set<std::vector<std::byte>> images;
  explorer.for_each_image(kStores, {.random_subsets = 0, .random_torn = 0}, [&](const CrashImage& image) {
    std::size_t present = 0;
    for (std::uint64_t i = 0; i < kStores; ++i) present += image.read_u64(i * 8);
    CHECK(images.insert(image.read(0, 8 * kStores)).second);
    ++by_count[present];
    return true;
  });
  for (const std::size_t few : {std::size_t{0}, kStores}) CHECK(by_count[few] == 1);
  for (const std::size_t one : {std::size_t{1}, kStores - 1}) CHECK(by_count[one] == 12);
  for (const std::size_t two : {std::size_t{2}, kStores - 2}) CHECK(by_count[two] == 66);
  for (std::size_t prefix = 3; prefix < kStores - 2; ++prefix) CHECK(by_count[prefix] == 1);
}

TEST_CASE("crash device: the number of images stays bounded", "[pmem][crash]") {
  CrashDevice device = memory_device();
  for (std::uint64_t i = 0; i < 2000; ++i) put(device, i * 16, 1);
  CrashExplorer explorer(device);
  const std::size_t made = explorer.for_each_image(2000, {}, [](const CrashImage&) { return true; });
  CHECK(made > 100);
  CHECK(made < 900);
}

TEST_CASE("crash device: the same seed gives the same images", "[pmem][crash]") {
  const auto images_of = [](std::uint64_t seed) {
    CrashDevice device = memory_device();
    for (std::uint64_t i = 0; i < 20; ++i) put(device, i * 8, i + 1);
    CrashExplorer explorer(device);
    std::vector<std::vector<std::byte>> images;
    explorer.for_each_image(20, {.seed = seed}, [&](const CrashImage& image) {
      images.push_back(image.read(0, 160));
      return true;
    });
    return images;
  };
  CHECK(images_of(7) == images_of(7));
  CHECK(images_of(7) != images_of(8));
}

TEST_CASE("crash device: the callback stops the enumeration", "[pmem][crash]") {
  CrashDevice device = memory_device();
  for (std::uint64_t i = 0; i < 20; ++i) put(device, i * 8, 1);
  CrashExplorer explorer(device);
  std::size_t calls = 0;
  CHECK(explorer.for_each_image(20, {}, [&](const CrashImage&) { return ++calls < 5; }) == 5);
  CHECK(calls == 5);
}

TEST_CASE("crash device: a dropped flush or drain lies", "[pmem][crash]") {
  SECTION("flush, memory") {
    CrashDevice device = memory_device();
    device.drop_flush_call(1);
    put(device, 64, 1);
    put(device, 128, 1);
    flush(device, 64);
    flush(device, 128);
    drain(device);
    CHECK(values_after_crash(device, 64) == Values{1});
    CHECK(values_after_crash(device, 128) == Values{0, 1});
    CHECK(device.flush_calls() == 2);
  }
  SECTION("drain, memory: the next one of the thread makes up for it") {
    CrashDevice device = memory_device();
    device.drop_drain_call(0);
    put(device, 64, 1);
    flush(device, 64);
    drain(device);
    CHECK(values_after_crash(device, 64) == Values{0, 1});
    drain(device);
    CHECK(values_after_crash(device, 64) == Values{1});
    CHECK(device.drain_calls() == 2);
  }
  SECTION("flush, cached") {
    CrashDevice device = cached_device();
    device.drop_flush_call(0);
    put(device, 64, 1);
    flush(device, 64);
    CHECK(values_after_crash(device, 64) == Values{0, 1});
  }
}

TEST_CASE("crash device: calls fail as told, and a failed store stores nothing", "[pmem][crash]") {
  CrashDevice device(kSize, {.kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached)});
  device.fail_store_call(1, ENOSPC);
  device.fail_flush_call(0, EIO);
  device.fail_drain_call(0, EIO);
  put(device, 0, 1);
  const std::uint64_t two = 2;
  CHECK(device.store(0, bytes_of(two)).error().code == ENOSPC);
  CHECK(device.current_image().read_u64(0) == 1);
  put(device, 0, 2);
  CHECK(device.persist(0, 8).error().code == EIO);
  CHECK(device.drain().error().code == EIO);
  CHECK(device.persist(0, 8));
  CHECK(device.counters().errors == 3);
  device.fail_drain_call(2, EIO);
  device.clear_faults();
  CHECK(device.drain());
}

TEST_CASE("crash device: poisoned pages give EIO and the device lives on", "[pmem][crash][sigbus]") {
  CrashDevice device = memory_device();
  put(device, 0, 1);
  put(device, 8192, 2);
  device.poison(8200, 1);
  std::vector<std::byte> out(64);
  CHECK(device.load(8192, out).error().code == EIO);
  CHECK(device.is_zero(4096, 8192).error().code == EIO);
  CHECK(device.store(8192, out).error().code == EIO);
  CHECK(device.load(0, out));
  CHECK(device.current_image().read_u64(0) == 1);
}

TEST_CASE("crash device: a store of the whole page clears poison that can be cleared", "[pmem][crash][sigbus]") {
  CrashDevice device = memory_device();
  put(device, 8192, 2);
  device.poison(8192, 8192, CrashDevice::Poison::kClearedByStore);
  const std::vector<std::byte> page(4096, std::byte{7});
  CHECK(device.store(8192, std::span(page).first(4095)).error().code == EIO);
  CHECK(device.store(8192, page));
  CHECK(device.view(8192, 1)[0] == std::byte{7});
  CHECK(device.is_zero(12288, 4096).error().code == EIO);
  CHECK(device.zero(8192, 8192));
  CHECK(*device.is_zero(8192, 8192));
  CHECK(device.current_image().read_u64(8192) == 0);
  device.poison(8192, 1);
  CHECK(device.store(8192, page).error().code == EIO);
}

TEST_CASE("device: the places of faults are kept until they are asked for", "[pmem][crash][sigbus]") {
  CrashDevice device = memory_device();
  device.poison(8192, 1);
  std::vector<std::byte> out(64);
  CHECK(device.take_faults().empty());
  CHECK_FALSE(device.load(8200, out));
  CHECK_FALSE(device.store(9000, out));
  CHECK_FALSE(device.zero(4096, 8192));
  const std::vector<std::uint64_t> faults = device.take_faults();
  REQUIRE(faults.size() == 3);
  for (const std::uint64_t offset : faults) CHECK(offset / 4096 == 2);
  CHECK(device.take_faults().empty());
  for (std::size_t i = 0; i < CrashDevice::kMaxFaults + 10; ++i) CHECK_FALSE(device.load(8192, out));
  CHECK(device.take_faults().size() == CrashDevice::kMaxFaults);
}

TEST_CASE("device: around what cannot be read, the rest is flushed", "[pmem][crash][sigbus]") {
  CrashDevice device = memory_device();
  for (const std::uint64_t offset : {4096u, 16384u}) put(device, offset, 1);
  device.poison(8192, 1);
  CHECK(device.flush(4096, 16384).error().code == EIO);
  CHECK(flush_readable(device, 4096, 16384).value() == false);
  REQUIRE(device.drain());
  CrashExplorer explorer(device);
  explorer.for_each_image(device.event_count(), {}, [&](const CrashImage& image) {
    CHECK(image.read_u64(4096) == 1);
    CHECK(image.read_u64(16384) == 1);
    return true;
  });
  CHECK(flush_readable(device, 12288, 8192).value() == true);
  device.fail_flush_call(device.flush_calls(), ENOSPC);
  CHECK(flush_readable(device, 0, 4096).error().code == ENOSPC);
}

TEST_CASE("device: what cannot be read is found, and looking is no fault", "[pmem][crash][sigbus]") {
  CrashDevice device = memory_device();
  put(device, 0, 1);
  device.poison(8192, 1);
  device.poison(3 * 8192, 8192);
  CHECK(device.is_readable(0, 8192));
  CHECK(device.is_readable(8192, 0));
  CHECK_FALSE(device.is_readable(8191, 2));
  CHECK_FALSE(device.is_readable(12287, 1));
  CHECK(device.is_readable(12288, 4096));
  using Offsets = std::vector<std::uint64_t>;
  CHECK(unreadable_units(device, 0, 65536, 4096) == Offsets{8192, 24576, 28672});
  CHECK(unreadable_units(device, 0, 65536, 16384) == Offsets{0, 16384});
  CHECK(unreadable_units(device, 8192, 4096, 1024) == Offsets{8192, 9216, 10240, 11264});
  CHECK(unreadable_units(device, 32768, 32768, 4096).empty());
  CHECK(device.take_faults().empty());
  CHECK(device.counters().errors == 0);
  CHECK(device.offset_of(device.view(100, 1)) == 100);
  CHECK_FALSE(device.offset_of(device.view(0, 1) + device.size_bytes()));
  CHECK_FALSE(device.offset_of(&device));
}

TEST_CASE("crash device: an image opens as a device, and crashes again", "[pmem][crash]") {
  const DeviceKind kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  CrashDevice device(kSize, {.kind = kind});
  put(device, 0, 1);
  REQUIRE(device.persist(0, 8));
  put(device, 4096, 2);
  CrashExplorer explorer(device);
  std::size_t images = 0;
  explorer.for_each_image(device.event_count(), {}, [&](const CrashImage& image) {
    ++images;
    CrashDevice after(image, {.kind = kind});
    std::uint64_t value = 0;
    REQUIRE(after.load(4096, std::as_writable_bytes(std::span(&value, 1))));
    REQUIRE(value == image.read_u64(4096));
    REQUIRE(after.view(0, 8)[0] == std::byte{1});
    // What the image holds is durable, what recovery does is not.
    put(after, 8192, 3);
    CHECK(values_after_crash(after, 0) == Values{1});
    CHECK(values_after_crash(after, 4096) == Values{value});
    CHECK(values_after_crash(after, 8192) == Values{0, 3});
    REQUIRE(after.persist(8192, 8));
    CHECK(values_after_crash(after, 8192) == Values{3});
    return true;
  });
  CHECK(images == 2);
  // The first device saw nothing of it.
  CHECK(device.is_zero(8192, 8) == true);
}

TEST_CASE("crash device: images stay what they are while the explorer goes on", "[pmem][crash]") {
  CrashDevice device = memory_device();
  for (std::uint64_t i = 0; i < 200; ++i) {
    put(device, i % 16 * 4096, i + 1);
    REQUIRE(device.persist(i % 16 * 4096, 8));
  }
  CrashExplorer explorer(device);
  std::vector<CrashImage> images;
  std::vector<std::vector<std::byte>> contents;
  for (const std::size_t point : device.crash_points()) {
    CrashImage image = explorer.image_at(point, nothing_evicted());
    if (point % 3 != 0) continue;  // some are kept and some are not
    contents.push_back(image.read(0, kSize));
    images.push_back(std::move(image));
  }
  for (std::size_t i = 0; i < images.size(); ++i) REQUIRE(images[i].read(0, kSize) == contents[i]);
}

TEST_CASE("crash device: crash points are fences, marks and the end", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 0, 1);                   // 0
  REQUIRE(device.persist(0, 8));       // 1, 2
  CHECK(device.mark("replied") == 3);  // 3
  put(device, 8, 1);                   // 4
  CHECK(device.fences() == std::vector<std::size_t>{2});
  CHECK(device.marks() == std::vector<std::size_t>{3});
  CHECK(device.crash_points() == std::vector<std::size_t>{2, 3, 5});
  CHECK(device.event(3).text == "replied");
  CHECK(device.event(1).describe() == "flush 0+8");
}

TEST_CASE("crash device: one clock orders the events of several devices", "[pmem][crash]") {
  const auto clock = std::make_shared<CrashClock>();
  CrashDevice main(kSize, {.clock = clock});
  CrashDevice realtime(kSize, {.clock = clock});
  put(main, 0, 1);
  put(realtime, 0, 1);
  const std::uint64_t tick = main.event(main.mark("both")).tick;
  put(realtime, 8, 2);
  put(main, 8, 2);
  CHECK(main.events_before(tick) == 1);
  CHECK(realtime.events_before(tick) == 1);
  CHECK(realtime.events_before(~std::uint64_t{0}) == 2);
}

TEST_CASE("crash device: forgetting history makes the content durable", "[pmem][crash]") {
  CrashDevice device = memory_device();
  put(device, 0, 1);
  device.forget_history();
  CHECK(device.event_count() == 0);
  CHECK(values_after_crash(device, 0) == Values{1});
  put(device, 0, 2);
  CHECK(values_after_crash(device, 0) == Values{1, 2});
}

TEST_CASE("crash device: redundant fences are those that change nothing", "[pmem][crash]") {
  SECTION("memory") {
    CrashDevice device = memory_device();
    put(device, 0, 1);
    flush(device, 0);   // 1
    flush(device, 64);  // 2: nothing there
    drain(device);      // 3
    drain(device);      // 4: nothing to wait for
    flush(device, 0);   // 5: durable already
    stream(device, 128, 1);
    flush(device, 128);  // 7: the stream needs none
    drain(device);       // 8
    put(device, 0, 2);
    flush(device, 0);  // 10: no drain follows
    CHECK(CrashExplorer::redundant_fences(device) == std::vector<std::size_t>{2, 4, 5, 7, 10});
  }
  SECTION("cached") {
    CrashDevice device = cached_device();
    put(device, 0, 1);
    flush(device, 0);
    flush(device, 0);  // 2
    CHECK(CrashExplorer::redundant_fences(device) == std::vector<std::size_t>{2});
  }
}

TEST_CASE("crash device: records from several threads", "[pmem][crash]") {
  CrashDevice device = memory_device();
  std::vector<std::thread> threads;
  for (std::uint64_t id = 0; id < 4; ++id) {
    threads.emplace_back([&device, id] {
      for (std::uint64_t i = 0; i < 500; ++i) {
        const std::uint64_t offset = id * 8192 + i % 64 * 64;
        if (!device.store(offset, bytes_of(i)) || !device.persist(offset, 8)) std::abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(device.event_count() == 4 * 500 * 3);
  CrashExplorer explorer(device);
  CHECK(explorer.image_at(device.event_count(), nothing_evicted()).read(0, kSize) ==
        device.current_image().read(0, kSize));
}
