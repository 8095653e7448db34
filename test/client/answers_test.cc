// What a client refuses to believe.

#include "fs/client/answers.h"

#include <catch2/catch_test_macros.hpp>
#include <cstring>
#include <memory>

namespace {

using plumb::client::is_sound;
using namespace plumb::protocol;

Devices one_device() {
  Devices devices = {};
  devices.version = kVersion;
  devices.member_count = 1;
  devices.epoch = 7;
  devices.slots_offset = 131072;
  devices.slot_count = 1024;
  devices.block_size_bytes = 4096;
  devices.members[0].size_bytes = 64 << 20;
  devices.members[0].align_bytes = 4096;
  std::strcpy(devices.members[0].path, "/dev/dax0.0");
  return devices;
}

// The answer for all of a file of eight blocks with a hole.
Lease lease_of_all() {
  Lease lease = {};
  lease.version = kVersion;
  lease.length_bytes = 8 * 4096;
  lease.size_bytes = 8 * 4096 - 100;
  lease.epoch = 7;
  lease.inode = 20;
  lease.slot = 3;
  lease.extent_count = 2;
  lease.extents[0] = {0, 1 << 20, 4 * 4096};
  lease.extents[1] = {6 * 4096, 2 << 20, 2 * 4096};
  return lease;
}

TEST_CASE("answers: devices", "[client]") {
  CHECK(is_sound(one_device()));
  const auto refused = [](auto change) {
    Devices devices = one_device();
    change(devices);
    return !is_sound(devices);
  };
  CHECK(refused([](Devices& d) { ++d.version; }));
  CHECK(refused([](Devices& d) { d.member_count = 0; }));
  CHECK(refused([](Devices& d) { d.member_count = 3; }));
  CHECK(refused([](Devices& d) { d.member_count = 2; }));
  CHECK(refused([](Devices& d) { d.epoch = 0; }));
  CHECK(refused([](Devices& d) { d.slots_offset = 64 << 20; }));
  CHECK(refused([](Devices& d) { d.slots_offset = 131073; }));
  CHECK(refused([](Devices& d) { d.slots_offset = (64 << 20) - 64; }));
  CHECK(refused([](Devices& d) { d.slot_count = ~0U; }));
  CHECK(refused([](Devices& d) { d.lock_offset = ~std::uint64_t{0}; }));
  CHECK(refused([](Devices& d) { d.block_size_bytes = 512; }));
  CHECK(refused([](Devices& d) { d.block_size_bytes = 5000; }));
  CHECK(refused([](Devices& d) { d.members[0].size_bytes = 4096; }));
  CHECK(refused([](Devices& d) { d.members[0].size_bytes = ~std::uint64_t{0}; }));
  CHECK(refused([](Devices& d) { d.members[0].align_bytes = 0; }));
  CHECK(refused([](Devices& d) { d.members[0].align_bytes = 12288; }));
  CHECK(refused([](Devices& d) { d.members[0].kind = 2; }));
  CHECK(refused([](Devices& d) { d.members[0].path[0] = 'd'; }));
  CHECK(refused([](Devices& d) { std::memset(d.members[0].path, '/', sizeof d.members[0].path); }));
}

TEST_CASE("answers: leases", "[client]") {
  const Devices devices = one_device();
  CHECK(is_sound(lease_of_all(), 5, std::uint64_t{1} << 60, devices));
  const auto refused = [&devices](auto change) {
    auto lease = std::make_unique<Lease>(lease_of_all());
    change(*lease);
    return !is_sound(*lease, 0, std::uint64_t{1} << 60, devices);
  };
  CHECK(refused([](Lease& l) { ++l.version; }));
  CHECK(refused([](Lease& l) { l.epoch = 8; }));
  CHECK(refused([](Lease& l) { l.slot = 1024; }));
  CHECK(refused([](Lease& l) { l.member = 1; }));
  CHECK(refused([](Lease& l) { l.extent_count = kLeaseExtentsMax + 1; }));
  CHECK(refused([](Lease& l) { l.offset_bytes = 4096; }));
  CHECK(refused([](Lease& l) { l.length_bytes = ~std::uint64_t{0}; }));
  CHECK(refused([](Lease& l) { l.length_bytes = 7 * 4096; }));
  CHECK(refused([](Lease& l) { l.extents[0].length = 0; }));
  CHECK(refused([](Lease& l) { l.extents[0].length = 100; }));
  CHECK(refused([](Lease& l) { l.extents[0].length = 7 * 4096; }));
  CHECK(refused([](Lease& l) { l.extents[1].file_offset = 0; }));
  CHECK(refused([](Lease& l) { l.extents[1].file_offset += 1; }));
  CHECK(refused([](Lease& l) { l.extents[1].file_offset = 7 * 4096; }));
  CHECK(refused([](Lease& l) { l.extents[1].file_offset = ~std::uint64_t{4095}; }));
  CHECK(refused([](Lease& l) { l.extents[1].device_offset += 512; }));
  // The superblock, and the slots.
  CHECK(refused([](Lease& l) { l.extents[1].device_offset = 0; }));
  CHECK(refused([](Lease& l) { l.extents[1].device_offset = 131072; }));
  // Beyond the device, wholly and with its end.
  CHECK(refused([](Lease& l) { l.extents[1].device_offset = 64 << 20; }));
  CHECK(refused([](Lease& l) { l.extents[1].device_offset = (64 << 20) - 4096; }));
  CHECK(refused([](Lease& l) { l.extents[1].length = ~std::uint64_t{4095}; }));
}

TEST_CASE("answers: a lease of a part covers no more than was asked", "[client]") {
  const Devices devices = one_device();
  Lease lease = lease_of_all();
  lease.offset_bytes = 4096;
  lease.length_bytes = 2 * 4096;
  lease.extent_count = 1;
  lease.extents[0] = {4096, 1 << 20, 2 * 4096};
  CHECK(is_sound(lease, 5000, 4096, devices));
  CHECK_FALSE(is_sound(lease, 4096, 4096, devices));
}

}  // namespace
