// One file under test: its descriptors, its long-lived mapping and its model.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "test/fsx/model.h"
#include "test/fsx/tester.h"

namespace fsx {

struct Tester::File {
  File(std::string file_path, std::uint8_t file_index, std::size_t capacity_bytes)
      : path(std::move(file_path)), index(file_index), model(capacity_bytes) {}

  std::string path;
  std::uint8_t index;
  FileModel model;
  int plain = -1;
  int append = -1;
  int direct = -1;                  // -1 also where O_DIRECT is not to be had
  std::uint8_t* mapping = nullptr;  // capacity bytes, shared; only [0, size) may be touched
};

}  // namespace fsx
