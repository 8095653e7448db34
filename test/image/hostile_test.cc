// Hostile images: whatever the bytes are, mounting, using and checking them neither crashes nor hangs, nor reads
// outside of the device. Damage is in structures whose checksums are right, as an attacker would make it; what reads it
// has to notice by itself, or to live with it.
//
// PLUMB_HOSTILE_ROUNDS: images for each seed image (default 400). PLUMB_HOSTILE_SEED: of the first; printed when a
// round fails.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <catch2/catch_test_macros.hpp>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "fs/core/check.h"
#include "fs/media/layout.h"
#include "fs/media/verify.h"
#include "test/unit/core_world.h"

namespace plumb::test {
namespace {

using Random = std::mt19937_64;

constexpr std::uint64_t kMainBytes = 8u << 20;
constexpr std::uint64_t kRealtimeBytes = 2u << 20;
constexpr unsigned kSecondsPerRound = 60;  // a hang is ended, and the seed is in the output
constexpr std::size_t kMostEntries = 300;  // looked at in each walk

std::uint64_t below(Random& random, std::uint64_t limit) {
  return std::uniform_int_distribution<std::uint64_t>(0, limit - 1)(random);
}

std::uint64_t environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

struct SeedImage {
  std::uint32_t block_size = 1024;
  bool realtime = false;
  bool clean = true;
  pmem::CrashImage main, second;
};

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

// What a user would do, as far as it goes; errors are expected.
class User {
 public:
  User(Volume& volume, Random& random) : volume_(volume), random_(random) {}

  void live() {
    walk(*volume_.root(), 0);
    const Caller caller{.uid = 0, .gid = 0, .may_keep_setid = true};
    CreateRequest request;
    request.mode = S_IFREG | 0644;
    const auto made = volume_.create(*volume_.root(), "new", request);
    if (made) write(*made->inode, caller);
    request.mode = S_IFDIR | 0755;
    (void)volume_.create(*volume_.root(), "new directory", request);
    (void)volume_.rename(*volume_.root(), "file", *volume_.root(), "renamed", {}, caller);
    (void)volume_.unlink(*volume_.root(), "renamed");
    (void)volume_.unlink(*volume_.root(), "long");
    if (const auto file = volume_.lookup(*volume_.root(), "d")) {
      (void)volume_.unlink(*file->inode, "entry 7");
      (void)volume_.unlink(*file->inode, "data");
    }
    (void)volume_.sync();
    (void)volume_.run_reclaim();
    (void)volume_.statistics();
  }

 private:
  void write(Inode& inode, const Caller& caller) {
    const auto handle = volume_.open(inode, O_RDWR);
    if (!handle) return;
    const std::string bytes = pattern('n', 3000);
    const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
    (void)volume_.write(**handle, below(random_, 100'000), std::span(&piece, 1), caller);
    (void)volume_.allocate(**handle, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 500, 5000, caller);
    (void)volume_.set_xattr(inode, "user.new", std::string(2000, 'v'), {}, caller);
    SetAttributes set;
    set.size_bytes = below(random_, 50'000);
    (void)volume_.set_attributes(inode, set, caller);
    (void)volume_.fsync(**handle, FsyncMode::kFull);
  }

  void look_at(Inode& inode) {
    const Attributes attributes = volume_.attributes(inode);
    for (const std::uint64_t offset : {std::uint64_t{0}, attributes.size_bytes / 2}) {
      const auto pin = volume_.read(inode, offset, 8192);
      if (!pin) continue;
      unsigned sum = 0;
      for (const iovec& piece : pin->iov)
        for (std::size_t i = 0; i < piece.iov_len; ++i) sum += static_cast<const unsigned char*>(piece.iov_base)[i];
      sum_ = sum_ + sum;
    }
    (void)volume_.seek(inode, 0, SEEK_HOLE);
    if (const auto names = volume_.list_xattrs(inode))
      for (const std::string& name : *names) (void)volume_.get_xattr(inode, name);
    if (S_ISLNK(attributes.mode)) (void)volume_.readlink(inode);
    if (S_ISREG(attributes.mode) && below(random_, 4) == 0) write(inode, Caller{});
  }

  void walk(Inode& directory, int depth) {
    std::vector<std::string> names;
    (void)volume_.read_directory(directory, 0, [&](const DirectoryEntry& entry) {
      if (entry.name != "." && entry.name != "..") names.emplace_back(entry.name);
      return names.size() < kMostEntries;
    });
    for (const std::string& name : names) {
      if (++seen_ > kMostEntries) return;
      const auto found = volume_.lookup(directory, name);
      if (!found) continue;
      look_at(*found->inode);
      if (S_ISDIR(found->attributes.mode) && depth < 8) walk(*found->inode, depth + 1);
    }
  }

  Volume& volume_;
  Random& random_;
  std::size_t seen_ = 0;
  volatile unsigned sum_ = 0;
};

// True if the image could be mounted.
bool round(const SeedImage& seed_image, std::uint64_t seed) {
  Random random(seed);
  const auto kind = below(random, 2) == 0 ? pmem::DeviceKind::kMemory : pmem::DeviceKind::kCached;
  pmem::CrashDevice main(seed_image.main, {.kind = kind});
  pmem::CrashDevice second(seed_image.second, {.kind = kind});
  const Members members = seed_image.realtime ? Members(main, &second) : Members(main);
  for (std::uint64_t n = 1 + below(random, 3); n != 0; --n) {
    switch (below(random, 8)) {
      case 0:
        damage_superblock(random, main);
        break;
      case 1:
        damage_journal(random, main);
        break;
      case 2:
        if (seed_image.realtime) damage_label(random, second);
        break;
      default:
        damage_block(random, main, seed_image.block_size);
    }
  }
  (void)check_volume(members, {.zeros = below(random, 2) == 0, .progress = {}});
  MountOptions options = quiet_mount();
  options.read_only = below(random, 5) == 0;
  options.background_threads = below(random, 10) == 0;
  auto volume = Volume::mount(members, options);
  if (volume) {
    User(**volume, random).live();
    if (below(random, 4) != 0) (void)(*volume)->unmount();
    volume->reset();
  }
  (void)check_volume(members, {});
  return volume.has_value();
}

}  // namespace

TEST_CASE("image: hostile images are refused or lived with", "[image][hostile]") {
  const std::uint64_t rounds = environment("PLUMB_HOSTILE_ROUNDS", 400);
  const std::uint64_t first = environment("PLUMB_HOSTILE_SEED", 1);
  const std::array<SeedImage, 4> seeds = {make_seed(1024, false, true), make_seed(1024, true, false),
                                          make_seed(4096, true, true), make_seed(4096, false, false)};
  for (const SeedImage& seed_image : seeds) {
    std::uint64_t mounted = 0;
    for (std::uint64_t seed = first; seed < first + rounds; ++seed) {
      CAPTURE(seed_image.block_size, seed_image.realtime, seed_image.clean, seed);
      // Told beforehand where a crash would not tell it.
      if (std::getenv("PLUMB_HOSTILE_SEED") != nullptr) std::cout << "seed " << seed << std::endl;
      ::alarm(kSecondsPerRound);
      if (round(seed_image, seed)) ++mounted;
      ::alarm(0);
    }
    std::cout << "hostile images of " << seed_image.block_size << " byte blocks: " << rounds << ", " << mounted
              << " could be mounted\n";
    // Some of both, or the damage is not what it is meant to be.
    CHECK((rounds < 100 || (mounted > rounds / 10 && mounted < rounds)));
  }
}

}  // namespace plumb::test
