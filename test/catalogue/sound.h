// The sound file systems that the catalogue breaks: one of everything, made through the volume.
//
// Thread safety: sound_image() may be called from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "test/catalogue/medium.h"
#include "test/crash/snapshot.h"

namespace plumb::catalogue {

struct SoundImage {
  Medium medium;
  test::Snapshot contents;  // what a mount shows
  bool clean = true;        // unmounted
};

/// "1k", "4k": block size; "1k-realtime", "4k-realtime": with a realtime device; "1k-pending", "4k-pending": with
/// entries in the reclaim tree and two inodes on the orphan list; "1k-unclean", "4k-unclean": with
/// one such inode, and live journal records of a daemon that died.
[[nodiscard]] const std::vector<std::string>& image_names();

/// Made when first asked for. Throws std::runtime_error for a name that is none.
[[nodiscard]] const SoundImage& sound_image(std::string_view name);

/// The contents of the file system in these files. Mounts it and unmounts it, which writes to the files. Throws
/// std::runtime_error if it cannot be mounted or read.
[[nodiscard]] test::Snapshot contents_of(const MediumFiles& files);
/// Mounts it, uses it (creates, writes, renames, deletes) and unmounts it. Throws std::runtime_error if that fails.
void use(const MediumFiles& files);
/// Mounts it and unmounts it: what recovery makes of it.
void recover(const MediumFiles& files);

}  // namespace plumb::catalogue
