#include "test/catalogue/damage.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>

#include "fs/core/node.h"
#include "fs/core/siphash.h"
#include "fs/media/verify.h"

namespace plumb::catalogue {
namespace {

using nlohmann::json;

class Damage {
 public:
  Damage(const Places& sound, Medium& medium) : sound_(sound), medium_(medium) {}

  void apply(const json& change) {
    if (change.contains("set")) return set(change);
    if (change.contains("flip")) return flip(change);
    if (change.contains("zero")) return zero(change);
    if (change.contains("mark")) return mark(change);
    if (change.contains("enter")) return enter(change);
    if (change.contains("remove")) return remove(change);
    if (change.contains("duplicate")) return duplicate(change);
    if (change.contains("queue")) return queue(change);
    throw std::runtime_error("no such change");
  }

 private:
  [[nodiscard]] std::uint64_t value(const json& json_value, std::optional<std::uint64_t> old = {}) const {
    if (json_value.is_number_unsigned()) return json_value.get<std::uint64_t>();
    return sound_.value(json_value.get<std::string>(), old);
  }
  [[nodiscard]] std::uint64_t value_or(const json& change, const char* name, std::uint64_t otherwise) const {
    return change.contains(name) ? value(change.at(name)) : otherwise;
  }
  [[nodiscard]] std::pair<Place, Field> field(const json& text_json) const {
    const auto text = text_json.get<std::string>();
    const std::size_t of = text.find(" of ");
    if (of == std::string::npos) throw std::runtime_error("\"" + text + "\" is not \"FIELD of PLACE\"");
    const Place place = sound_.place(std::string_view(text).substr(of + 4));
    return {place, field_of(place.structure, text.substr(0, of))};
  }
  [[nodiscard]] std::span<std::byte> bytes(const Place& place) {
    return medium_.bytes(place.device, place.offset_bytes, place.length_bytes);
  }

  void seal(std::size_t device, const Seal& seal) {
    const std::span<std::byte> covered = medium_.bytes(device, seal.offset_bytes, seal.length_bytes);
    std::size_t at = 0;
    switch (seal.kind) {
      case Seal::Kind::kNone:
        return;
      case Seal::Kind::kSuperblock:
        at = offsetof(media::Superblock, crc);
        break;
      case Seal::Kind::kMemberLabel:
        at = offsetof(media::MemberLabel, crc);
        break;
      case Seal::Kind::kBlock:
        at = offsetof(media::BlockHeader, crc);
        break;
      case Seal::Kind::kInode:
        at = offsetof(media::Inode, crc);
        break;
      case Seal::Kind::kJournalHeader:
        at = offsetof(media::JournalHeader, crc);
        break;
      case Seal::Kind::kRecord:
        at = offsetof(media::RecordHeader, crc);
        break;
    }
    const media::Le32 crc = media::checksum(covered, at, seal.seed);
    std::memcpy(covered.data() + at, &crc, sizeof crc);
  }

  void set(const json& change) {
    const auto [place, where] = field(change.at("set"));
    const std::uint64_t old = read_number(medium_, place, where);
    const media::Le64 to = value(change.at("to"), old);
    std::memcpy(medium_.bytes(place.device, place.offset_bytes + where.offset, where.bytes).data(), &to, where.bytes);
    if (!change.value("keep_checksum", false)) seal(place.device, place.seal);
  }

  void flip(const json& change) {
    const auto [place, where] = field(change.at("flip"));
    medium_.bytes(place.device, place.offset_bytes + where.offset, 1)[0] ^= std::byte{0x10};
  }

  void zero(const json& change) {
    const std::span<std::byte> all = bytes(sound_.place(change.at("zero").get<std::string>()));
    std::fill(all.begin(), all.end(), std::byte{0});
  }

  void mark(const json& change) {
    const std::size_t device = change.value("device", 0u);
    const bool used = change.at("as") == "used";
    const std::uint64_t first = value(change.at("mark"));
    const std::uint64_t bits = (sound_.block_size() - sizeof(media::BitmapHeader)) * 8;
    for (std::uint64_t unit = first; unit < first + value_or(change, "count", 1); ++unit) {
      const Place place = sound_.place((device == 0 ? "bitmap " : "realtime bitmap ") + std::to_string(unit / bits));
      std::byte& byte = bytes(place)[sizeof(media::BitmapHeader) + unit % bits / 8];
      const std::byte mask{static_cast<unsigned char>(1u << (unit % 8))};
      if (((byte & mask) != std::byte{0}) == used) throw std::runtime_error("mark: that bit is so already");
      byte ^= mask;
      seal(place.device, place.seal);
    }
  }

  // Changes the node in `block`, whose slots are still where they were.
  template <typename F>
  void edit_node(std::uint64_t block, const F& edit) {
    const std::span<std::byte> all = medium_.bytes(0, block * sound_.block_size(), sound_.block_size());
    Node node(all.data(), all.size());
    edit(node);
    media::seal_block(all);
  }
  void insert(const TreeSlot& at, std::uint64_t key, std::span<const std::byte> record) {
    edit_node(at.node_block, [&](Node& node) {
      if (!node.fits(record.size())) throw std::runtime_error("the leaf has no room for one more record");
      const std::size_t slot = node.lower_bound(key);
      if (slot < node.count() && node.key(slot) == key) throw std::runtime_error("there is a record of that key");
      node.insert(slot, key, record);
    });
  }
  void count_entry(const std::string& directory, const char* change) {
    set({{"set", "size_bytes of inode " + directory}, {"to", std::string("old") + change}});
  }

  void enter(const json& change) {
    const auto directory = change.at("in").get<std::string>();
    const auto name = change.at("enter").get<std::string>();
    media::DirectoryRecord header;
    header.inode = value(change.at("inode"));
    header.type = change.at("type").get<std::uint8_t>();
    header.name_length = static_cast<std::uint8_t>(name.size());
    std::string record(reinterpret_cast<const char*>(&header), sizeof header);
    record += name;
    const std::uint64_t key = name_key(sound_.superblock().hash_seed, name) + value_or(change, "sequence", 0);
    insert(sound_.place_for_name(directory, name), key, std::as_bytes(std::span(record)));
    count_entry(directory, " + 1");
  }

  void remove(const json& change) {
    const auto directory = change.at("from").get<std::string>();
    const auto name = change.at("remove").get<std::string>();
    (void)sound_.place("entry " + name + " in " + directory);  // it is there
    const std::uint64_t key = name_key(sound_.superblock().hash_seed, name);
    edit_node(sound_.place_for_name(directory, name).node_block, [&](Node& node) {
      if (node.count() == 1) throw std::runtime_error("remove: it is the only record of its leaf");
      node.remove(node.lower_bound(key));
    });
    count_entry(directory, " - 1");
  }

  void duplicate(const json& change) {
    const Place place = sound_.place(change.at("duplicate").get<std::string>());
    const std::span<std::byte> record = bytes(place);
    const Bytes copy(record.begin(), record.end());
    insert({place.offset_bytes / sound_.block_size(), 0}, value(change.at("key")), copy);
  }

  void queue(const json& change) {
    const std::uint64_t key = media::device_key(value_or(change, "device", 0), value(change.at("queue")));
    media::ReclaimRecord record{};
    record.length_blocks = static_cast<std::uint32_t>(value(change.at("length")));
    record.kind = change.value("kind", std::uint8_t{0});
    insert(sound_.place_in_reclaim(key), key, std::as_bytes(std::span(&record, 1)));
  }

  const Places& sound_;
  Medium& medium_;
};

}  // namespace

void apply_changes(const json& changes, const Places& sound, Medium& medium) {
  Damage damage(sound, medium);
  for (const json& change : changes) {
    try {
      damage.apply(change);
    } catch (const std::exception& error) {
      throw std::runtime_error(change.dump() + ": " + error.what());
    }
  }
}

}  // namespace plumb::catalogue
