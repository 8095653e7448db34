// What a user sees of a repaired file system, compared with what was there before it was broken.
#pragma once

#include <string>
#include <vector>

#include "test/catalogue/entry.h"
#include "test/crash/snapshot.h"

namespace plumb::catalogue {

/// Differences that are not allowed, in words; a few of them if there are many. Empty: there is none.
[[nodiscard]] std::vector<std::string> forbidden_differences(const test::Snapshot& before, const test::Snapshot& after,
                                                             const Difference& allowed);

}  // namespace plumb::catalogue
