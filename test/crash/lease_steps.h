// Steps of clients of the direct path (client.h), by the name of the client, and random sequences of them among steps
// that change the same files by way of the daemon.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "test/crash/harness.h"

namespace plumb::test {

/// Client `name` opens and leases the file; what it had before ends. A map on a page-cached main device is followed by
/// an fsync, as libplumbfs does. std::runtime_error: not possible.
void lease(Actor& a, const std::string& name, const std::string& path, Client::Use use);
/// Stores at an offset of the file, or at a place by Client::place(). std::runtime_error: there is no such client.
void store(Actor& a, const std::string& name, std::uint64_t offset_bytes, const std::string& bytes, bool is_durable);
void store_anywhere(Actor& a, const std::string& name, std::uint64_t where, const std::string& bytes, bool is_durable);
/// Flushes all that the map has.
void persist(Actor& a, const std::string& name);
void fsync_by(Actor& a, const std::string& name);
void end_lease(Actor& a, const std::string& name);
void end_all_leases(Actor& a);
/// The file's blocks are moved, unless it has leases: BrokenPromise if it does not say so then.
void align(Actor& a, const std::string& path);

/// What lease_steps() begin on: few files of one and more extents, so that clients and others meet.
void make_lease_tree(Actor& a);
/// The same steps for the same seed. Two clients take, use and end leases; between them their files are truncated,
/// punched, replaced, deleted, written and synced, and the daemon dies under them.
[[nodiscard]] std::vector<Step> lease_steps(std::uint64_t seed, std::size_t count);

}  // namespace plumb::test
