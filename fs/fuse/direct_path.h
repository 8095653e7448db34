// The daemon's side of the direct path: answers to the ioctls of fs/client/protocol.h, and the lock that tells whether
// programs of an earlier mount still map files.
//
// Each of those holds an OFD read lock on the byte lock_offset(epoch) of the main device, on the description that it
// has mapped: the lock goes with the last map of the last process. So locks on any other byte but that of this mount's
// epoch are of an earlier mount. The claim of the daemon itself is an flock, which is another family and does not meet
// them.
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

/// Looks at the locks of the clients of one device.
class ClientLocks {
 public:
  /// Errors as open(2).
  [[nodiscard]] static Result<std::unique_ptr<ClientLocks>> open(const std::string& path);
  ~ClientLocks();
  ClientLocks(const ClientLocks&) = delete;
  ClientLocks& operator=(const ClientLocks&) = delete;

  /// Somebody holds the lock of another epoch than this one.
  [[nodiscard]] bool others_than(std::uint64_t epoch) const;

 private:
  explicit ClientLocks(int fd) : fd_(fd) {}
  const int fd_;
};

[[nodiscard]] protocol::Devices describe_devices(Volume& volume, bool immediate);

/// What `input` asks for; EINVAL: version, flags, size.
[[nodiscard]] Result<LeaseRequest> parse_lease(const void* input, std::size_t input_bytes, std::uint32_t uid);
[[nodiscard]] std::unique_ptr<protocol::Lease> to_wire(const LeaseAnswer& answer, std::uint64_t epoch,
                                                       InodeNumber inode);

}  // namespace plumb::fuse
