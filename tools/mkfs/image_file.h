// The file that `mkfs.plumbfs --size` makes.
//
// Allocated fully, so that a host without room for it is found now and not by a machine that writes to the file system
// later. Until keep() everything is undone by the destructor and by SIGINT, SIGTERM and SIGHUP: a file that was created
// is deleted, one that was there is cut back to its former size.
//
// Invariant: at most one ImageFile exists at a time. Thread safety: none needed, mkfs is single-threaded.
#pragma once

#include <cstdint>
#include <string>

#include "pmem/result.h"

namespace plumb::tools {

class ImageFile {
 public:
  /// `replace`: a regular file that is there may be resized; without it that is EEXIST. EBUSY: somebody uses the file.
  /// ENOSPC, EFBIG, EDQUOT: the host has no room. Errors name the path and what to do.
  [[nodiscard]] static Result<ImageFile> make(const std::string& path, std::uint64_t size_bytes, bool replace);

  ImageFile(ImageFile&& other) noexcept;
  ImageFile& operator=(ImageFile&&) = delete;
  ~ImageFile();

  /// The file stays. Call it when the file system is complete.
  void keep();
  /// It was not there before: all of it reads as zeros.
  [[nodiscard]] bool created() const { return created_; }

 private:
  ImageFile(std::string path, bool created, std::uint64_t former_bytes);

  std::string path_;
  bool armed_ = true;
  bool created_ = false;
  std::uint64_t former_bytes_ = 0;
};

}  // namespace plumb::tools
