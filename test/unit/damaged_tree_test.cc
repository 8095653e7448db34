// Trees that lead twice to one node, or hold what no tree may, with right checksums: changing them ends in an error.
#include <catch2/catch_test_macros.hpp>
#include <string>

#include "fs/core/volume.h"
#include "test/unit/volume_editor.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using pmem::DeviceKind;

}  // namespace

TEST_CASE("btree: a node that two slots of its parent lead to is not merged with itself", "[core][btree]") {
  auto device = crash_device(DeviceKind::kMemory, 8u << 20);
  must(Volume::format(*device, fixed_format(kBlockSize)));
  std::uint64_t number = 0;
  {
    World w(*device);
    w.mkdir("d");
    for (int i = 0; i < 100; ++i) w.create("d/entry " + std::to_string(i));
    number = w.stat("d").inode.value;
    w.unmount();
  }
  Editor editor(*device);
  editor.edit_node(editor.inode(number).data.block, [](Node& root) {
    REQUIRE(root.level() == 1);
    REQUIRE(root.count() > 3);
    const std::span<const std::byte> record = root.record(0);
    for (std::size_t slot = 1; slot < root.count(); ++slot) root.overwrite(slot, record);
  });
  World w(*device);
  const InodeRef directory = w.find("d");
  int refused = 0;
  for (int i = 0; i < 100; ++i) {
    const Status status = w->unlink(*directory, "entry " + std::to_string(i));
    if (!status && status.error().code == EUCLEAN) ++refused;
  }
  CHECK(refused != 0);
}
