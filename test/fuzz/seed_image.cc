#include "test/fuzz/seed_image.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>

#include "fs/core/volume_impl.h"
#include "fs/media/verify.h"
#include "test/unit/core_world.h"

namespace plumb::fuzz {
namespace {

using test::must;
using test::pattern;
using test::World;

constexpr std::uint64_t kMainBytes = 8u << 20;
constexpr std::uint64_t kRealtimeBytes = 2u << 20;

struct Recipe {
  std::uint32_t block_size;
  bool realtime;
  bool clean;
};
constexpr std::array<Recipe, kSeedImages> kRecipes = {Recipe{1024, false, true}, Recipe{1024, true, false},
                                                      Recipe{4096, true, true}, Recipe{1024, false, false}};

void populate(World& world, const Recipe& recipe) {
  world.mkdir("d");
  world.mkdir("d/sub");
  if (recipe.realtime) world.set_flags("d", kInodeRtInherit);
  for (int i = 0; i < 150; ++i) world.create("d/entry " + std::to_string(i));
  world.create("file");
  // Holes between them: a tree of two levels.
  for (std::uint64_t i = 0; i < 90; ++i)
    world.write("file", i * 2 * recipe.block_size, pattern('f', recipe.block_size / 2));
  world.create("d/data");
  world.write("d/data", 0, pattern('r', 70'000));
  world.set_xattr("file", "user.short", "value");
  world.set_xattr("file", "user.long", pattern('x', 5000));
  for (int i = 0; i < 30; ++i) world.set_xattr("d/sub", "user.many " + std::to_string(i), pattern('m', 60));
  world.symlink("short", "target");
  world.symlink("long", std::string(2500, 'l'));
  world.link("file", "d/hard link");
  // Freed runs with a gap between them: a reclaim tree with some entries.
  for (int i = 0; i < 12; ++i) {
    const std::string name = "gone " + std::to_string(i);
    world.create(name);
    world.write(name, 0, pattern('g', 3 * recipe.block_size));
  }
  if (recipe.clean) return;
  for (int i = 0; i < 12; i += 2) world.unlink("gone " + std::to_string(i));
  must(world.volume().run_reclaim());
  must(world.volume().impl().store.checkpoint());
  // What follows is in the journal only by the log: the live records.
  world.unlink("gone 1");  // on the orphan list: nobody has deleted it yet
  world.truncate("gone 3", 1);
  world.create("last");
  world.die();
}

template <typename T>
T object_at(const std::byte* bytes) {
  T object;
  std::memcpy(&object, bytes, sizeof object);
  return object;
}

std::optional<StructureKind> kind_of_block(const media::BlockHeader& header, const std::byte* bytes) {
  switch (static_cast<media::BlockMagic>(header.magic.get())) {
    case media::BlockMagic::kState:
      return StructureKind::kState;
    case media::BlockMagic::kBitmap:
      return StructureKind::kBitmap;
    case media::BlockMagic::kValue:
      return StructureKind::kValue;
    case media::BlockMagic::kNode:
      break;
    default:
      return std::nullopt;
  }
  switch (static_cast<media::TreeKind>(object_at<media::NodeHeader>(bytes).kind)) {
    case media::TreeKind::kInodeTable:
      return StructureKind::kInodeTableNode;
    case media::TreeKind::kReclaim:
      return StructureKind::kReclaimNode;
    case media::TreeKind::kExtents:
      return StructureKind::kExtentNode;
    case media::TreeKind::kDirectory:
      return StructureKind::kDirectoryNode;
    case media::TreeKind::kXattrs:
      return StructureKind::kXattrNode;
    default:
      return std::nullopt;
  }
}

void list_blocks(SeedImage& seed, const std::vector<std::byte>& bytes) {
  const std::uint32_t size = seed.block_size;
  for (std::uint64_t offset = media::kReservedHeadBytes; offset < bytes.size(); offset += size) {
    if (offset >= seed.journal_start && offset < seed.journal_start + seed.journal_bytes) continue;
    const auto header = object_at<media::BlockHeader>(bytes.data() + offset);
    const auto kind = kind_of_block(header, bytes.data() + offset);
    if (kind && header.block == offset / size) {
      seed.of(*kind).push_back({offset, size, header.owner});
      continue;
    }
    for (std::uint64_t slot = offset; slot < offset + size; slot += media::kInodeBytes) {
      const auto inode = object_at<media::Inode>(bytes.data() + slot);
      if (media::verify_inode(inode, inode.number))
        seed.of(StructureKind::kInode).push_back({slot, media::kInodeBytes, inode.number});
    }
  }
  // The inodes that lead somewhere come first: most are empty files.
  std::stable_sort(seed.of(StructureKind::kInode).begin(), seed.of(StructureKind::kInode).end(),
                   [&](const Structure& a, const Structure& b) {
                     const auto interest = [&](const Structure& s) {
                       const auto inode = object_at<media::Inode>(bytes.data() + s.offset_bytes);
                       return inode.size_bytes != 0 || inode.xattrs.block != 0 || inode.on_orphan_list != 0;
                     };
                     return interest(a) > interest(b);
                   });
}

media::JournalHeader current_header(const std::byte* bytes, std::uint64_t journal_start) {
  media::JournalHeader best{};
  for (std::uint64_t i = 0; i < 2; ++i) {
    const auto header = object_at<media::JournalHeader>(bytes + journal_start + i * media::kJournalHeaderStride);
    if (header.magic == media::kJournalMagic && header.update >= best.update) best = header;
  }
  return best;
}

void list_records(SeedImage& seed, const std::vector<std::byte>& bytes) {
  const std::uint64_t ring = seed.journal_start + media::kJournalRingOffset;
  const auto tail = current_header(bytes.data(), seed.journal_start);
  std::uint64_t sequence = tail.tail_sequence;
  for (std::uint64_t at = ring + tail.tail_offset; at < seed.journal_start + seed.journal_bytes;) {
    const auto header = object_at<media::RecordHeader>(bytes.data() + at);
    if (header.magic != media::kRecordMagic || header.epoch != tail.epoch || header.sequence != sequence++) return;
    seed.of(StructureKind::kRecord).push_back({at, header.length_bytes, 0});
    at += header.length_bytes;
  }
}

SeedImage make(const Recipe& recipe) {
  pmem::CrashDevice main(kMainBytes, {});
  pmem::CrashDevice second(kRealtimeBytes, {});
  const Members members = recipe.realtime ? Members(main, &second) : Members(main);
  FormatOptions format = test::fixed_format(recipe.block_size);
  format.realtime_extent_bytes = 16384;
  must(Volume::format(members, format));
  {
    World world(members);
    populate(world, recipe);
    if (recipe.clean) world.unmount();
  }
  SeedImage seed;
  seed.block_size = recipe.block_size;
  const pmem::CrashImage image = main.current_image();
  const std::vector<std::byte> bytes = image.read(0, kMainBytes);
  seed.main.emplace(bytes);
  if (recipe.realtime) seed.realtime.emplace(second.current_image().read(0, kRealtimeBytes));
  const auto superblock = object_at<media::Superblock>(bytes.data());
  seed.journal_start = superblock.journal_start;
  seed.journal_bytes = superblock.journal_bytes;
  seed.of(StructureKind::kSuperblock).push_back({0, 384, 0});
  if (recipe.realtime) seed.of(StructureKind::kLabel).push_back({0, 116, 0});
  for (std::uint64_t i = 0; i < 2; ++i)
    seed.of(StructureKind::kJournalHeader)
        .push_back({seed.journal_start + i * media::kJournalHeaderStride, sizeof(media::JournalHeader), 0});
  list_blocks(seed, bytes);
  list_records(seed, bytes);
  return seed;
}

// Numbers that tend to be near a limit.
std::uint64_t interesting(std::uint64_t value, std::uint64_t blocks) {
  const std::array<std::uint64_t, 16> numbers = {0,
                                                 1,
                                                 2,
                                                 255,
                                                 0x7fff,
                                                 0xffff,
                                                 0x7fffffff,
                                                 0xffffffff,
                                                 blocks,
                                                 blocks - 1,
                                                 blocks + 1,
                                                 ~std::uint64_t{0},
                                                 std::uint64_t{1} << 63,
                                                 (std::uint64_t{1} << 63) - 1,
                                                 std::uint64_t{1} << 56,
                                                 (std::uint64_t{1} << 55) + 1};
  return numbers[value % numbers.size()];
}

template <typename T>
void seal_in_place(std::byte* bytes) {
  auto object = object_at<T>(bytes);
  if constexpr (std::is_same_v<T, media::Superblock>) media::seal_superblock(object);
  if constexpr (std::is_same_v<T, media::MemberLabel>) media::seal_member_label(object);
  if constexpr (std::is_same_v<T, media::Inode>) media::seal_inode(object);
  if constexpr (std::is_same_v<T, media::JournalHeader>)
    object.crc = media::checksum(std::as_bytes(std::span<const T, 1>(&object, 1)), offsetof(media::JournalHeader, crc));
  std::memcpy(bytes, &object, sizeof object);
}

void seal(StructureKind kind, const Structure& structure, std::byte* bytes) {
  switch (kind) {
    case StructureKind::kSuperblock:
      seal_in_place<media::Superblock>(bytes);
      return;
    case StructureKind::kLabel:
      seal_in_place<media::MemberLabel>(bytes);
      return;
    case StructureKind::kJournalHeader:
      seal_in_place<media::JournalHeader>(bytes);
      return;
    case StructureKind::kInode:
      seal_in_place<media::Inode>(bytes);
      return;
    case StructureKind::kRecord:
      return;  // seal_records(), when all edits are done
    default:
      media::seal_block({bytes, structure.length_bytes});
  }
}

enum class How : std::uint8_t {
  kSet,
  kAdd,
  kBlock,
  kInode,
  kInteresting,
  kCopy,
  kSetUnsealed,
  kFlipBit,
  // Of nodes only; of others as kSet.
  kAliasRecord,  // a slot gets the record of another: they overlap
  kCopyRecord,   // a record gets the bytes of another: two children alike, two names alike
  kRecordLength,
  kKey,
  kRecordByte,
};
constexpr std::uint8_t kHows = 13;
constexpr std::uint8_t kKeepDeadBytes = 0x80;  // of an edit's `how`: dead_bytes is not made right again

bool is_node(StructureKind kind) {
  return kind >= StructureKind::kInodeTableNode && kind <= StructureKind::kXattrNode;
}

// The slots and records of a node, which may be damaged already: places outside of the block are left alone.
class NodeEditor {
 public:
  NodeEditor(std::byte* bytes, std::uint32_t length) : bytes_(bytes), length_(length) {}

  void edit(StructureKind kind, How how, std::uint16_t where, std::uint64_t value) {
    const std::size_t room = (length_ - sizeof(media::NodeHeader)) / sizeof(media::NodeSlot);
    const std::size_t count = std::min<std::size_t>(header().count, room);
    if (count == 0) return;
    const std::size_t i = where % count;
    media::NodeSlot slot = slot_at(i);
    const media::NodeSlot other = slot_at(value % count);
    switch (how) {
      case How::kAliasRecord:
        slot.offset = static_cast<std::uint16_t>(other.offset + (value >> 32));
        if ((value >> 48 & 1) != 0) slot.length = other.length;
        break;
      case How::kCopyRecord:
        if (within(slot) && within(other))
          std::memmove(bytes_ + slot.offset, bytes_ + other.offset, std::min<std::size_t>(slot.length, other.length));
        break;
      case How::kRecordLength:
        slot.length = static_cast<std::uint16_t>((value >> 48 & 1) != 0 ? value : slot.length + value % 16);
        if ((value >> 49 & 1) != 0) lengthen(kind, slot);
        break;
      case How::kKey:
        slot.key = (value >> 56 & 1) != 0 ? value : other.key + value % 3 - 1;
        break;
      default:  // kRecordByte
        if (within(slot) && slot.length != 0)
          bytes_[slot.offset + (value >> 8) % slot.length] = static_cast<std::byte>(value);
    }
    std::memcpy(bytes_ + slot_offset(i), &slot, sizeof slot);
  }

  void settle_dead_bytes() {
    media::NodeHeader changed = header();
    std::uint32_t live = 0;
    const std::size_t room = (length_ - sizeof changed) / sizeof(media::NodeSlot);
    for (std::size_t i = 0; i < std::min<std::size_t>(changed.count, room); ++i) live += slot_at(i).length;
    changed.dead_bytes = length_ - changed.heap_begin - live;
    std::memcpy(bytes_, &changed, sizeof changed);
  }

 private:
  [[nodiscard]] media::NodeHeader header() const { return object_at<media::NodeHeader>(bytes_); }
  [[nodiscard]] static std::size_t slot_offset(std::size_t i) {
    return sizeof(media::NodeHeader) + i * sizeof(media::NodeSlot);
  }
  [[nodiscard]] media::NodeSlot slot_at(std::size_t i) const {
    return object_at<media::NodeSlot>(bytes_ + slot_offset(i));
  }
  // Moves the record to where there is room for its new length, and lets it say that length.
  void lengthen(StructureKind kind, media::NodeSlot& slot) {
    slot.length = static_cast<std::uint16_t>(slot.length % length_);
    const media::NodeSlot old = slot;
    slot.offset = static_cast<std::uint16_t>(length_ - slot.length);
    if (slot.length < sizeof(media::XattrRecord) || slot.offset < header().heap_begin || !within(old)) return;
    std::memmove(bytes_ + slot.offset, bytes_ + old.offset, slot.length);
    auto xattr = object_at<media::XattrRecord>(bytes_ + slot.offset);
    xattr.value_length = static_cast<std::uint32_t>(slot.length - sizeof xattr - xattr.name_length);
    if (kind == StructureKind::kXattrNode) std::memcpy(bytes_ + slot.offset, &xattr, sizeof xattr);
    auto entry = object_at<media::DirectoryRecord>(bytes_ + slot.offset);
    entry.name_length = static_cast<std::uint8_t>(slot.length - sizeof entry);
    if (kind == StructureKind::kDirectoryNode) std::memcpy(bytes_ + slot.offset, &entry, sizeof entry);
  }
  [[nodiscard]] bool within(const media::NodeSlot& slot) const { return slot.offset + slot.length <= length_; }

  std::byte* bytes_;
  std::uint32_t length_;
};

}  // namespace

const SeedImage& seed_image(std::size_t index) {
  static std::array<std::optional<SeedImage>, kSeedImages> seeds;
  std::optional<SeedImage>& seed = seeds[index % kSeedImages];
  if (!seed) seed = make(kRecipes[index % kSeedImages]);
  return *seed;
}

void apply_edit(const SeedImage& seed, std::span<const StructureKind> kinds, Input& input, FuzzDevice& main,
                FuzzDevice* realtime) {
  const auto kind = kinds[input.take<std::uint8_t>() % kinds.size()];
  const auto how = input.take<std::uint8_t>();
  const auto index = input.take<std::uint16_t>();
  const auto where = input.take<std::uint16_t>();
  const auto value = input.take<std::uint64_t>();
  const std::vector<Structure>& list = seed.of(kind);
  if (list.empty()) return;
  const Structure& structure = list[index % list.size()];
  FuzzDevice& device = kind == StructureKind::kLabel ? *realtime : main;
  std::byte* bytes = device.bytes() + structure.offset_bytes;

  // From the front, where the counts and slots are, or from the end, where the records are.
  const std::size_t width = std::size_t{1} << (how & 3);
  const std::size_t places = structure.length_bytes - width + 1;
  const std::size_t from_edge = (where & 0x7fff) % places;
  const std::size_t at = (where & 0x8000) != 0 ? places - 1 - from_edge : from_edge;
  std::uint64_t number = 0;
  std::memcpy(&number, bytes + at, width);
  const std::uint64_t blocks = seed.main->size_bytes() / seed.block_size;
  const auto what = static_cast<How>((how >> 2 & 0x1f) % kHows);
  if (is_node(kind) && what >= How::kAliasRecord) {
    NodeEditor node(bytes, structure.length_bytes);
    node.edit(kind, what, where, value);
    if ((how & kKeepDeadBytes) == 0) node.settle_dead_bytes();
    seal(kind, structure, bytes);
    return;
  }
  switch (what) {
    case How::kAdd:
      number += value;
      break;
    case How::kBlock: {
      // The number of another block: of the kind that the top byte says, else of any.
      const std::vector<Structure>& others = seed.structures[(value >> 56) % kStructureKinds];
      number = others.empty() ? value % blocks : others[value % others.size()].offset_bytes / seed.block_size;
      break;
    }
    case How::kInode: {
      const std::vector<Structure>& inodes = seed.of(StructureKind::kInode);
      number = inodes[value % inodes.size()].owner;
      break;
    }
    case How::kInteresting:
      number = interesting(value, blocks);
      break;
    case How::kCopy: {
      const Structure& from = list[value % list.size()];
      const std::size_t skip = std::min<std::size_t>(at, std::min(structure.length_bytes, from.length_bytes));
      std::memmove(bytes + skip, device.bytes() + from.offset_bytes + skip,
                   std::min(structure.length_bytes, from.length_bytes) - skip);
      std::memcpy(&number, bytes + at, width);
      break;
    }
    case How::kFlipBit:
      number ^= std::uint64_t{1} << (value % (8 * width));
      break;
    default:
      number = value;
  }
  std::memcpy(bytes + at, &number, width);
  if (what != How::kSetUnsealed) seal(kind, structure, bytes);
  if (kind == StructureKind::kSuperblock || kind == StructureKind::kLabel)
    std::memcpy(device.bytes() + media::kSuperblockOffsets[1], device.bytes(), media::kSuperblockBytes);
}

void seal_records(const SeedImage& seed, FuzzDevice& main) {
  std::uint32_t seed_crc = current_header(main.bytes(), seed.journal_start).tail_seed;
  for (const Structure& record : seed.of(StructureKind::kRecord)) {
    std::byte* bytes = main.bytes() + record.offset_bytes;
    auto header = object_at<media::RecordHeader>(bytes);
    const std::uint64_t room = seed.journal_start + seed.journal_bytes - record.offset_bytes;
    const std::uint64_t length = header.kind == media::kRecordPad ? sizeof header : header.length_bytes.get();
    if (length < sizeof header || length > room) return;
    seed_crc = media::checksum({bytes, length}, offsetof(media::RecordHeader, crc), seed_crc);
    header.crc = seed_crc;
    std::memcpy(bytes, &header, sizeof header);
  }
}

}  // namespace plumb::fuzz
