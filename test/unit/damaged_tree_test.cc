// Trees that lead twice to one node, or hold what no tree may, with right checksums: changing them ends in an error.
#include <catch2/catch_test_macros.hpp>
#include <string>

#include "fs/core/check.h"
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

TEST_CASE("btree: a reclaim tree whose root has one leaf is worked off", "[core][btree]") {
  auto device = crash_device(DeviceKind::kMemory, 8u << 20);
  must(Volume::format(*device, fixed_format(kBlockSize)));
  {
    World w(*device);
    w.create("f");
    w.write("f", 0, pattern('f', 5000));
    w.unlink("f");
    must(w->run_reclaim());
    w.unmount();
  }
  Editor editor(*device);
  const std::uint64_t leaf = editor.state().reclaim.block;
  REQUIRE(leaf != 0);
  const std::uint64_t root = editor.free_block();
  const std::uint64_t data = root - 1;
  editor.set_bit(root, true);
  editor.set_bit(data, true);
  editor.add_reclaim(data, 1);
  Bytes bytes(kBlockSize);
  Node node(bytes.data(), bytes.size());
  node.initialise(media::TreeKind::kReclaim, 1);
  media::BlockHeader header{};
  header.magic = static_cast<std::uint32_t>(media::BlockMagic::kNode);
  header.block = root;
  header.owner = static_cast<std::uint64_t>(media::TreeKind::kReclaim);
  std::memcpy(bytes.data(), &header, sizeof header);
  const media::Le64 child = leaf;
  node.insert(0, 0, bytes_of(child));
  media::seal_block(bytes);
  editor.store(editor.offset(root), bytes);
  editor.edit_state([&](media::State& state) {
    state.reclaim.block = root;
    state.reclaim.nodes = 2;
  });
  {
    World w(*device);
    must(w->run_reclaim());
    w.unmount();
  }
  CHECK(must(check_volume(*device, {.zeros = true, .progress = {}})).problems_total == 0);
}
