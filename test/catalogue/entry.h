// An entry of the catalogue: a directory test/image/NNN-what-is-broken with two files.
//
// break.json
//   "title"     what is broken, one line
//   "images"    sound images that it is done to (sound.h); by default "1k" and "4k"
//   "changes"   damage.h
//
// expect.json
//   "found"     what fsck.plumbfs -n reports, each {"object", "what", "kind", "at"}: regular expressions of the whole
//               object and of a part of the clause, with values (places.h) in braces; "checksum" or "structure"; and
//               the structure that the reported offset lies in, if one is to be reported. It may report more, as one
//               damage leads to another. Empty: nothing is reported, what is there is what a crash may leave.
//   "options"   further options of fsck.plumbfs
//   "preen"     true: -p repairs it, too; false: -p leaves it to -y, as something is lost; by default it may do either.
//               Where nothing is found it has no meaning.
//   "refused"   in place of all else: a regular expression of the message with which it exits 8, whatever it was told
//   "after"     how a repaired file system may differ from the sound one (Difference); by default in nothing
//
// Thread safety: that of a value.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace plumb::catalogue {

struct Finding {
  std::string object, what;  // regular expressions, to be expanded
  bool checksum = false;
  std::string at;  // place; empty: no offset is asked for
};

/// Paths are patterns of fnmatch(3), in which * covers slashes, too.
struct Difference {
  std::vector<std::string> moved;  // is where it was or, with all below it, in /lost+found under its number
  std::vector<std::string> lost;   // may be gone or different
  std::vector<std::string> added;  // may be there, and was not
  std::size_t lost_at_most = 0;    // names that are gone
  std::vector<std::string> holes;  // contents: bytes that read as zeros
  std::map<std::string, std::vector<std::string>> changed;  // pattern -> fields that may differ
};

struct Entry {
  std::string name;  // of the directory
  std::string title;
  std::vector<std::string> images;
  nlohmann::json changes;

  std::vector<Finding> found;
  std::vector<std::string> options;
  std::optional<bool> preen;
  std::optional<std::string> refused;
  Difference after;
};

/// All entries below a directory, by name. Throws std::runtime_error that names the file and what is wrong with it.
[[nodiscard]] std::vector<Entry> load_catalogue(const std::string& directory);

}  // namespace plumb::catalogue
