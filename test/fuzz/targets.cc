#include "test/fuzz/targets.h"

#include <array>
#include <cstdio>
#include <cstdlib>

namespace plumb::fuzz {

std::span<const Target> targets() {
  static constexpr std::array<Target, 7> kTargets = {{{"superblock", fuzz_superblock},
                                                      {"journal", fuzz_journal},
                                                      {"btree", fuzz_btree},
                                                      {"inode", fuzz_inode},
                                                      {"directory", fuzz_directory},
                                                      {"wire", fuzz_wire},
                                                      {"image", fuzz_image}}};
  return kTargets;
}

void require(bool holds, std::string_view what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %.*s\n", static_cast<int>(what.size()), what.data());
  std::abort();
}

}  // namespace plumb::fuzz
