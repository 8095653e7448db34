// plumb_million FILE FILES: makes a file system with that many files in FILE, through the volume, and unmounts it.
// A thousand files in each directory; one in ten has a block of data. FILE exists, and is as long as the device is to
// be.
//
// Exit status: 0 made, 1 an error, 2 wrong usage.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "pmem/device.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;

constexpr std::uint64_t kFilesPerDirectory = 1000;

void make(const std::string& path, std::uint64_t files) {
  const auto device = test::must(pmem::open_device(path, pmem::OpenOptions{}));
  test::must(Volume::format(*device, test::fixed_format(4096)));
  test::World world(*device);
  InodeRef directory;
  std::string name;
  for (std::uint64_t i = 0; i < files; ++i) {
    if (i % kFilesPerDirectory == 0) {
      name = "directory-" + std::to_string(i / kFilesPerDirectory);
      directory = world.mkdir(name);
    }
    CreateRequest request;
    request.mode = S_IFREG | 0644;
    const FoundEntry made = test::must(world->create(*directory, "file-" + std::to_string(i), request));
    if (i % 10 != 0) continue;
    const auto handle = test::must(world->open(*made.inode, O_RDWR));
    world.write(*handle, 0, test::pattern('m', 1000));
  }
  directory = InodeRef();
  world.unmount();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: plumb_million FILE FILES\n");
    return 2;
  }
  try {
    make(argv[1], std::strtoull(argv[2], nullptr, 10));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "plumb_million: %s\n", error.what());
    return 1;
  }
}
