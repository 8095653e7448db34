#include "test/image/damage.h"

#include <sys/stat.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "fs/media/layout.h"
#include "fs/media/verify.h"

namespace plumb::test {
namespace {

// A value that means something, or nothing.
std::uint64_t interesting(Random& random, std::uint64_t blocks) {
  const std::array<std::uint64_t, 14> values = {0,
                                                1,
                                                2,
                                                7,
                                                blocks - 1,
                                                blocks,
                                                blocks + 1,
                                                0x7fff,
                                                0xffff,
                                                0x7fffffff,
                                                0xffffffff,
                                                ~std::uint64_t{0},
                                                std::uint64_t{1} << 63,
                                                std::uint64_t{1} << 56};
  const std::uint64_t pick = below(random, values.size() + 3);
  if (pick < values.size()) return values[pick];
  return pick == values.size() ? below(random, blocks) : random();
}

// Changes some bytes of [from, end), as numbers of 1 to 8 bytes.
void scribble(Random& random, std::span<std::byte> bytes, std::size_t from, std::uint64_t blocks) {
  for (std::uint64_t n = 1 + below(random, 3); n != 0; --n) {
    const std::size_t width = std::size_t{1} << below(random, 4);
    const std::size_t at = from + below(random, (bytes.size() - from) / width) * width;
    const media::Le64 value = interesting(random, blocks);
    std::memcpy(bytes.data() + at, &value, std::min(width, bytes.size() - at));
  }
}

template <typename T>
T load(pmem::Device& device, std::uint64_t offset) {
  T object;
  must(device.load(offset, std::as_writable_bytes(std::span<T, 1>(&object, 1))));
  return object;
}
template <typename T>
void store(pmem::Device& device, std::uint64_t offset, const T& object) {
  must(device.store(offset, std::as_bytes(std::span<const T, 1>(&object, 1))));
}

}  // namespace

std::uint64_t below(Random& random, std::uint64_t limit) {
  return std::uniform_int_distribution<std::uint64_t>(0, limit - 1)(random);
}

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

SeedImage make_seed(std::uint32_t block_size, bool realtime, bool clean) {
  pmem::CrashDevice main(kMainBytes, {});
  pmem::CrashDevice second(kRealtimeBytes, {});
  const Members members = realtime ? Members(main, &second) : Members(main);
  FormatOptions format = fixed_format(block_size);
  format.realtime_extent_bytes = 65536;
  must(Volume::format(members, format));
  {
    World world(members);
    world.mkdir("d");
    world.mkdir("d/sub");
    if (realtime) world.set_flags("d", kInodeRtInherit);
    for (int i = 0; i < 120; ++i) world.create("d/entry " + std::to_string(i));
    world.create("file");
    for (std::uint64_t i = 0; i < 40; ++i) world.write("file", i * 2 * block_size, pattern('f', block_size));
    world.create("d/data");
    world.write("d/data", 0, pattern('r', 100'000));
    world.set_xattr("file", "user.short", "value");
    world.set_xattr("file", "user.long", pattern('x', 5000));
    world.symlink("short", "target");
    world.symlink("long", std::string(2500, 'l'));
    world.create("gone");
    world.write("gone", 0, pattern('g', 20'000));
    world.unlink("gone");
    if (clean)
      world.unmount();
    else
      world.die();
  }
  return {block_size, realtime, clean, main.current_image(), second.current_image()};
}

void damage_superblock(Random& random, pmem::Device& main) {
  auto sb = load<media::Superblock>(main, 0);
  const auto bytes = std::as_writable_bytes(std::span<media::Superblock, 1>(&sb, 1));
  scribble(random, bytes.first(384), 16, kMainBytes / sb.block_size_bytes);
  media::seal_superblock(sb);
  for (const std::uint64_t offset : media::kSuperblockOffsets) store(main, offset, sb);
}

void damage_label(Random& random, pmem::Device& second) {
  auto label = load<media::MemberLabel>(second, 0);
  scribble(random, std::as_writable_bytes(std::span<media::MemberLabel, 1>(&label, 1)).first(116), 12, 2048);
  media::seal_member_label(label);
  for (const std::uint64_t offset : media::kSuperblockOffsets) store(second, offset, label);
}

// A block with a header, or one that may be an inode block.
void damage_block(Random& random, pmem::Device& main, std::uint32_t block_size) {
  const std::uint64_t blocks = kMainBytes / block_size;
  for (int tries = 0; tries < 2000; ++tries) {
    const std::uint64_t number = below(random, blocks);
    std::vector<std::byte> bytes(block_size);
    must(main.load(number * block_size, bytes));
    media::BlockHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    const bool headed = header.block == number && header.magic != 0;
    if (headed) {
      // Mostly the fields in front: counts, offsets, slots.
      const bool front = below(random, 3) != 0;
      scribble(random, front ? std::span(bytes).first(std::min<std::size_t>(bytes.size(), 192)) : std::span(bytes), 16,
               blocks);
      media::seal_block(bytes);
      must(main.store(number * block_size, bytes));
      return;
    }
    const std::size_t slot = below(random, block_size / sizeof(media::Inode)) * sizeof(media::Inode);
    media::Inode inode;
    std::memcpy(&inode, bytes.data() + slot, sizeof inode);
    if (inode.magic != media::kInodeMagic) continue;
    scribble(random, std::as_writable_bytes(std::span<media::Inode, 1>(&inode, 1)), 16, blocks);
    media::seal_inode(inode);
    store(main, number * block_size + slot, inode);
    return;
  }
}

void damage_journal(Random& random, pmem::Device& main) {
  const auto sb = load<media::Superblock>(main, 0);
  if (!media::verify_superblock(sb, kMainBytes)) return;  // damaged itself: nobody knows where the journal is
  if (below(random, 2) == 0) {
    const std::uint64_t offset = sb.journal_start + below(random, 2) * media::kJournalHeaderStride;
    auto header = load<media::JournalHeader>(main, offset);
    scribble(random, std::as_writable_bytes(std::span<media::JournalHeader, 1>(&header, 1)), 8, 4096);
    header.crc = media::checksum(std::as_bytes(std::span<const media::JournalHeader, 1>(&header, 1)),
                                 offsetof(media::JournalHeader, crc));
    store(main, offset, header);
    return;
  }
  // A record that fits behind the tail, with ranges that it should not have.
  media::JournalHeader current{};
  for (std::uint64_t i = 0; i < 2; ++i) {
    const auto header = load<media::JournalHeader>(main, sb.journal_start + i * media::kJournalHeaderStride);
    if (header.magic == media::kJournalMagic && header.update >= current.update) current = header;
  }
  std::vector<std::byte> record(192 + 64 * below(random, 8));
  for (std::byte& byte : record) byte = static_cast<std::byte>(below(random, 256));
  media::RecordHeader header{};
  header.magic = media::kRecordMagic;
  header.epoch = current.epoch;
  header.sequence = current.tail_sequence;
  header.length_bytes = static_cast<std::uint32_t>(record.size());
  header.kind = static_cast<std::uint32_t>(1 + below(random, 2));
  header.ranges = static_cast<std::uint32_t>(1 + below(random, 3));
  std::memcpy(record.data(), &header, sizeof header);
  media::RangeHeader range{};
  range.home_offset = below(random, 2) == 0 ? below(random, kMainBytes) : interesting(random, kMainBytes);
  range.length_bytes =
      static_cast<std::uint32_t>(below(random, 2) == 0 ? 8 * below(random, 10) : interesting(random, 4096));
  std::memcpy(record.data() + sizeof header, &range, sizeof range);
  header.crc = media::checksum(record, offsetof(media::RecordHeader, crc), current.tail_seed);
  std::memcpy(record.data(), &header, sizeof header);
  must(main.store(sb.journal_start + media::kJournalRingOffset + current.tail_offset % (sb.journal_bytes - 8192),
                  record));
}

}  // namespace plumb::test
