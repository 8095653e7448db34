#include "pmem/client_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace plumb::pmem {
namespace {

// Not at 0, which other programs that lock whole files begin with as well, but far behind the end of any device.
// Epochs begin anywhere and count up: folded into 61 bits no two mounts of one file system share an offset.
constexpr std::uint64_t kLockBase = std::uint64_t{1} << 61;

// True if somebody else has a lock in [begin, begin + length); length 0: to the end of all offsets.
bool is_locked(int fd, std::uint64_t begin, std::uint64_t length) {
  struct flock lock {};
  lock.l_type = F_WRLCK;  // which any lock of a client keeps out
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(begin);
  lock.l_len = static_cast<off_t>(length);
  // Where the kernel cannot tell, nobody could have taken such a lock either.
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace

std::uint64_t client_lock_offset(std::uint64_t epoch) {
  return kLockBase + (epoch & (kLockBase - 1));
}

Result<std::unique_ptr<ClientLocks>> ClientLocks::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return fail(errno, path);
  return std::unique_ptr<ClientLocks>(new ClientLocks(fd));
}

ClientLocks::~ClientLocks() {
  ::close(fd_);
}

bool ClientLocks::any() const {
  return is_locked(fd_, kLockBase, 0);
}

bool ClientLocks::others_than(std::uint64_t epoch) const {
  const std::uint64_t own = client_lock_offset(epoch);
  if (own > kLockBase && is_locked(fd_, kLockBase, own - kLockBase)) return true;
  return is_locked(fd_, own + 1, 0);
}

}  // namespace plumb::pmem
