// A worker: random operations in a directory of its own, each written down before it is done.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "test/kill/model.h"
#include "test/kill/operation.h"

namespace kill_test {

class Worker {
 public:
  /// `tree` is what the directory contains now. `first_number` numbers the operations of this round.
  Worker(std::string directory, Tree& tree, Log& log, const Control& control, std::uint64_t seed,
         std::uint64_t first_number, bool use_mmap);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// Until the daemon dies, an operation fails or the log is full. The exit status of the process.
  int run();

 private:
  struct Inventory;
  [[nodiscard]] Operation choose();
  void choose_content(Operation& operation, const Inventory& have);
  void choose_rename(Operation& operation, const Inventory& have);
  [[nodiscard]] std::string new_path(const Inventory& have);
  /// 0 or an errno. Fills in operation.inode where something is made.
  [[nodiscard]] int execute(Operation& operation);
  [[nodiscard]] int execute_content(const Operation& operation);
  [[nodiscard]] int execute_unnamed(Operation& operation);
  [[nodiscard]] int execute_map(const Operation& operation);
  void keep_deleted(int fd);

  [[nodiscard]] std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }
  [[nodiscard]] bool chance(unsigned one_in) { return random_() % one_in == 0; }

  std::string directory_;
  Tree& tree_;
  Log& log_;
  const Control& control_;
  std::mt19937_64 random_;
  std::uint64_t number_;
  bool use_mmap_;
  bool has_unnamed_ = true;   // O_TMPFILE over FUSE: from Linux 6.2 on
  std::vector<int> deleted_;  // descriptors of files without a name: their space must come back after the crash
};

}  // namespace kill_test
