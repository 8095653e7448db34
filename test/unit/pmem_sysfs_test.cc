#include "pmem/sysfs.h"

#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <fstream>
#include <string>

#include "test/unit/pmem_temp_dir.h"

namespace {

namespace fs = std::filesystem;
namespace sysfs = plumb::pmem::sysfs;
using plumb::pmem::MemoryPlatform;
using plumb::testing::TempDir;

constexpr sysfs::DeviceNumber kNumber{252, 7};

// A tree with the links and files that the kernel makes for one dax device.
class FakeSysfs {
 public:
  [[nodiscard]] std::string root() const { return dir_.path().string(); }

  void file(const fs::path& path, const std::string& content, fs::perms perms = fs::perms::owner_all) const {
    fs::create_directories((dir_.path() / path).parent_path());
    std::ofstream(dir_.path() / path) << content << "\n";
    fs::permissions(dir_.path() / path, perms);
  }
  void link(const fs::path& path, const fs::path& target) const {
    fs::create_directories((dir_.path() / path).parent_path());
    fs::create_directories(dir_.path() / target);
    fs::create_symlink(dir_.path() / target, dir_.path() / path);
  }
  // A devdax of 1 GiB in `parent`.
  void devdax(const fs::path& parent, const std::string& driver) const {
    const fs::path device = parent / "dax0.0";
    link("dev/char/252:7", device);
    link(device / "subsystem", "bus/dax");
    if (!driver.empty()) link(device / "driver", fs::path("bus/dax/drivers") / driver);
    file(device / "size", "1073741824");
    file(device / "align", "2097152");
  }
  void nd_region(const fs::path& region, const std::string& devtype) const {
    link(region / "subsystem", "bus/nd");
    file(region / "uevent", "DEVTYPE=" + devtype);
  }

 private:
  TempDir dir_;
};

const fs::path kRegion = "devices/ndbus0/region0";

}  // namespace

TEST_CASE("sysfs: a devdax below an nd region is persistent", "[pmem][sysfs]") {
  const FakeSysfs sys;
  sys.devdax(kRegion / "dax0.1", "device_dax");
  sys.nd_region(kRegion, "nd_pmem");
  const auto facts = sysfs::read_devdax(sys.root(), kNumber);
  REQUIRE(facts);
  CHECK(facts->size_bytes == 1073741824);
  CHECK(facts->align_bytes == 2097152);
  CHECK(facts->is_persistent);
  CHECK_FALSE(facts->platform.caches_are_persistent);
  CHECK(facts->platform.deep_flush_path.empty());
}

TEST_CASE("sysfs: a devdax without an nd region is volatile", "[pmem][sysfs]") {
  const FakeSysfs sys;
  sys.devdax("devices/platform/hmem.0", "device_dax");
  const auto facts = sysfs::read_devdax(sys.root(), kNumber);
  REQUIRE(facts);
  CHECK_FALSE(facts->is_persistent);
}

TEST_CASE("sysfs: a region of another bus does not make persistent", "[pmem][sysfs]") {
  const FakeSysfs sys;
  const fs::path region = "devices/cxl/region0";
  sys.devdax(region / "dax_region0", "device_dax");
  sys.link(region / "subsystem", "bus/cxl");
  const auto facts = sysfs::read_devdax(sys.root(), kNumber);
  REQUIRE(facts);
  CHECK_FALSE(facts->is_persistent);
}

TEST_CASE("sysfs: a volatile nd region does not make persistent", "[pmem][sysfs]") {
  const FakeSysfs sys;
  sys.devdax(kRegion / "dax0.1", "device_dax");
  sys.nd_region(kRegion, "nd_volatile");
  const auto facts = sysfs::read_devdax(sys.root(), kNumber);
  REQUIRE(facts);
  CHECK_FALSE(facts->is_persistent);
}

TEST_CASE("sysfs: system-ram mode is refused with ENODEV", "[pmem][sysfs]") {
  for (const char* driver : {"kmem", ""}) {
    const FakeSysfs sys;
    sys.devdax(kRegion / "dax0.1", driver);
    const auto facts = sysfs::read_devdax(sys.root(), kNumber);
    REQUIRE_FALSE(facts);
    CHECK(facts.error().code == ENODEV);
  }
  const FakeSysfs sys;
  sys.link("bus/dax/devices/dax1.0/driver", "bus/dax/drivers/kmem");
  CHECK(sysfs::is_system_ram(sys.root(), "dax1.0"));
  CHECK_FALSE(sysfs::is_system_ram(sys.root(), "dax2.0"));
}

TEST_CASE("sysfs: another character device is no dax device", "[pmem][sysfs]") {
  const FakeSysfs sys;
  sys.link("dev/char/252:7", "devices/virtual/mem/null");
  sys.link("devices/virtual/mem/null/subsystem", "class/mem");
  const auto facts = sysfs::read_devdax(sys.root(), kNumber);
  REQUIRE_FALSE(facts);
  CHECK(facts.error().code == EINVAL);
  CHECK(sysfs::read_devdax(sys.root(), {1, 1}).error().code == EINVAL);
}

TEST_CASE("sysfs: size 0 or no alignment is refused", "[pmem][sysfs]") {
  const FakeSysfs sys;
  sys.devdax(kRegion / "dax0.1", "device_dax");
  sys.file(kRegion / "dax0.1/dax0.0/align", "0");
  CHECK(sysfs::read_devdax(sys.root(), kNumber).error().code == EINVAL);
  sys.file(kRegion / "dax0.1/dax0.0/align", "2097152");
  sys.file(kRegion / "dax0.1/dax0.0/size", "0");
  CHECK(sysfs::read_devdax(sys.root(), kNumber).error().code == EINVAL);
}

TEST_CASE("sysfs: the deep flush file is used if it can be written and is not 0", "[pmem][sysfs]") {
  const FakeSysfs sys;
  sys.link("dev/block/259:0", kRegion / "namespace0.0/block/pmem0");
  sys.nd_region(kRegion, "nd_pmem");
  const auto platform = [&] { return sysfs::read_block_platform(sys.root(), {259, 0}); };
  CHECK(platform().deep_flush_path.empty());
  sys.file(kRegion / "deep_flush", "0", fs::perms::owner_read);
  CHECK(platform().deep_flush_path.empty());
  fs::permissions(sys.root() / kRegion / "deep_flush", fs::perms::owner_read | fs::perms::owner_write);
  CHECK(platform().deep_flush_path.empty());
  sys.file(kRegion / "deep_flush", "1", fs::perms::owner_read | fs::perms::owner_write);
  CHECK(fs::path(platform().deep_flush_path).filename() == "deep_flush");
}

TEST_CASE("sysfs: eADR is a property of the region", "[pmem][sysfs]") {
  const FakeSysfs sys;
  sys.link("dev/block/259:0", kRegion / "namespace0.0/block/pmem0");
  sys.nd_region(kRegion, "nd_pmem");
  sys.file(kRegion / "persistence_domain", "memory_controller");
  CHECK_FALSE(sysfs::read_block_platform(sys.root(), {259, 0}).caches_are_persistent);
  sys.file(kRegion / "persistence_domain", "cpu_cache");
  CHECK(sysfs::read_block_platform(sys.root(), {259, 0}).caches_are_persistent);
  CHECK_FALSE(sysfs::read_block_platform(sys.root(), {8, 0}).caches_are_persistent);
}
