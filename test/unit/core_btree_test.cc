#include "fs/core/btree.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "fs/core/volume_impl.h"
#include "test/unit/core_world.h"

namespace {

using namespace plumb;
using namespace plumb::test;
using media::TreeKind;

constexpr std::size_t kLeastRecord = 8;  // of the kinds used here; their records have no form that would be verified

// A tree beside a file system: nobody but the test knows its root.
class TreeAndModel {
 public:
  TreeAndModel(std::uint32_t block_size, TreeKind kind)
      : device_(crash_device(pmem::DeviceKind::kMemory, 24u << 20)), kind_(kind) {
    must(Volume::format(*device_, fixed_format(block_size)));
    world_.emplace(*device_);
    first_free_ = world_->blocks_free();
    tree_.emplace(store(), kind, 7);
  }

  [[nodiscard]] std::size_t max_record() { return BTree::max_record(store().block_size()); }
  [[nodiscard]] std::size_t size() const { return model_.size(); }
  [[nodiscard]] std::uint64_t any_key(std::mt19937_64& random) const {
    return std::next(model_.begin(), static_cast<std::ptrdiff_t>(random() % model_.size()))->first;
  }

  void put(std::uint64_t key, std::string record) {
    change([&](Transaction& t, media::TreeRoot& root) {
      return tree_->put(t, root, key, std::as_bytes(std::span(record)));
    });
    model_[key] = std::move(record);
  }
  void erase(std::uint64_t key) {
    change([&](Transaction& t, media::TreeRoot& root) { return tree_->erase(t, root, key); });
    model_.erase(key);
  }
  // What an operation that fails half-way leaves: nothing.
  void put_and_abort(std::uint64_t key, const std::string& record) {
    Transaction t(store());
    media::TreeRoot root = root_;
    must(tree_->put(t, root, key, std::as_bytes(std::span(record))));
  }

  void compare() {
    must((*world_)->run_reclaim());
    store().buffers().trim(store().journal().homed(), 0);  // nodes are loaded and verified again
    auto expected = model_.begin();
    must(tree_->visit(root_, 0, [&](std::uint64_t key, std::span<const std::byte> record) {
      const std::string bytes(reinterpret_cast<const char*>(record.data()), record.size());
      REQUIRE(expected != model_.end());
      REQUIRE(key == expected->first);
      REQUIRE(bytes == expected->second);
      ++expected;
      return true;
    }));
    REQUIRE(expected == model_.end());
    std::uint64_t nodes = 0;
    must(tree_->visit_nodes(root_, [&](BlockNumber, std::uint8_t) -> Status {
      ++nodes;
      return {};
    }));
    REQUIRE(nodes == root_.nodes);
    if (!model_.empty()) return;
    REQUIRE(nodes == (kind_ == TreeKind::kReclaim && root_.block != 0 ? 1 : 0));
    REQUIRE(world_->blocks_free() == first_free_ - nodes);
  }
  void find(std::uint64_t key) {
    const auto found = must(tree_->find(root_, key));
    const auto expected = model_.find(key);
    REQUIRE(found.has_value() == (expected != model_.end()));
    if (found) REQUIRE(*found == expected->second);
  }
  void visit_from(std::uint64_t key) {
    auto expected = model_.lower_bound(key);
    int left = 5;
    must(tree_->visit(root_, key, [&](std::uint64_t k, std::span<const std::byte>) {
      REQUIRE(expected != model_.end());
      REQUIRE(k == expected->first);
      ++expected;
      return --left > 0;
    }));
  }

 private:
  Store& store() { return world_->volume().impl().store; }
  template <typename Change>
  void change(const Change& apply) {
    Transaction t(store());
    media::TreeRoot root = root_;
    must(apply(t, root));
    must(t.commit());
    root_ = root;
  }

  std::unique_ptr<pmem::CrashDevice> device_;
  TreeKind kind_;
  std::optional<World> world_;
  std::optional<BTree> tree_;
  media::TreeRoot root_;
  std::map<std::uint64_t, std::string> model_;
  std::uint64_t first_free_ = 0;
};

enum class Sizes { kLeast, kMiddle, kAny, kMostOrLeast };

std::string record_of(Sizes sizes, std::size_t max, std::mt19937_64& random) {
  std::size_t length = kLeastRecord;
  if (sizes == Sizes::kMiddle) length = 40;
  if (sizes == Sizes::kAny) length = kLeastRecord + random() % (max - kLeastRecord + 1);
  if (sizes == Sizes::kMostOrLeast && random() % 2 == 0) length = max - random() % 3;
  return std::string(length, static_cast<char>('a' + random() % 26));
}

}  // namespace

TEST_CASE("btree: random operations agree with std::map", "[core][btree]") {
  const std::uint64_t seed = std::random_device{}();
  const std::uint32_t block_size = GENERATE(1024u, 4096u);
  const TreeKind kind = GENERATE(TreeKind::kInodeTable, TreeKind::kReclaim);
  const Sizes sizes = GENERATE(Sizes::kLeast, Sizes::kMiddle, Sizes::kAny, Sizes::kMostOrLeast);
  CAPTURE(seed, block_size, static_cast<int>(kind), static_cast<int>(sizes));
  std::mt19937_64 random(seed);
  TreeAndModel tree(block_size, kind);
  const std::uint64_t keys = 1 + random() % 3000;
  // Grows, shrinks, grows again, and goes.
  for (const std::uint64_t put_percent : {80u, 20u, 60u, 5u}) {
    for (int step = 0; step < 600; ++step) {
      const std::uint64_t key = random() % keys;
      if (tree.size() == 0 || random() % 100 < put_percent) {
        tree.put(key, record_of(sizes, tree.max_record(), random));
      } else {
        tree.erase(tree.any_key(random));
      }
      if (step % 50 == 0) tree.put_and_abort(random() % keys, record_of(sizes, tree.max_record(), random));
      tree.find(key);
      tree.visit_from(random() % keys);
    }
    tree.compare();
  }
  while (tree.size() != 0) tree.erase(tree.any_key(random));
  tree.compare();
  tree.put(3, record_of(sizes, tree.max_record(), random));
  tree.compare();
}

TEST_CASE("btree: ascending, descending and both-ends removal", "[core][btree]") {
  const TreeKind kind = GENERATE(TreeKind::kInodeTable, TreeKind::kReclaim);
  const std::uint32_t block_size = GENERATE(1024u, 4096u);
  const int removal = GENERATE(0, 1, 2);
  CAPTURE(static_cast<int>(kind), block_size, removal);
  TreeAndModel tree(block_size, kind);
  constexpr std::uint64_t kCount = 3000;
  for (std::uint64_t i = 0; i < kCount; ++i) tree.put(removal == 1 ? kCount - i : i + 1, "12345678");
  tree.compare();
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const std::uint64_t key = removal == 0   ? i + 1
                              : removal == 1 ? kCount - i
                              : i % 2 == 0   ? i / 2 + 1
                                             : kCount - i / 2;
    tree.erase(key);
    if (i % 1000 == 0) tree.compare();
  }
  tree.compare();
}

TEST_CASE("btree: limits and errors", "[core][btree]") {
  auto device = crash_device(pmem::DeviceKind::kMemory, 16u << 20);
  must(Volume::format(*device, fixed_format(1024)));
  World w(*device);
  Store& store = w->impl().store;
  BTree tree(store, TreeKind::kInodeTable, 7);
  media::TreeRoot root;
  Transaction t(store);
  const std::string too_long(BTree::max_record(1024) + 1, 'x');
  CHECK(code_of(tree.put(t, root, 1, std::as_bytes(std::span(too_long)))) == E2BIG);
  CHECK(code_of(tree.erase(t, root, 1)) == ENOENT);
  CHECK(root.block == 0);
  const std::string record(8, 'x');
  must(tree.put(t, root, 1, std::as_bytes(std::span(record))));
  CHECK(code_of(tree.erase(t, root, 2)) == ENOENT);
  CHECK(code_of(tree.put(t, root, ~std::uint64_t{0}, std::as_bytes(std::span(record)))) == 0);
  CHECK(must(tree.find(root, ~std::uint64_t{0})).has_value());
}
