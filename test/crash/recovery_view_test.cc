// What the explorer leaves out: images that differ only where recovery does not look.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <vector>

#include "test/crash/recovery_view.h"
#include "test/crash/sequence.h"

namespace {

using namespace plumb;
using namespace plumb::test;

Snapshot recovered(const MachineImage& image, const Setting& setting) {
  Machine machine(image, setting.kinds);
  Actor world(machine, setting);
  must(world->run_reclaim());
  return take_snapshot(world);
}

MachineImage with_garbage(const MachineImage& image, const std::vector<pmem::ByteRange>& ranges,
                          const Setting& setting) {
  Machine machine(image, setting.kinds);
  for (const pmem::ByteRange& range : ranges) {
    const std::string garbage(range.length_bytes(), '\xa5');
    must(machine.main().store(range.offset_bytes, std::as_bytes(std::span(garbage))));
  }
  return machine.current_image();
}

}  // namespace

TEST_CASE("crash images: what recovery does not read may be anything", "[crash][machine]") {
  const Setting& setting = settings()[GENERATE(from_range(chosen({0, 2, 3, 4}, {0, 3})))];
  CAPTURE(setting.name, base_seed());
  const MachineImage base = prepared_image(setting, make_small_tree);
  Machine machine(base, setting.kinds);
  const Workload workload = sequence("append to f; rename f over g; fsync g; set big xattr of f; unlink long; sync");
  (void)record(machine, setting, workload);
  const RecoveryView view(machine);
  MachineExplorer explorer(machine);
  const pmem::ImageLimits limits{
      .exhaustive_stores = 2, .max_systematic = 6, .random_subsets = 1, .random_torn = 2, .seed = base_seed()};
  std::size_t images = 0;
  for (const std::uint64_t tick : machine.crash_points()) {
    explorer.for_each(tick, limits, [&](const MachineImage& image) {
      const std::vector<pmem::ByteRange> unread = view.unread(image);
      REQUIRE(!unread.empty());
      const MachineImage other = with_garbage(image, unread, setting);
      INFO(image.description());
      const Snapshot expected = recovered(image, setting);
      const Snapshot seen = recovered(other, setting);
      REQUIRE(metadata_difference(seen, expected).empty());
      REQUIRE(content_difference(seen, expected).empty());
      REQUIRE(view.unread(other) == unread);
      ++images;
      return true;
    });
  }
  CHECK(images > 20);
}

TEST_CASE("crash images: torn words of a record count as long as recovery reads it", "[crash][machine]") {
  const Setting& setting = settings()[0];
  const MachineImage base = prepared_image(setting, make_small_tree);
  Machine machine(base, setting.kinds);
  const Recording recording = record(machine, setting, sequence("append to f"));
  const RecoveryView view(machine);
  MachineExplorer explorer(machine);
  // The record of the append is the last streaming store before the drain that commits it.
  const pmem::CrashDevice& device = machine.main();
  std::size_t drain = device.events_before(recording.answered[0]);
  while (device.event(--drain).type != pmem::CrashEvent::Type::kDrain) continue;
  const pmem::CrashEvent* record_store = nullptr;
  for (std::size_t i = 0; i < drain; ++i)
    if (device.event(i).type == pmem::CrashEvent::Type::kStoreNt) record_store = &device.event(i);
  REQUIRE(record_store != nullptr);
  pmem::CrashExplorer of_main(device);
  // Everything but one word of the record.
  const auto without_word = [&](std::uint64_t at) -> MachineImage {
    return {of_main.image_at(drain,
                             [&](const pmem::UnitChoice& unit) {
                               return unit.offset_bytes == record_store->offset_bytes + at ? std::size_t{0}
                                                                                           : unit.stores.size();
                             }),
            {}};
  };
  const MachineImage no_magic = without_word(0);  // magic and checksum
  const MachineImage no_payload = without_word(sizeof(media::RecordHeader) + sizeof(media::RangeHeader));
  // Of a record without its magic nothing but the header is read.
  const MachineImage no_magic_no_payload{
      of_main.image_at(drain,
                       [&](const pmem::UnitChoice& unit) {
                         const std::uint64_t at = unit.offset_bytes - record_store->offset_bytes;
                         const bool is_out = at == 0 || at == sizeof(media::RecordHeader) + sizeof(media::RangeHeader);
                         return is_out ? std::size_t{0} : unit.stores.size();
                       }),
      {}};
  CHECK(no_magic.content_hash() != no_magic_no_payload.content_hash());
  CHECK(view.hash(no_magic) == view.hash(no_magic_no_payload));
  CHECK(view.hash(no_magic) != view.hash(no_payload));
}
