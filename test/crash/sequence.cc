#include "test/crash/sequence.h"

#include <linux/falloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <stdexcept>

#include "test/crash/lease_steps.h"
#include "test/crash/random_steps.h"
#include "test/crash/tree.h"

namespace plumb::test {
namespace {

constexpr int kKeep = FALLOC_FL_KEEP_SIZE;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kZero = FALLOC_FL_ZERO_RANGE;
constexpr std::string_view kSeparator = "; ";
constexpr std::string_view kRandom = "random ";
constexpr std::string_view kLeases = "leases ";
constexpr std::string_view kWrapping = "wrapping ";

CreateRequest file_request() {
  CreateRequest request;
  request.mode = S_IFREG | 0644;
  return request;
}

Inode& unnamed(Actor& a) {
  if (!a.has_inode("unnamed")) throw std::runtime_error("there is no unnamed file");
  return *a.inode("unnamed");
}

FileHandle& held_open(Actor& a) {
  if (!a.has_handle("h")) throw std::runtime_error("no file is open");
  return a.handle("h");
}

std::vector<Operation> name_operations() {
  return {
      {"create n", "n", [](Actor& a) { a.create("n"); }},
      {"create d/n", "d/n", [](Actor& a) { a.create("d/n"); }},
      {"create i/n with ACLs", "i/n", [](Actor& a) { a.create("i/n"); }},
      {"mkdir n", "n", [](Actor& a) { a.mkdir("n"); }},
      {"symlink n", "n", [](Actor& a) { a.symlink("n", "short"); }},
      {"symlink n, long", "n", [](Actor& a) { a.symlink("n", std::string(3000, 't')); }},
      {"mkfifo n", "n", [](Actor& a) { a.make("n", S_IFIFO | 0600); }},
      {"link f n", "f", [](Actor& a) { a.link("f", "n"); }},
      {"link g d/n", "g", [](Actor& a) { a.link("g", "d/n"); }},
      {"unlink f", "d/f2", [](Actor& a) { a.unlink("f"); }},
      {"unlink d/f2", "f", [](Actor& a) { a.unlink("d/f2"); }},
      {"unlink g", "d", [](Actor& a) { a.unlink("g"); }},
      {"unlink long", "d", [](Actor& a) { a.unlink("long"); }},
      {"rmdir e", "d", [](Actor& a) { a.rmdir("e"); }},
      {"rmdir d/sub", "d", [](Actor& a) { a.rmdir("d/sub"); }},
      {"rename g n", "n", [](Actor& a) { a.rename("g", "n"); }},
      {"rename g d/n", "d/n", [](Actor& a) { a.rename("g", "d/n"); }},
      {"rename f over g", "g", [](Actor& a) { a.rename("f", "g"); }},
      {"rename m over f", "f", [](Actor& a) { a.rename("m", "f"); }},
      {"rename f over d/f2", "f", [](Actor& a) { a.rename("f", "d/f2"); }},
      {"rename d/sub over e", "e", [](Actor& a) { a.rename("d/sub", "e"); }},
      {"rename e d/e", "d", [](Actor& a) { a.rename("e", "d/e"); }},
      {"exchange f g", "f", [](Actor& a) { a.rename("f", "g", {.exchange = true}); }},
      {"exchange d/sub g", "g", [](Actor& a) { a.rename("d/sub", "g", {.exchange = true}); }},
      {"rename g n, whiteout", "n", [](Actor& a) { a.rename("g", "n", {.whiteout = true}); }},
      {"open g, unlink it", "d",
       [](Actor& a) {
         a.open_as("h", "g");
         a.unlink("g");
       }},
      {"open g, rename f over it", "g",
       [](Actor& a) {
         a.open_as("h", "g");
         a.rename("f", "g");
       }},
      {"close all", "d",
       [](Actor& a) {
         end_all_leases(a);
         a.close_all();
       },
       true},
      {"create unnamed", "d",
       [](Actor& a) { a.inode("unnamed") = must(a->create_unnamed(*a.find("d"), file_request())).inode; }},
      {"link unnamed n", "n", [](Actor& a) { must(a->link(unnamed(a), *a->root(), "n")); }},
  };
}

std::vector<Operation> data_operations() {
  return {
      {"overwrite f", "f", [](Actor& a) { a.write("f", 1000, pattern('w', 2000)); }},
      {"overwrite f, same tick", "f", [](Actor& a) { a.write("f", 100, pattern('v', 5000)); }, false, true},
      {"append to f", "f", [](Actor& a) { a.write("f", 6000, pattern('a', 5000)); }},
      {"write f far beyond the end", "f", [](Actor& a) { a.write("f", 150'000, pattern('b', 100)); }},
      {"write into the hole of g", "g", [](Actor& a) { a.write("g", 5000, pattern('h', 9000)); }},
      {"write n", "n", [](Actor& a) { a.write("n", 0, pattern('n', 5000)); }},
      {"write m", "m", [](Actor& a) { a.write("m", 5000, pattern('m', 3000)); }},
      {"write the open file", "g", [](Actor& a) { a.write(held_open(a), 0, std::string(5000, 'S')); }},
      {"write the unnamed file", "n",
       [](Actor& a) {
         const auto handle = must(a->open(unnamed(a), O_RDWR));
         a.write(*handle, 0, pattern('u', 5000));
       }},
      {"truncate f to 0", "f", [](Actor& a) { a.truncate("f", 0); }},
      {"truncate f to 2500", "f", [](Actor& a) { a.truncate("f", 2500); }},
      {"truncate f to 5900", "f", [](Actor& a) { a.truncate("f", 5900); }},
      {"truncate g to 40000", "g", [](Actor& a) { a.truncate("g", 40'000); }},
      {"fallocate f", "f", [](Actor& a) { a.allocate("f", 0, 3000, 30'000); }, true},
      {"fallocate g, keep size", "g", [](Actor& a) { a.allocate("g", kKeep, 0, 40'000); }, true},
      {"punch f", "f", [](Actor& a) { a.allocate("f", kPunch, 500, 5000); }, true},
      {"zero f", "f", [](Actor& a) { a.allocate("f", kZero, 500, 9000); }, true},
      {"copy f to g", "g",
       [](Actor& a) {
         const auto from = a.open("f");
         const auto to = a.open("g");
         (void)must(a->copy_range(*from, 100, *to, 2000, 5000, Caller{.may_keep_setid = true}));
       }},
  };
}

std::vector<Operation> attribute_operations() {
  return {
      {"chmod f", "f", [](Actor& a) { set_owner(a, "f", 0600, 7); }},
      {"set xattr of f", "f", [](Actor& a) { a.set_xattr("f", "user.new", "value"); }},
      {"set big xattr of f", "f", [](Actor& a) { a.set_xattr("f", "user.chain", pattern('n', 9000)); }},
      {"replace big xattr of g by small", "g", [](Actor& a) { a.set_xattr("g", "user.chain", "small"); }},
      {"replace small xattr of g by big", "g", [](Actor& a) { a.set_xattr("g", "user.tiny", pattern('r', 7000)); }},
      {"remove big xattr of g", "g", [](Actor& a) { a.remove_xattr("g", "user.chain"); }},
      {"remove xattr of g", "g", [](Actor& a) { a.remove_xattr("g", "user.tiny"); }},
      {"set ACL of f", "f",
       [](Actor& a) {
         a.set_xattr("f", acl::kAccessName,
                     acl::serialize({{acl::kUserObj, 6, acl::kNoId},
                                     {acl::kUser, 7, 1000},
                                     {acl::kGroupObj, 0, acl::kNoId},
                                     {acl::kMask, 7, acl::kNoId},
                                     {acl::kOther, 4, acl::kNoId}}));
       }},
      {"set flags of f", "f", [](Actor& a) { must(a->set_flags(*a.find("f"), a.stat("f").flags | kInodeNodump)); }},
      {"reclaim", "f", [](Actor& a) { must(a->run_reclaim()); }},
      {"die and mount", "f", [](Actor& a) { a.die_and_mount(); }},
  };
}

// Of one client, A. An operation that takes a lease may be followed by any of the others, and by what the daemon does
// to a file that is leased, mapped, or has stores that are not durable.
std::vector<Operation> lease_operations() {
  constexpr auto kRead = Client::Use::kRead;
  constexpr auto kWrite = Client::Use::kWrite;
  constexpr auto kMap = Client::Use::kMap;
  std::vector<Operation> all{
      {"lease f to read", "f", [](Actor& a) { lease(a, "A", "f", kRead); }},
      {"map f", "f", [](Actor& a) { lease(a, "A", "f", kMap); }},
      {"map g, store", "g",
       [](Actor& a) {
         lease(a, "A", "g", kMap);
         store(a, "A", 2500, pattern('P', 9000), false);
       }},
      {"map f, store", "f",
       [](Actor& a) {
         lease(a, "A", "f", kMap);
         store(a, "A", 1003, pattern('Q', 3000), false);
       }},
      {"write f directly", "f",
       [](Actor& a) {
         lease(a, "A", "f", kWrite);
         store(a, "A", 3001, pattern('R', 2500), true);
       }},
      {"store again", "f", [](Actor& a) { store_anywhere(a, "A", 555, pattern('T', 5000), false); }},
      {"store again and persist", "f", [](Actor& a) { store_anywhere(a, "A", 2222, pattern('U', 3000), true); }},
      {"persist the map", "f", [](Actor& a) { persist(a, "A"); }},
      {"fsync by the client", "f", [](Actor& a) { fsync_by(a, "A"); }},
      {"end the leases", "f", [](Actor& a) { end_all_leases(a); }},
      {"align f", "f", [](Actor& a) { align(a, "f"); }},
  };
  for (Operation& operation : all) operation.is_in_parts = true;
  return all;
}

const Operation* find_operation(std::string_view name) {
  const auto all = operations();
  const auto it = std::find_if(all.begin(), all.end(), [name](const Operation& o) { return o.name == name; });
  return it == all.end() ? nullptr : &*it;
}

// An operation that fails changes nothing.
Step step_of(const Operation& operation) {
  return {.name = operation.name,
          .run =
              [run = operation.run](Actor& a) {
                try {
                  run(a);
                } catch (const std::runtime_error&) {
                  // ENOENT, EEXIST and the like.
                }
              },
          .is_in_parts = operation.is_in_parts,
          .is_same_tick = operation.is_same_tick};
}

// Of a file that may not be there; then all is synced, which promises no less.
Step sync_step_of(const std::string& name) {
  if (name == "sync") return sync_step();
  if (name == "unmount") return unmount_step();
  const bool is_data = name.starts_with("fdatasync ");
  if (!is_data && !name.starts_with("fsync ")) throw std::runtime_error("there is no step \"" + name + "\"");
  const std::string path = name.substr(is_data ? 10 : 6);
  Step s{.name = name, .run = [=](Actor& a) {
           try {
             a.fsync(path, is_data ? FsyncMode::kDataOnly : FsyncMode::kFull);
           } catch (const std::runtime_error&) {
             must(a->sync());
           }
         }};
  (is_data ? s.syncs_data_of : s.syncs_file) = path;
  return s;
}

std::vector<std::string> parts_of(std::string_view name) {
  std::vector<std::string> parts;
  while (true) {
    const std::size_t at = name.find(kSeparator);
    parts.emplace_back(name.substr(0, at));
    if (at == std::string_view::npos) return parts;
    name.remove_prefix(at + kSeparator.size());
  }
}

std::uint64_t number_after(std::string_view name, std::string_view prefix) {
  name.remove_prefix(prefix.size());
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size())
    throw std::runtime_error("no number in \"" + std::string(name) + "\"");
  return number;
}

// The ring of the test devices is 1 MiB; a record of a value is a little longer than that.
std::vector<Step> wrapping_steps(std::uint64_t seed) {
  constexpr std::size_t kRecords = 51;
  constexpr std::size_t kValueBytes = 65'000;
  std::vector<Step> steps;
  std::vector<Step> others = random_steps(seed, kRecords / 3);
  for (std::size_t i = 0; i < kRecords; ++i) {
    const char letter = static_cast<char>('a' + i % 26);
    steps.push_back(
        step("set xattr of /", [letter](Actor& a) { a.set_xattr("", "user.big", pattern(letter, kValueBytes)); }));
    if (i % 3 == 0) steps.push_back(std::move(others[i / 3]));
    if (i % 8 == 7) steps.push_back(reclaim_step());
  }
  return steps;
}

}  // namespace

std::span<const Operation> operations() {
  static const std::vector<Operation> all = [] {
    std::vector<Operation> list = name_operations();
    for (const auto& more : {data_operations(), attribute_operations(), lease_operations()})
      list.insert(list.end(), more.begin(), more.end());
    return list;
  }();
  return all;
}

std::vector<std::string> syncs_after(const Operation& operation) {
  return {"fsync " + operation.file, "fdatasync " + operation.file, "sync"};
}

SequenceKind kind_of(std::string_view name) {
  if (name.starts_with(kRandom)) return SequenceKind::kRandom;
  if (name.starts_with(kLeases)) return SequenceKind::kLeases;
  if (name.starts_with(kWrapping)) return SequenceKind::kWrapping;
  const std::vector<std::string> parts = parts_of(name);
  const auto count = std::count_if(parts.begin(), parts.end(),
                                   [](const std::string& part) { return find_operation(part) != nullptr; });
  return count <= 1 ? SequenceKind::kOne : count == 2 ? SequenceKind::kTwo : SequenceKind::kThree;
}

Workload sequence(const std::string& name) {
  Workload workload{.name = name, .steps = {}};
  if (name.starts_with(kRandom) || name.starts_with(kLeases)) {
    const bool has_leases = name.starts_with(kLeases);
    const std::uint64_t seed = number_after(name, has_leases ? kLeases : kRandom);
    workload.steps = has_leases ? lease_steps(seed, 24) : random_steps(seed, 24);
    if (seed % 3 == 0) workload.steps.push_back(unmount_step());
    return workload;
  }
  if (name.starts_with(kWrapping)) {
    workload.steps = wrapping_steps(number_after(name, kWrapping));
    return workload;
  }
  for (const std::string& part : parts_of(name)) {
    const Operation* operation = find_operation(part);
    if (operation != nullptr) workload.from_step = workload.steps.size();
    workload.steps.push_back(operation != nullptr ? step_of(*operation) : sync_step_of(part));
  }
  return workload;
}

Effort effort_for(SequenceKind kind, const Setting& setting) {
  Effort effort;
  effort.work_on_each = 40;
  effort.nested_each = 200;
  effort.nested_points = 4;
  switch (kind) {
    case SequenceKind::kOne:
      effort.systematic = 150;
      effort.random = 6;
      effort.torn = 3;
      effort.most_points = 100;
      break;
    case SequenceKind::kTwo:
    case SequenceKind::kThree:
      effort.systematic = 24;
      effort.random = 4;
      break;
    case SequenceKind::kRandom:
    case SequenceKind::kLeases:
    case SequenceKind::kWrapping:
      effort.systematic = 10;
      effort.most_points = 60;
      break;
  }
  // Few fences there, and at each of them all that was stored since the last fsync.
  if (!setting.has_memory_log()) {
    effort.random *= 4;
    effort.torn *= 4;
    effort.systematic *= 2;
  }
  return effort;
}

std::function<void(Actor&)> tree_of(SequenceKind kind) {
  switch (kind) {
    case SequenceKind::kRandom:
    case SequenceKind::kWrapping:
      return make_random_tree;
    case SequenceKind::kLeases:
      return make_lease_tree;
    default:
      return make_small_tree;
  }
}

void make_small_tree(Actor& a) {
  a.create("m");
  a.write("m", 0, pattern('m', 6000));
  if (a.setting().has_realtime()) a.set_flags("", kInodeRtInherit);
  a.mkdir("d");
  a.mkdir("d/sub");
  a.mkdir("e");
  a.mkdir("i");
  a.set_xattr("i", acl::kDefaultName,
              acl::serialize({{acl::kUserObj, 7, acl::kNoId},
                              {acl::kUser, 6, 1000},
                              {acl::kGroupObj, 5, acl::kNoId},
                              {acl::kMask, 5, acl::kNoId},
                              {acl::kOther, 0, acl::kNoId}}));
  a.create("f");
  a.write("f", 0, pattern('f', 6000));
  a.link("f", "d/f2");
  a.create("g");
  a.write("g", 0, pattern('g', 3000));
  a.write("g", 20'000, pattern('g', 1500));
  a.set_xattr("g", "user.tiny", "t");
  a.set_xattr("g", "user.chain", pattern('c', 5000));
  a.symlink("l", "target");
  a.symlink("long", std::string(3000, 'L'));
  a.create("secret");
  a.write("secret", 0, std::string(100'000, 'S'));
  a.unlink("secret");
  must(a->run_reclaim());
}

}  // namespace plumb::test
