// The bytes of a device after a crash: a shared base and a few patches.
//
// Crash tests make millions of images that differ from each other in some words. An image therefore costs its patches
// only: all images of a moment share a base. Opening an image (ImageCopy) costs the pages that are not what the last
// user of the same memory left, and neither a mapping nor page faults.
//
// Invariants: a base does not change while an image refers to it. CrashImage keeps its base alive.
//
// Thread safety: const functions from any thread, and ImageCopy. Running out of memory ends the program: these are
// tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pmem/result.h"

namespace plumb::pmem {

/// Bytes, zero at first. Each page has a number that stands for its content: pages of equal numbers are equal, in
/// whatever base they are. 0: zeros.
class ImageBase {
 public:
  static constexpr std::uint64_t kPageBytes = 4096;

  /// The size is a multiple of kPageBytes.
  explicit ImageBase(std::uint64_t size_bytes);
  ImageBase(const ImageBase&) = delete;
  ImageBase& operator=(const ImageBase&) = delete;
  ~ImageBase();

  [[nodiscard]] std::shared_ptr<ImageBase> clone() const;
  void write(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  [[nodiscard]] const std::byte* data() const { return data_; }
  [[nodiscard]] std::uint64_t size_bytes() const { return size_bytes_; }
  [[nodiscard]] std::span<const std::uint64_t> page_numbers() const { return page_numbers_; }

 private:
  std::byte* data_ = nullptr;
  std::uint64_t size_bytes_ = 0;
  std::vector<std::uint64_t> page_numbers_;
};

/// Bytes to be laid over an image; later ones win.
class PatchList {
 public:
  void add(std::uint64_t offset_bytes, std::span<const std::byte> bytes);
  /// Lays over `out`, which shows the image from offset_bytes on.
  void apply_to(std::uint64_t offset_bytes, std::span<std::byte> out) const;
  template <typename Function>
  void for_each(const Function& function) const {
    for (const Patch& patch : patches_)
      function(patch.offset_bytes, std::span(bytes_).subspan(patch.position, patch.length_bytes));
  }
  [[nodiscard]] bool empty() const { return patches_.empty(); }
  [[nodiscard]] std::size_t byte_count() const { return bytes_.size(); }
  /// Equal lists have equal hashes; equal images made in different steps need not.
  [[nodiscard]] std::size_t hash() const;

 private:
  struct Patch {
    std::uint64_t offset_bytes;
    std::size_t length_bytes;
    std::size_t position;  // in bytes_
  };
  std::vector<Patch> patches_;
  std::vector<std::byte> bytes_;
};

/// What content_hash() of an image changes by (exclusive or) when the bytes at an offset change. Whole aligned words.
[[nodiscard]] std::uint64_t content_hash_change(std::uint64_t offset_bytes, std::span<const std::byte> before,
                                                std::span<const std::byte> after);

class CrashImage {
 public:
  /// `common` may be null; `own` lies over it.
  CrashImage(std::shared_ptr<const ImageBase> base, std::shared_ptr<const PatchList> common, PatchList own,
             std::string description, std::uint64_t content_hash = 0);
  /// An image that holds these bytes, for instance of a file.
  explicit CrashImage(std::span<const std::byte> bytes);

  [[nodiscard]] std::uint64_t size_bytes() const { return base_->size_bytes(); }
  /// Where it was made and what it holds of what was pending, for the message of a failing test.
  [[nodiscard]] const std::string& description() const { return description_; }
  [[nodiscard]] std::size_t patched_bytes() const { return own_.byte_count(); }

  [[nodiscard]] std::vector<std::byte> read(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
  /// The integer at an offset, as the machine stores it.
  [[nodiscard]] std::uint64_t read_u64(std::uint64_t offset_bytes) const;
  /// For a look at a failing image with the ordinary tools.
  [[nodiscard]] Status write_file(const std::string& path) const;

  [[nodiscard]] const std::shared_ptr<const ImageBase>& base() const { return base_; }
  void apply_patches(std::uint64_t offset_bytes, std::span<std::byte> out) const;
  /// Calls function(offset_bytes, bytes) for each; later ones win.
  template <typename Function>
  void for_each_patch(const Function& function) const {
    if (common_ != nullptr) common_->for_each(function);
    own_.for_each(function);
  }
  [[nodiscard]] std::size_t patch_hash() const { return own_.hash(); }
  /// Images that one log leads to have the same hash if their bytes are the same, whatever way they came about.
  [[nodiscard]] std::uint64_t content_hash() const { return content_hash_; }

 private:
  std::shared_ptr<const ImageBase> base_;
  std::shared_ptr<const PatchList> common_;
  PatchList own_;
  std::string description_;
  std::uint64_t content_hash_ = 0;
};

/// Writable memory that begins as an image, taken from a pool for as long as this lives.
class ImageCopy {
 public:
  explicit ImageCopy(const CrashImage& image);
  ImageCopy(const ImageCopy&) = delete;
  ImageCopy& operator=(const ImageCopy&) = delete;
  ~ImageCopy();

  [[nodiscard]] std::byte* data() const;
  /// Whoever changes bytes says so.
  void note_change(std::uint64_t offset_bytes, std::uint64_t length_bytes);
  /// The mapping itself was changed: nobody else gets it.
  void note_other_mapping() { is_reusable_ = false; }

 private:
  struct Memory;
  friend class MemoryPool;

  std::unique_ptr<Memory> memory_;
  bool is_reusable_ = true;
};

}  // namespace plumb::pmem
