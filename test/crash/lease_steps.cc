#include "test/crash/lease_steps.h"

#include <linux/falloc.h>

#include <algorithm>
#include <map>
#include <random>

#include "test/crash/random_steps.h"
#include "test/crash/tree.h"

namespace plumb::test {
namespace {

constexpr int kKeep = FALLOC_FL_KEEP_SIZE;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
constexpr int kZero = FALLOC_FL_ZERO_RANGE;

Client& client(Actor& a, const std::string& name) {
  const auto it = a.clients().find(name);
  if (it == a.clients().end()) throw std::runtime_error("there is no client " + name);
  return it->second;
}

bool is_leased(Actor& a, InodeKey file) {
  return std::any_of(a.clients().begin(), a.clients().end(),
                     [&](const auto& entry) { return !entry.second.is_stale() && entry.second.file() == file; });
}

// Nothing has changed if the operation fails, but by what its parts before did.
Step attempt(std::string name, std::function<void(Actor&)> run, bool is_in_parts) {
  Step s = step(std::move(name), [run = std::move(run)](Actor& a) {
    try {
      run(a);
    } catch (const std::runtime_error&) {
      // ENOENT, EBUSY, no such client and the like.
    }
  });
  s.is_in_parts = is_in_parts;
  return s;
}

class Chooser {
 public:
  explicit Chooser(std::uint64_t seed) : random_(seed) {}

  Step next() {
    const std::uint64_t what = random_() % 20;
    return what < 10 ? of_client(what) : what < 18 ? of_file(what) : of_all();
  }

 private:
  Step of_client(std::uint64_t what) {
    const std::string name = random_() % 3 == 0 ? "B" : "A";
    if (!used_.contains(name)) what = 0;
    const std::uint64_t where = random_();
    const std::string bytes = pattern(letter(), 1 + random_() % (random_() % 4 == 0 ? 9'000 : 900), random_() % 16);
    switch (what) {
      case 0:
      case 1: {
        const std::string path = any_file();
        const auto use = static_cast<Client::Use>(std::min<std::uint64_t>(random_() % 6, 2));
        used_[name] = path;
        return attempt(
            name + " leases " + path, [=](Actor& a) { lease(a, name, path, use); }, true);
      }
      case 2:
      case 3:
      case 4:
        return attempt(
            name + " stores", [=](Actor& a) { store_anywhere(a, name, where, bytes, false); }, true);
      case 5:
      case 6:
        return attempt(
            name + " stores and persists", [=](Actor& a) { store_anywhere(a, name, where, bytes, true); }, true);
      case 7:
        return attempt(
            name + " persists", [=](Actor& a) { persist(a, name); }, true);
      case 8:
        return attempt(
            name + " fsyncs", [=](Actor& a) { fsync_by(a, name); }, true);
      default:
        return attempt(
            name + " ends", [=](Actor& a) { end_lease(a, name); }, true);
    }
  }

  Step of_file(std::uint64_t what) {
    const std::string path = file();
    const std::string other = file();
    const std::uint64_t offset = random_() % (random_() % 4 == 0 ? 40'000 : 9'000);
    const std::uint64_t length = 1 + random_() % 7'000;
    switch (what) {
      case 10:
        return attempt(
            "truncate " + path, [=](Actor& a) { a.truncate(path, random_size(offset)); }, false);
      case 11:
        return attempt(
            "punch " + path, [=](Actor& a) { a.allocate(path, kPunch, offset / 2, 2 * length); }, true);
      case 12: {
        const int mode = random_() % 3 == 0 ? kZero : random_() % 2 == 0 ? kKeep : 0;
        return attempt(
            "fallocate " + path, [=](Actor& a) { a.allocate(path, mode, offset, length); }, true);
      }
      case 13:
        return attempt(
            "rename " + path + " " + other, [=](Actor& a) { a.rename(path, other); }, false);
      case 14:
        if (random_() % 2 == 0)
          return attempt(
              "create " + path, [=](Actor& a) { a.create(path); }, false);
        return attempt(
            "unlink " + path, [=](Actor& a) { a.unlink(path); }, false);
      case 15:
      case 16: {
        const std::string bytes = pattern(letter(), length, offset);
        return attempt(
            "write " + path, [=](Actor& a) { a.write(path, offset, bytes); }, false);
      }
      default:
        if (random_() % 3 == 0)
          return attempt(
              "align " + path, [=](Actor& a) { align(a, path); }, true);
        return attempt(
            "exchange " + path + " " + other, [=](Actor& a) { a.rename(path, other, {.exchange = true}); }, false);
    }
  }

  Step of_all() {
    switch (random_() % 5) {
      case 0:
        return reclaim_step();
      case 1:
        if (random_() % 2 == 0) return sync_step();
        return attempt(
            "die and mount", [](Actor& a) { a.die_and_mount(); }, false);
      case 2:
        return fsync_if_there(file(), FsyncMode::kDataOnly);
      default:
        return fsync_if_there(file(), FsyncMode::kFull);
    }
  }

  static Step fsync_if_there(const std::string& path, FsyncMode mode) {
    const bool is_full = mode == FsyncMode::kFull;
    Step s = step((is_full ? "fsync " : "fdatasync ") + path, [=](Actor& a) {
      if (a.exists(path)) a.fsync(path, mode);
    });
    (is_full ? s.syncs_file : s.syncs_data_of) = path;
    return s;
  }

  static std::uint64_t random_size(std::uint64_t offset) { return offset % 3 == 0 ? 0 : offset; }
  static std::string any_file(std::uint64_t number) { return std::string(1, static_cast<char>('a' + number % 4)); }
  std::string any_file() { return any_file(random_()); }
  // Mostly one that was leased by this name.
  std::string file() {
    const std::uint64_t number = random_();
    const auto it = used_.find(number % 4 == 0 ? "B" : "A");
    return it == used_.end() || number % 3 == 0 ? any_file(number >> 8) : it->second;
  }
  char letter() { return static_cast<char>('A' + ++letters_ % 26); }

  std::mt19937_64 random_;
  std::uint64_t letters_ = 0;
  std::map<std::string, std::string> used_;  // client -> file that it was to lease last
};

}  // namespace

void lease(Actor& a, const std::string& name, const std::string& path, Client::Use use) {
  if (a.clients().contains(name)) end_lease(a, name);
  Client client(a, path, use);
  // Without it the records that gave its holes blocks may be lost behind a persist.
  if (use == Client::Use::kMap && !a->superblock().device(DeviceRole::kMain).is_memory()) a.note(client.fsync(a));
  a.clients().emplace(name, std::move(client));
}

void store(Actor& a, const std::string& name, std::uint64_t offset_bytes, const std::string& bytes, bool is_durable) {
  a.note(client(a, name).store(a, a.held(), offset_bytes, bytes, is_durable));
}

void store_anywhere(Actor& a, const std::string& name, std::uint64_t where, const std::string& bytes, bool is_durable) {
  store(a, name, client(a, name).place(a, where), bytes, is_durable);
}

void persist(Actor& a, const std::string& name) {
  a.note(client(a, name).persist(a));
}

void fsync_by(Actor& a, const std::string& name) {
  a.note(client(a, name).fsync(a));
}

void end_lease(Actor& a, const std::string& name) {
  client(a, name).end(a);
  a.clients().erase(name);
}

void end_all_leases(Actor& a) {
  while (!a.clients().empty()) end_lease(a, std::string(a.clients().begin()->first));
}

void align(Actor& a, const std::string& path) {
  const auto handle = a.open(path);
  const InodeKey file{handle->inode.number().value, handle->inode.generation()};
  const int error = code_of(a->align(*handle));
  // Success is for files that have nothing to be moved. Whether a leased block has moved is looked at after each step.
  if (is_leased(a, file) && error != EBUSY && error != 0)
    throw BrokenPromise("align of leased " + path + " gave " + std::to_string(error) + ", not EBUSY");
}

void make_lease_tree(Actor& a) {
  if (a.setting().has_realtime()) a.set_flags("", kInodeRtInherit);
  a.create("a");
  a.write("a", 0, pattern('a', 7000));
  a.create("b");
  a.write("b", 0, pattern('b', 3000));
  a.write("a", 12'000, pattern('a', 3000));
  a.write("b", 20'000, pattern('b', 6000));
  a.create("c");
  a.create("secret");
  a.write("secret", 0, std::string(100'000, 'S'));
  a.unlink("secret");
  must(a->run_reclaim());
}

std::vector<Step> lease_steps(std::uint64_t seed, std::size_t count) {
  Chooser chooser(seed);
  std::vector<Step> steps;
  for (std::size_t i = 0; i < count; ++i) steps.push_back(chooser.next());
  return steps;
}

}  // namespace plumb::test
