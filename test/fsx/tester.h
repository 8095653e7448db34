// Random operations on a few files, each checked against what the file must contain.
//
// One tester belongs to one process. Two files, so that copy_file_range() also goes between files.
// Each file is open three times (plain, O_APPEND, O_DIRECT) and mapped once for as long as it is
// open, so that every way in meets what came in by every other way.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "test/fsx/model.h"
#include "test/fsx/operation.h"

namespace fsx {

struct Options {
  std::string directory;               // where the files are made
  std::string save_directory;          // if set: the expected contents go here at the end, the files stay
  std::uint64_t operations = 100'000;  // by each tester
  std::uint64_t seed = 0;
  std::size_t file_size_bytes = 256 * 1024;  // largest size
  std::size_t direct_alignment_bytes = 4096;
  bool use_mmap = true;
  bool use_direct = true;
  bool pollute_eof = false;  // store to the mapping beyond the end of the file
  bool verbose = false;
};

/// A difference or an error: the text says everything.
class Difference : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Tester {
 public:
  Tester(const Options& options, unsigned job);
  ~Tester();
  Tester(const Tester&) = delete;
  Tester& operator=(const Tester&) = delete;

  /// All operations, then a last comparison of everything. Throws Difference.
  void run();
  /// How often each kind was done.
  [[nodiscard]] const std::array<std::uint64_t, kKinds>& counts() const { return counts_; }
  /// What was left out because the file system does not have it.
  [[nodiscard]] const std::string& left_out() const { return left_out_; }

 private:
  struct File;
  struct Buffer {
    std::unique_ptr<std::uint8_t, void (*)(void*)> memory;
    std::size_t size;
    [[nodiscard]] Bytes first(std::size_t length) const { return {memory.get(), length}; }
  };

  void find_features();
  void open_file(File& file);
  void close_file(File& file);
  [[nodiscard]] Operation choose();
  void choose_range(Operation& operation, std::size_t limit, std::size_t alignment);
  [[nodiscard]] std::size_t choose_length(std::size_t limit);
  void execute(Operation& operation);

  void do_read(Operation& operation);
  void do_write(Operation& operation);
  void do_mapping(Operation& operation);
  void do_size(Operation& operation);
  void do_allocate(Operation& operation);
  void do_copy(Operation& operation);
  void do_seek(Operation& operation);
  void do_sync(Operation& operation);

  void check_size(File& file, bool force);
  void check_all(File& file, const char* when);
  void compare(const File& file, std::size_t offset, ConstBytes got, const char* how);
  [[noreturn]] void fail(const File& file, const std::string& what);
  [[noreturn]] void fail_errno(const File& file, const char* call);
  [[nodiscard]] std::string explain(const File& file, std::size_t offset, ConstBytes got) const;
  [[nodiscard]] std::string dump() const;

  [[nodiscard]] bool chance(unsigned one_in) { return random_() % one_in == 0; }
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : random_() % bound; }

  Options options_;
  unsigned job_;
  std::mt19937_64 random_;
  std::array<std::unique_ptr<File>, 2> files_;
  std::vector<Kind> menu_;  // each kind as often as its weight
  std::array<bool, kKinds> enabled_{};
  OperationLog log_;
  Buffer buffer_;
  std::uint32_t number_ = 0;
  std::array<std::uint64_t, kKinds> counts_{};
  std::string left_out_;
};

}  // namespace fsx
