#include "test/crash/model.h"

#include <algorithm>

namespace plumb::test {

Allowed::Allowed(std::uint64_t tick, const Setting& setting, const Workload& workload, const Recording& recording)
    : setting_(setting), workload_(workload), states_(recording.states) {
  const auto& answered = recording.answered;
  while (answered_ < answered.size() && answered[answered_] < tick) ++answered_;
  const bool flies = answered_ < answered.size() && recording.begun[answered_] < tick;
  if (flies) in_flight_ = &workload.steps[answered_];
  most_ = answered_ + (flies ? 1 : 0);
  least_ = setting.has_memory_log() ? answered_ : 0;
  for (std::size_t i = 0; i < answered_; ++i) {
    const Step& s = workload.steps[i];
    if (s.syncs_all) {
      durable_all_ = i + 1;
      least_ = std::max(least_, i + 1);
    }
    if (!s.syncs_file.empty()) promise_path(s.syncs_file, i + 1, false);
    if (!s.syncs_data_of.empty()) promise_path(s.syncs_data_of, i + 1, true);
    follow_clients(i, recording.client_changes[i]);
  }
  if (flies) has_client_stores_ = has_client_stores_ || !recording.client_changes[answered_].empty();
}

// Of step number `step`, from 0, which was answered.
void Allowed::follow_clients(std::size_t step, const std::vector<ClientChange>& changes) {
  const Step& s = workload_.steps[step];
  if (s.syncs_all) client_bytes_.sync({});
  for (const ClientChange& change : changes) {
    if (change.kind == ClientChange::Kind::kSynced)
      promise_file(change.file, step + 1, false);
    else
      has_client_stores_ = true;
    client_bytes_.apply(step, change);
  }
  if (!setting_.has_memory_log() || !changes.empty()) return;
  // With a log in memory what the daemon changes is durable now, and cannot be undone: also where a client had stored.
  for (const auto& [key, file] : client_bytes_.all()) {
    const auto before = states_[step].inodes.find(key);
    const auto after = states_[step + 1].inodes.find(key);
    if (before == states_[step].inodes.end() || after == states_[step + 1].inodes.end()) continue;
    if (setting_.is_immediate(after->second.attributes.flags))
      client_bytes_.overwrite(key, before->second.content, after->second.content);
  }
}

// An fsync or fdatasync was answered as step number `steps`, from 1.
void Allowed::promise_path(const std::string& path, std::size_t steps, bool data_only) {
  const auto it = states_[steps].names.find(path);
  if (it != states_[steps].names.end()) promise_file(it->second, steps, data_only);
}

void Allowed::promise_file(InodeKey key, std::size_t steps, bool data_only) {
  const Snapshot& now = states_[steps];
  durable_[key] = steps;
  client_bytes_.sync(key);
  // All metadata up to the last record about that file.
  const auto is_same = [&](const Snapshot& older) {
    if (!data_only) return same_inode(older, now, key);
    const auto was = older.inodes.find(key);
    return was == older.inodes.end() || was->second.attributes.size_bytes == now.inodes.at(key).attributes.size_bytes;
  };
  std::size_t last_change = steps;
  while (last_change > 0 && is_same(states_[last_change - 1])) --last_change;
  least_ = std::max(least_, last_change);
}

std::string Allowed::moment() const {
  if (in_flight_ != nullptr) return "during " + in_flight_->name;
  return answered_ == 0 ? "before the first step" : "after " + workload_.steps[answered_ - 1].name;
}

std::string Allowed::wrong_bytes_of(InodeKey key, const VisibleInode& inode, std::size_t shown,
                                    bool is_record_empty) const {
  const bool is_immediate = setting_.is_immediate(inode.attributes.flags);
  std::size_t since = answered_;
  if (!is_immediate) {
    const auto it = durable_.find(key);
    since = std::max(it == durable_.end() ? 0 : it->second, durable_all_);
  } else if (!setting_.has_memory_log()) {
    // Bytes are durable at once, the record about them later.
    since = std::min(shown, answered_);
  } else if (shown > answered_ && !in_flight_->is_in_parts && !is_record_empty) {
    // The record came last: all bytes are there.
    since = shown;
  }
  const auto look = [&](std::uint64_t begin, std::uint64_t end, std::size_t from, bool is_torn) {
    const ByteSources sources{.versions = states_.subspan(from, most_ + 1 - from),
                              .shown = shown - std::min(shown, from),
                              .unborn_is_zero = !is_immediate,
                              .words_are_whole = is_torn && is_immediate && setting_.has_memory_log()};
    return foreign_byte(inode.content, key, sources, begin, end);
  };
  const ClientBytes::OfFile* const by_clients = client_bytes_.of(key);
  if (by_clients == nullptr) return look(0, inode.content.size(), since, false);
  std::vector<std::uint64_t> edges{0, inode.content.size()};
  by_clients->oldest.append_edges(edges);
  by_clients->oldest_stale.append_edges(edges);
  by_clients->durable.append_edges(edges);
  std::sort(edges.begin(), edges.end());
  for (std::size_t i = 1; i < edges.size() && edges[i - 1] < inode.content.size(); ++i) {
    const std::uint64_t begin = edges[i - 1];
    if (begin == edges[i]) continue;
    std::size_t from = since;
    // Durable, if the record that made the blocks the file's is.
    if (const auto durable = by_clients->durable.at(begin)) from = std::max(from, std::min(*durable, shown));
    const auto oldest = by_clients->oldest_at(begin);
    if (oldest) from = std::min(from, *oldest);
    std::string what = look(begin, std::min<std::uint64_t>(edges[i], inode.content.size()), from, oldest.has_value());
    if (!what.empty()) return what;
  }
  return {};
}

std::string Allowed::wrong_bytes(const Snapshot& seen, std::size_t shown) const {
  // If the record of the step in flight changes nothing that is seen, any of its bytes may be there.
  const bool is_record_empty = metadata_difference(seen, states_[answered_]).empty();
  for (const auto& [key, inode] : seen.inodes) {
    if (std::string what = wrong_bytes_of(key, inode, shown, is_record_empty); !what.empty()) return what;
  }
  return {};
}

std::string Allowed::wrong_state(const Snapshot& seen) const {
  std::string nearest;
  std::string bytes;
  for (std::size_t i = most_ + 1; i-- > least_;) {
    const std::string difference = metadata_difference(seen, states_[i]);
    if (difference.empty()) {
      bytes = wrong_bytes(seen, i);
      if (bytes.empty()) return {};
      continue;
    }
    nearest += "\n      not the state after " + std::to_string(i) + " steps: " + difference;
  }
  if (!bytes.empty()) return bytes;
  // Between the parts of a step; on a page-cached device of any that are not durable. What is seen may be between those
  // of several.
  for (std::size_t i = least_; i < most_; ++i) {
    if (!workload_.steps[i].is_in_parts || !step_difference(seen, states_[i], states_[i + 1]).empty()) continue;
    bytes = wrong_bytes(seen, i);
    if (bytes.empty()) return {};
  }
  if (!bytes.empty()) return bytes;
  return "a state that never was:" + nearest;
}

}  // namespace plumb::test
