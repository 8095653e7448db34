#include "test/catalogue/sound.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "fs/core/acl.h"
#include "fs/core/volume_impl.h"
#include "pmem/device.h"
#include "test/unit/core_world.h"

namespace plumb::catalogue {
namespace {

using test::must;
using test::pattern;
using test::World;

constexpr std::uint64_t kMainBytes = 16u << 20;
constexpr std::uint64_t kRealtimeBytes = 8u << 20;
constexpr std::uint32_t kRealtimeExtent = 65536;

enum class Ending : std::uint8_t {
  kUnmounted,
  kPending,  // marked clean, but deletion and reclaim are left to the next mount
  kDied,
};

struct Recipe {
  const char* name;
  std::uint32_t block_size_bytes;
  bool realtime;
  Ending ending;
  pmem::DeviceKind kind;
};
constexpr Recipe kRecipes[] = {
    {"1k", 1024, false, Ending::kUnmounted, pmem::DeviceKind::kCached},
    {"4k", 4096, false, Ending::kUnmounted, pmem::DeviceKind::kMemory},
    {"1k-realtime", 1024, true, Ending::kUnmounted, pmem::DeviceKind::kMemory},
    {"4k-realtime", 4096, true, Ending::kUnmounted, pmem::DeviceKind::kCached},
    {"1k-pending", 1024, false, Ending::kPending, pmem::DeviceKind::kCached},
    {"4k-pending", 4096, false, Ending::kPending, pmem::DeviceKind::kMemory},
    {"1k-unclean", 1024, false, Ending::kDied, pmem::DeviceKind::kMemory},
    {"4k-unclean", 4096, false, Ending::kDied, pmem::DeviceKind::kCached},
};

acl::Acl some_acl() {
  return {{acl::kUserObj, 6, acl::kNoId},
          {acl::kUser, 4, 1000},
          {acl::kGroupObj, 4, acl::kNoId},
          {acl::kMask, 4, acl::kNoId},
          {acl::kOther, 0, acl::kNoId}};
}

// Files whose extents lie between each other's, so that none can be joined.
void make_interleaved(World& world, const std::vector<std::string>& paths, std::uint64_t pieces) {
  const std::uint64_t block = world->statistics().block_size_bytes;
  for (const std::string& path : paths) world.create(path);
  for (std::uint64_t i = 0; i < pieces; ++i)
    for (const std::string& path : paths) world.write(path, i * 2 * block, pattern(path[0], block, i * block));
}

void make_files(World& world) {
  world.create("file");
  world.write("file", 0, pattern('f', 3000));
  world.write("file", 100'000, pattern('g', 3000));
  world.link("file", "again");
  world.create("other");
  world.write("other", 0, pattern('o', 5000));
  world.allocate("other", FALLOC_FL_KEEP_SIZE, 50'000, 20'000);
  world.create("third");
  world.write("third", 0, pattern('t', 20'000));
  world.create("empty");
  world.create("tiny");
  world.write("tiny", 0, "1");
  world.create("sparse");
  world.write("sparse", 400'000, pattern('e', 100));
  world.symlink("short", "dir/sub/leaf");
  world.symlink("long", std::string(4090, 'l'));
  world.make("fifo", S_IFIFO | 0600);
  world.make("socket", S_IFSOCK | 0600);
  world.make("null", S_IFCHR | 0666, {}, makedev(1, 3));
}

void make_directories(World& world) {
  world.mkdir("dir");
  world.mkdir("dir/sub");
  world.create("dir/sub/leaf");
  world.write("dir/sub/leaf", 0, pattern('l', 2000));
  world.mkdir("dir/other");
  world.create("dir/other/leaf");
  world.mkdir("wide");
  for (int i = 0; i < 20; ++i) world.mkdir("wide/" + std::to_string(i));
  std::string path = "deep";
  for (int i = 0; i < 12; ++i) {
    world.mkdir(path);
    world.create(path + "/file");
    path += "/" + std::to_string(i);
  }
  // Deep enough for a tree of three levels with blocks of 1 KiB, and an inode table of two.
  world.mkdir("many");
  for (int i = 0; i < 3600; ++i) world.create("many/entry-number-" + std::to_string(i));
}

void make_xattrs(World& world) {
  const auto set = [&](const char* path, const std::string& name, const std::string& value) {
    world.set_xattr(path, name, value);
  };
  set("file", "user.short", "value");
  set("file", "user.long", pattern('x', 15'000));
  set("file", std::string(acl::kAccessName), acl::serialize(some_acl()));
  set("dir", std::string(acl::kDefaultName), acl::serialize(some_acl()));
  world.create("labelled");
  world.write("labelled", 0, pattern('w', 1500));
  for (int i = 0; i < 30; ++i) set("labelled", "user.number-" + std::to_string(10 + i), pattern('v', 250));
  set("labelled", "user.chain", pattern('c', 9000));
}

void make_realtime(World& world) {
  world.mkdir("rt");
  world.set_flags("rt", kInodeRtInherit);
  for (const char* path : {"rt/first", "rt/second"}) {
    world.create(path);
    world.write(path, 0, pattern(path[3], 200'000));
  }
  make_interleaved(world, {"rt/interleaved", "rt/between"}, 0);
  for (std::uint64_t i = 0; i < 10; ++i)
    for (const char* path : {"rt/interleaved", "rt/between"})
      world.write(path, i * 2 * kRealtimeExtent, pattern('i', 1000, i));
}

// Blocks for the reclaim tree.
void make_reclaim(World& world) {
  make_interleaved(world, {"doomed", "kept"}, 400);
  world.unlink("doomed");
  (void)world->statistics();  // works off the deletion, not the queue
}

// Files that are open and have no name.
std::vector<InodeRef> make_orphans(World& world, const std::vector<std::string>& paths) {
  std::vector<InodeRef> open;
  for (const std::string& path : paths) {
    open.push_back(world.create(path));
    world.write(path, 0, pattern('d', 9000));
    world.unlink(path);
  }
  return open;
}

// After the last checkpoint: what only the journal knows on a page-cached device.
void make_late(World& world) {
  must(world->sync());
  for (int i = 0; i < 10; ++i) {
    world.create("late-" + std::to_string(i));
    world.write("late-" + std::to_string(i), 0, pattern('L', 1000));
  }
  world.rename("empty", "renamed");
  world.unlink("tiny");
  (void)world->statistics();  // deletes it: it is no orphan
  world.create("last");       // one record
}

pmem::DeviceKind other_kind(pmem::DeviceKind kind) {
  return kind == pmem::DeviceKind::kMemory ? pmem::DeviceKind::kCached : pmem::DeviceKind::kMemory;
}

Medium make_medium(const Recipe& recipe) {
  pmem::CrashDevice main(kMainBytes, {.kind = recipe.kind});
  pmem::CrashDevice realtime(kRealtimeBytes, {.kind = other_kind(recipe.kind)});
  const Members members = recipe.realtime ? Members(main, &realtime) : Members(main);
  FormatOptions format = test::fixed_format(recipe.block_size_bytes);
  format.realtime_extent_bytes = kRealtimeExtent;
  must(Volume::format(members, format));
  const auto now = [&] {
    return Medium{main.current_image().read(0, kMainBytes),
                  recipe.realtime ? realtime.current_image().read(0, kRealtimeBytes) : Bytes()};
  };
  World world(members);
  make_files(world);
  make_directories(world);
  make_xattrs(world);
  if (recipe.realtime) make_realtime(world);
  make_interleaved(world, {"scattered", "between"}, 400);
  make_reclaim(world);
  if (recipe.ending == Ending::kUnmounted) {
    world.unmount();
    return now();
  }
  // One where recovery must do the same every time: it deletes several in any order.
  std::vector<InodeRef> open = make_orphans(world, {"gone"});
  if (recipe.ending == Ending::kDied) {
    make_late(world);
  } else {
    open.push_back(make_orphans(world, {"away"}).front());
    must(world->impl().store.close());
  }
  Medium medium = now();  // the daemon ends here: what the references do when they go is not in it
  open.clear();
  world.die();
  return medium;
}

// A file system in files, mounted.
class Mounted {
 public:
  explicit Mounted(const MediumFiles& files) : main_(open(files.main)) {
    if (!files.realtime.empty()) realtime_ = open(files.realtime);
    world_ = std::make_unique<World>(Members(*main_, realtime_.get()));
  }
  World& operator*() { return *world_; }
  World* operator->() { return world_.get(); }

 private:
  static std::unique_ptr<pmem::Device> open(const std::string& path) {
    return must(pmem::open_device(path, pmem::OpenOptions{}));
  }
  std::unique_ptr<pmem::Device> main_, realtime_;
  std::unique_ptr<World> world_;
};

test::Snapshot contents_of(const Medium& medium) {
  pmem::CrashDevice main(pmem::CrashImage(medium.main), {});
  std::unique_ptr<pmem::CrashDevice> realtime;
  if (!medium.realtime.empty())
    realtime = std::make_unique<pmem::CrashDevice>(pmem::CrashImage(medium.realtime), pmem::CrashDeviceOptions{});
  World world(Members(main, realtime.get()));
  return test::take_snapshot(world);
}

}  // namespace

const std::vector<std::string>& image_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Recipe& recipe : kRecipes) all.emplace_back(recipe.name);
    return all;
  }();
  return names;
}

const SoundImage& sound_image(std::string_view name) {
  static std::mutex mutex;
  static std::map<std::string, std::unique_ptr<SoundImage>, std::less<>> made;
  const std::lock_guard lock(mutex);
  if (const auto it = made.find(name); it != made.end()) return *it->second;
  for (const Recipe& recipe : kRecipes) {
    if (recipe.name != name) continue;
    auto image = std::make_unique<SoundImage>();
    image->medium = make_medium(recipe);
    image->contents = contents_of(image->medium);
    image->clean = recipe.ending != Ending::kDied;
    return *made.emplace(name, std::move(image)).first->second;
  }
  throw std::runtime_error("there is no sound image \"" + std::string(name) + "\"");
}

test::Snapshot contents_of(const MediumFiles& files) {
  Mounted mounted(files);
  test::Snapshot contents = test::take_snapshot(*mounted);
  mounted->unmount();
  return contents;
}

void recover(const MediumFiles& files) {
  Mounted mounted(files);
  mounted->unmount();
}

void use(const MediumFiles& files) {
  Mounted mounted(files);
  World& world = *mounted;
  world.mkdir("used");
  for (int i = 0; i < 50; ++i) {
    const std::string path = "used/" + std::to_string(i);
    world.create(path);
    world.write(path, 0, pattern('u', 10'000));
  }
  for (int i = 0; i < 50; i += 2) {
    world.rename("used/" + std::to_string(i), "used/" + std::to_string(i + 1));
    if (world.read("used/" + std::to_string(i + 1)) != pattern('u', 10'000))
      throw std::runtime_error("a file that was written has other contents");
  }
  world.unlink("used/1");
  must(world->run_reclaim());
  world.unmount();
}

}  // namespace plumb::catalogue
