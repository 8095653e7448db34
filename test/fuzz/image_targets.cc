// The targets that damage a seed image: they differ in what they damage and in what they do with it.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "fs/core/check.h"
#include "fs/core/volume.h"
#include "test/fuzz/seed_image.h"
#include "test/fuzz/steps.h"
#include "test/fuzz/targets.h"
#include "test/unit/core_world.h"

namespace plumb::fuzz {
namespace {

using Kind = StructureKind;

constexpr std::array<Step, kSteps> kAllSteps = [] {
  std::array<Step, kSteps> all{};
  for (std::size_t i = 0; i < kSteps; ++i) all[i] = static_cast<Step>(i);
  return all;
}();

enum Flag : std::uint8_t {
  kCachedDevice = 1,
  kReadOnly = 2,
  kZeros = 4,
  kDie = 8,
  kDeferred = 16,
  kCheckFirst = 32,
};

// The members of one run: private copies of the seed, damaged as the input says.
struct Damaged {
  Damaged(Input& input, std::span<const Kind> kinds) : seed(seed_image(input.take<std::uint8_t>())) {
    flags = input.take<std::uint8_t>();
    const auto kind = (flags & kCachedDevice) != 0 ? pmem::DeviceKind::kCached : pmem::DeviceKind::kMemory;
    main = std::make_unique<FuzzDevice>(*seed.main, kind);
    if (seed.realtime) realtime = std::make_unique<FuzzDevice>(*seed.realtime, kind);
    for (std::size_t edits = input.take<std::uint8_t>() % (kMaxEdits + 1); edits != 0; --edits)
      apply_edit(seed, kinds, input, *main, realtime.get());
    seal_records(seed, *main);
  }
  [[nodiscard]] Members members() const { return {*main, realtime.get()}; }
  void check() const { (void)check_volume(members(), {.zeros = (flags & kZeros) != 0, .progress = {}}); }
  [[nodiscard]] Result<std::unique_ptr<Volume>> mount() const {
    MountOptions options = test::quiet_mount();
    options.read_only = (flags & kReadOnly) != 0;
    options.writeback = (flags & kDeferred) != 0 ? Writeback::kDeferred : Writeback::kImmediate;
    return Volume::mount(members(), options);
  }

  const SeedImage& seed;
  std::uint8_t flags = 0;
  std::unique_ptr<FuzzDevice> main, realtime;
};

void run(std::span<const std::uint8_t> bytes, std::span<const Kind> kinds, std::span<const Step> allowed) {
  Input input(bytes);
  const Damaged damaged(input, kinds);
  if ((damaged.flags & kCheckFirst) != 0) damaged.check();
  auto volume = damaged.mount();
  if (volume) {
    {
      Steps steps(**volume);
      for (std::size_t n = 0; n < kMaxSteps && !input.empty(); ++n) steps.take(input, allowed);
    }
    if ((damaged.flags & kDie) == 0) (void)(*volume)->unmount();
    volume->reset();
  }
  damaged.check();
}

}  // namespace

void fuzz_superblock(std::span<const std::uint8_t> input) {
  static constexpr std::array kKinds = {Kind::kSuperblock, Kind::kSuperblock, Kind::kLabel, Kind::kState};
  static constexpr std::array kWhole = {Step::kWalk,   Step::kCreate,  Step::kWrite,
                                        Step::kLookup, Step::kReclaim, Step::kRepeat};
  run(input, kKinds, kWhole);
}

void fuzz_btree(std::span<const std::uint8_t> input) {
  static constexpr std::array kKinds = {Kind::kInodeTableNode, Kind::kReclaimNode, Kind::kExtentNode,
                                        Kind::kDirectoryNode,  Kind::kXattrNode,   Kind::kState};
  static constexpr std::array kChanges = {Step::kLookup,   Step::kCreate,      Step::kUnlink,   Step::kRename,
                                          Step::kWrite,    Step::kTruncate,    Step::kAllocate, Step::kSetXattr,
                                          Step::kGetXattr, Step::kRemoveXattr, Step::kReclaim,  Step::kReadDirectory,
                                          Step::kByNumber, Step::kRepeat};
  run(input, kKinds, kChanges);
}

void fuzz_inode(std::span<const std::uint8_t> input) {
  static constexpr std::array kKinds = {Kind::kInode, Kind::kInode, Kind::kExtentNode, Kind::kXattrNode, Kind::kValue};
  static constexpr std::array kUses = {
      Step::kLookup,  Step::kByNumber,   Step::kRead,        Step::kWrite,    Step::kTruncate, Step::kAllocate,
      Step::kSeek,    Step::kCopy,       Step::kFsync,       Step::kSetXattr, Step::kGetXattr, Step::kListXattrs,
      Step::kFlags,   Step::kAttributes, Step::kRemoveXattr, Step::kReadlink, Step::kUnlink,   Step::kDrop,
      Step::kReclaim, Step::kLink,       Step::kRepeat};
  run(input, kKinds, kUses);
}

void fuzz_directory(std::span<const std::uint8_t> input) {
  static constexpr std::array kKinds = {Kind::kDirectoryNode, Kind::kDirectoryNode, Kind::kInode};
  static constexpr std::array kNamespace = {
      Step::kLookup, Step::kReadDirectory, Step::kCreate, Step::kMkdir, Step::kSymlink, Step::kUnnamed, Step::kLink,
      Step::kUnlink, Step::kRmdir,         Step::kRename, Step::kWalk,  Step::kDrop,    Step::kRepeat};
  run(input, kKinds, kNamespace);
}

void fuzz_image(std::span<const std::uint8_t> bytes) {
  static constexpr std::array<Kind, kStructureKinds> kKinds = [] {
    std::array<Kind, kStructureKinds> all{};
    for (std::size_t i = 0; i < kStructureKinds; ++i) all[i] = static_cast<Kind>(i);
    return all;
  }();
  run(bytes, kKinds, kAllSteps);
}

}  // namespace plumb::fuzz
