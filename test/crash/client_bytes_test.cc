// What the model makes of the stores of clients, by hand.
#include "test/crash/client_bytes.h"

#include <catch2/catch_test_macros.hpp>
#include <string>

using namespace plumb::test;

namespace {

constexpr InodeKey kFile{7, 1};

ClientChange change(ClientChange::Kind kind, std::uint64_t begin, std::uint64_t end, bool is_stale = false) {
  return {kind, kFile, begin, end, is_stale};
}

Snapshot with_content(const std::string& content) {
  Snapshot snapshot;
  snapshot.inodes[kFile].content = content;
  return snapshot;
}

}  // namespace

TEST_CASE("client bytes: ranges are cut, and keep what they have", "[crash][model]") {
  ByteStates states;
  states.set(10, 20, 1);
  states.set_if_none(5, 30, 2);
  CHECK_FALSE(states.at(4));
  CHECK(states.at(5) == 2);
  CHECK(states.at(10) == 1);
  CHECK(states.at(19) == 1);
  CHECK(states.at(20) == 2);
  CHECK_FALSE(states.at(30));
  states.clear(12, 25);
  CHECK(states.at(11) == 1);
  CHECK_FALSE(states.at(12));
  CHECK_FALSE(states.at(24));
  CHECK(states.at(25) == 2);
  states.set(0, 100, 3);
  states.clear(40, 41);
  CHECK(states.at(39) == 3);
  CHECK_FALSE(states.at(40));
  CHECK(states.at(41) == 3);
}

TEST_CASE("client bytes: the oldest state counts until something makes the byte durable", "[crash][model]") {
  using enum ClientChange::Kind;
  ClientBytes bytes;
  bytes.apply(3, change(kStored, 100, 200));
  bytes.apply(5, change(kStored, 150, 250));
  const ClientBytes::OfFile* const file = bytes.of(kFile);
  REQUIRE(file != nullptr);
  CHECK(file->oldest_at(160) == 3);
  CHECK(file->oldest_at(220) == 5);
  bytes.apply(6, change(kPersisted, 160, 170));
  CHECK_FALSE(file->oldest_at(165));
  CHECK(file->durable.at(165) == 7);
  CHECK(file->oldest_at(170) == 3);
  const std::string before(300, 'a');
  std::string after = before;
  after[180] = 'b';
  bytes.overwrite(kFile, before, after);
  CHECK_FALSE(file->oldest_at(180));
  CHECK(file->oldest_at(181) == 3);
  bytes.apply(8, change(kStored, 0, 10, true));
  bytes.sync(kFile);
  CHECK_FALSE(file->oldest_at(181));
  CHECK(file->oldest_at(5) == 8);  // no fsync knows of it
}

TEST_CASE("client bytes: a word is of one state, the next one may be of another", "[crash][model]") {
  const Snapshot states[] = {with_content(std::string(32, 'o')), with_content(std::string(32, 'n'))};
  const ByteSources words{.versions = states, .shown = 1, .words_are_whole = true};
  const ByteSources any{.versions = states, .shown = 1};
  const auto is_legal = [](const std::string& content, const ByteSources& sources) {
    return foreign_byte(content, kFile, sources, 0, content.size()).empty();
  };
  std::string between(32, 'o');
  between.replace(8, 8, 8, 'n');
  std::string inside(32, 'o');
  inside.replace(12, 20, 20, 'n');
  std::string foreign(32, 'o');
  foreign[31] = 'x';
  CHECK(is_legal(between, words));
  CHECK_FALSE(is_legal(inside, words));
  CHECK(is_legal(inside, any));
  CHECK_FALSE(is_legal(foreign, any));
  CHECK(foreign_byte(foreign, kFile, any, 0, 24).empty());
}
