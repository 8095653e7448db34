// The extents that a client knows of: merging, contradictions, and readers beside a writer.

#include "fs/client/extent_table.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstdint>
#include <map>
#include <random>
#include <thread>
#include <vector>

namespace {

using plumb::client::ExtentTable;
using plumb::protocol::LeaseExtent;

constexpr std::uint64_t kBlock = 4096;

LeaseExtent blocks(std::uint64_t file, std::uint64_t device, std::uint64_t count) {
  return {file * kBlock, device * kBlock, count * kBlock};
}

// Device offset of a byte, or ~0.
std::uint64_t place(const ExtentTable& table, std::uint64_t offset) {
  ExtentTable::Piece piece = {};
  return table.find(offset, 1, &piece, 1) == 1 ? piece.device_offset : ~std::uint64_t{0};
}

TEST_CASE("extent table: an empty one knows nothing", "[client]") {
  const ExtentTable table;
  ExtentTable::Piece piece = {};
  CHECK(table.find(0, 1, &piece, 1) == 0);
  CHECK_FALSE(table.covers(0, 1));
  CHECK(table.covers(0, 0));
  CHECK(table.count() == 0);
}

TEST_CASE("extent table: neighbours in file and device become one extent", "[client]") {
  ExtentTable table;
  REQUIRE(table.add(blocks(0, 100, 1)) == 0);
  REQUIRE(table.add(blocks(2, 102, 1)) == 0);
  CHECK(table.count() == 2);
  CHECK_FALSE(table.covers(0, 3 * kBlock));
  REQUIRE(table.add(blocks(1, 101, 1)) == 0);
  CHECK(table.count() == 1);
  REQUIRE(table.add(blocks(3, 200, 1)) == 0);
  CHECK(table.count() == 2);
  REQUIRE(table.add(blocks(4, 201, 2)) == 0);
  CHECK(table.count() == 2);

  ExtentTable::Piece pieces[4] = {};
  REQUIRE(table.find(kBlock + 5, 4 * kBlock, pieces, 4) == 2);
  CHECK(pieces[0].device_offset == 101 * kBlock + 5);
  CHECK(pieces[0].length == 2 * kBlock - 5);
  CHECK(pieces[1].device_offset == 200 * kBlock);
  CHECK(pieces[1].length == 2 * kBlock + 5);
  CHECK(table.find(kBlock + 5, 4 * kBlock, pieces, 1) == 1);
}

TEST_CASE("extent table: an extent joins the one behind it", "[client]") {
  ExtentTable table;
  REQUIRE(table.add(blocks(5, 105, 1)) == 0);
  REQUIRE(table.add(blocks(4, 104, 1)) == 0);
  CHECK(table.count() == 1);
  CHECK(place(table, 4 * kBlock) == 104 * kBlock);
}

TEST_CASE("extent table: what is known is not added again, gaps are filled", "[client]") {
  ExtentTable table;
  REQUIRE(table.add(blocks(1, 11, 1)) == 0);
  REQUIRE(table.add(blocks(3, 13, 1)) == 0);
  REQUIRE(table.add(blocks(0, 10, 6)) == 0);
  CHECK(table.count() == 1);
  CHECK(table.covers(0, 6 * kBlock));
  CHECK_FALSE(table.covers(0, 6 * kBlock + 1));
}

TEST_CASE("extent table: a contradiction is refused", "[client]") {
  ExtentTable table;
  REQUIRE(table.add(blocks(0, 10, 4)) == 0);
  CHECK(table.add(blocks(2, 50, 4)) == EPROTO);
  CHECK(table.count() == 1);
  CHECK(place(table, 2 * kBlock) == 12 * kBlock);
  CHECK_FALSE(table.covers(4 * kBlock, 1));
}

TEST_CASE("extent table: random extents, as a map of blocks has them", "[client]") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 50; ++round) {
    // A file of 300 blocks, cut into runs that lie apart on the device.
    std::vector<std::uint64_t> where(300);
    std::uint64_t device = 1000;
    for (std::uint64_t& block : where) {
      device += random() % 4 == 0 ? 7 : 1;
      block = device;
    }
    ExtentTable table;
    std::vector<bool> known(where.size(), false);
    for (int i = 0; i < 120; ++i) {
      const std::uint64_t first = random() % where.size();
      std::uint64_t count = 1;
      while (first + count < where.size() && where[first + count] == where[first] + count && random() % 8 != 0) ++count;
      REQUIRE(table.add(blocks(first, where[first], count)) == 0);
      for (std::uint64_t j = first; j < first + count; ++j) known[j] = true;
    }
    std::size_t runs = 0;
    for (std::size_t i = 0; i < where.size(); ++i) {
      REQUIRE(place(table, i * kBlock + 17) == (known[i] ? where[i] * kBlock + 17 : ~std::uint64_t{0}));
      if (known[i] && (i == 0 || !known[i - 1] || where[i] != where[i - 1] + 1)) ++runs;
    }
    CHECK(table.count() == runs);
  }
}

TEST_CASE("extent table: readers beside a writer see what is true or nothing", "[client]") {
  ExtentTable table;
  constexpr std::uint64_t kCount = 2000;
  // No two of them join: file block n lies at 3 n.
  std::atomic<bool> is_over{false};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> found{0};
  const auto read = [&](unsigned seed) {
    std::mt19937 random(seed);
    while (!is_over.load()) {
      const std::uint64_t block = random() % kCount;
      ExtentTable::Piece pieces[3] = {};
      const std::size_t count = table.find(block * kBlock, 3 * kBlock, pieces, 3);
      for (std::size_t i = 0; i < count; ++i) {
        if (pieces[i].device_offset != 3 * (block + i) * kBlock || pieces[i].length != kBlock) wrong.fetch_add(1);
      }
      found.fetch_add(count);
    }
  };
  std::thread one(read, 1);
  std::thread two(read, 2);
  std::vector<std::uint64_t> order(kCount);
  for (std::uint64_t i = 0; i < kCount; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937(3));
  int failed = 0;
  for (const std::uint64_t block : order) failed += table.add(blocks(block, 3 * block, 1)) == 0 ? 0 : 1;
  while (found.load() == 0) std::this_thread::yield();
  is_over.store(true);
  one.join();
  two.join();
  CHECK(failed == 0);
  CHECK(wrong.load() == 0);
  CHECK(table.covers(0, kCount * kBlock));
  CHECK(table.count() == kCount);
}

}  // namespace
