// Sizes, uuids and labels as the tools read and write them.

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_all.hpp>
#include <cstdint>
#include <string>

#include "fs/media/uuid_text.h"
#include "tools/common/label_text.h"
#include "tools/common/size.h"

namespace plumb::tools {
namespace {

TEST_CASE("size: numbers and suffixes are powers of 1024", "[tools]") {
  struct Case {
    const char* text;
    std::uint64_t bytes;
  };
  const auto [text, bytes] = GENERATE(Case{"0", 0}, Case{"4096", 4096}, Case{"1k", 1024}, Case{"64K", 65536},
                                      Case{"3M", 3u << 20}, Case{"1G", 1u << 30}, Case{"1GiB", 1u << 30},
                                      Case{"2TB", std::uint64_t{2} << 40}, Case{"16777215T", 16777215ull << 40},
                                      Case{"18446744073709551615", ~std::uint64_t{0}}, Case{"512B", 512});
  CAPTURE(text);
  const auto size = parse_size(text);
  REQUIRE(size);
  CHECK(*size == bytes);
}

TEST_CASE("size: anything else is refused and named", "[tools]") {
  const std::string text = GENERATE("", "k", "1x", "-1", "+1", "1 k", " 1", "0x10", "1.5G", "1kk", "1GiBx", "1KIB");
  CAPTURE(text);
  const auto size = parse_size(text);
  REQUIRE_FALSE(size);
  CHECK(size.error().code == EINVAL);
  CHECK(size.error().detail.find("'" + text + "'") != std::string::npos);
}

TEST_CASE("size: overflow is refused", "[tools]") {
  const std::string text = GENERATE("18446744073709551616", "16777216T", "17179869184G", "99999999999999999999k");
  CAPTURE(text);
  const auto size = parse_size(text);
  REQUIRE_FALSE(size);
  CHECK(size.error().code == ERANGE);
}

TEST_CASE("size: written with the largest unit that leaves a whole number", "[tools]") {
  CHECK(size_text(0) == "0 bytes");
  CHECK(size_text(1023) == "1023 bytes");
  CHECK(size_text(1024) == "1 KiB");
  CHECK(size_text(1536) == "1.5 KiB");
  CHECK(size_text(1u << 30) == "1 GiB");
  CHECK(size_text((1u << 30) + 1) == "1.0 GiB");
  CHECK(size_text(~std::uint64_t{0}) == "15.9 EiB");
}

TEST_CASE("uuid: text and back", "[tools]") {
  const std::string text = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
  const auto uuid = media::parse_uuid(text);
  REQUIRE(uuid);
  CHECK((*uuid)[0] == 0x0f);
  CHECK((*uuid)[15] == 0xf0);
  CHECK(media::uuid_text(*uuid) == text);
  CHECK(media::parse_uuid("0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0") == uuid);
}

TEST_CASE("uuid: anything else is refused", "[tools]") {
  const std::string text =
      GENERATE("", "random", "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f",
               "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f00", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1fg",
               "0f1e2d3c+4b5a-6978-8796-a5b4c3d2e1f0", "{0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f");
  CAPTURE(text);
  CHECK_FALSE(media::parse_uuid(text));
}

TEST_CASE("label: ends at the first NUL or with the field", "[tools]") {
  std::array<char, 32> field{};
  CHECK(label_of(field).empty());
  field.fill('x');
  CHECK(label_of(field) == std::string(32, 'x'));
  field[3] = '\0';
  CHECK(label_of(field) == "xxx");
}

TEST_CASE("label: control characters cannot reach a terminal", "[tools]") {
  CHECK(printable("ordinary \xc3\xa9 text") == "ordinary \xc3\xa9 text");
  CHECK(printable("\x1b[2J\n\x7f") == "\\x1b[2J\\x0a\\x7f");
}

}  // namespace
}  // namespace plumb::tools
