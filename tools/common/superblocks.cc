#include "tools/common/superblocks.h"

#include <cstddef>
#include <span>

#include "fs/media/verify.h"

namespace plumb::tools {
namespace {

SuperblockCopy read_copy(const pmem::Device& device, std::uint64_t offset_bytes) {
  SuperblockCopy copy;
  copy.offset_bytes = offset_bytes;
  if (device.size_bytes() < offset_bytes + media::kSuperblockBytes) {
    copy.status = fail(EUCLEAN, "superblock: the device ends before it");
    return copy;
  }
  copy.status = device.load(offset_bytes, std::as_writable_bytes(std::span<media::Superblock, 1>(&copy.superblock, 1)));
  if (!copy.status) return copy;
  copy.has_magic = copy.superblock.magic == media::kSuperblockMagic;
  copy.status = media::verify_superblock(copy.superblock, device.size_bytes());
  return copy;
}

// Higher: says more about what is wrong.
int weight(const SuperblockCopy& copy) {
  if (copy.status) return 0;
  if (copy.status.error().code == ENOTSUP) return 4;
  if (copy.has_magic) return 3;
  return copy.status.error().code == EIO ? 2 : 1;
}

}  // namespace

const SuperblockCopy* SuperblockCopies::current() const {
  const SuperblockCopy* best = nullptr;
  for (const SuperblockCopy& copy : copies) {
    if (!copy.status) continue;
    if (best == nullptr || copy.superblock.update > best->superblock.update) best = &copy;
  }
  return best;
}

const SuperblockCopy& SuperblockCopies::most_telling() const {
  const SuperblockCopy* best = &copies.front();
  for (const SuperblockCopy& copy : copies)
    if (weight(copy) > weight(*best)) best = &copy;
  return *best;
}

bool SuperblockCopies::any_magic() const {
  for (const SuperblockCopy& copy : copies)
    if (copy.has_magic) return true;
  return false;
}

SuperblockCopies read_superblocks(const pmem::Device& device) {
  SuperblockCopies result;
  for (std::size_t i = 0; i < result.copies.size(); ++i)
    result.copies[i] = read_copy(device, media::kSuperblockOffsets[i]);
  return result;
}

std::optional<bool> was_unmounted(const pmem::Device& device, const media::Superblock& superblock) {
  std::optional<media::JournalHeader> current;
  for (std::uint64_t i = 0; i < 2; ++i) {
    media::JournalHeader header;
    const auto bytes = std::as_writable_bytes(std::span<media::JournalHeader, 1>(&header, 1));
    if (!device.load(superblock.journal_start + i * media::kJournalHeaderStride, bytes)) continue;
    const std::uint64_t ring_bytes = superblock.journal_bytes - media::kJournalRingOffset;
    if (!media::verify_journal_header(header, ring_bytes)) continue;
    if (!current || header.update > current->update) current = header;
  }
  if (!current) return std::nullopt;
  return current->clean == 1;
}

}  // namespace plumb::tools
