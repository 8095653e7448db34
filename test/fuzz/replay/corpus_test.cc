// Every input of test/fuzz/corpus/, without libFuzzer: what fuzzing found once is not found again. A failure is the
// death of the program; the name of the input is printed before it is run.
//
// PLUMBFS_FUZZ_CORPUS: another directory with a corpus for each target, or for some.
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "test/fuzz/targets.h"

namespace plumb::fuzz {

TEST_CASE("fuzz: every input of the corpus returns", "[fuzz]") {
  const char* elsewhere = std::getenv("PLUMBFS_FUZZ_CORPUS");
  const std::filesystem::path corpus =
      elsewhere != nullptr ? std::filesystem::path(elsewhere) : std::filesystem::path(PLUMBFS_TEST_DIR) / "fuzz/corpus";
  for (const Target& target : targets()) {
    const std::filesystem::path directory = corpus / target.name;
    std::size_t inputs = 0;
    if (elsewhere != nullptr && !std::filesystem::is_directory(directory)) continue;
    REQUIRE(std::filesystem::is_directory(directory));
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
      std::cout << target.name << ' ' << entry.path().filename().string() << std::endl;
      std::ifstream file(entry.path(), std::ios::binary);
      const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
      target.run({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
      ++inputs;
    }
    CHECK(inputs != 0);
  }
}

}  // namespace plumb::fuzz
