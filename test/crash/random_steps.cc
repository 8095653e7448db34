#include "test/crash/random_steps.h"

#include <linux/falloc.h>

#include <random>

#include "test/crash/tree.h"

namespace plumb::test {
namespace {

// Chooses names that are there half of the time. A step whose operation fails changes nothing, which is checked too.
class Chooser {
 public:
  explicit Chooser(std::uint64_t seed) : random_(seed) {}

  Step next() {
    const std::uint64_t what = random_() % 24;
    const std::string a = name();
    const std::string b = name();
    const std::uint64_t offset = random_() % 4 == 0 ? random_() % 60'000 : random_() % 8'000;
    const std::size_t length = 1 + random_() % (random_() % 8 == 0 ? 30'000 : 3'000);
    const char letter = static_cast<char>('a' + ++letters_ % 26);
    switch (what) {
      case 0:
      case 1:
        return attempt("create " + a, [=](Actor& w) { w.create(a); });
      case 2:
        return attempt("mkdir " + a, [=](Actor& w) { w.mkdir(a); });
      case 3:
        return attempt("symlink " + a, [=](Actor& w) { w.symlink(a, std::string(1 + offset % 4000, letter)); });
      case 4:
      case 5:
        return attempt("unlink " + a, [=](Actor& w) { w.unlink(a); });
      case 6:
        return attempt("rmdir " + a, [=](Actor& w) { w.rmdir(a); });
      case 7:
      case 8:
        return attempt("rename " + a + " " + b, [=](Actor& w) { w.rename(a, b); });
      case 9:
        return attempt("exchange " + a + " " + b, [=](Actor& w) { w.rename(a, b, {.exchange = true}); });
      case 10:
        return attempt("link " + a + " " + b, [=](Actor& w) { w.link(a, b); });
      case 11:
      case 12:
      case 13:
      case 14:
        return attempt("write " + a, [=](Actor& w) { w.write(a, offset, pattern(letter, length, offset)); });
      case 15:
        return attempt("truncate " + a, [=](Actor& w) { w.truncate(a, offset); });
      case 16:
        return attempt("set xattr " + a, [=](Actor& w) {
          w.set_xattr(a, "user.x" + std::to_string(offset % 3), pattern(letter, length));
        });
      case 17:
        return attempt("remove xattr " + a,
                       [=](Actor& w) { w.remove_xattr(a, "user.x" + std::to_string(offset % 3)); });
      case 18:
        return attempt("chmod " + a, [=](Actor& w) { set_owner(w, a.c_str(), 0600 + offset % 64, 1); });
      case 19: {
        const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE};
        const int mode = modes[random_() % 4];
        Step s = attempt("fallocate " + a, [=](Actor& w) { w.allocate(a, mode, offset, length); });
        s.is_in_parts = true;
        return s;
      }
      case 20:
        return reclaim_step();
      case 21:
        return random_() % 3 == 0 ? sync_step() : fsync_if_there(a);
      case 22:
        return fsync_if_there(a);
      default:
        if (random_() % 3 == 0) return step("die and mount", [](Actor& w) { w.die_and_mount(); });
        return attempt("open " + a, [=](Actor& w) { w.open_as(std::string(1, letter), a); });
    }
  }

 private:
  std::string name() {
    static const char* const kNames[] = {"a", "b", "c", "x", "x/a", "x/b", "y", "y/a", "x/z", "x/z/a"};
    return kNames[random_() % std::size(kNames)];
  }
  static Step attempt(std::string name, std::function<void(Actor&)> run) {
    return step(std::move(name), [run = std::move(run)](Actor& a) {
      try {
        run(a);
      } catch (const std::runtime_error&) {
        // ENOENT, EEXIST and the like: nothing has changed.
      }
    });
  }
  static Step fsync_if_there(const std::string& path) {
    return {.name = "fsync " + path,
            .run =
                [path](Actor& w) {
                  try {
                    w.fsync(path);
                  } catch (const std::runtime_error&) {
                    must(w->sync());  // promises no less
                  }
                },
            .syncs_file = path};
  }

  std::mt19937_64 random_;
  std::uint64_t letters_ = 0;
};

}  // namespace

void make_random_tree(Actor& a) {
  a.mkdir("x");
  a.mkdir("x/z");
  a.mkdir("y");
  a.create("a");
  a.write("a", 0, pattern('A', 7000));
  a.create("x/a");
  a.write("x/a", 0, pattern('X', 3000));
  a.link("x/a", "y/a");
  a.create("secret");
  a.write("secret", 0, std::string(100'000, 'S'));
  a.unlink("secret");
}

std::vector<Step> random_steps(std::uint64_t seed, std::size_t count) {
  Chooser chooser(seed);
  std::vector<Step> steps;
  for (std::size_t i = 0; i < count; ++i) steps.push_back(chooser.next());
  return steps;
}

}  // namespace plumb::test
