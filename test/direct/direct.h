// What the tests of the direct path have in common: processes with and without the preload library on one mount.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace direct_test {

class Failure : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] void fail_errno(const std::string& what);

/// This program again, as `arguments`; with the preload library if `preload` is not empty. `shared` is inherited.
[[nodiscard]] pid_t spawn_worker(const std::vector<std::string>& arguments, const std::string& preload, int shared);

/// True if the map at `address` is of something else than a file below `mount_point`: of the device.
[[nodiscard]] bool is_direct_map(const void* address, const std::string& mount_point);

/// Memory that processes share: a descriptor to inherit.
[[nodiscard]] int make_shared(std::size_t bytes);
[[nodiscard]] void* map_shared(int fd, std::size_t bytes);

/// The text of `plumb stat --json` for the mount.
[[nodiscard]] std::string statistics(const std::string& mount_point);

/// A number that follows from a seed; each call another.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  std::uint64_t below(std::uint64_t limit) { return next() % limit; }

 private:
  std::uint64_t state_;
};

struct MixedOptions {
  std::string mount_point, preload;
  std::uint64_t operations = 0, seed = 0;
};
/// Processes on one file, half of them direct; every read is compared with a model that they share.
void run_mixed(const MixedOptions& options);
[[nodiscard]] int mixed_worker(const std::vector<std::string>& arguments);

struct KillOptions {
  std::string plumbfs, fsck, device, mount_point, preload, log, mount_options;
  std::uint64_t rounds = 0, seed = 0;
};
/// Clients and the daemon killed in the middle of direct stores.
void run_kill(const KillOptions& options);
[[nodiscard]] int kill_worker(const std::vector<std::string>& arguments);

}  // namespace direct_test
