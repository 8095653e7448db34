// Comparing a directory with its model after a crash.
#pragma once

#include <stdexcept>
#include <string>

#include "test/kill/model.h"
#include "test/kill/operation.h"

namespace kill_test {

/// What is not as acknowledged; the text says everything.
class Difference : public std::runtime_error {
 public:
  Difference(const std::string& path, const std::string& what) : std::runtime_error(path + ": " + what), path_(path) {}
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Finds out whether the operation that was in flight has happened, and brings the tree to what is there. Where data
/// was in flight every byte must be the old or the new one. Throws Difference. Returns a word for the log: "before",
/// "after" or "torn".
const char* resolve_in_flight(const std::string& directory, Tree& tree, const Operation& operation);

/// Everything must be as in the tree: names, types, sizes, contents, modes, links, attributes, inode numbers. Inode
/// numbers that were not known are learnt. Throws Difference.
void compare(const std::string& directory, Tree& tree);

}  // namespace kill_test
