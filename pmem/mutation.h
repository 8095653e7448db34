// Builds with PLUMBFS_MUTATION only: leaves out, or does late, the flushes or drains of one place in the source, so
// that test/crash/mutate can see whether a test notices.
//
// A site is a call of flush, drain, persist, flush_after_nt or deep_flush of pmem::Device in the source, by file, line
// and column; persist and deep_flush are two sites, of a flush and of a drain. What is done to which one is read from
// the environment when the first call is made:
//   PLUMBFS_MUTATION_DROP="drain fs/core/journal.cc:270:31"   these calls do nothing and return success
//   PLUMBFS_MUTATION_LATE="..."   they are done after the next store of the thread that was to make them; their error,
//                                 if they have one, becomes that of the store
//   PLUMBFS_MUTATION_LIST=FILE    each site is appended to the file when it is first reached: the site as above, a
//                                 blank, its function
//
// Thread safety: all functions.
#pragma once

#include <cstdint>
#include <functional>
#include <source_location>

#include "pmem/result.h"

namespace plumb::pmem::mutation {

enum class Call : std::uint8_t { kFlush, kDrain };

/// Does the call, or does not.
[[nodiscard]] Status perform(Call call, const std::source_location& where, std::function<Status()> function);

/// After a store: does what was put off until now.
[[nodiscard]] Status after_store(Status status);

}  // namespace plumb::pmem::mutation
