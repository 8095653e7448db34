// The daemon's side of the direct path: questions and answers of the ioctls of fs/client/protocol.h.
//
// Thread safety: as the volume.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "fs/client/protocol.h"
#include "fs/core/volume.h"
#include "fs/fuse/request.h"
#include "fs/fuse/server.h"
#include "pmem/result.h"

namespace plumb::fuse {

[[nodiscard]] protocol::Devices describe_devices(Volume& volume, bool immediate);

/// What `input` asks for; EINVAL: version, flags, size.
[[nodiscard]] Result<LeaseRequest> parse_lease(const void* input, std::size_t input_bytes, std::uint32_t uid);
[[nodiscard]] std::unique_ptr<protocol::Lease> to_wire(const LeaseAnswer& answer, std::uint64_t epoch,
                                                       InodeNumber inode);

}  // namespace plumb::fuse
