#include "test/fuzz/steps.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include "fs/core/acl.h"

namespace plumb::fuzz {
namespace {

constexpr std::size_t kMostKnown = 12;
constexpr std::size_t kMostSeen = 200;  // inodes of a walk
constexpr std::size_t kMostBytes = 9000;
constexpr int kRepeats = 40;
constexpr Caller kRoot{.uid = 0, .gid = 0, .may_keep_setid = true};
constexpr Caller kUser{.uid = 1000, .gid = 1000, .may_keep_setid = false};

// Of the seed images, and some that are not there.
constexpr std::array<std::string_view, 16> kNames = {"d",         "sub",    "file",    "short",  "long", "data",
                                                     "hard link", "gone 1", "gone 3",  "gone 5", "last", "new",
                                                     "new too",   "..",     "renamed", "d/sub"};
constexpr std::array<std::string_view, 5> kXattrs = {"user.short", "user.long", "user.new", acl::kAccessName,
                                                     acl::kDefaultName};
constexpr std::uint16_t kRunOfNames = 192;  // numbers below are old names

std::string name_of(std::uint16_t number) {
  if (number < kNames.size()) return std::string(kNames[number]);
  if (number % 256 < kRunOfNames) return "entry " + std::to_string(number % 256 - kNames.size() % 256);
  return "name " + std::string(number % 200, 'n') + std::to_string(number);
}
std::string xattr_of(std::uint16_t number) {
  if (number % 64 < kXattrs.size()) return std::string(kXattrs[number % 64]);
  return "user.many " + std::to_string(number % 64 - kXattrs.size());
}
// Small offsets, and some near the limits.
std::uint64_t offset_of(std::uint16_t number) {
  switch (number >> 14) {
    case 0:
      return number;
    case 1:
      return std::uint64_t{number & 0x3fffu} * 256;
    case 2:
      return std::uint64_t{number & 0x3fffu} << 30;
    default:
      return kMaxFileSize - (number & 0x3fffu);
  }
}

}  // namespace

Steps::Steps(Volume& volume) : volume_(volume), bytes_(kMostBytes, 'z') {
  known_.push_back(volume.root());
  for (const char* name : {"d", "file", "long"})
    if (auto found = volume.lookup(*known_.front(), name)) known_.push_back(std::move(found->inode));
  if (known_.size() < 2) return;
  if (auto found = volume.lookup(*known_[1], "sub")) known_.push_back(std::move(found->inode));
}

void Steps::remember(InodeRef inode) {
  const std::size_t place = 1 + inode.number().value % (kMostKnown - 1);
  if (known_.size() < kMostKnown)
    known_.push_back(std::move(inode));
  else
    known_[place] = std::move(inode);
}

void Steps::take(Input& input, std::span<const Step> allowed) {
  const Step step = allowed[input.take<std::uint8_t>() % allowed.size()];
  const auto inode = input.take<std::uint8_t>();
  Arguments arguments;
  arguments.a = input.take<std::uint16_t>();
  arguments.b = input.take<std::uint16_t>();
  if (step != Step::kRepeat) {
    last_ = step;
    last_inode_ = inode;
    return run(step, pick(inode), arguments);
  }
  // A name, an offset or an xattr further on each time.
  const auto stride = static_cast<std::uint16_t>(1 + (inode >> 4) * 64);
  for (int i = 0; i < kRepeats; ++i, arguments.a = static_cast<std::uint16_t>(arguments.a + stride))
    run(last_, pick(last_inode_), arguments);
}

void Steps::run(Step step, Inode& inode, Arguments arguments) {
  if (step <= Step::kReadlink)
    names(step, inode, arguments);
  else if (step <= Step::kFsync)
    data(step, inode, arguments);
  else if (step <= Step::kFlags)
    attributes(step, inode, arguments);
  else
    whole(step, arguments);
}

void Steps::names(Step step, Inode& inode, Arguments arguments) {
  const std::string name = name_of(arguments.a);
  CreateRequest request;
  request.mode = S_IFREG | 0644;
  request.caller = kUser;
  switch (step) {
    case Step::kLookup:
      if (auto found = volume_.lookup(inode, name)) remember(std::move(found->inode));
      return;
    case Step::kReadDirectory: {
      std::size_t entries = 0;
      (void)volume_.read_directory(inode, arguments.a, [&](const DirectoryEntry& entry) {
        sum_ = sum_ + static_cast<unsigned>(entry.name.size() + entry.type);
        return ++entries < kMostSeen;
      });
      return;
    }
    case Step::kMkdir:
      request.mode = S_IFDIR | 0755;
      break;
    case Step::kSymlink:
      request.mode = S_IFLNK | 0777;
      request.symlink_target = std::string_view(bytes_).substr(0, arguments.b % 4100);
      break;
    case Step::kUnnamed:
      if (auto made = volume_.create_unnamed(inode, request)) remember(std::move(made->inode));
      return;
    case Step::kLink:
      (void)volume_.link(pick(arguments.b), inode, name);
      return;
    case Step::kUnlink:
      (void)volume_.unlink(inode, name);
      return;
    case Step::kRmdir:
      (void)volume_.rmdir(inode, name);
      return;
    case Step::kRename: {
      RenameFlags flags;
      flags.noreplace = (arguments.b & 0x300) == 0x100;
      flags.exchange = (arguments.b & 0x300) == 0x200;
      flags.whiteout = (arguments.b & 0x300) == 0x300;
      (void)volume_.rename(inode, name, pick(arguments.b >> 10), name_of(arguments.b & 0xff), flags, kUser);
      return;
    }
    case Step::kReadlink:
      (void)volume_.readlink(inode);
      return;
    default:
      break;
  }
  if (auto made = volume_.create(inode, name, request)) remember(std::move(made->inode));
}

void Steps::data(Step step, Inode& inode, Arguments arguments) {
  const std::uint64_t offset = offset_of(arguments.a);
  const std::size_t length = 1 + arguments.b % kMostBytes;
  if (step == Step::kRead) return look_at(inode);
  if (step == Step::kSeek) {
    (void)volume_.seek(inode, offset, (arguments.b & 1) != 0 ? SEEK_HOLE : SEEK_DATA);
    return;
  }
  const auto handle = volume_.open(inode, O_RDWR | ((arguments.b & 0x4000) != 0 ? O_APPEND : 0));
  if (!handle) return;
  switch (step) {
    case Step::kWrite: {
      const iovec piece{bytes_.data(), length};
      (void)volume_.write(**handle, offset, std::span(&piece, 1), kUser);
      return;
    }
    case Step::kTruncate: {
      SetAttributes set;
      set.size_bytes = offset;
      (void)volume_.set_attributes(inode, set, kUser);
      return;
    }
    case Step::kAllocate: {
      constexpr std::array<int, 5> kModes = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                             FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
      (void)volume_.allocate(**handle, kModes[arguments.b % kModes.size()], offset, 1 + arguments.b * 3ull, kUser);
      return;
    }
    case Step::kCopy: {
      const auto from = volume_.open(pick(arguments.b >> 8), O_RDONLY);
      if (from) (void)volume_.copy_range(**from, offset, **handle, arguments.b, kMostBytes, kUser);
      return;
    }
    default:
      (void)volume_.fsync(**handle, (arguments.b & 1) != 0 ? FsyncMode::kDataOnly : FsyncMode::kFull);
  }
}

void Steps::attributes(Step step, Inode& inode, Arguments arguments) {
  const std::string name = xattr_of(arguments.a);
  switch (step) {
    case Step::kSetXattr:
      (void)volume_.set_xattr(inode, name, std::string_view(bytes_).substr(0, arguments.b % kMostBytes), {}, kUser);
      return;
    case Step::kGetXattr:
      (void)volume_.get_xattr(inode, name);
      return;
    case Step::kListXattrs:
      (void)volume_.list_xattrs(inode);
      return;
    case Step::kRemoveXattr:
      (void)volume_.remove_xattr(inode, name);
      return;
    case Step::kFlags:
      (void)volume_.set_flags(inode, arguments.a & kInodeUserFlags);
      return;
    default: {
      SetAttributes set;
      set.mode = arguments.a & 07777;
      if ((arguments.b & 1) != 0) set.uid = arguments.b;
      if ((arguments.b & 2) != 0) set.atime = Timestamp{arguments.b, arguments.a};
      set.mtime_now = (arguments.b & 4) != 0;
      set.kill_setid = (arguments.b & 8) != 0;
      (void)volume_.set_attributes(inode, set, kRoot);
    }
  }
}

void Steps::whole(Step step, Arguments arguments) {
  switch (step) {
    case Step::kByNumber:
      if (auto found = volume_.inode_by_number(InodeNumber(arguments.a), 0)) remember(std::move(*found));
      return;
    case Step::kSync:
      (void)volume_.sync();
      return;
    case Step::kReclaim:
      (void)volume_.run_reclaim();
      return;
    case Step::kStatistics:
      (void)volume_.statistics(&pick(arguments.a));
      (void)volume_.counters();
      return;
    case Step::kWalk:
      return walk();
    default:
      if (known_.size() > 1) known_.erase(known_.begin() + 1 + arguments.a % (known_.size() - 1));
  }
}

void Steps::look_at(Inode& inode) {
  const Attributes attributes = volume_.attributes(inode);
  for (const std::uint64_t offset : {std::uint64_t{0}, attributes.size_bytes / 2, attributes.size_bytes - 1}) {
    const auto pin = volume_.read(inode, offset, 8192);
    if (!pin) continue;
    for (const iovec& piece : pin->iov)
      for (std::size_t i = 0; i < piece.iov_len; i += 64)
        sum_ = sum_ + static_cast<const unsigned char*>(piece.iov_base)[i];
  }
  if (const auto names = volume_.list_xattrs(inode))
    for (const std::string& name : *names) (void)volume_.get_xattr(inode, name);
  if (S_ISLNK(attributes.mode)) (void)volume_.readlink(inode);
}

void Steps::walk() {
  std::size_t seen = 0;
  walk(*known_.front(), 0, seen);
}

void Steps::walk(Inode& directory, int depth, std::size_t& seen) {
  std::vector<std::string> found;
  (void)volume_.read_directory(directory, 0, [&](const DirectoryEntry& entry) {
    if (entry.name != "." && entry.name != "..") found.emplace_back(entry.name);
    return found.size() < kMostSeen;
  });
  for (const std::string& name : found) {
    if (++seen > kMostSeen) return;
    const auto entry = volume_.lookup(directory, name);
    if (!entry) continue;
    look_at(*entry->inode);
    if (S_ISDIR(entry->attributes.mode) && depth < 8) walk(*entry->inode, depth + 1, seen);
  }
}

}  // namespace plumb::fuzz
