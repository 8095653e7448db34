// Finding and opening the members of a file system: the main device is named by the user, the others are found by uuid.
//
// Paths change (a namespace is made anew, a loop device gets another number, a directory is moved), uuids do not.
// Looked at, in this order: where mkfs saw the device, the directory of the main device, dax devices, block devices.
// Only labels are read, and nothing is claimed before a label fits.
//
// Thread safety: no state.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "fs/core/superblock.h"
#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb {

/// The devices of a file system, open and claimed.
struct OpenMembers {
  std::unique_ptr<pmem::Device> main;
  std::unique_ptr<pmem::Device> realtime;  // null if the file system has none

  [[nodiscard]] Members members() const { return {*main, realtime.get()}; }
};

/// How the caller opens and claims a device.
using DeviceOpener = std::function<Result<std::unique_ptr<pmem::Device>>(const std::string& path)>;

/// Opens what `main`, open already, needs beside itself. `realtime_path`: where the user says it is; empty: it is
/// looked for. ENXIO names the uuid that was looked for, and where; EINVAL: a path for a file system without a realtime
/// device. Whether the device is the right one is for Superblock::read to say.
[[nodiscard]] Result<OpenMembers> open_members(std::unique_ptr<pmem::Device> main, const std::string& realtime_path,
                                               const DeviceOpener& open);

/// The label on a device or file, without claiming it. An error also for what cannot be read.
[[nodiscard]] Result<media::MemberLabel> peek_label(const std::string& path);

}  // namespace plumb
