#include "pmem/sysfs.h"

#include <sys/stat.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string_view>

namespace plumb::pmem::sysfs {

namespace {

namespace fs = std::filesystem;

std::string read_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::uint64_t read_number(const fs::path& path) {
  return std::strtoull(read_line(path).c_str(), nullptr, 0);
}

// Last component of what a symbolic link points to, empty if there is no such link.
std::string link_name(const fs::path& path) {
  std::error_code error;
  const fs::path target = fs::read_symlink(path, error);
  return error ? std::string() : target.filename().string();
}

fs::path device_directory(const std::string& root, const char* type, DeviceNumber number) {
  const fs::path link =
      fs::path(root) / "dev" / type / (std::to_string(number.major_number) + ":" + std::to_string(number.minor_number));
  std::error_code error;
  fs::path directory = fs::canonical(link, error);
  return error ? fs::path() : directory;
}

bool is_region_name(std::string_view name) {
  constexpr std::string_view kPrefix = "region";
  return name.size() > kPrefix.size() && name.substr(0, kPrefix.size()) == kPrefix &&
         std::isdigit(static_cast<unsigned char>(name[kPrefix.size()])) != 0;
}

// CXL has directories named regionN as well: only the nd bus stands for a persistent domain.
bool is_nd_region(const fs::path& directory) {
  return is_region_name(directory.filename().string()) && link_name(directory / "subsystem") == "nd";
}

std::optional<fs::path> find_nd_region(const fs::path& device) {
  for (fs::path at = device; at.has_relative_path(); at = at.parent_path()) {
    if (is_nd_region(at)) return at;
  }
  return std::nullopt;
}

bool is_volatile_region(const fs::path& region) {
  std::ifstream uevent(region / "uevent");
  for (std::string line; std::getline(uevent, line);) {
    if (line == "DEVTYPE=nd_volatile") return true;
  }
  return false;
}

// Mode bits and not access(2): root passes that for a 0444 file, and the write is refused later.
bool is_writable(const fs::path& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && (status.st_mode & S_IWUSR) != 0;
}

MemoryPlatform read_platform(const fs::path& region) {
  MemoryPlatform platform;
  platform.caches_are_persistent = read_line(region / "persistence_domain") == "cpu_cache";
  const fs::path deep_flush = region / "deep_flush";
  // Absent, or 0444 and 0: nothing is left to flush beyond the memory controller.
  if (is_writable(deep_flush) && read_number(deep_flush) != 0) {
    platform.deep_flush_path = deep_flush.string();
  }
  return platform;
}

Result<void> check_driver(const fs::path& directory) {
  std::string driver = link_name(directory / "driver");
  // The dax class of kernels before 5.1 has the driver at the parent.
  const bool is_class = driver.empty() && !link_name(directory / "device" / "driver").empty();
  if (is_class || driver == "device_dax") return {};
  if (driver.empty()) driver = "no driver";
  return fail(ENODEV, directory.filename().string() + " is bound to " + driver +
                          " instead of device_dax (system-ram mode? daxctl reconfigure-device "
                          "--mode=devdax)");
}

}  // namespace

Result<DevdaxFacts> read_devdax(const std::string& root, DeviceNumber number) {
  const fs::path directory = device_directory(root, "char", number);
  if (directory.empty() || link_name(directory / "subsystem") != "dax") {
    return fail(EINVAL, "a character device, but not a dax device");
  }
  PLUMB_TRY(check_driver(directory));
  DevdaxFacts facts;
  facts.size_bytes = read_number(directory / "size");
  facts.align_bytes = read_number(directory / "align");
  // Kernels before 5.10 show it at the region only.
  if (facts.align_bytes == 0) facts.align_bytes = read_number(directory / "dax_region" / "align");
  if (facts.align_bytes == 0) {
    facts.align_bytes = read_number(directory / "device" / "dax_region" / "align");
  }
  if (facts.size_bytes == 0) return fail(EINVAL, directory.filename().string() + " has size 0");
  if (facts.align_bytes == 0 || (facts.align_bytes & (facts.align_bytes - 1)) != 0 ||
      facts.size_bytes % facts.align_bytes != 0) {
    return fail(EINVAL, directory.filename().string() + " has no usable alignment");
  }
  if (const auto region = find_nd_region(directory)) {
    facts.is_persistent = !is_volatile_region(*region);
    facts.platform = read_platform(*region);
  }
  return facts;
}

MemoryPlatform read_block_platform(const std::string& root, DeviceNumber number) {
  const fs::path directory = device_directory(root, "block", number);
  if (directory.empty()) return {};
  const auto region = find_nd_region(directory);
  return region ? read_platform(*region) : MemoryPlatform{};
}

bool is_block_read_only(const std::string& root, DeviceNumber number) {
  const fs::path directory = device_directory(root, "block", number);
  return !directory.empty() && read_number(directory / "ro") != 0;
}

bool is_system_ram(const std::string& root, const std::string& dax_name) {
  const fs::path directory = fs::path(root) / "bus" / "dax" / "devices" / dax_name;
  return link_name(directory / "driver") == "kmem";
}

}  // namespace plumb::pmem::sysfs
