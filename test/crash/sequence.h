// Sequences of operations over a small namespace, by name: what the explorer goes through.
//
// A name says all there is to know, so that a line can replay a failure:
//   "rename f over g; fsync g; unlink f"   operations and syncs in this order; what is crashed is the last operation
//                                          and all after it, the rest is left to the sequence that ends there
//   "random 17"                            24 random steps of that seed (random_steps.h)
//   "leases 17"                            24 random steps of clients of the direct path, and of others (lease_steps.h)
//   "wrapping 17"                          random steps with so much log in between that the ring goes round three
//   times
// An operation that is not possible where it stands, as the second of two unlinks, changes nothing, which is checked
// too.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "test/crash/harness.h"

namespace plumb::test {

struct Operation {
  std::string name;
  std::string file;  // the one whose fsync makes sense after it
  std::function<void(Actor&)> run;
  bool is_in_parts = false;
  bool is_same_tick = false;
};

/// What sequences are made of.
[[nodiscard]] std::span<const Operation> operations();

/// Syncs of every kind that may stand after an operation.
[[nodiscard]] std::vector<std::string> syncs_after(const Operation& operation);

enum class SequenceKind : std::uint8_t { kOne, kTwo, kThree, kRandom, kLeases, kWrapping };
[[nodiscard]] SequenceKind kind_of(std::string_view name);

/// Throws std::runtime_error when the name says nothing.
[[nodiscard]] Workload sequence(const std::string& name);

/// How much of it is looked at.
[[nodiscard]] Effort effort_for(SequenceKind kind, const Setting& setting);

/// What sequences of operations begin on: files of one and two extents, two hard links, a hole, directories, xattrs of
/// both sizes, symlinks of both sizes, a default ACL, blocks that a deleted file filled with 'S'. With a realtime
/// device the files are on it, but for m.
void make_small_tree(Actor& a);
/// What sequences of this kind begin on.
[[nodiscard]] std::function<void(Actor&)> tree_of(SequenceKind kind);

}  // namespace plumb::test
