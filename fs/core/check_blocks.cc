// The bitmap and the owners of blocks.
#include <algorithm>
#include <bit>
#include <cstring>

#include "fs/core/bit_runs.h"
#include "fs/core/check_impl.h"
#include "fs/media/verify.h"

namespace plumb::checker {
namespace {

constexpr std::uint64_t kZeroPieceBytes = 4u << 20;

}  // namespace

// ---- names ----

std::string inode_name(std::uint64_t number) {
  return "inode " + std::to_string(number);
}

std::string blocks_name(DeviceRole role, std::uint64_t start, std::uint64_t end) {
  const std::string one = role == DeviceRole::kMain ? "block" : "realtime extent";
  if (end - start == 1) return one + " " + std::to_string(start);
  return one + "s " + std::to_string(start) + ".." + std::to_string(end - 1);
}

std::string Owner::object() const {
  switch (kind) {
    case Kind::kInodeTable:
      return "inode table";
    case Kind::kInodeBlock:
      return "inode block " + std::to_string(number);
    case Kind::kReclaimTree:
      return "reclaim tree";
    case Kind::kReclaimEntry:
      return "reclaim tree";
    case Kind::kBadBlockTree:
    case Kind::kBadBlock:
      return "bad block tree";
    default:
      return inode_name(number);
  }
}

std::string Owner::part() const {
  switch (kind) {
    case Kind::kReclaimEntry:
    case Kind::kBadBlock:
      return "entry: ";
    case Kind::kData:
      return "data: ";
    case Kind::kExtentTree:
      return "extent tree: ";
    case Kind::kDirectory:
      return "directory: ";
    case Kind::kXattrTree:
      return "xattr tree: ";
    case Kind::kXattrValue:
      return "xattr value: ";
    case Kind::kTarget:
      return "symlink target: ";
    default:
      return {};
  }
}

std::string Owner::text() const {
  const std::string of_what = part();
  if (of_what.empty()) return object();
  return object() + " (" + of_what.substr(0, of_what.size() - 2) + ")";
}

// ---- BlockOwners ----

BlockOwners::BlockOwners(const Superblock& superblock, DeviceRole role, const Image& image, Findings& findings)
    : superblock_(superblock),
      role_(role),
      image_(image),
      findings_(findings),
      unit_(superblock.unit_blocks(role)),
      blocks_(superblock.blocks(role) / unit_),
      data_start_(superblock.entry(role).data_start / unit_),
      bits_((blocks_ + 63) / 64),
      claimed_(bits_.size()) {}

void BlockOwners::load_bitmap() {
  const media::DeviceEntry& entry = superblock_.entry(role_);
  const std::uint64_t per_block = superblock_.bits_per_bitmap_block();  // a multiple of 64
  std::vector<std::byte> bytes(image_.block_size());
  for (std::uint64_t i = 0; i < entry.bitmap_blocks; ++i) {
    const std::uint64_t block = entry.bitmap_start + i;
    const std::string object =
        (role_ == DeviceRole::kMain ? "bitmap block " : "realtime bitmap block ") + std::to_string(i);
    const std::uint64_t offset = block * image_.block_size();
    const Run covers{i * per_block, std::min(blocks_, (i + 1) * per_block)};
    Status status = image_.load(block, bytes);
    if (status) status = media::verify_block(bytes, media::BlockMagic::kBitmap, block);
    if (!status) {
      findings_.add_error(object, {}, status.error(), offset);
      unknown_.push_back(covers);
      continue;
    }
    media::BlockHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.owner != media::device_key(index_of(role_), i))
      findings_.add(object, "header: owner is not its index", offset);
    bool beyond = false;
    for (std::uint64_t at = sizeof header; at < bytes.size(); at += sizeof(std::uint64_t)) {
      media::Le64 word;
      std::memcpy(&word, bytes.data() + at, sizeof word);
      const std::uint64_t first = covers.start + (at - sizeof header) * 8;
      std::uint64_t inside = first >= covers.end ? 0 : ~std::uint64_t{0};
      if (first < covers.end && covers.end - first < 64) inside >>= 64 - (covers.end - first);
      beyond |= (word & ~inside) != 0;
      if (inside != 0) bits_[first / 64] = word & inside;
      blocks_used_ += static_cast<std::uint64_t>(std::popcount(word & inside));
    }
    if (beyond) findings_.add(object, "bits beyond the end of the device are set", offset);
  }
  for_bit_runs(
      0, data_start_, [this](std::uint64_t i) { return ~bits_[i]; },
      [this](std::uint64_t start, std::uint64_t end) {
        if (is_known({start, end}))
          findings_.add(name(start, end), "free in the bitmap, but below the data area", offset_of(start));
      });
  mark_claimed({0, data_start_});
}

bool BlockOwners::is_known(Run run) const {
  return std::none_of(unknown_.begin(), unknown_.end(),
                      [&](const Run& other) { return run.start < other.end && other.start < run.end; });
}

bool BlockOwners::is_allocated(std::uint64_t block) const {
  return (bits_[block / 64] >> (block % 64) & 1) != 0 || !is_known({block, block + 1});
}

bool BlockOwners::any_claimed(Run run) const {
  bool any = false;
  for_bit_runs(
      run.start, run.end, [this](std::uint64_t i) { return claimed_[i]; },
      [&](std::uint64_t, std::uint64_t) { any = true; });
  return any;
}

void BlockOwners::mark_claimed(Run run) {
  for (std::uint64_t b = run.start; b < run.end;) {
    const std::uint64_t count = std::min<std::uint64_t>(64 - b % 64, run.end - b);
    claimed_[b / 64] |= (~std::uint64_t{0} >> (64 - count)) << (b % 64);
    b += count;
  }
}

bool BlockOwners::claim(std::uint64_t start, std::uint64_t length, Owner owner) {
  if (start % unit_ != 0 || length % unit_ != 0) {
    findings_.add(owner.object(),
                  owner.part() + "block " + std::to_string(start) + ", " + std::to_string(length) +
                      " long, is no whole number of realtime extents",
                  owner.offset_bytes);
    return false;
  }
  start /= unit_;
  length /= unit_;
  if (length == 0 || start < data_start_ || start >= blocks_ || length > blocks_ - start) {
    findings_.add(
        owner.object(),
        owner.part() + name(start, start + 1) + ", " + std::to_string(length) + " long, does not lie in the data area",
        owner.offset_bytes);
    return false;
  }
  // Claims of one owner for each block fit in once. Far more of them is damage beyond description, and would take
  // forever.
  claimed_total_ += length;
  if (claimed_total_ > 4 * blocks_) {
    if (!hopeless_) findings_.add("blocks", "have so many owners that the rest of them is not looked at");
    hopeless_ = true;
    return false;
  }
  const Run run{start, start + length};
  if (naming_) {
    name_conflicts(run, owner);
  } else {
    for_bit_runs(
        run.start, run.end, [this](std::uint64_t i) { return ~bits_[i]; },
        [&](std::uint64_t from, std::uint64_t end) {
          if (is_known({from, end}))
            findings_.add(name(from, end), "free in the bitmap, but owned by " + owner.text(), offset_of(from));
        });
  }
  const bool conflict = any_claimed(run);
  if (conflict && !naming_) note_conflicts(run, owner);
  mark_claimed(run);
  return !conflict;
}

void BlockOwners::note_conflicts(Run run, Owner owner) {
  for_bit_runs(
      run.start, run.end, [this](std::uint64_t i) { return claimed_[i]; },
      [&](std::uint64_t start, std::uint64_t end) {
        if (conflicts_.size() < CheckReport::kMaxProblems) conflicts_.push_back({{start, end}, owner, {}, false});
      });
}

void BlockOwners::begin_naming() {
  naming_ = true;
  unnamed_ = conflicts_.size();
  claimed_total_ = 0;
  std::fill(claimed_.begin(), claimed_.end(), 0);
  mark_claimed({0, data_start_});
}

// The first claim of a block in the second walk is the one that was there when the conflict turned up.
void BlockOwners::name_conflicts(Run run, Owner owner) {
  if (unnamed_ == 0) return;
  for (Conflict& conflict : conflicts_) {
    if (conflict.named || run.end <= conflict.run.start || conflict.run.end <= run.start) continue;
    conflict.first = owner;
    conflict.named = true;
    --unnamed_;
  }
}

void BlockOwners::report_conflicts() {
  for (const Conflict& conflict : conflicts_) {
    const std::string owners = conflict.first.text() + " and by " + conflict.second.text();
    findings_.add(name(conflict.run.start, conflict.run.end), "owned twice: by " + owners,
                  offset_of(conflict.run.start));
  }
}

void BlockOwners::check_unowned() {
  for (const Run& run : unknown_) mark_claimed(run);
  std::uint64_t unowned = 0;
  for_bit_runs(
      data_start_, blocks_, [this](std::uint64_t i) { return bits_[i] & ~claimed_[i]; },
      [&](std::uint64_t start, std::uint64_t end) {
        unowned += end - start;
        // What a damaged node or inode owned would be listed here, block for block.
        if (!unread_ && !hopeless_)
          findings_.add(name(start, end), "allocated in the bitmap, but owned by nobody", offset_of(start));
      });
  if (unowned != 0 && (unread_ || hopeless_))
    findings_.add(
        role_ == DeviceRole::kMain ? "bitmap" : "realtime bitmap",
        std::to_string(unowned) + " allocated blocks have no owner that can be read; damaged metadata may own them");
}

void BlockOwners::check_above_mark(std::uint64_t zeroed_upto) {
  for_bit_runs(
      std::max(zeroed_upto, data_start_), blocks_, [this](std::uint64_t i) { return bits_[i]; },
      [this](std::uint64_t start, std::uint64_t end) {
        findings_.add(name(start, end), "allocated, but above the zeroed mark", offset_of(start));
      });
}

// ---- zeros ----

void BlockOwners::check_zeros(std::uint64_t zeroed_upto, std::span<const Run> exempt, const CheckOptions& options) {
  for (const Run& run : unknown_) mark_claimed(run);
  for (const Run& run : exempt) mark_claimed(run);
  if (role_ == DeviceRole::kMain)
    image_.for_overlaid([this, zeroed_upto](std::uint64_t block, std::span<const std::byte> bytes) {
      const bool free = ((bits_[block / 64] | claimed_[block / 64]) >> (block % 64) & 1) == 0;
      const bool zero = std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
      if (free && !zero && block < zeroed_upto)
        findings_.add(name(block, block + 1), "free, but the journal stores into it", offset_of(block));
      mark_claimed({block, block + 1});
    });
  const std::uint64_t piece = std::max<std::uint64_t>(1, kZeroPieceBytes / superblock_.unit_bytes(role_));
  const std::uint64_t limit = std::min(zeroed_upto, blocks_);
  std::vector<Run> found;
  for_bit_runs(
      data_start_, limit, [this](std::uint64_t i) { return ~(bits_[i] | claimed_[i]); },
      [&](std::uint64_t start, std::uint64_t end) {
        for (std::uint64_t at = start; at < end; at += piece) {
          if (options.progress) options.progress(at - data_start_, limit - data_start_, "zeros");
          find_nonzero({at, std::min(end, at + piece)}, found);
        }
      });
  for (const Run& run : found) findings_.add(name(run.start, run.end), "free, but not zero", offset_of(run.start));
}

// By halves: usually there is none.
void BlockOwners::find_nonzero(Run run, std::vector<Run>& found) {
  const Result<bool> zero = superblock_.device(role_).is_zero(run.start * superblock_.unit_bytes(role_),
                                                              (run.end - run.start) * superblock_.unit_bytes(role_));
  if (zero && *zero) return;
  if (run.end - run.start > 1) {
    const std::uint64_t middle = run.start + (run.end - run.start) / 2;
    find_nonzero({run.start, middle}, found);
    find_nonzero({middle, run.end}, found);
  } else if (!zero) {
    findings_.add_error(name(run.start, run.end), "free, and cannot be read: ", zero.error(), offset_of(run.start));
  } else if (!found.empty() && found.back().end == run.start) {
    found.back().end = run.end;
  } else {
    found.push_back(run);
  }
}

}  // namespace plumb::checker
