// Copies with streaming stores: every width, every alignment, sizes on both sides of the limits. (That they reach the
// medium no program can see; test/vm cuts the power.)

#include "fs/client/persist.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace {

using plumb::client::CopyWidth;

std::string name_of(CopyWidth width) {
  switch (width) {
    case CopyWidth::kSse2:
      return "SSE2";
    case CopyWidth::kAvx:
      return "AVX";
    case CopyWidth::kAvx512:
      return "AVX-512";
  }
  return "";
}

constexpr std::size_t kMargin = 64;

// Copies and looks at every byte of the target, and at those around it.
bool is_copied(CopyWidth width, std::size_t to_shift, std::size_t from_shift, std::size_t length) {
  std::vector<std::uint8_t> source(length + kMargin + from_shift);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = static_cast<std::uint8_t>(i * 31 + 1);
  std::vector<std::uint8_t> memory(length + 4 * kMargin, 0xee);
  std::uint8_t* line = memory.data() + (-reinterpret_cast<std::uintptr_t>(memory.data()) & (kMargin - 1));
  std::vector<std::uint8_t> expected = memory;
  const std::size_t at = static_cast<std::size_t>(line - memory.data()) + to_shift;
  if (length > 0) std::memcpy(expected.data() + at, source.data() + from_shift, length);
  plumb::client::copy_persist_with(width, memory.data() + at, source.data() + from_shift, length);
  return memory == expected;
}

TEST_CASE("copy_persist: all widths, alignments and sizes", "[client]") {
  const CopyWidth width = GENERATE(CopyWidth::kSse2, CopyWidth::kAvx, CopyWidth::kAvx512);
  if (!plumb::client::is_supported(width)) SKIP("this processor has no " << name_of(width));
  INFO(name_of(width));
  std::size_t failed = 0;
  for (std::size_t shift = 0; shift < 64; ++shift) {
    for (const std::size_t length : {0, 1, 7, 8, 63, 64, 65, 255, 256, 257, 319, 320, 321, 4095, 4096, 4097}) {
      failed += is_copied(width, shift, 0, length) ? 0 : 1;
      failed += is_copied(width, shift, (shift * 7 + 3) % 64, length) ? 0 : 1;
    }
  }
  for (std::size_t length = 0; length < 1200; ++length) failed += is_copied(width, length % 64, 5, length) ? 0 : 1;
  failed += is_copied(width, 0, 0, std::size_t{2} << 20) ? 0 : 1;
  CHECK(failed == 0);
}

TEST_CASE("copy_persist: chooses by itself", "[client]") {
  const std::string text(5000, 'x');
  std::string copy(5000, 'y');
  plumb::client::copy_persist(copy.data(), text.data(), text.size());
  CHECK(copy == text);
}

TEST_CASE("persist: changes nothing, and nothing of length 0 is touched", "[client]") {
  std::vector<char> bytes(4096, 'a');
  plumb::client::persist(bytes.data() + 3, 4000);
  plumb::client::persist(nullptr, 0);
  CHECK(bytes == std::vector<char>(4096, 'a'));
}

}  // namespace
