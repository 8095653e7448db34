// A power cut of the whole machine instead of the death of the daemon: the supervisor dies too.
//
// What it must know afterwards is in a record on a second persistent memory (test/vm/powercut has a dax device for it):
// the logs of the workers, stored there word by word. Each start of the program checks what the last one has left,
// deletes it, and works on, on the same file system, until the power goes.
#pragma once

#include <cstdint>
#include <string>

#include "test/kill/daemon.h"

namespace kill_test {

struct PowerSettings {
  Programs programs;
  std::string record;  // dax device or file, large enough; zeros at first
  std::string ready;   // this file is made when the workers run
  bool use_mmap = true;
  bool finish = false;  // check, delete everything, unmount, check again; no workers
};

/// Returns after --finish only. Throws Failure.
void run_until_power_cut(const PowerSettings& settings);

}  // namespace kill_test
