// The fuzz targets: each takes any bytes and must return. A crash, a sanitizer's report, a hang or a failed require()
// is a finding.
//
// What the bytes mean is not "an image": checksums would stop every mutation. They are a short program: which seed
// image, which changes to its structures (checksums are made right again afterwards), which operations on it. So inputs
// are small, and a mutation of an input is a sensible other input. fs/DESIGN.md, "Hostile images".
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace plumb::fuzz {

struct Target {
  std::string_view name;
  void (*run)(std::span<const std::uint8_t> input);
};

/// Of all targets, in the order of test/fuzz/run.
[[nodiscard]] std::span<const Target> targets();

/// Ends the program with a message when something that must hold does not.
void require(bool holds, std::string_view what);

// superblock: both copies and the label of the second member; mount and check.
void fuzz_superblock(std::span<const std::uint8_t> input);
// journal: headers and a chain of records with any ranges; replay into the device and into DRAM.
void fuzz_journal(std::span<const std::uint8_t> input);
// btree: nodes of every kind; lookups, visits, inserts and erases on the trees.
void fuzz_btree(std::span<const std::uint8_t> input);
// inode: inodes and what hangs off them; data and attributes.
void fuzz_inode(std::span<const std::uint8_t> input);
// directory: entries; names.
void fuzz_directory(std::span<const std::uint8_t> input);
// wire: what the daemon parses that is not the medium: ACLs, requests of the kernel, their payloads.
void fuzz_wire(std::span<const std::uint8_t> input);
// image: all structures; check, mount, every operation, check again.
void fuzz_image(std::span<const std::uint8_t> input);

// Layout of an input of the targets on images, for the mutator.
inline constexpr std::size_t kInputHeader = 3;  // seed image, flags, number of edits
inline constexpr std::size_t kEditBytes = 14;
inline constexpr std::size_t kStepBytes = 6;
inline constexpr std::size_t kMaxEdits = 24;
inline constexpr std::size_t kMaxSteps = 48;

}  // namespace plumb::fuzz
