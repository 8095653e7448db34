#include <sys/stat.h>

#include "test/crash/tree.h"

namespace plumb::test {
namespace {

Workload one(std::string name, std::function<void(Actor&)> run) {
  Workload w{.name = name, .steps = {step(std::move(name), std::move(run))}};
  w.steps.push_back(reclaim_step());
  return w;
}

Workload one_in_parts(std::string name, std::function<void(Actor&)> run) {
  Workload w{.name = name, .steps = {in_parts(std::move(name), std::move(run))}};
  w.steps.push_back(reclaim_step());
  return w;
}

Workload several(std::string name, std::vector<Step> steps) {
  return {.name = std::move(name), .steps = std::move(steps)};
}

CreateRequest file_request() {
  CreateRequest request;
  request.mode = S_IFREG | 0644;
  return request;
}

constexpr int kKeep = FALLOC_FL_KEEP_SIZE;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kZero = FALLOC_FL_ZERO_RANGE;

}  // namespace

std::vector<Workload> namespace_workloads() {
  return {
      one("create", [](Actor& a) { a.create("new"); }),
      one("create with ACLs", [](Actor& a) { a.create("inheriting/new"); }),
      one("mkdir", [](Actor& a) { a.mkdir("d/newdir"); }),
      one("mkdir with ACLs", [](Actor& a) { a.mkdir("inheriting/new"); }),
      one("symlink short", [](Actor& a) { a.symlink("s", "short"); }),
      one("symlink long", [](Actor& a) { a.symlink("s", std::string(4095, 't')); }),
      one("mkfifo", [](Actor& a) { a.make("fifo", S_IFIFO | 0600); }),
      one("mknod", [](Actor& a) { a.make("node", S_IFCHR | 0600, {}, 0x105); }),
      several("unnamed file, written, named",
              {step("create unnamed",
                    [](Actor& a) { a.inode("t") = must(a->create_unnamed(*a->root(), file_request())).inode; }),
               step("write",
                    [](Actor& a) {
                      const auto handle = must(a->open(*a.inode("t"), O_RDWR));
                      a.write(*handle, 0, pattern('u', 5000));
                    }),
               step("link", [](Actor& a) { must(a->link(*a.inode("t"), *a->root(), "named")); }), sync_step()}),
      several("unnamed file that goes",
              {step("create unnamed",
                    [](Actor& a) { a.inode("t") = must(a->create_unnamed(*a->root(), file_request())).inode; }),
               step("close", [](Actor& a) { a.close_all(); }), reclaim_step()}),
      one("link", [](Actor& a) { a.link("g", "d/g2"); }),
      one("unlink the last link", [](Actor& a) { a.unlink("g"); }),
      one("unlink one of two", [](Actor& a) { a.unlink("f"); }),
      one("unlink a file of many extents", [](Actor& a) { a.unlink("many"); }),
      one("unlink a long symlink", [](Actor& a) { a.unlink("long"); }),
      several("unlink an open file",
              {step("open", [](Actor& a) { a.open_as("h", "g"); }), step("unlink", [](Actor& a) { a.unlink("g"); }),
               step("write", [](Actor& a) { a.write(a.handle("h"), 0, std::string(5000, 'S')); }), reclaim_step(),
               step("close", [](Actor& a) { a.close_all(); }), reclaim_step(), sync_step()}),
      one("rmdir", [](Actor& a) { a.rmdir("empty"); }),
      one("rename", [](Actor& a) { a.rename("g", "h"); }),
      one("rename to another directory", [](Actor& a) { a.rename("g", "d/h"); }),
      one("rename over a file", [](Actor& a) { a.rename("f", "g"); }),
      one("rename over the other link", [](Actor& a) { a.rename("g", "d/f2"); }),
      one("rename a directory over an empty one", [](Actor& a) { a.rename("d/sub", "empty"); }),
      one("rename a directory up", [](Actor& a) { a.rename("d/sub/deep", "moved"); }),
      one("rename a directory down", [](Actor& a) { a.rename("empty", "d/sub/moved"); }),
      one("rename, noreplace", [](Actor& a) { a.rename("g", "h", {.noreplace = true}); }),
      one("rename, exchange files", [](Actor& a) { a.rename("f", "g", {.exchange = true}); }),
      one("rename, exchange a directory and a file", [](Actor& a) { a.rename("d/sub", "g", {.exchange = true}); }),
      one("rename, whiteout", [](Actor& a) { a.rename("g", "d/h", {.whiteout = true}); }),
      one("rename over, whiteout", [](Actor& a) { a.rename("f", "g", {.whiteout = true}); }),
      several("a directory grows and shrinks",
              {step("create 30", [](Actor& a) { a.mkdir("grow"); }),
               step("create 1", [](Actor& a) { a.create("grow/" + std::string(200, '1')); }),
               step("create 2", [](Actor& a) { a.create("grow/" + std::string(200, '2')); }),
               step("create 3", [](Actor& a) { a.create("grow/" + std::string(200, '3')); }),
               step("create 4", [](Actor& a) { a.create("grow/" + std::string(200, '4')); }),
               step("create 5", [](Actor& a) { a.create("grow/" + std::string(200, '5')); }),
               step("unlink 2", [](Actor& a) { a.unlink("grow/" + std::string(200, '2')); }),
               step("unlink 1", [](Actor& a) { a.unlink("grow/" + std::string(200, '1')); }),
               step("unlink 4", [](Actor& a) { a.unlink("grow/" + std::string(200, '4')); }),
               step("unlink 3", [](Actor& a) { a.unlink("grow/" + std::string(200, '3')); }), sync_step(),
               step("unlink 5", [](Actor& a) { a.unlink("grow/" + std::string(200, '5')); }),
               step("rmdir", [](Actor& a) { a.rmdir("grow"); }), reclaim_step()}),
  };
}

std::vector<Workload> data_workloads() {
  return {
      several("write a new file",
              {step("create", [](Actor& a) { a.create("n"); }),
               step("write", [](Actor& a) { a.write("n", 0, pattern('n', 9000)); }), fsync_step("n"), reclaim_step()}),
      one("overwrite", [](Actor& a) { a.write("f", 1000, pattern('w', 2000)); }),
      one("append", [](Actor& a) { a.write("f", 6000, pattern('a', 5000)); }),
      one("overwrite and extend", [](Actor& a) { a.write("f", 5000, pattern('x', 9000)); }),
      one("write into a hole", [](Actor& a) { a.write("scattered", 6000, pattern('h', 12'000)); }),
      one("write across holes", [](Actor& a) { a.write("scattered", 10'000, pattern('h', 50'000)); }),
      one("write far beyond the end", [](Actor& a) { a.write("f", 300'000, pattern('b', 100)); }),
      several("overwrite, fsync, overwrite",
              {step("overwrite", [](Actor& a) { a.write("f", 0, pattern('1', 6000)); }), fsync_step("f"),
               step("overwrite", [](Actor& a) { a.write("f", 0, pattern('2', 6000)); }),
               step("chmod", [](Actor& a) { set_owner(a, "f", 0600, 3); }), sync_step(),
               step("overwrite", [](Actor& a) { a.write("f", 0, pattern('3', 6000)); }),
               Step{.name = "overwrite, same tick",
                    .run = [](Actor& a) { a.write("f", 1000, pattern('4', 3000)); },
                    .is_same_tick = true}}),
      several("fsync one of two files",
              {step("write f", [](Actor& a) { a.write("f", 3000, pattern('1', 6000)); }),
               step("write g", [](Actor& a) { a.write("g", 1000, pattern('2', 6000)); }), fsync_step("f"),
               step("write f", [](Actor& a) { a.write("f", 9000, pattern('3', 6000)); })}),
      one("truncate down", [](Actor& a) { a.truncate("f", 2500); }),
      one("truncate to nothing", [](Actor& a) { a.truncate("f", 0); }),
      one("truncate up", [](Actor& a) { a.truncate("g", 50'000); }),
      one("truncate scattered", [](Actor& a) { a.truncate("scattered", 30'000); }),
      one("truncate many extents", [](Actor& a) { a.truncate("many", 4096); }),
      several("truncate down and up", {step("down", [](Actor& a) { a.truncate("f", 100); }),
                                       step("up", [](Actor& a) { a.truncate("f", 9000); }), reclaim_step()}),
      several("truncate, write again, truncate again",
              {step("cut", [](Actor& a) { a.truncate("g", 0); }), reclaim_step(),
               step("write", [](Actor& a) { a.write("g", 0, pattern('2', 4000)); }),
               step("cut", [](Actor& a) { a.truncate("g", 1000); }),
               step("write beyond", [](Actor& a) { a.write("g", 3000, pattern('3', 500)); }), fsync_step("g")}),
      one_in_parts("fallocate", [](Actor& a) { a.allocate("g", 0, 0, 40'000); }),
      one_in_parts("fallocate, keep size", [](Actor& a) { a.allocate("g", kKeep, 0, 40'000); }),
      several("fallocate, keep size; then grow over it",
              {in_parts("fallocate", [](Actor& a) { a.allocate("g", kKeep, 0, 40'000); }),
               step("write", [](Actor& a) { a.write("g", 20'000, pattern('k', 1000)); }),
               step("truncate up", [](Actor& a) { a.truncate("g", 39'000); })}),
      one_in_parts("punch hole", [](Actor& a) { a.allocate("f", kPunch, 500, 5000); }),
      one_in_parts("punch many", [](Actor& a) { a.allocate("many", kPunch, 0, 1u << 20); }),
      one_in_parts("zero range", [](Actor& a) { a.allocate("f", kZero, 500, 9000); }),
      one_in_parts("zero range in the file", [](Actor& a) { a.allocate("f", kZero | kKeep, 100, 5000); }),
      one("copy range",
          [](Actor& a) {
            const auto from = a.open("f");
            const auto to = a.open("g");
            (void)must(a->copy_range(*from, 100, *to, 2000, 5000, Caller{.may_keep_setid = true}));
          }),
      several("an O_SYNC file", {step("open", [](Actor& a) { a.open_as("h", "g", O_RDWR | O_SYNC); }),
                                 Step{.name = "write",
                                      .run = [](Actor& a) { a.write(a.handle("h"), 2000, pattern('y', 4000)); },
                                      .syncs_file = "g"},
                                 step("write f", [](Actor& a) { a.write("f", 0, pattern('q', 6000)); }),
                                 Step{.name = "write",
                                      .run = [](Actor& a) { a.write(a.handle("h"), 0, pattern('z', 4000)); },
                                      .syncs_file = "g"}}),
      several("the daemon dies in between",
              {step("write", [](Actor& a) { a.write("g", 0, pattern('1', 5000)); }),
               step("die and mount", [](Actor& a) { a.die_and_mount(); }),
               step("write", [](Actor& a) { a.write("g", 4000, pattern('2', 5000)); }), fsync_step("g"),
               step("unlink", [](Actor& a) { a.unlink("g"); }), reclaim_step(), unmount_step()}),
  };
}

std::vector<Workload> attribute_workloads() {
  return {
      one("chmod and chown", [](Actor& a) { set_owner(a, "g", 0600, 7); }),
      one("times",
          [](Actor& a) {
            SetAttributes set;
            set.atime = Timestamp{-5, 7};
            set.mtime = Timestamp{20'000'000'000, 999'999'999};
            a.change("g", set);
          }),
      one("set xattr", [](Actor& a) { a.set_xattr("f", "user.new", "value"); }),
      one("set big xattr", [](Actor& a) { a.set_xattr("f", "user.new", pattern('n', 65536)); }),
      one("replace small by big", [](Actor& a) { a.set_xattr("g", "user.old", pattern('n', 65536)); }),
      one("replace big by big", [](Actor& a) { a.set_xattr("d", "user.big", pattern('n', 65000)); }),
      one("replace big by small", [](Actor& a) { a.set_xattr("d", "user.big", "small"); }),
      one("remove xattr", [](Actor& a) { a.remove_xattr("g", "user.tiny"); }),
      one("remove big xattr", [](Actor& a) { a.remove_xattr("d", "user.big"); }),
      one("set ACL",
          [](Actor& a) {
            a.set_xattr("f", acl::kAccessName,
                        acl::serialize({{acl::kUserObj, 6, acl::kNoId},
                                        {acl::kUser, 7, 1000},
                                        {acl::kGroupObj, 0, acl::kNoId},
                                        {acl::kMask, 7, acl::kNoId},
                                        {acl::kOther, 4, acl::kNoId}}));
          }),
      one("flags", [](Actor& a) { must(a->set_flags(*a.find("f"), kInodeNodump | kInodeDax)); }),
      several("fsync and sync", {step("chmod", [](Actor& a) { set_owner(a, "f", 0600, 1); }), fsync_step("g"),
                                 step("chmod", [](Actor& a) { set_owner(a, "f", 0640, 2); }), sync_step(),
                                 step("chmod", [](Actor& a) { set_owner(a, "f", 0644, 3); }), unmount_step()}),
  };
}

}  // namespace plumb::test
