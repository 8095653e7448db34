// The locks of programs that map a device beside the daemon (the direct path).
//
// Each holds an OFD read lock on one byte of the device, far behind its end, on the description that it has mapped: so
// the lock goes with the last map of the last process. The byte is chosen by the mount that the program got its files
// from. The claim of a daemon or tool is an flock, which is another family and does not meet them.
//
// Thread safety: all functions from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "pmem/result.h"

namespace plumb::pmem {

/// Where clients of the mount with this epoch hold their lock. Different for any two mounts of one file system.
[[nodiscard]] std::uint64_t client_lock_offset(std::uint64_t epoch);

/// Looks at the locks of the clients of one device.
class ClientLocks {
 public:
  /// Errors as open(2).
  [[nodiscard]] static Result<std::unique_ptr<ClientLocks>> open(const std::string& path);
  ~ClientLocks();
  ClientLocks(const ClientLocks&) = delete;
  ClientLocks& operator=(const ClientLocks&) = delete;

  /// Somebody holds the lock of any epoch.
  [[nodiscard]] bool any() const;
  /// Somebody holds the lock of another epoch than this one.
  [[nodiscard]] bool others_than(std::uint64_t epoch) const;

 private:
  explicit ClientLocks(int fd) : fd_(fd) {}
  const int fd_;
};

}  // namespace plumb::pmem
