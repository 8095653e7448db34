// What survives a power cut, and after which call: the table of the README, cell by cell.
//
// A few operations are done on a mount of some mode, then one call, then the power goes. A cell says what must be there
// in every image that the fault model allows, and what is lost in the one where nothing was evicted: a promise that is
// stronger than the truth fails here, and so does one that is weaker. The death of the daemon loses nothing in any
// cell.
#include <fcntl.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "fs/core/volume_impl.h"
#include "test/crash/fixed_clock.h"
#include "test/crash/harness.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using enum pmem::DeviceKind;

// In a cell: an upper case letter is promised, a lower case one may be there or not, one that is missing is lost when
// nothing was evicted.
//   D  bytes of f that were overwritten
//   S  size of f, which was written beyond its end
//   A  the bytes there
//   N  the name of a new file
//   C  chmod of g
//   X  an extended attribute of g
constexpr std::string_view kAll = "DSANCX";

struct Mode {
  const char* name;
  Writeback writeback;
  int open_flags = 0;
  bool sync = false, dirsync = false;
};

constexpr Mode kImmediate{"writeback=immediate", Writeback::kImmediate};
constexpr Mode kDeferred{"writeback=deferred", Writeback::kDeferred};
// Deferred, so that on memory too it is the flag that does it.
constexpr Mode kOSync{"O_SYNC", Writeback::kDeferred, O_SYNC};
constexpr Mode kODsync{"O_DSYNC", Writeback::kDeferred, O_DSYNC};
constexpr Mode kSyncMount{"sync mount", Writeback::kDeferred, 0, true};
constexpr Mode kDirsyncMount{"dirsync mount", Writeback::kDeferred, 0, false, true};

enum class Call { kNone, kKernelSync, kFdatasync, kFsync, kSync, kCommit, kInterval, kUnmount };

const char* name_of(Call call) {
  switch (call) {
    case Call::kNone:
      return "the reply";
    case Call::kKernelSync:
      return "sync(2) that the daemon does not see";
    case Call::kFdatasync:
      return "fdatasync of f";
    case Call::kFsync:
      return "fsync of f";
    case Call::kSync:
      return "sync of the file system";
    case Call::kCommit:
      return "the commit interval";
    case Call::kInterval:
      return "the writeback interval";
    case Call::kUnmount:
      return "unmount";
  }
  return "";
}

constexpr MachineKinds kColumns[] = {{kMemory, {}}, {kCached, {}}, {kMemory, kCached}, {kCached, kMemory}};
const char* const kColumnNames[] = {"memory", "page-cached", "memory, f on a page-cached realtime device",
                                    "page-cached, f on a memory realtime device"};

struct Row {
  Mode mode;
  Call call;
  std::string_view cells[4];
};

const std::vector<Row>& rows() {
  static const std::vector<Row> all{
      // mode, call, {memory, page-cached, memory + page-cached, page-cached + memory}
      {kImmediate, Call::kNone, {kAll, "", "SNCX", "D"}},
      {kImmediate, Call::kKernelSync, {kAll, kAll, kAll, kAll}},
      {kImmediate, Call::kFdatasync, {kAll, "DSAncx", kAll, "DSAncx"}},
      {kImmediate, Call::kFsync, {kAll, "DSAncx", kAll, "DSAncx"}},
      {kImmediate, Call::kSync, {kAll, kAll, kAll, kAll}},
      {kImmediate, Call::kCommit, {kAll, "SNCX", "SNCX", kAll}},
      {kImmediate, Call::kInterval, {kAll, kAll, kAll, kAll}},
      {kImmediate, Call::kUnmount, {kAll, kAll, kAll, kAll}},
      {kDeferred, Call::kNone, {"SNCX", "", "SNCX", ""}},
      {kDeferred, Call::kKernelSync, {"SNCX", kAll, kAll, "SNCX"}},
      {kDeferred, Call::kFdatasync, {kAll, "DSAncx", kAll, "DSAncx"}},
      {kDeferred, Call::kFsync, {kAll, "DSAncx", kAll, "DSAncx"}},
      {kDeferred, Call::kSync, {kAll, kAll, kAll, kAll}},
      {kDeferred, Call::kCommit, {"SNCX", "SNCX", "SNCX", "SNCX"}},
      {kDeferred, Call::kInterval, {kAll, kAll, kAll, kAll}},
      {kDeferred, Call::kUnmount, {kAll, kAll, kAll, kAll}},
      {kOSync, Call::kNone, {kAll, "DSA", kAll, "DSA"}},
      {kOSync, Call::kSync, {kAll, kAll, kAll, kAll}},
      {kODsync, Call::kNone, {kAll, "DSA", kAll, "DSA"}},
      {kODsync, Call::kSync, {kAll, kAll, kAll, kAll}},
      {kSyncMount, Call::kNone, {kAll, kAll, kAll, kAll}},
      {kSyncMount, Call::kUnmount, {kAll, kAll, kAll, kAll}},
      {kDirsyncMount, Call::kNone, {"SNCX", "sN", "SNCX", "sN"}},
      {kDirsyncMount, Call::kSync, {kAll, kAll, kAll, kAll}},
  };
  return all;
}

constexpr std::size_t kOldBytes = 8192;

void prepare(Actor& a) {
  a.create("f");
  if (a.setting().has_realtime()) a.set_flags("f", kInodeRealtime);
  a.write("f", 0, pattern('0', kOldBytes));
  a.create("g");
}

void operate(World& world, FileHandle& f) {
  tick_clock();
  world.write(f, 0, pattern('1', 4096));
  tick_clock();
  world.write(f, kOldBytes, pattern('2', 4096));
  tick_clock();
  world.create("new");
  SetAttributes set;
  set.mode = 0600;
  world.change("g", set);
  world.set_xattr("g", "user.x", "value");
}

void make(Call call, World& world, std::unique_ptr<FileHandle>& f, Machine& machine) {
  switch (call) {
    case Call::kNone:
      break;
    case Call::kKernelSync:
      // The kernel writes back its page cache of the device, and knows nothing of memory that is mapped.
      for (pmem::CrashDevice* device : {&machine.main(), machine.realtime()})
        if (device != nullptr && !device->is_memory()) must(device->flush(0, device->size_bytes()));
      break;
    case Call::kFdatasync:
      must(world->fsync(*f, FsyncMode::kDataOnly));
      break;
    case Call::kFsync:
      must(world->fsync(*f, FsyncMode::kFull));
      break;
    case Call::kSync:
      must(world->sync());
      break;
    case Call::kCommit:
      must(world->impl().store.journal().force_all());
      break;
    case Call::kInterval:
      must(world->impl().write_back_all());
      break;
    case Call::kUnmount:
      f.reset();
      world.unmount();
      break;
  }
}

std::string facts_of(const MachineImage& image, MachineKinds kinds) {
  Machine machine(image, kinds);
  World world(machine.members());
  std::string facts;
  const std::string f = world.read("f");
  if (f.compare(0, 4096, pattern('1', 4096)) == 0) facts += 'D';
  if (f.size() > kOldBytes) facts += 'S';
  if (f.substr(kOldBytes) == pattern('2', 4096)) facts += 'A';
  if (world.exists("new")) facts += 'N';
  if ((world.stat("g").mode & 0777) == 0600) facts += 'C';
  if (world->get_xattr(*world.find("g"), "user.x")) facts += 'X';
  return facts;
}

bool has_all(std::string_view facts, std::string_view cell) {
  for (const char c : kAll)
    if (cell.find(c) != cell.npos && facts.find(c) == facts.npos) return false;
  return true;
}

std::string without_doubtful(std::string_view facts, std::string_view cell) {
  std::string out;
  for (const char c : facts)
    if (cell.find(static_cast<char>(c + ('a' - 'A'))) == cell.npos) out += c;
  return out;
}

std::string promised(std::string_view cell) {
  std::string out;
  for (const char c : kAll)
    if (cell.find(c) != cell.npos) out += c;
  return out;
}

}  // namespace

TEST_CASE("durability: what survives a power cut, after which call", "[crash][durability]") {
  const std::size_t column = GENERATE(0u, 1u, 2u, 3u);
  const MachineKinds kinds = kColumns[column];
  const Setting setting{kColumnNames[column], kinds, 4096, Writeback::kImmediate, 4096};
  const MachineImage base = prepared_image(setting, prepare);
  for (const Row& row : rows()) {
    CAPTURE(row.mode.name, name_of(row.call), setting.name, base_seed());
    const std::string_view cell = row.cells[column];
    Machine machine(base, kinds);
    MountOptions options = quiet_mount();
    options.writeback = row.mode.writeback;
    options.sync = row.mode.sync;
    options.dirsync = row.mode.dirsync;
    World world(machine.members(), options);
    std::unique_ptr<FileHandle> f = world.open("f", O_RDWR | row.mode.open_flags);
    operate(world, *f);
    make(row.call, world, f, machine);
    const std::uint64_t cut = machine.mark("power cut");

    CHECK(facts_of(machine.current_image(), kinds) == kAll);  // the death of the daemon
    MachineExplorer explorer(machine);
    CHECK(without_doubtful(facts_of(explorer.nothing(cut), kinds), cell) == promised(cell));
    const pmem::ImageLimits limits{.exhaustive_stores = 2,
                                   .max_systematic = scaled(12),
                                   .random_subsets = scaled(6),
                                   .torn_stores = 1,
                                   .random_torn = scaled(6),
                                   .seed = base_seed()};
    ++totals().points;
    explorer.for_each(cut, limits, [&](const MachineImage& image) {
      ++totals().images;
      INFO(image.description());
      const std::string facts = facts_of(image, kinds);
      REQUIRE((has_all(facts, cell) ? promised(cell) : facts) == promised(cell));
      return true;
    });
  }
}
