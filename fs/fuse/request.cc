#include "fs/fuse/request.h"

#include <spdlog/spdlog.h>

#include <climits>
#include <memory>
#include <string>

#include "fs/fuse/attributes.h"
#include "fs/fuse/log.h"
#include "pmem/sigbus_guard.h"

namespace plumb::fuse {
namespace {

// Outcomes of the medium and of the media structures, as opposed to ordinary answers such as ENOENT.
bool is_failure(int code) {
  return code == EIO || code == EUCLEAN || code == EBADMSG;
}

void log_unreadable(InodeNumber inode) {
  log_failure("data of inode " + std::to_string(inode.value) + " could not be read from the device");
}

}  // namespace

void Request::error(int code) {
  fuse_reply_err(take(), code);
}

void Request::error(const Error& error) {
  if (is_failure(error.code) || error.code == ENOMEM) log_failure(error.message());
  this->error(error.code);
}

void Request::status(const Status& status) {
  if (status) {
    ok();
  } else {
    error(status.error());
  }
}

void Request::none() {
  fuse_reply_none(take());
}

bool Request::entry(const fuse_entry_param& entry) {
  return fuse_reply_entry(take(), &entry) == 0;
}

bool Request::created(const fuse_entry_param& entry, const fuse_file_info& file) {
  return fuse_reply_create(take(), &entry, &file) == 0;
}

bool Request::opened(const fuse_file_info& file) {
  return fuse_reply_open(take(), &file) == 0;
}

bool Request::bytes(const void* data, std::size_t length_bytes) {
  return fuse_reply_buf(take(), static_cast<const char*>(data), length_bytes) == 0;
}

void Request::attributes(const Attributes& attributes) {
  const struct stat converted = to_stat(attributes);
  fuse_reply_attr(take(), &converted, attribute_timeout(attributes));
}

void Request::text(const char* text) {
  fuse_reply_readlink(take(), text);
}

void Request::count(std::size_t written_bytes) {
  fuse_reply_write(take(), written_bytes);
}

void Request::offset(std::uint64_t offset_bytes) {
  fuse_reply_lseek(take(), static_cast<off_t>(offset_bytes));
}

void Request::xattr_size(std::size_t size_bytes) {
  fuse_reply_xattr(take(), size_bytes);
}

void Request::statistics(const struct statvfs& statistics) {
  fuse_reply_statfs(take(), &statistics);
}

void Request::ioctl(const void* data, std::size_t length_bytes) {
  fuse_reply_ioctl(take(), 0, data, length_bytes);
}

#if PLUMB_FUSE_HAS_STATX
void Request::statx(const Attributes& attributes) {
  struct statx converted = to_statx(attributes);
  fuse_reply_statx(take(), 0, &converted, attribute_timeout(attributes));
}
#endif

bool Request::data(const ReadPin& pin, InodeNumber inode) {
#if PLUMB_FUSE_HAS_IO_URING
  if (fuse_req_is_uring(request_)) {
    char* payload = nullptr;
    std::size_t payload_bytes = 0;
    if (fuse_req_get_payload(request_, &payload, &payload_bytes, nullptr) != 0 || payload_bytes < pin.length_bytes) {
      error(EIO);
      return true;  // the medium has not been asked
    }
    return data_by_copy(pin, inode, payload);
  }
#endif
  // More pieces than writev(2) takes, with one for the header.
  if (pin.iov.size() >= IOV_MAX) {
    const auto buffer = std::make_unique_for_overwrite<char[]>(pin.length_bytes);
    return data_by_copy(pin, inode, buffer.get());
  }
  // The kernel reads the mapping. Where it cannot, because the medium fails there, it ends the request with EIO by
  // itself.
  int result = 0;
  if (pin.iov.empty()) {
    result = fuse_reply_buf(take(), nullptr, 0);
  } else if (pin.iov.size() == 1) {
    result = fuse_reply_buf(take(), static_cast<const char*>(pin.iov[0].iov_base), pin.iov[0].iov_len);
  } else {
    result = fuse_reply_iov(take(), pin.iov.data(), static_cast<int>(pin.iov.size()));
  }
  const bool nobody_waits = result == -ENOENT || result == -ENODEV;  // the caller, or the mount, is gone
  if (result >= 0 || nobody_waits) return true;
  log_unreadable(inode);
  return false;
}

bool Request::data_by_copy(const ReadPin& pin, InodeNumber inode, char* buffer) {
  std::size_t copied_bytes = 0;
  for (const iovec& piece : pin.iov) {
    if (!pmem::guarded_copy(buffer + copied_bytes, piece.iov_base, piece.iov_len)) {
      log_unreadable(inode);
      error(EIO);
      return false;
    }
    copied_bytes += piece.iov_len;
  }
  static_cast<void>(bytes(buffer, copied_bytes));
  return true;
}

void log_exception(std::string_view what) noexcept {
  spdlog::error("a request failed: {}", what);
}

void forbid_cancellation(fuse_req_t request) noexcept {
#if PLUMB_FUSE_HAS_IO_URING
  // For good: such a thread notices the end of the session by its event descriptor.
  thread_local bool forbidden = false;
  if (forbidden || !fuse_req_is_uring(request)) return;
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
  forbidden = true;
#else
  static_cast<void>(request);
#endif
}

}  // namespace plumb::fuse
