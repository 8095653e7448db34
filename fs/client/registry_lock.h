// The one lock of a client: over its list of mounts, and over adding to extent tables. fork(2) waits for it, so that a
// child never finds it taken by a thread that it does not have.
//
// Held for system calls on devices only while a mount is opened; never across an ioctl of a lease. Innermost: whoever
// holds it calls nothing but the kernel and malloc.
#pragma once

namespace plumb::client {

class RegistryLock {
 public:
  RegistryLock() noexcept;
  ~RegistryLock() noexcept;
  RegistryLock(const RegistryLock&) = delete;
  RegistryLock& operator=(const RegistryLock&) = delete;
};

}  // namespace plumb::client
