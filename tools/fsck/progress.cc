#include "tools/fsck/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace plumb::tools {
namespace {

constexpr std::chrono::milliseconds kInterval{100};
constexpr std::size_t kBarWidth = 30;

}  // namespace

ProgressLine::ProgressLine(bool wanted, std::string_view device)
    : device_(device), active_(wanted && ::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(std::uint64_t done, std::uint64_t total, std::string_view phase) {
  const auto now = std::chrono::steady_clock::now();
  if (!active_ || now - last_ < kInterval) return;
  last_ = now;
  const double part = total == 0 ? 0.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const auto filled = static_cast<std::size_t>(part * static_cast<double>(kBarWidth));
  const std::string bar = std::string(filled, '=') + std::string(kBarWidth - filled, ' ');
  std::fprintf(stderr, "\r\033[K%.*s: |%s| %3d%% %.*s", static_cast<int>(device_.size()), device_.data(), bar.c_str(),
               static_cast<int>(part * 100), static_cast<int>(phase.size()), phase.data());
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (!shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace plumb::tools
