// The wire between programs and the daemon of a mounted plumbfs: ioctls on any open file or directory of the mount.
//
// Rules: structures have fixed sizes, no padding, no pointers, native byte order (both ends are one machine). The first
// member is the version of the structure; a daemon answers with the version it speaks, which a client checks. An ioctl
// number encodes direction and size, because FUSE copies exactly what the number says; its size field has 14 bits, so
// that no structure exceeds 16383 bytes.
//
// Errors beside those of ioctl(2): ENOTTY from anything that is not a plumbfs; EPERM where root is needed.
//
// Thread safety: no state.
#pragma once

#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>

namespace plumb::protocol {

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::size_t kStatisticsTextMax = 15 * 1024;

/// Answer of kIocStatistics: counters as one JSON object, see `plumb stat`.
struct Statistics {
  std::uint32_t version;          // kVersion
  std::uint32_t length_bytes;     // of the text, without a terminating NUL; at most kStatisticsTextMax
  char text[kStatisticsTextMax];  // UTF-8 JSON, the rest is zeros
};
static_assert(sizeof(Statistics) == 8 + kStatisticsTextMax);
static_assert(offsetof(Statistics, text) == 8);
static_assert(sizeof(Statistics) < (1U << _IOC_SIZEBITS));

/// Question and answer of kIocBadBlocks: the list of bad blocks, a part at a time.
struct BadBlocks {
  std::uint32_t version;       // kVersion
  std::uint32_t length_bytes;  // of the text, without a terminating NUL
  // Question: 0, or what the last answer had here. Answer: kBadBlocksEnd when there is no more.
  std::uint64_t cursor;
  char text[kStatisticsTextMax];  // UTF-8 JSON: an array, see `plumb badblocks --json`; the rest is zeros
};
inline constexpr std::uint64_t kBadBlocksEnd = ~std::uint64_t{0};
static_assert(sizeof(BadBlocks) == 16 + kStatisticsTextMax);
static_assert(offsetof(BadBlocks, text) == 16);
static_assert(sizeof(BadBlocks) < (1U << _IOC_SIZEBITS));

/// Answer of kIocClearBadBlocks.
struct ClearedBadBlocks {
  std::uint32_t version;  // kVersion
  std::uint32_t reserved;
  std::uint64_t cleared;  // blocks that left the list
  std::uint64_t left;     // blocks on the list
};
static_assert(sizeof(ClearedBadBlocks) == 24);

inline constexpr unsigned kIocType = 0xf5;

/// Counters of the volume. Anybody may ask.
inline constexpr std::uint32_t kIocStatistics = _IOR(kIocType, 1, Statistics);
/// Makes everything durable that was replied to: all dirty ranges, then the journal. Returns when it is done. Anybody
/// may.
inline constexpr std::uint32_t kIocSync = _IO(kIocType, 2);
/// Works off deletion and reclaim until nothing is pending that could go. Root only.
inline constexpr std::uint32_t kIocReclaim = _IO(kIocType, 3);
/// The list of bad blocks, with what they are part of. Root only: it has the names of files.
inline constexpr std::uint32_t kIocBadBlocks = _IOWR(kIocType, 4, BadBlocks);
/// Tries to make bad blocks usable that no file owns. Root only.
inline constexpr std::uint32_t kIocClearBadBlocks = _IOR(kIocType, 5, ClearedBadBlocks);

}  // namespace plumb::protocol
