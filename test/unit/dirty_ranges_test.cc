#include "pmem/dirty_ranges.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <limits>
#include <random>
#include <thread>
#include <vector>

namespace {

using plumb::pmem::ByteRange;
using plumb::pmem::DirtyRanges;
using Ranges = std::vector<ByteRange>;

// The same set, one flag a byte.
class NaiveSet {
 public:
  explicit NaiveSet(std::size_t size_bytes) : dirty_(size_bytes) {}

  void set(std::uint64_t begin, std::uint64_t end, bool value) {
    for (std::uint64_t i = begin; i < std::min<std::uint64_t>(end, dirty_.size()); ++i) dirty_[i] = value;
  }
  [[nodiscard]] bool any(std::uint64_t begin, std::uint64_t end) const {
    for (std::uint64_t i = begin; i < std::min<std::uint64_t>(end, dirty_.size()); ++i) {
      if (dirty_[i]) return true;
    }
    return false;
  }
  [[nodiscard]] Ranges ranges(std::uint64_t begin, std::uint64_t end) const {
    Ranges result;
    for (std::uint64_t i = begin; i < std::min<std::uint64_t>(end, dirty_.size()); ++i) {
      if (!dirty_[i]) continue;
      if (!result.empty() && result.back().end_bytes == i) {
        ++result.back().end_bytes;
      } else {
        result.push_back({i, i + 1});
      }
    }
    return result;
  }
  [[nodiscard]] std::uint64_t bytes() const {
    return static_cast<std::uint64_t>(std::count(dirty_.begin(), dirty_.end(), true));
  }

 private:
  std::vector<bool> dirty_;
};

void compare_with_model(std::uint64_t granularity) {
  const std::uint64_t seed = std::random_device{}();
  INFO("seed " << seed << ", granularity " << granularity);
  std::mt19937_64 random(seed);
  const std::uint64_t size = 64 * granularity;
  DirtyRanges set(granularity);
  NaiveSet model(size);
  const auto down = [=](std::uint64_t x) { return x / granularity * granularity; };
  const auto up = [=](std::uint64_t x) { return (x + granularity - 1) / granularity * granularity; };
  for (int step = 0; step < 5000; ++step) {
    const std::uint64_t offset = random() % size;
    const std::uint64_t end = offset + random() % (std::min<std::uint64_t>(size - offset, 9 * granularity) + 1);
    switch (random() % 8) {
      case 0:
      case 1:
      case 2:
      case 3:
        set.add(offset, end - offset);
        if (end > offset) model.set(down(offset), up(end), true);
        break;
      case 4:
      case 5:
        set.remove(offset, end - offset);
        model.set(up(offset), down(end), false);
        break;
      case 6: {
        const Ranges taken = set.take_snapshot(offset, end - offset);
        if (end == offset) {
          REQUIRE(taken.empty());
          break;
        }
        REQUIRE(taken == model.ranges(down(offset), up(end)));
        model.set(down(offset), up(end), false);
        if (random() % 2 == 0) {
          set.put_back(taken);
          for (const ByteRange& range : taken) model.set(range.offset_bytes, range.end_bytes, true);
        }
        break;
      }
      default:
        REQUIRE(set.intersects(offset, end - offset) == model.any(offset, end));
        break;
    }
    REQUIRE(set.bytes() == model.bytes());
    REQUIRE(set.empty() == (model.bytes() == 0));
  }
  const Ranges expected = model.ranges(0, size);
  CHECK(set.count() == expected.size());
  CHECK(set.take_snapshot() == expected);
  CHECK(set.empty());
}

}  // namespace

TEST_CASE("dirty ranges: agree with a naive model", "[pmem][dirty_ranges]") {
  for (const std::uint64_t granularity : {1, 8, 4096 / 64}) compare_with_model(granularity);
}

TEST_CASE("dirty ranges: touching and overlapping ranges become one", "[pmem][dirty_ranges]") {
  DirtyRanges set;
  set.add(10, 10);
  set.add(30, 10);
  CHECK(set.count() == 2);
  set.add(20, 10);
  CHECK(set.bytes() == 30);
  CHECK(set.take_snapshot() == Ranges{{10, 40}});
}

TEST_CASE("dirty ranges: an empty range changes nothing", "[pmem][dirty_ranges]") {
  DirtyRanges set(4096);
  set.add(100, 0);
  CHECK(set.empty());
  set.add(0, 1);
  set.remove(0, 0);
  CHECK(set.bytes() == 4096);
  CHECK_FALSE(set.intersects(5, 0));
}

TEST_CASE("dirty ranges: granularity rounds outwards when adding and inwards when removing", "[pmem][dirty_ranges]") {
  DirtyRanges set(4096);
  set.add(5000, 1);
  CHECK(set.bytes() == 4096);
  set.remove(4097, 4095);  // not all of the page: what is left of it may be dirty
  CHECK(set.bytes() == 4096);
  set.remove(4096, 4096);
  CHECK(set.empty());
}

TEST_CASE("dirty ranges: the end of the address range does not overflow", "[pmem][dirty_ranges]") {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  DirtyRanges set(4096);
  set.add(kMax - 10, 10);
  set.add(kMax - 5, kMax);
  CHECK(set.count() == 1);
  CHECK(set.intersects(kMax - 1, kMax));
  set.remove(0, kMax);
  CHECK(set.empty());
}

TEST_CASE("dirty ranges: what is stored after the snapshot is in the next one", "[pmem][dirty_ranges]") {
  DirtyRanges set;
  set.add(0, 100);
  const Ranges taken = set.take_snapshot();
  set.add(50, 10);
  CHECK(taken == Ranges{{0, 100}});
  CHECK(set.take_snapshot() == Ranges{{50, 60}});
}

TEST_CASE("dirty ranges: what could not be flushed is put back", "[pmem][dirty_ranges]") {
  DirtyRanges set;
  set.add(0, 10);
  set.add(20, 10);
  const Ranges taken = set.take_snapshot();
  set.add(10, 5);  // meanwhile
  set.put_back(taken);
  CHECK(set.take_snapshot() == Ranges{{0, 15}, {20, 30}});
}

TEST_CASE("dirty ranges: a steady writer does not livelock a snapshot", "[pmem][dirty_ranges]") {
  DirtyRanges set(4096);
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> stored{0};
  std::thread writer([&] {
    for (std::uint64_t i = 0; !stop.load(); ++i) {
      set.add(i % 1000 * 8192, 4096);
      stored.fetch_add(1);
    }
  });
  while (stored.load() < 1000) std::this_thread::yield();
  // Each walk is over what was there when it began, however much the writer adds during it.
  for (int walk = 0; walk < 100; ++walk) {
    const Ranges taken = set.take_snapshot();
    REQUIRE(taken.size() <= 1000);
    for (std::size_t i = 1; i < taken.size(); ++i) REQUIRE(taken[i - 1].end_bytes < taken[i].offset_bytes);
  }
  stop.store(true);
  writer.join();
}

TEST_CASE("dirty ranges: nothing is lost between writers and walkers", "[pmem][dirty_ranges]") {
  constexpr std::uint64_t kPages = 512;
  constexpr std::uint64_t kWriters = 3;
  DirtyRanges set(4096);
  std::vector<std::atomic<std::uint32_t>> stored(kPages);   // version of the page
  std::vector<std::atomic<std::uint32_t>> flushed(kPages);  // version that a walker saw after taking it
  std::atomic<std::uint64_t> running{kWriters};
  std::vector<std::thread> threads;
  for (std::uint64_t id = 0; id < kWriters; ++id) {
    threads.emplace_back([&, id] {
      std::mt19937_64 random(id);
      for (int i = 0; i < 20000; ++i) {
        const std::uint64_t page = random() % kPages;
        stored[page].fetch_add(1);
        set.add(page * 4096, 4096);
      }
      running.fetch_sub(1);
    });
  }
  const auto walk = [&] {
    for (const ByteRange& range : set.take_snapshot()) {
      for (std::uint64_t at = range.offset_bytes; at < range.end_bytes; at += 4096) {
        flushed[at / 4096].store(stored[at / 4096].load());
      }
    }
  };
  while (running.load() != 0) walk();
  for (std::thread& thread : threads) thread.join();
  walk();
  CHECK(set.empty());
  for (std::uint64_t page = 0; page < kPages; ++page) REQUIRE(flushed[page].load() == stored[page].load());
}
