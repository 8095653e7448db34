// SIGTERM, SIGINT and SIGHUP as an orderly end: a thread of its own takes them, so that the reaction may do anything.
//
// Thread safety: block_termination_signals() in the main thread before any other thread starts, as those inherit it.
#pragma once

#include <functional>
#include <thread>

namespace plumb::fuse {

/// Keeps the signals pending for TerminationWatch; also ignores SIGPIPE.
void block_termination_signals();

/// Calls `on_signal` in its own thread, once, at the first signal, also if it came before the watch began.
class TerminationWatch {
 public:
  explicit TerminationWatch(std::function<void(int signal)> on_signal);
  ~TerminationWatch();  // waits for on_signal if it runs
  TerminationWatch(const TerminationWatch&) = delete;
  TerminationWatch& operator=(const TerminationWatch&) = delete;

 private:
  void run();

  const std::function<void(int)> on_signal_;
  int signals_ = -1;  // signalfd
  int stop_ = -1;     // eventfd
  std::thread thread_;
};

}  // namespace plumb::fuse
