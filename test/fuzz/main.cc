// The fuzz targets as a libFuzzer program: plumb_fuzz --target=NAME [libFuzzer's arguments]. test/fuzz/run runs it.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>

#include "test/fuzz/targets.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

constexpr std::string_view kTargetFlag = "--target=";

const plumb::fuzz::Target* chosen = nullptr;

// Takes out `old_bytes` at `at` and makes room for `new_bytes` there; what no longer fits is cut off.
std::size_t resize_at(std::uint8_t* data, std::size_t size, std::size_t max_size, std::size_t at, std::size_t old_bytes,
                      std::size_t new_bytes) {
  const std::size_t tail = size - at - old_bytes;
  if (at + new_bytes > max_size) return size;
  const std::size_t kept = std::min(tail, max_size - at - new_bytes);
  std::memmove(data + at + new_bytes, data + at + old_bytes, kept);
  return at + new_bytes + kept;
}

// Inputs of the image targets are a header, edits and steps, all of fixed length: whole ones are put in, doubled or
// taken out, so that what follows keeps its meaning.
std::size_t mutate_program(std::uint8_t* data, std::size_t size, std::size_t max_size, std::minstd_rand& random) {
  using namespace plumb::fuzz;
  const std::size_t edits = data[2] % (kMaxEdits + 1);
  const std::size_t steps_at = std::min(size, kInputHeader + edits * kEditBytes);
  const bool on_edits = random() % 3 != 0;
  const std::size_t unit = on_edits ? kEditBytes : kStepBytes;
  const std::size_t begin = on_edits ? kInputHeader : steps_at;
  const std::size_t count = on_edits ? (steps_at - kInputHeader) / kEditBytes : (size - steps_at) / kStepBytes;
  const std::size_t at = begin + (count == 0 ? 0 : random() % count) * unit;
  const bool remove = count != 0 && random() % 4 == 0;
  if (remove) {
    if (on_edits) data[2] = static_cast<std::uint8_t>(edits - 1);
    return resize_at(data, size, max_size, at, unit, 0);
  }
  if (count != 0 && random() % 2 == 0) {  // another value in one of them
    const std::size_t end = std::min(size, at + unit);
    for (std::size_t n = 1 + random() % 3; n != 0; --n)
      data[at + random() % (end - at)] = static_cast<std::uint8_t>(random());
    return size;
  }
  if (on_edits ? edits == kMaxEdits : count >= kMaxSteps) return size;
  const std::size_t grown = resize_at(data, size, max_size, at, 0, unit);
  if (grown < at + unit || grown == size) return size;
  for (std::size_t i = 0; i < unit; ++i) data[at + i] = static_cast<std::uint8_t>(random());
  if (on_edits) data[2] = static_cast<std::uint8_t>(edits + 1);
  return grown;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  for (int i = 1; i < *argc; ++i) {
    const std::string_view argument = (*argv)[i];
    if (!argument.starts_with(kTargetFlag)) continue;
    for (const plumb::fuzz::Target& target : plumb::fuzz::targets())
      if (argument.substr(kTargetFlag.size()) == target.name) chosen = &target;
  }
  if (chosen != nullptr) return 0;
  std::fprintf(stderr, "plumb_fuzz: --target=NAME is missing; NAME is one of:");
  for (const plumb::fuzz::Target& target : plumb::fuzz::targets())
    std::fprintf(stderr, " %.*s", static_cast<int>(target.name.size()), target.name.data());
  std::fprintf(stderr, "\n");
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  chosen->run({data, size});
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  std::minstd_rand random(seed);
  const bool plain = chosen->run == plumb::fuzz::fuzz_wire || chosen->run == plumb::fuzz::fuzz_journal;
  if (plain || size < plumb::fuzz::kInputHeader || random() % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  return mutate_program(data, size, max_size, random);
}
