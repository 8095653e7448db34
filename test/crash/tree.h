// The file system that the crash tests start from, and short names for what they do to it.
#pragma once

#include <linux/falloc.h>

#include <string>
#include <vector>

#include "fs/core/acl.h"
#include "test/crash/harness.h"

namespace plumb::test {

/// Files with few and many extents, hard links, directories, big and small xattrs, ACLs, symlinks; and blocks that a
/// deleted file filled with 'S'.
inline void make_tree(Actor& a) {
  a.mkdir("d");
  a.mkdir("d/sub");
  a.mkdir("d/sub/deep");
  a.mkdir("empty");
  a.mkdir("inheriting");
  a.set_xattr("inheriting", acl::kDefaultName,
              acl::serialize({{acl::kUserObj, 7, acl::kNoId},
                              {acl::kUser, 6, 1000},
                              {acl::kGroupObj, 5, acl::kNoId},
                              {acl::kMask, 5, acl::kNoId},
                              {acl::kOther, 0, acl::kNoId}}));
  a.create("f");
  a.write("f", 0, pattern('f', 6000));
  a.create("g");
  a.write("g", 0, pattern('g', 3000));
  a.link("f", "d/f2");
  a.create("scattered");
  for (std::uint64_t i = 0; i < 12; ++i) a.write("scattered", i * 20'000, pattern('c', 1500));
  a.create("many");  // more extents than one transaction removes
  const std::uint64_t block = a->statistics().block_size_bytes;
  for (std::uint64_t i = 0; i < 300; ++i) a.write("many", i * 2 * block, "m");
  a.set_xattr("g", "user.old", std::string(2000, 'o'));
  a.set_xattr("g", "user.tiny", "t");
  a.set_xattr("d", "user.big", pattern('B', 65536));
  a.symlink("l", "target");
  a.symlink("long", std::string(4000, 'L'));
  for (int i = 0; i < 40; ++i) a.create("d/entry" + std::to_string(i));
  a.create("secret");
  a.write("secret", 0, std::string(200'000, 'S'));
  a.unlink("secret");
  must(a->run_reclaim());
}

inline void set_owner(Actor& a, const char* path, std::uint32_t mode, std::uint32_t uid) {
  SetAttributes set;
  set.mode = mode;
  set.uid = uid;
  a.change(path, set);
}

/// Operations of one or a few calls. Each begins on a freshly mounted make_tree().
[[nodiscard]] std::vector<Workload> namespace_workloads();
[[nodiscard]] std::vector<Workload> data_workloads();
[[nodiscard]] std::vector<Workload> attribute_workloads();

}  // namespace plumb::test
