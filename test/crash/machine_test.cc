// What the crash tests rely on: images without a call are those of a program without it, and equal images have equal
// hashes.
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <string>
#include <vector>

#include "test/crash/machine.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::DeviceKind;

constexpr std::uint64_t kBytes = 64u << 10;

void store(pmem::CrashDevice& device, std::uint64_t offset, char letter) {
  const std::array<char, 16> bytes = [&] {
    std::array<char, 16> all;
    all.fill(letter);
    return all;
  }();
  must(device.store(offset, std::as_bytes(std::span(bytes))));
}

// Stores that are made durable one after the other, on both devices.
void run(Machine& machine) {
  for (const char letter : {'a', 'b', 'c'}) {
    const std::uint64_t at = 4096u * static_cast<std::uint64_t>(letter - 'a');
    for (pmem::CrashDevice* device : {&machine.main(), machine.realtime()}) {
      store(*device, at, letter);
      must(device->persist(at, 16));
    }
  }
}

std::string bytes_of(const MachineImage& image) {
  std::string all;
  for (const pmem::CrashImage* one : {&image.main, &*image.realtime})
    for (const std::byte b : one->read(0, kBytes)) all += static_cast<char>(b);
  return all;
}

std::vector<std::string> images_of(MachineExplorer& explorer, std::uint64_t tick) {
  std::vector<std::string> images;
  explorer.for_each(tick, {}, [&](const MachineImage& image) {
    images.push_back(bytes_of(image));
    return true;
  });
  return images;
}

}  // namespace

TEST_CASE("crash images: a call that is left out of a log makes those of a program without it", "[crash][machine]") {
  const DeviceKind kind = GENERATE(DeviceKind::kMemory, DeviceKind::kCached);
  const bool of_realtime = GENERATE(false, true);
  const MachineKinds kinds{kind, kind};
  Machine complete(kBytes, kBytes, kinds);
  run(complete);
  Machine lying(kBytes, kBytes, kinds);
  (of_realtime ? *lying.realtime() : lying.main()).drop_flush_call(1);
  run(lying);
  const pmem::CrashDevice& device = of_realtime ? *complete.realtime() : complete.main();
  std::size_t event = 0;
  for (std::size_t flushes = 0; flushes < 2; ++event)
    if (device.event(event).type == pmem::CrashEvent::Type::kFlush) ++flushes;
  MachineExplorer without(complete, {{of_realtime, event - 1}});
  MachineExplorer dropped(lying);
  bool differs = false;
  MachineExplorer with_all(complete);
  for (const std::uint64_t tick : complete.crash_points()) {
    CHECK(images_of(without, tick) == images_of(dropped, tick));
    differs = differs || images_of(without, tick) != images_of(with_all, tick);
  }
  CHECK(differs);
}

TEST_CASE("crash images: the same bytes have the same hash, others another", "[crash][machine]") {
  Machine machine(kBytes, kBytes, {DeviceKind::kMemory, DeviceKind::kCached});
  run(machine);
  MachineExplorer explorer(machine);
  std::map<std::uint64_t, std::string> by_hash;
  std::map<std::string, std::uint64_t> by_bytes;
  for (const std::uint64_t tick : machine.crash_points()) {
    explorer.for_each(tick, {}, [&](const MachineImage& image) {
      const std::string bytes = bytes_of(image);
      CHECK(by_hash.emplace(image.content_hash(), bytes).first->second == bytes);
      CHECK(by_bytes.emplace(bytes, image.content_hash()).first->second == image.content_hash());
      return true;
    });
  }
  CHECK(by_bytes.size() > 4);
}
