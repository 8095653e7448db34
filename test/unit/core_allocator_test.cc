#include "fs/core/allocator.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <random>
#include <vector>

namespace {

using namespace plumb;
using Class = Allocator::Class;
using Shortage = Allocator::Shortage;

constexpr std::uint64_t kChunk = 512;
constexpr std::uint64_t kBlocks = 40 * kChunk + 100;  // the last chunk is a short one
constexpr std::uint64_t kDataStart = 300;
constexpr std::uint64_t kReserve = 64;

// Does what Store does around it, without media.
class Allocation {
 public:
  explicit Allocation(std::uint64_t zeroed = kBlocks)
      : allocator_({.blocks = kBlocks, .chunk_blocks = kChunk, .data_start = kDataStart, .reserve_blocks = kReserve}) {
    allocator_.load_used(BlockNumber(0), kDataStart);
    allocator_.load_zeroed_upto(zeroed);
    owned_.assign(kBlocks, false);
    std::fill_n(owned_.begin(), kDataStart, true);
  }
  Allocator& operator*() { return allocator_; }
  Allocator* operator->() { return &allocator_; }

  BlockRange take(Allocator::DataRequest request) {
    for (int round = 0; round < 4; ++round) {
      const Allocator::DataResult result = allocator_.take_data(request);
      if (result.range.length != 0) {
        claim(result.range);
        return result.range;
      }
      if (result.shortage != Shortage::kNeedWindow) return {};
      const auto window = allocator_.choose_window(request);
      if (!window) {
        if (request.size_class == Class::kBig)
          request.size_class = Class::kSmall;
        else
          request.any_window = true;
        continue;
      }
      const auto slot = allocator_.retire_slot();
      REQUIRE(slot);
      allocator_.open_window(*slot, *window, request.size_class);
      windows_[*slot] = *window;
    }
    return {};
  }
  void release(BlockRange range) {
    for (std::uint64_t i = 0; i < range.length; ++i) owned_[range.start.value + i] = false;
    allocator_.release(range);
  }
  void give_back(BlockRange range) {
    for (std::uint64_t i = 0; i < range.length; ++i) owned_[range.start.value + i] = false;
    allocator_.give_back(range);
  }
  bool take_metadata(bool privileged, std::vector<BlockRange>& taken) {
    const auto block = allocator_.take_metadata(privileged);
    if (!block) return false;
    taken.push_back({*block, 1});
    own(taken.back());
    return true;
  }
  void compare() {
    const auto free = static_cast<std::uint64_t>(std::count(owned_.begin(), owned_.end(), false));
    REQUIRE(allocator_.free_blocks() == free);
    for (std::uint64_t b = 0; b < kBlocks; ++b) REQUIRE(allocator_.is_used(BlockNumber(b)) == owned_[b]);
  }

 private:
  void own(BlockRange range) {
    REQUIRE(range.start.value + range.length <= allocator_.zeroed_upto());
    for (std::uint64_t i = 0; i < range.length; ++i) {
      REQUIRE_FALSE(owned_[range.start.value + i]);
      owned_[range.start.value + i] = true;
    }
  }
  // Data comes out of one recorded window.
  void claim(BlockRange range) {
    own(range);
    const bool inside = std::any_of(windows_.begin(), windows_.end(), [&](const auto& entry) {
      const BlockRange& w = entry.second;
      return w.start <= range.start && range.start.value + range.length <= w.start.value + w.length;
    });
    REQUIRE(inside);
  }

  Allocator allocator_;
  std::vector<bool> owned_;
  std::map<std::size_t, BlockRange> windows_;
};

}  // namespace

TEST_CASE("allocator: random use never gives a block twice, nor one outside a window", "[core][allocator]") {
  const std::uint64_t seed = std::random_device{}();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  Allocation a;
  std::vector<BlockRange> live;
  BlockRange last;
  for (int step = 0; step < 4000; ++step) {
    const std::uint64_t what = random() % 10;
    if (what < 5) {
      Allocator::DataRequest request;
      request.blocks = 1 + random() % (random() % 4 == 0 ? 1000 : 20);
      request.size_class = random() % 3 == 0 ? Class::kBig : Class::kSmall;
      request.file_block = random() % 4000;
      if (random() % 2 == 0) request.goal = BlockNumber(last.start.value + last.length);
      if (request.goal.value >= kBlocks) request.goal = BlockNumber(0);
      const BlockRange range = a.take(request);
      if (range.length == 0) {
        REQUIRE(a->free_blocks() <= kReserve);
        while (live.size() > 20) {
          std::swap(live[random() % live.size()], live.back());
          a.release(live.back());
          live.pop_back();
        }
        continue;
      }
      REQUIRE(range.length <= request.blocks);
      if (random() % 8 == 0) {
        a.give_back(range);
      } else {
        a->settle(range);
        live.push_back(range);
        last = range;
      }
    } else if (what < 7) {
      (void)a.take_metadata(random() % 4 == 0, live);
    } else if (!live.empty()) {
      std::swap(live[random() % live.size()], live.back());
      a.release(live.back());
      live.pop_back();
    }
    if (step % 400 == 0) a.compare();
  }
  for (const BlockRange& range : live) a.release(range);
  a->close_windows();
  CHECK(a->free_blocks() == kBlocks - kDataStart);
}

TEST_CASE("allocator: big files begin at the position in a chunk that their offset has", "[core][allocator]") {
  Allocation a;
  Allocator::DataRequest request;
  request.size_class = Class::kBig;
  request.blocks = 3 * kChunk;
  request.file_block = 2 * kChunk + 17;
  const BlockRange range = a.take(request);
  CHECK(range.length >= kChunk - 17);
  CHECK(range.start.value % kChunk == 17);
  a->settle(range);
  // It goes on where it stopped.
  Allocator::DataRequest more = request;
  more.file_block += range.length;
  more.goal = BlockNumber(range.start.value + range.length);
  const BlockRange next = a.take(more);
  CHECK(next.start == more.goal);
}

TEST_CASE("allocator: the reserve is for the privileged", "[core][allocator]") {
  Allocation a;
  std::vector<BlockRange> live;
  while (true) {
    const BlockRange range = a.take({.goal = {}, .blocks = 100});
    if (range.length == 0) break;
    a->settle(range);
  }
  CHECK(a->free_blocks() == kReserve);
  CHECK_FALSE(a.take_metadata(false, live));
  for (std::uint64_t i = 0; i < kReserve; ++i) CHECK(a.take_metadata(true, live));
  CHECK_FALSE(a.take_metadata(true, live));
  CHECK(a->free_blocks() == 0);
}

TEST_CASE("allocator: nothing above the zeroed mark is given", "[core][allocator]") {
  Allocation a(3 * kChunk);
  std::vector<BlockRange> live;
  while (true) {
    const BlockRange range = a.take({.goal = {}, .blocks = 100});
    if (range.length == 0) break;
    a->settle(range);
  }
  CHECK(a->take_data({.goal = BlockNumber(3 * kChunk), .blocks = 1}).shortage == Shortage::kNeedZeroed);
  CHECK(a->available_now() <= kReserve);  // what is left below the mark is not for ordinary requests
  while (a.take_metadata(true, live)) {
  }
  CHECK(a->available_now() == 0);
  a->load_zeroed_upto(4 * kChunk);
  CHECK(a->available_now() == kChunk);
  CHECK(a.take_metadata(false, live));
}

TEST_CASE("allocator: a window with blocks in flight keeps its slot", "[core][allocator]") {
  Allocation a;
  std::vector<BlockRange> in_flight;
  // All slots in use, each with one block in flight.
  for (std::size_t slot = 0; slot < media::kWindowSlots; ++slot) {
    REQUIRE(a->retire_slot() == slot);
    a->open_window(slot, {BlockNumber((slot + 1) * kChunk), kChunk}, Class::kSmall);
    const auto result = a->take_data({.goal = BlockNumber((slot + 1) * kChunk), .blocks = 1});
    REQUIRE(result.range.start.value == (slot + 1) * kChunk);
    in_flight.push_back(result.range);
  }
  CHECK_FALSE(a->retire_slot());
  a->settle(in_flight[5]);
  CHECK(a->retire_slot() == 5);
}
