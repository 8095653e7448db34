// Stateless verifiers of structures on the medium: they look at bytes only, never crash on any input, and name the
// field that is wrong. EBADMSG: checksum; EUCLEAN: structure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fs/media/layout.h"
#include "pmem/result.h"

namespace plumb::media {

/// crc32c of `bytes` as if the four bytes at `crc_offset` were zero.
[[nodiscard]] std::uint32_t checksum(std::span<const std::byte> bytes, std::size_t crc_offset, std::uint32_t seed = 0);

/// Sets BlockHeader::crc of a metadata block.
void seal_block(std::span<std::byte> block);
void seal_inode(Inode& inode);
void seal_superblock(Superblock& superblock);
void seal_member_label(MemberLabel& label);

[[nodiscard]] Status verify_superblock(const Superblock& superblock, std::uint64_t device_bytes);
/// The label of a member, by itself; the caller compares it with the device table. EUCLEAN when it is none.
[[nodiscard]] Status verify_member_label(const MemberLabel& label);
/// Magic, own number and checksum.
[[nodiscard]] Status verify_block(std::span<const std::byte> block, BlockMagic magic, std::uint64_t number);
/// verify_block and: kind, level, slots sorted, records within the heap, apart from each other, neither shorter than
/// their kind needs nor longer than a third of the node.
[[nodiscard]] Status verify_node(std::span<const std::byte> block, std::uint64_t number, TreeKind kind);
[[nodiscard]] Status verify_state(std::span<const std::byte> block, std::uint64_t number);
/// An inode in use with this number; ESTALE if the slot is free.
[[nodiscard]] Status verify_inode(const Inode& inode, std::uint64_t number);

/// Where the journal is, and where the ranges of its records may go.
struct JournalGeometry {
  std::uint64_t start_bytes = 0;  // headers, then the ring
  std::uint64_t length_bytes = 0;
  std::uint64_t block_size_bytes = 0;
  std::uint64_t first_home_bytes = 0;  // the state block: below it is no metadata block
  std::uint64_t end_bytes = 0;         // of the file system
};
/// Of a verified superblock.
[[nodiscard]] JournalGeometry journal_geometry(const Superblock& superblock);
/// fs/FORMAT.md, section 11: not empty, within one block, a block that may hold metadata.
[[nodiscard]] Status verify_redo_range(const JournalGeometry& journal, std::uint64_t home_offset_bytes,
                                       std::uint64_t length_bytes);
[[nodiscard]] Status verify_journal_header(const JournalHeader& header, std::uint64_t ring_bytes);

}  // namespace plumb::media
