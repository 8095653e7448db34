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
#include "test/image/damage.h"
#include "test/unit/core_world.h"

namespace plumb::test {
namespace {

constexpr unsigned kSecondsPerRound = 60;  // a hang is ended, and the seed is in the output
constexpr std::size_t kMostEntries = 300;  // looked at in each walk

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
