// Operations of a user on a mounted volume, as an input says. Errors are expected; what must not happen is that one
// does not return.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fs/core/volume.h"
#include "test/fuzz/input.h"

namespace plumb::fuzz {

enum class Step : std::uint8_t {
  kLookup,
  kReadDirectory,
  kCreate,
  kMkdir,
  kSymlink,
  kUnnamed,
  kLink,
  kUnlink,
  kRmdir,
  kRename,
  kReadlink,
  kRead,
  kWrite,
  kTruncate,
  kAllocate,
  kSeek,
  kCopy,
  kFsync,
  kSetXattr,
  kGetXattr,
  kListXattrs,
  kRemoveXattr,
  kAttributes,
  kFlags,
  kByNumber,
  kSync,
  kReclaim,
  kStatistics,
  kWalk,
  kDrop,
  kRepeat,
};
inline constexpr std::size_t kSteps = 31;

class Steps {
 public:
  explicit Steps(Volume& volume);

  /// One step of kStepBytes: one of `allowed`, an inode, two numbers.
  void take(Input& input, std::span<const Step> allowed);
  /// Looks at everything that can be reached, up to a bound.
  void walk();

 private:
  struct Arguments {
    std::uint16_t a = 0, b = 0;
  };
  void run(Step step, Inode& inode, Arguments arguments);
  void names(Step step, Inode& inode, Arguments arguments);
  void data(Step step, Inode& inode, Arguments arguments);
  void attributes(Step step, Inode& inode, Arguments arguments);
  void whole(Step step, Arguments arguments);
  [[nodiscard]] Inode& pick(std::uint64_t index) { return *known_[index % known_.size()]; }
  void remember(InodeRef inode);
  void look_at(Inode& inode);
  void walk(Inode& directory, int depth, std::size_t& seen);

  Volume& volume_;
  std::vector<InodeRef> known_;  // the root first
  std::string bytes_;
  // For kRepeat: the same with other names, offsets, xattrs. Trees grow, split, shrink and merge by many of a kind.
  Step last_ = Step::kWalk;
  std::uint8_t last_inode_ = 0;
  volatile unsigned sum_ = 0;  // of what was read, so that it is read
};

}  // namespace plumb::fuzz
