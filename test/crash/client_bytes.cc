#include "test/crash/client_bytes.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace plumb::test {
namespace {

constexpr std::uint64_t kEnd = std::numeric_limits<std::uint64_t>::max();

}  // namespace

void ByteStates::clear(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  auto it = ranges_.lower_bound(begin);
  if (it != ranges_.begin() && std::prev(it)->second.end > begin) {
    const auto before = std::prev(it);
    const Range cut = before->second;
    before->second.end = begin;
    if (cut.end > end) ranges_.emplace(end, cut);
  }
  while (it != ranges_.end() && it->first < end) {
    const Range cut = it->second;
    it = ranges_.erase(it);
    if (cut.end > end) it = ranges_.emplace(end, cut).first;
  }
}

void ByteStates::set(std::uint64_t begin, std::uint64_t end, std::size_t state) {
  if (begin >= end) return;
  clear(begin, end);
  ranges_.emplace(begin, Range{end, state});
}

void ByteStates::set_if_none(std::uint64_t begin, std::uint64_t end, std::size_t state) {
  while (begin < end) {
    auto it = ranges_.upper_bound(begin);
    const std::uint64_t stop = it == ranges_.end() ? end : std::min(end, it->first);
    if (it != ranges_.begin() && std::prev(it)->second.end > begin) {
      begin = std::prev(it)->second.end;
      continue;
    }
    ranges_.emplace(begin, Range{stop, state});
    begin = stop;
  }
}

std::optional<std::size_t> ByteStates::at(std::uint64_t byte) const {
  const auto it = ranges_.upper_bound(byte);
  if (it == ranges_.begin() || std::prev(it)->second.end <= byte) return {};
  return std::prev(it)->second.state;
}

void ByteStates::append_edges(std::vector<std::uint64_t>& edges) const {
  for (const auto& [begin, range] : ranges_) {
    edges.push_back(begin);
    edges.push_back(range.end);
  }
}

std::optional<std::size_t> ClientBytes::OfFile::oldest_at(std::uint64_t byte) const {
  const auto a = oldest.at(byte);
  const auto b = oldest_stale.at(byte);
  return a && b ? std::min(a, b) : a ? a : b;
}

void ClientBytes::apply(std::size_t step, const ClientChange& change) {
  OfFile& file = files_[change.file];
  switch (change.kind) {
    case ClientChange::Kind::kStored:
      (change.is_stale ? file.oldest_stale : file.oldest).set_if_none(change.begin, change.end, step);
      break;
    case ClientChange::Kind::kPersisted:
      file.oldest.clear(change.begin, change.end);
      file.oldest_stale.clear(change.begin, change.end);
      file.durable.set(change.begin, change.end, step + 1);
      break;
    case ClientChange::Kind::kSynced:
      sync(change.file);
      break;
  }
}

void ClientBytes::sync(std::optional<InodeKey> file) {
  for (auto& [key, of_file] : files_)
    if (!file || *file == key) of_file.oldest = {};
}

void ClientBytes::overwrite(InodeKey file, const std::string& before, const std::string& after) {
  const auto it = files_.find(file);
  if (it == files_.end() || before == after) return;
  const auto forget = [&of_file = it->second](std::uint64_t begin, std::uint64_t end) {
    of_file.oldest.clear(begin, end);
    of_file.oldest_stale.clear(begin, end);
  };
  const std::size_t both = std::min(before.size(), after.size());
  for (std::size_t i = 0; i < both;) {
    std::size_t same = i;
    while (same < both && before[same] != after[same]) ++same;
    if (same > i) forget(i, same);
    i = same + 1;
  }
  forget(both, kEnd);
}

const ClientBytes::OfFile* ClientBytes::of(InodeKey file) const {
  const auto it = files_.find(file);
  return it == files_.end() ? nullptr : &it->second;
}

}  // namespace plumb::test
