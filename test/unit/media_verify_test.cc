// The verifiers of fs/media/verify.h where damage has a right checksum.
#include "fs/media/verify.h"

#include <catch2/catch_test_macros.hpp>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "fs/core/node.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using test::code_of;

constexpr std::size_t kBlock = 1024;
constexpr std::uint64_t kNumber = 300;

// A directory leaf with entries of these names.
std::vector<std::byte> leaf(const std::vector<std::string>& names) {
  std::vector<std::byte> bytes(kBlock);
  Node node(bytes.data(), bytes.size());
  node.initialise(media::TreeKind::kDirectory, 0);
  media::BlockHeader header{};
  header.magic = static_cast<std::uint32_t>(media::BlockMagic::kNode);
  header.block = kNumber;
  std::memcpy(bytes.data(), &header, sizeof header);
  for (const std::string& name : names) {
    media::DirectoryRecord entry{};
    entry.inode = 7;
    entry.name_length = static_cast<std::uint8_t>(name.size());
    std::string record(reinterpret_cast<const char*>(&entry), sizeof entry);
    record += name;
    node.insert(node.count(), 256 * (node.count() + 1), std::as_bytes(std::span(record)));
  }
  media::seal_block(bytes);
  return bytes;
}

Status verify(std::vector<std::byte>& bytes) {
  media::seal_block(bytes);
  return media::verify_node(bytes, kNumber, media::TreeKind::kDirectory);
}

template <typename F>
void edit_slot(std::vector<std::byte>& bytes, std::size_t i, const F& change) {
  std::byte* at = bytes.data() + sizeof(media::NodeHeader) + i * sizeof(media::NodeSlot);
  media::NodeSlot slot;
  std::memcpy(&slot, at, sizeof slot);
  change(slot);
  std::memcpy(at, &slot, sizeof slot);
}

}  // namespace

TEST_CASE("verify: records of a node that overlap are refused", "[media][verify]") {
  std::vector<std::byte> bytes = leaf({"first", "other"});
  REQUIRE(verify(bytes));
  // As long as its own and with the same sum: only its place tells.
  edit_slot(bytes, 0, [](media::NodeSlot& slot) { slot.offset = static_cast<std::uint16_t>(kBlock - 30); });
  const Status status = verify(bytes);
  CHECK(code_of(status) == EUCLEAN);
  CHECK(status.error().detail == "block 300: node records overlap");
}

TEST_CASE("verify: a record longer than a third of a node is refused", "[media][verify]") {
  // 313 bytes is the most in a block of 1 KiB: a name of 255 is far below it, an xattr record is not.
  std::vector<std::byte> bytes(kBlock);
  for (const std::size_t length : {std::size_t{313}, std::size_t{314}}) {
    bytes = leaf({});
    Node node(bytes.data(), bytes.size());
    node.initialise(media::TreeKind::kXattrs, 0);
    media::XattrRecord xattr{};
    xattr.name_length = 6;
    xattr.value_length = static_cast<std::uint32_t>(length - sizeof xattr - 6);
    std::string record(reinterpret_cast<const char*>(&xattr), sizeof xattr);
    record += "user.x";
    record.resize(length, 'v');
    node.insert(0, 256, std::as_bytes(std::span(record)));
    media::seal_block(bytes);
    const Status status = media::verify_node(bytes, kNumber, media::TreeKind::kXattrs);
    CHECK(code_of(status) == (length == 313 ? 0 : EUCLEAN));
  }
}

TEST_CASE("verify: ranges of journal records lie within one metadata block", "[media][verify][journal]") {
  // A state block at 132 KiB, bitmaps behind it, a journal from 144 to 216 KiB, then data.
  constexpr std::uint64_t kKiB = 1024;
  constexpr media::JournalGeometry kJournal{144 * kKiB, 72 * kKiB, kBlock, 132 * kKiB, 8 * kKiB * kKiB};
  const auto code = [&](std::uint64_t home, std::uint64_t length) {
    return code_of(media::verify_redo_range(kJournal, home, length));
  };
  CHECK(code(132 * kKiB, 1024) == 0);
  CHECK(code(143 * kKiB, 1024) == 0);
  CHECK(code(216 * kKiB + 8, 1016) == 0);
  CHECK(code(8 * kKiB * kKiB - 8, 8) == 0);
  // Empty, or across the end of a block.
  CHECK(code(132 * kKiB, 0) == EUCLEAN);
  CHECK(code(132 * kKiB, 1025) == EUCLEAN);
  CHECK(code(217 * kKiB - 8, 16) == EUCLEAN);
  CHECK(code(132 * kKiB, ~std::uint64_t{0}) == EUCLEAN);
  // The superblocks and the lease slots, the journal, beyond the end.
  CHECK(code(0, 8) == EUCLEAN);
  CHECK(code(131 * kKiB, 8) == EUCLEAN);
  CHECK(code(144 * kKiB, 8) == EUCLEAN);
  CHECK(code(216 * kKiB - 8, 8) == EUCLEAN);
  CHECK(code(8 * kKiB * kKiB, 8) == EUCLEAN);
  CHECK(code(~std::uint64_t{0} - 7, 8) == EUCLEAN);
}
