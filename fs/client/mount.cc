#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "fs/client/answers.h"
#include "fs/client/device_node.h"
#include "fs/client/direct.h"
#include "fs/client/kernel.h"
#include "fs/client/own_descriptors.h"
#include "fs/client/registry_lock.h"

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif

namespace plumb::client {

/// All Mounts of the process.
class MountRegistry {
 public:
  static const Mount* find_or_make(int fd, bool writable, int* error, Why why) noexcept;

 private:
  // What Mount::of() was asked for before: a mount by the number that the kernel uses once (Linux 6.8), so that the
  // daemon need not be asked again.
  struct Known {
    std::uint64_t mount_id;
    bool writable;
    const Mount* mount;
    Known* next;
  };
  // A mount whose device is not for the user that the process has been: a request and an open for each file would make
  // programs slower than without the library.
  struct Refused {
    std::uint64_t mount_id;
    bool writable;
    uid_t user;
    gid_t group;
    int error;
    Refused* next;
    char why[200];
  };

  static const Refused* find_refused(std::uint64_t mount_id, bool writable) noexcept;
  static void note_refused(std::uint64_t mount_id, bool writable, int error, Why why) noexcept;
  static const Mount* find(const protocol::Devices& devices, dev_t device, bool writable) noexcept;
  static Mount* make(const protocol::Devices& devices, dev_t device, bool writable, int* error, Why why) noexcept;
  static bool map_member(Mount* mount, std::uint32_t member, std::size_t* mapped_bytes, int* error, Why why) noexcept;

  static const Mount* mounts_;
  static Known* known_;
  static Refused* refused_;
};

const Mount* MountRegistry::mounts_ = nullptr;
MountRegistry::Known* MountRegistry::known_ = nullptr;
MountRegistry::Refused* MountRegistry::refused_ = nullptr;

const MountRegistry::Refused* MountRegistry::find_refused(std::uint64_t mount_id, bool writable) noexcept {
  const Refused* refused = refused_;
  while (refused != nullptr && (refused->mount_id != mount_id || refused->writable != writable ||
                                refused->user != geteuid() || refused->group != getegid())) {
    refused = refused->next;
  }
  return refused;
}

void MountRegistry::note_refused(std::uint64_t mount_id, bool writable, int error, Why why) noexcept {
  // Without a reason there would be none to tell the next time.
  if (why.text == nullptr) return;
  auto* refused = static_cast<Refused*>(std::malloc(sizeof(Refused)));
  if (refused == nullptr) return;
  *refused = {mount_id, writable, geteuid(), getegid(), error, refused_, ""};
  Why{refused->why, sizeof(refused->why)}.tell("%s", why.text);
  refused_ = refused;
}

// A mount that is gone may have left its st_dev to another one: the epoch and the uuid tell.
const Mount* MountRegistry::find(const protocol::Devices& devices, dev_t device, bool writable) noexcept {
  for (const Mount* mount = mounts_; mount != nullptr; mount = mount->next_) {
    if (mount->device_ == device && mount->writable_ == writable && mount->devices_.epoch == devices.epoch &&
        std::memcmp(mount->devices_.members[0].uuid, devices.members[0].uuid, sizeof devices.members[0].uuid) == 0) {
      return mount;
    }
  }
  return nullptr;
}

bool MountRegistry::map_member(Mount* mount, std::uint32_t member, std::size_t* mapped_bytes, int* error,
                               Why why) noexcept {
  const protocol::DeviceMember& described = mount->devices_.members[member];
  void* base = MAP_FAILED;
  with_own_descriptors([&] {
    const int fd = open_node(described, mount->writable_, &mount->identity_[member], why);
    if (fd >= 0) base = map_node(fd, described, mount->writable_, &mount->map_sync_[member], mapped_bytes, why);
    *error = errno;
    if (fd >= 0) kernel::close_file(fd);
  });
  if (base == MAP_FAILED) return false;
  if (!has_uuid(base, mount->devices_, member)) {
    kernel::unmap(base, *mapped_bytes);
    why.tell("no direct access: %s is not the device of this mount", described.path);
    *error = ENODEV;
    return false;
  }
  mount->base_[member] = static_cast<std::byte*>(base);
  return true;
}

Mount* MountRegistry::make(const protocol::Devices& devices, dev_t device, bool writable, int* error,
                           Why why) noexcept {
  if (!is_mount_trusted(device)) {
    why.tell("no direct access: the file system was mounted by another user, or /proc does not show it");
    *error = EPERM;
    return nullptr;
  }
  void* memory = std::malloc(sizeof(Mount));
  if (memory == nullptr) {
    *error = ENOMEM;
    return nullptr;
  }
  auto* mount = new (memory) Mount;
  mount->devices_ = devices;
  mount->writable_ = writable;
  mount->device_ = device;
  std::size_t mapped_bytes[2] = {};
  for (std::uint32_t member = 0; member < devices.member_count; ++member) {
    if (map_member(mount, member, &mapped_bytes[member], error, why)) continue;
    if (member == 1) kernel::unmap(mount->base_[0], mapped_bytes[0]);
    std::free(memory);
    return nullptr;
  }
  mount->next_ = mounts_;
  mounts_ = mount;
  return mount;
}

const Mount* MountRegistry::find_or_make(int fd, bool writable, int* error, Why why) noexcept {
  struct statx status = {};
  *error = ENOTTY;
  if (kernel::stat_cached(fd, STATX_TYPE | STATX_MNT_ID_UNIQUE, &status) != 0) {
    *error = errno;
    return nullptr;
  }
  // Devices and sockets have ioctls of their own.
  if (!S_ISREG(status.stx_mode) && !S_ISDIR(status.stx_mode)) return nullptr;
  const bool has_id = (status.stx_mask & STATX_MNT_ID_UNIQUE) != 0;

  const RegistryLock lock;
  for (const Known* known = known_; has_id && known != nullptr; known = known->next) {
    if (known->mount_id == status.stx_mnt_id && known->writable == writable) return known->mount;
  }
  if (const Refused* refused = has_id ? find_refused(status.stx_mnt_id, writable) : nullptr; refused != nullptr) {
    why.tell("%s", refused->why);
    *error = refused->error;
    return nullptr;
  }
  protocol::Devices devices = {};
  devices.version = protocol::kVersion;
  if (kernel::control(fd, protocol::kIocDevices, &devices) != 0) {
    *error = errno;
    why.tell(errno == ENOTTY ? "not a file of a plumbfs, or of one without the direct path"
                             : "the daemon of the file system does not answer");
    return nullptr;
  }
  if (devices.version != protocol::kVersion) {
    why.tell("no direct access: the daemon speaks version %u, this library %u", devices.version, protocol::kVersion);
    *error = ENOTSUP;
    return nullptr;
  }
  if (!is_sound(devices)) {
    why.tell("no direct access: the daemon's answer makes no sense");
    *error = EPROTO;
    return nullptr;
  }
  const dev_t device = makedev(status.stx_dev_major, status.stx_dev_minor);
  const Mount* mount = find(devices, device, writable);
  if (mount == nullptr) mount = make(devices, device, writable, error, why);
  if (mount == nullptr && has_id && (*error == EACCES || *error == EPERM)) {
    note_refused(status.stx_mnt_id, writable, *error, why);
  }
  if (mount == nullptr || !has_id) return mount;
  if (auto* known = static_cast<Known*>(std::malloc(sizeof(Known))); known != nullptr) {
    *known = {status.stx_mnt_id, writable, mount, known_};
    known_ = known;
  }
  return mount;
}

const Mount* Mount::of(int fd, bool writable, int* error, char* why, std::size_t why_bytes) noexcept {
  return MountRegistry::find_or_make(fd, writable, error, {why, why_bytes});
}

int Mount::open_again(std::uint32_t member, char* why_text, std::size_t why_bytes) const noexcept {
  const Why why{why_text, why_bytes};
  NodeIdentity identity = {};
  const int fd = open_node(devices_.members[member], writable_, &identity, why);
  if (fd < 0) return -1;
  int error = 0;
  if (identity != identity_[member]) {
    why.tell("no direct access: %s is not the device that it was", devices_.members[member].path);
    error = ENODEV;
  } else if (member == 0 && lock_node(fd, devices_.lock_offset, why) != 0) {
    error = errno;
  }
  if (error == 0) return fd;
  kernel::close_file(fd);
  errno = error;
  return -1;
}

int Mount::hold(char* why, std::size_t why_bytes) const noexcept {
  const RegistryLock lock;
  if (holds_ == 0) {
    void* page = MAP_FAILED;
    int error = 0;
    with_own_descriptors([&] {
      const int fd = open_again(0, why, why_bytes);
      if (fd >= 0) page = kernel::map(nullptr, devices_.members[0].align_bytes, PROT_NONE, MAP_SHARED, fd, 0);
      error = errno;
      if (fd >= 0) kernel::close_file(fd);
    });
    if (page == MAP_FAILED) return error;
    lock_ = page;
  }
  ++holds_;
  return 0;
}

int Mount::hold_for_good() const noexcept {
  if (is_held_for_good_.load(std::memory_order_acquire)) return 0;
  const int error = hold(nullptr, 0);
  // Two threads at once hold it twice, which is as good.
  if (error == 0) is_held_for_good_.store(true, std::memory_order_release);
  return error;
}

void Mount::release() const noexcept {
  const RegistryLock lock;
  if (--holds_ > 0) return;
  kernel::unmap(lock_, devices_.members[0].align_bytes);
  lock_ = nullptr;
}

}  // namespace plumb::client
