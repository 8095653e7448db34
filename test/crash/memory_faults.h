// This program's operator new, which can be told to fail.
//
// Thread safety: each thread has a count of its own.
#pragma once

#include <cstdint>

namespace plumb::test {

/// While it lives, the allocation that follows `granted` others of this thread fails with std::bad_alloc, once.
class MemoryFault {
 public:
  explicit MemoryFault(std::uint64_t granted);
  ~MemoryFault();
  MemoryFault(const MemoryFault&) = delete;
  MemoryFault& operator=(const MemoryFault&) = delete;
  /// It has failed one.
  [[nodiscard]] bool happened() const;
};

}  // namespace plumb::test
