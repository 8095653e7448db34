// Runs fsck.plumbfs on one image, as a user would, and compares what it says and does with what is expected.
//
// Thread safety: trials run at the same time if their directories differ.
#pragma once

#include <string>
#include <vector>

#include "test/catalogue/entry.h"

namespace plumb::catalogue {

struct TrialOptions {
  std::string fsck;       // path of the program
  std::string directory;  // where the image lies; there is one, and nothing else uses it
  bool repair = true;     // false: -n only
};

/// What is wrong, in words; empty if all is as expected. Throws std::runtime_error if the trial could not be made.
[[nodiscard]] std::vector<std::string> try_broken(const Entry& entry, const std::string& image,
                                                  const TrialOptions& options);

/// A sound file system stays as it is: -n, -y and -p change no byte, or what recovery changes if it was not unmounted.
[[nodiscard]] std::vector<std::string> try_sound(const std::string& image, const TrialOptions& options);

}  // namespace plumb::catalogue
