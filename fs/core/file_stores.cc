#include "fs/core/file_stores.h"

#include <algorithm>

#include "fs/core/extents.h"
#include "fs/core/file_bytes.h"

namespace plumb {

std::span<const std::byte> Source::take(std::uint64_t most) {
  while (data_[index_].iov_len == within_) ++index_, within_ = 0;
  const std::size_t count = std::min<std::uint64_t>(most, data_[index_].iov_len - within_);
  const std::span<const std::byte> piece(static_cast<const std::byte*>(data_[index_].iov_base) + within_, count);
  within_ += count;
  return piece;
}

FileStores::FileStores(VolumeImpl& v, Inode& inode)
    : v_(v),
      inode_(inode),
      role_(v.role_of(inode.media)),
      device_(v.superblock.device(role_)),
      streaming_(v.immediate(device_) || !device_.is_memory()) {}

Status FileStores::store(const ExtentMap& fresh, std::uint64_t offset, std::uint64_t length, Source source) {
  const std::uint64_t block_size = v_.store.block_size();
  while (length != 0) {
    const std::uint64_t block = offset / block_size;
    const ExtentMap* map = &inode_.extents;
    auto it = find_extent(*map, block);
    if (it == map->end()) {
      map = &fresh;
      it = find_extent(*map, block);
      if (it == map->end()) return fail(EUCLEAN, "write: block is not allocated");
    }
    const std::uint64_t in_extent = offset - it->first * block_size;
    std::uint64_t room = std::min(length, it->second.length * block_size - in_extent);
    const std::uint64_t start = it->second.device_block * block_size + in_extent;
    const std::uint64_t count = room;
    Status status;
    for (std::uint64_t at = start; room != 0 && status;) {
      const std::span<const std::byte> piece = source.take(room);
      status = store_file_bytes(device_, at, piece, streaming_);
      at += piece.size();
      room -= piece.size();
      offset += piece.size();
      length -= piece.size();
    }
    // After the store: a walk that took the range before it would not have flushed it.
    v_.mark_stored(inode_, role_, start, count);
    PLUMB_TRY(status);
  }
  return {};
}

Status FileStores::zero(std::uint64_t offset, std::uint64_t end) {
  for (const FilePiece& piece : FilePieces(inode_.extents, v_.store.block_size(), offset, end)) {
    const Status status = zero_file_bytes(device_, piece.at, piece.length);
    v_.mark_stored(inode_, role_, piece.at, piece.length);
    PLUMB_TRY(status);
  }
  return {};
}

}  // namespace plumb
