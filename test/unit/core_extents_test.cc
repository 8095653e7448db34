// The pieces of a range of a file.
#include <catch2/catch_test_macros.hpp>
#include <tuple>
#include <vector>

#include "fs/core/extents.h"

using namespace plumb;

namespace {

using Triple = std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>;

std::vector<Triple> pieces(const ExtentMap& extents, std::uint64_t block_size, std::uint64_t begin, std::uint64_t end) {
  std::vector<Triple> found;
  for (const FilePiece& piece : FilePieces(extents, block_size, begin, end))
    found.emplace_back(piece.offset, piece.at, piece.length);
  return found;
}

}  // namespace

TEST_CASE("extents: the pieces of a range", "[extents]") {
  // Blocks 2 to 4, 5 to 5 behind them elsewhere, a hole, 9 to 12.
  const ExtentMap extents{{2, {100, 3}}, {5, {50, 1}}, {9, {200, 4}}};
  using List = std::vector<Triple>;
  CHECK(pieces(extents, 1, 0, 100) == List{{2, 100, 3}, {5, 50, 1}, {9, 200, 4}});
  CHECK(pieces(extents, 1, 3, 10) == List{{3, 101, 2}, {5, 50, 1}, {9, 200, 1}});
  CHECK(pieces(extents, 1, 4, 5) == List{{4, 102, 1}});
  CHECK(pieces(extents, 1, 5, 6) == List{{5, 50, 1}});
  CHECK(pieces(extents, 1, 0, 2).empty());
  CHECK(pieces(extents, 1, 6, 9).empty());
  CHECK(pieces(extents, 1, 13, 100).empty());
  CHECK(pieces(extents, 1, 4, 4).empty());
  CHECK(pieces(extents, 1, 5, 4).empty());
  CHECK(pieces({}, 1, 0, 100).empty());

  // In bytes, the edges within blocks.
  CHECK(pieces(extents, 1000, 2500, 2600) == List{{2500, 100'500, 100}});
  CHECK(pieces(extents, 1000, 4999, 5001) == List{{4999, 102'999, 1}, {5000, 50'000, 1}});
  CHECK(pieces(extents, 1000, 5999, 9000) == List{{5999, 50'999, 1}});
  CHECK(pieces(extents, 1000, 5999, 9001) == List{{5999, 50'999, 1}, {9000, 200'000, 1}});
  CHECK(pieces(extents, 1000, 12'999, 20'000) == List{{12'999, 203'999, 1}});
  CHECK(pieces(extents, 1000, 13'000, 20'000).empty());
}

TEST_CASE("extents: what is a hole", "[extents]") {
  const ExtentMap extents{{2, {100, 3}}, {5, {50, 1}}, {9, {200, 4}}};
  CHECK(holes_between(extents, 0, 13) == 5);
  CHECK(holes_between(extents, 2, 6) == 0);
  CHECK(holes_between(extents, 3, 7) == 1);
  CHECK(holes_between(extents, 12, 20) == 7);
  CHECK(holes_between(extents, 6, 9) == 3);
  CHECK(holes_between(extents, 4, 4) == 0);
  CHECK(holes_between({}, 1, 5) == 4);
}

TEST_CASE("extents: where the last one ends", "[extents]") {
  CHECK(allocated_end({}) == 0);
  CHECK(allocated_end({{2, {100, 3}}, {9, {200, 4}}}) == 13);
}
