// This program's operator new, which can be told to fail.
//
// Thread safety: each thread has a count of its own.
#pragma once

#include <cstdint>
#include <functional>

namespace plumb::test {

/// While it lives, the allocation that follows `granted` others of this thread does not happen: `instead` is called,
/// and does not return.
class MemoryFault {
 public:
  MemoryFault(std::uint64_t granted, std::function<void()> instead);
  ~MemoryFault();
  MemoryFault(const MemoryFault&) = delete;
  MemoryFault& operator=(const MemoryFault&) = delete;

 private:
  std::function<void()> instead_;
};

}  // namespace plumb::test
