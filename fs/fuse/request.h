// One request of the kernel, and its one reply.
//
// Invariants: a request is replied to exactly once. Callback<> makes sure of it: an exception before the reply becomes
// ENOMEM (served raw: a volume's daemon ends, see out_of_memory.h) or EIO, nothing passes into libfuse, and a handler
// that returns without a reply is a bug (assert). No lock is held across a reply: the kernel may send the forget or
// release that ends an object before the call returns.
//
// Thread safety: a Request belongs to the thread that handles it.
#pragma once

#include <pthread.h>
#include <sys/statvfs.h>

#include <cassert>
#include <cstddef>
#include <exception>
#include <new>
#include <string_view>

#include "fs/core/volume.h"
#include "fs/fuse/fuse_api.h"
#include "fs/fuse/server.h"
#include "pmem/result.h"

namespace plumb::fuse {

class Request {
 public:
  explicit Request(fuse_req_t request) : request_(request) {}
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  [[nodiscard]] fuse_req_t raw() const { return request_; }
  [[nodiscard]] bool replied() const { return replied_; }
  [[nodiscard]] const fuse_ctx& context() const { return *fuse_req_ctx(request_); }

  /// Who asks. The kernel has decided on most set-id questions before it asks us, hence the default.
  [[nodiscard]] Caller caller(bool may_keep_setid = true) const {
    return {.uid = context().uid, .gid = context().gid, .may_keep_setid = may_keep_setid};
  }
  /// Who asks, for operations on which the kernel does not say whether set-id bits go.
  [[nodiscard]] Caller caller_by_uid() const { return caller(context().uid == 0); }

  // Replies. Those that say "delivered" return false if the kernel did not take the reply (the caller was killed): then
  // whatever it would have owned, a lookup or an open file, has to be given back.
  void error(int code);
  void error(const Error& error);  // logs what a user of the file system cannot know
  void status(const Status& status);
  void ok() { error(0); }
  void none();
  bool entry(const fuse_entry_param& entry);                                // delivered
  bool created(const fuse_entry_param& entry, const fuse_file_info& file);  // delivered
  bool opened(const fuse_file_info& file);                                  // delivered
  bool bytes(const void* data, std::size_t length_bytes);                   // delivered
  void attributes(const Attributes& attributes);
  void text(const char* text);
  void count(std::size_t written_bytes);
  void offset(std::uint64_t offset_bytes);
  void xattr_size(std::size_t size_bytes);
  void statistics(const struct statvfs& statistics);
  void ioctl(const void* data, std::size_t length_bytes);
#if PLUMB_FUSE_HAS_STATX
  void statx(const Attributes& attributes);
#endif
  /// The bytes of `pin`, from the mapping straight into the kernel or the ring; EIO where the medium fails, and false.
  /// `inode` is for the log.
  bool data(const ReadPin& pin, InodeNumber inode);

 private:
  [[nodiscard]] fuse_req_t take() {
    assert(!replied_);
    replied_ = true;
    return request_;
  }
  bool data_by_copy(const ReadPin& pin, InodeNumber inode, char* buffer);

  const fuse_req_t request_;
  bool replied_ = false;
};

/// Logs what stopped a request although nobody asked for it.
void log_exception(std::string_view what) noexcept;

/// libfuse cancels the threads of its rings wherever they are; a cancelled handler would leave locks behind.
void forbid_cancellation(fuse_req_t request) noexcept;

/// The C callback of libfuse for a handler `void handler(S&, Request&, arguments...)`; S is the session's userdata.
template <auto Handler>
struct Callback;

template <typename S, typename... Arguments, void (*Handler)(S&, Request&, Arguments...)>
struct Callback<Handler> {
  static void call(fuse_req_t raw, Arguments... arguments) {
    forbid_cancellation(raw);
    Request request(raw);
    try {
      Handler(*static_cast<S*>(fuse_req_userdata(raw)), request, arguments...);
    } catch (const std::bad_alloc&) {
      if (!request.replied()) request.error(ENOMEM);
    } catch (const std::exception& exception) {
      log_exception(exception.what());
      if (!request.replied()) request.error(EIO);
    }
    assert(request.replied());
  }
};

}  // namespace plumb::fuse
