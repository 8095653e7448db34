// mkfs: lays out an empty file system. fs/FORMAT.md, "Areas".
#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <vector>

#include "fs/core/journal.h"
#include "fs/core/node.h"
#include "fs/core/superblock.h"
#include "fs/core/volume.h"
#include "fs/media/verify.h"

namespace plumb {
namespace {

constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t to) {
  return (value + to - 1) / to * to;
}
constexpr std::uint64_t blocks_for(std::uint64_t bytes, std::uint64_t block_size) {
  return (bytes + block_size - 1) / block_size;
}

template <std::size_t N>
Status random_if_zero(std::array<std::uint8_t, N>& bytes) {
  if (std::any_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b != 0; })) return {};
  if (getrandom(bytes.data(), N, 0) != static_cast<ssize_t>(N)) return fail(errno, "random numbers");
  return {};
}

std::uint64_t journal_size(std::uint64_t device_bytes, std::uint64_t block_size, std::uint64_t asked) {
  const std::uint64_t least = std::max<std::uint64_t>(1u << 20, 64 * block_size);
  const std::uint64_t usual = std::clamp<std::uint64_t>(device_bytes / 64, least, 128u << 20);
  return round_up(asked == 0 ? usual : std::max(asked, least), media::kPageBytes) + media::kJournalRingOffset;
}

// The entry of the realtime device but for its bitmap's place.
Status lay_out_realtime(const pmem::Device& device, const FormatOptions& options, media::Superblock& sb) {
  const std::uint64_t block_size = options.block_size_bytes;
  const std::uint64_t unit = options.realtime_extent_bytes;
  const std::string& path = device.info().path;
  if (!media::valid_realtime_extent(unit, block_size))
    return fail(EINVAL, "realtime extent size " + std::to_string(unit) + ": must be a power of two from " +
                            std::to_string(std::max<std::uint64_t>(block_size, media::kMinRealtimeExtent)) + " to " +
                            std::to_string(media::kMaxRealtimeExtent));
  media::DeviceEntry& entry = sb.devices[1];
  const std::uint64_t data_from = round_up(media::kReservedHeadBytes, unit);
  if (device.size_bytes() < data_from + unit)
    return fail(EINVAL, path + ": " + std::to_string(device.size_bytes()) +
                            " bytes are too small for a realtime device with extents of " + std::to_string(unit) +
                            " bytes; it needs at least " + std::to_string(data_from + unit));
  const std::uint64_t units = device.size_bytes() / unit;
  const std::uint64_t bits = (block_size - sizeof(media::BitmapHeader)) * 8;
  entry.uuid = options.realtime_uuid;
  PLUMB_TRY(random_if_zero(entry.uuid));
  entry.size_bytes = units * unit;
  entry.bitmap_blocks = (units + bits - 1) / bits;
  entry.data_start = data_from / block_size;
  entry.extent_bytes = static_cast<std::uint32_t>(unit);
  entry.role = static_cast<std::uint8_t>(DeviceRole::kRealtime);
  entry.kind = device.is_memory() ? 0 : 1;
  entry.is_volatile = device.info().is_volatile ? 1 : 0;
  sb.device_count = 2;
  sb.incompat = media::kIncompatRealtime;
  const std::string hint = path.size() < sb.realtime_path_hint.size() ? path : std::string();
  std::copy(hint.begin(), hint.end(), sb.realtime_path_hint.begin());
  return {};
}

Result<media::Superblock> lay_out(const Members& members, const FormatOptions& options) {
  const pmem::Device& device = members.main;
  const std::uint64_t block_size = options.block_size_bytes;
  if (!media::valid_block_size(block_size))
    return fail(EINVAL, "block size " + std::to_string(block_size) + ": must be 1024, 2048, 4096, 16384 or 65536");
  if (options.label.size() > 31) return fail(EINVAL, "label: longer than 31 bytes");
  if (device.size_bytes() < media::kMinDeviceBytes)
    return fail(EINVAL, device.info().path + ": " + std::to_string(device.size_bytes()) +
                            " bytes are too small; a plumbfs needs at least " + std::to_string(media::kMinDeviceBytes));
  media::Superblock sb;
  std::memset(static_cast<void*>(&sb), 0, sizeof sb);
  sb.magic = media::kSuperblockMagic;
  sb.version = media::kFormatVersion;
  sb.uuid = options.uuid;
  std::copy(options.label.begin(), options.label.end(), sb.label.begin());
  sb.block_size_bytes = static_cast<std::uint32_t>(block_size);
  sb.inode_size_bytes = media::kInodeBytes;
  timespec ts{};
  clock_gettime(CLOCK_REALTIME, &ts);
  sb.created.seconds = static_cast<std::uint64_t>(options.now.seconds != 0 ? options.now.seconds : ts.tv_sec);
  sb.created.nanoseconds = options.now.seconds != 0 ? options.now.nanoseconds : static_cast<std::uint32_t>(ts.tv_nsec);
  sb.hash_seed = options.hash_seed;
  PLUMB_TRY(random_if_zero(sb.uuid));
  PLUMB_TRY(random_if_zero(sb.hash_seed));

  const std::uint64_t blocks = device.size_bytes() / block_size;
  const std::uint64_t bits = (block_size - sizeof(media::BitmapHeader)) * 8;
  sb.lease_start = media::kReservedHeadBytes;
  sb.lease_bytes = device.size_bytes() >= (256u << 20) ? 256u << 10 : 64u << 10;
  sb.state_block = blocks_for(sb.lease_start + sb.lease_bytes, block_size);
  sb.device_count = 1;
  if (options.realtime_inherit && members.realtime == nullptr)
    return fail(EINVAL, "files of the root directory cannot be realtime: there is no realtime device");
  media::DeviceEntry& main = sb.devices[0];
  main.uuid = sb.uuid;
  main.size_bytes = blocks * block_size;
  main.bitmap_start = sb.state_block + 1;
  main.bitmap_blocks = (blocks + bits - 1) / bits;
  main.extent_bytes = static_cast<std::uint32_t>(block_size);
  main.kind = device.is_memory() ? 0 : 1;
  main.is_volatile = device.info().is_volatile ? 1 : 0;
  std::uint64_t bitmaps_end = main.bitmap_start + main.bitmap_blocks;
  if (members.realtime != nullptr) {
    PLUMB_TRY(lay_out_realtime(*members.realtime, options, sb));
    sb.devices[1].bitmap_start = bitmaps_end;
    bitmaps_end += sb.devices[1].bitmap_blocks;
    if (bitmaps_end >= blocks)
      return fail(EINVAL, device.info().path + ": too small to hold the bitmap of the realtime device");
  }
  sb.journal_start = round_up(bitmaps_end * block_size, media::kPageBytes);
  sb.journal_bytes = journal_size(device.size_bytes(), block_size, options.journal_bytes);
  main.data_start = blocks_for(sb.journal_start + sb.journal_bytes, block_size);
  if (main.data_start + 64 > blocks || (blocks - main.data_start) * block_size < (4u << 20))
    return fail(EINVAL, device.info().path + ": too small for blocks of " + std::to_string(block_size) +
                            " bytes and a journal of " + std::to_string(sb.journal_bytes) + " bytes");
  return sb;
}

// A metadata block under construction.
class NewBlock {
 public:
  NewBlock(std::uint64_t block_size, std::uint64_t number, media::BlockMagic magic, std::uint64_t owner)
      : bytes_(block_size), number_(number) {
    auto& header = as<media::BlockHeader>();
    header.magic = static_cast<std::uint32_t>(magic);
    header.block = number;
    header.owner = owner;
  }
  template <typename T>
  T& as() {
    return *reinterpret_cast<T*>(bytes_.data());
  }
  std::byte* data() { return bytes_.data(); }
  Status write(pmem::Device& device) {
    media::seal_block(bytes_);
    PLUMB_TRY(device.store(number_ * bytes_.size(), bytes_));
    return device.flush(number_ * bytes_.size(), bytes_.size());
  }

 private:
  std::vector<std::byte> bytes_;
  std::uint64_t number_;
};

// The bitmap of a device, with its first `used` units in use.
Status write_bitmap(pmem::Device& main, const media::Superblock& sb, std::size_t index, std::uint64_t used) {
  const std::uint64_t block_size = sb.block_size_bytes;
  const std::uint64_t bits = (block_size - sizeof(media::BitmapHeader)) * 8;
  const media::DeviceEntry& entry = sb.devices[index];
  for (std::uint64_t i = 0; i < entry.bitmap_blocks; ++i) {
    NewBlock block(block_size, entry.bitmap_start + i, media::BlockMagic::kBitmap, media::device_key(index, i));
    auto* map = reinterpret_cast<std::uint8_t*>(block.data()) + sizeof(media::BitmapHeader);
    for (std::uint64_t b = i * bits; b < std::min(used, (i + 1) * bits); ++b)
      map[b % bits / 8] = static_cast<std::uint8_t>(map[b % bits / 8] | 1u << (b % 8));
    PLUMB_TRY(block.write(main));
  }
  return {};
}

// Whose the realtime device is.
Status write_label(pmem::Device& device, const media::Superblock& sb) {
  const media::DeviceEntry& entry = sb.devices[1];
  media::MemberLabel label;
  std::memset(static_cast<void*>(&label), 0, sizeof label);
  label.magic = media::kMemberMagic;
  label.version = media::kFormatVersion;
  label.filesystem_uuid = sb.uuid;
  label.uuid = entry.uuid;
  label.size_bytes = entry.size_bytes;
  label.extent_bytes = entry.extent_bytes;
  label.block_size_bytes = sb.block_size_bytes;
  label.role = entry.role;
  label.created = sb.created;
  label.label = sb.label;
  media::seal_member_label(label);
  for (const std::uint64_t offset : media::kSuperblockOffsets) {
    PLUMB_TRY(device.store(offset, std::as_bytes(std::span<const media::MemberLabel, 1>(&label, 1))));
    PLUMB_TRY(device.flush(offset, sizeof label));
  }
  // The label durable before the superblock that asks for it.
  return device.drain();
}

Status write_root(pmem::Device& device, const media::Superblock& sb, std::uint64_t inode_block,
                  std::uint64_t table_leaf, std::uint32_t root_flags) {
  const std::uint64_t block_size = sb.block_size_bytes;
  media::Inode root;
  std::memset(static_cast<void*>(&root), 0, sizeof root);
  root.magic = media::kInodeMagic;
  root.number = kRootInode.value;
  root.generation = 1;
  root.mode = S_IFDIR | 0755;
  root.flags = root_flags;
  root.links = 2;
  root.parent = kRootInode.value;
  root.atime = root.mtime = root.ctime = root.btime = sb.created.seconds;
  root.atime_ns = root.mtime_ns = root.ctime_ns = root.btime_ns = sb.created.nanoseconds;
  media::seal_inode(root);
  const std::uint64_t offset = inode_block * block_size + kRootInode.value * media::kInodeBytes;
  PLUMB_TRY(device.store(offset, std::as_bytes(std::span<const media::Inode, 1>(&root, 1))));
  PLUMB_TRY(device.flush(offset, sizeof root));

  const auto kind = static_cast<std::uint64_t>(media::TreeKind::kInodeTable);
  NewBlock leaf(block_size, table_leaf, media::BlockMagic::kNode, kind);
  Node node(leaf.data(), block_size);
  node.initialise(media::TreeKind::kInodeTable, 0);
  const media::Le64 where(inode_block);
  node.insert(0, 0, std::as_bytes(std::span<const media::Le64, 1>(&where, 1)));
  return leaf.write(device);
}

}  // namespace

Status Volume::format(const Members& members, const FormatOptions& options) {
  PLUMB_ASSIGN(media::Superblock sb, lay_out(members, options));
  pmem::Device& device = members.main;
  const std::uint64_t block_size = sb.block_size_bytes;
  const media::DeviceEntry& main = sb.devices[0];
  const std::uint64_t blocks = main.size_bytes / block_size;
  // From here on the old file system is gone: durably invalid before anything else is overwritten.
  for (pmem::Device* member : {&device, members.realtime}) {
    if (member == nullptr) continue;
    PLUMB_TRY(member->zero(0, media::kReservedHeadBytes));
    PLUMB_TRY(member->flush(0, media::kReservedHeadBytes));
    // Durable on the main device first: a realtime device without a label is a member that is missing, said clearly.
    PLUMB_TRY(member->drain());
  }

  // The first blocks of the data area are zeroed now, so that a new file system works at once; the rest when first
  // taken.
  const std::uint64_t inode_block = main.data_start;
  const std::uint64_t table_leaf = main.data_start + 1;
  const std::uint64_t zeroed =
      options.contents_are_zero ? blocks : std::min(blocks, main.data_start + 2 * media::kChunkBytes / block_size);
  const std::uint64_t zero_from = media::kReservedHeadBytes;
  const std::uint64_t zero_to = (options.contents_are_zero ? main.data_start + 2 : zeroed) * block_size;
  PLUMB_TRY(device.zero(zero_from, sb.journal_start - zero_from));
  PLUMB_TRY(device.flush(zero_from, sb.journal_start - zero_from));
  const std::uint64_t data_from = main.data_start * block_size;
  PLUMB_TRY(device.zero(data_from, zero_to - data_from));
  PLUMB_TRY(device.flush(data_from, zero_to - data_from));

  NewBlock state(block_size, sb.state_block, media::BlockMagic::kState, 0);
  auto& fields = state.as<media::State>();
  fields.inode_table.block = table_leaf;
  fields.inode_table.nodes = 1;
  fields.zeroed_upto[0] = zeroed;
  if (members.realtime != nullptr) {
    const media::DeviceEntry& realtime = sb.devices[1];
    fields.zeroed_upto[1] = options.realtime_is_zero ? realtime.size_bytes / block_size : realtime.data_start.get();
    PLUMB_TRY(write_bitmap(device, sb, 1, realtime.data_start * block_size / realtime.extent_bytes));
    PLUMB_TRY(write_label(*members.realtime, sb));
  }
  PLUMB_TRY(state.write(device));
  PLUMB_TRY(write_bitmap(device, sb, 0, main.data_start + 2));
  PLUMB_TRY(write_root(device, sb, inode_block, table_leaf, options.realtime_inherit ? kInodeRtInherit : 0));
  // Epochs of an earlier file system on this device must not come again: start where its records are not.
  PLUMB_TRY(Journal::format(device, sb.journal_start, EpochRange::of(sb.uuid).first));
  // Everything the superblock promises is durable before it is there.
  PLUMB_TRY(device.drain());
  return Superblock::write(device, sb);
}

}  // namespace plumb
