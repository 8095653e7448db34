// The progress line of a long check: on a terminal only, on stderr, at most ten times a second, gone when the check
// ends.
//
// Thread safety: none needed, the check calls from one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

namespace plumb::tools {

class ProgressLine {
 public:
  ProgressLine(bool wanted, std::string_view device);
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() { clear(); }

  [[nodiscard]] bool active() const { return active_; }
  void show(std::uint64_t done, std::uint64_t total, std::string_view phase);
  void clear();

 private:
  std::string_view device_;
  bool active_ = false;
  bool shown_ = false;
  std::chrono::steady_clock::time_point last_{};
};

}  // namespace plumb::tools
