#include "fs/client/preload/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <iterator>

#include "fs/client/preload/process.h"
#include "fs/client/preload/raw.h"
#include "fs/client/preload/thread.h"

namespace plumb::preload {
namespace {

struct Reason {
  char text[96];
  std::uint64_t times;
};
// Written with slow_lock held; the last one takes what does not fit.
struct Tally {
  std::atomic<std::uint64_t> direct;
  std::atomic<std::uint64_t> kernel;
  Reason reasons[8];
};
constinit Tally files{};
constinit Tally mappings{};
constinit std::atomic<bool> is_printed{false};
constinit char last[200] = "";

void note(Tally& tally, bool is_direct, const char* why) {
  (is_direct ? tally.direct : tally.kernel).fetch_add(1, std::memory_order_relaxed);
  if (is_direct || settings.stats == nullptr) return;
  for (Reason& reason : tally.reasons) {
    const bool is_last = &reason == std::end(tally.reasons) - 1;
    if (reason.times != 0 && !is_last && ::strncmp(reason.text, why, sizeof(reason.text) - 1) != 0) continue;
    if (reason.times == 0) {
      ::strncpy(reason.text, is_last ? "other reasons" : why, sizeof(reason.text) - 1);
    }
    ++reason.times;
    return;
  }
}

class Text {
 public:
  void add(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    va_list arguments;
    va_start(arguments, format);
    const int length = ::vsnprintf(text_ + length_, sizeof(text_) - length_, format, arguments);
    va_end(arguments);
    if (length > 0) length_ = std::min(sizeof(text_) - 1, length_ + static_cast<std::size_t>(length));
  }
  void add_tally(const char* name, const Tally& tally) {
    add("  %-7s direct %" PRIu64 ", kernel %" PRIu64 "\n", name, tally.direct.load(), tally.kernel.load());
    for (const Reason& reason : tally.reasons) {
      if (reason.times != 0) add("          %" PRIu64 " x %s\n", reason.times, reason.text);
    }
  }
  void write_to(const char* where) const {
    long fd = 2;
    if (::strcmp(where, "stderr") != 0) {
      fd = raw::call(SYS_openat, AT_FDCWD, where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
      if (raw::failed(fd)) {
        complain("%s: cannot write statistics: %s", where, ::strerrordesc_np(static_cast<int>(-fd)));
        return;
      }
    }
    raw::call(SYS_write, fd, text_, length_);
    if (fd != 2) raw::call(SYS_close, fd);
  }

 private:
  char text_[4096];
  std::size_t length_ = 0;
};

}  // namespace

void note_file(bool is_direct, const char* why) {
  if (!is_direct) ::strncpy(last, why, sizeof(last) - 1);
  note(files, is_direct, why);
}

void note_map(bool is_direct, const char* why) {
  note(mappings, is_direct, why);
}

const char* last_reason() {
  return last;
}

void print_stats() {
  if (settings.stats == nullptr || is_printed.exchange(true)) return;
  const Counters sum = sum_counters();
  const std::uint64_t operations =
      sum.direct_reads + sum.kernel_reads + sum.direct_writes + sum.kernel_writes + sum.syncs_saved + sum.kernel_syncs;
  if (files.direct.load() + files.kernel.load() + mappings.direct.load() + operations == 0) return;
  char name[16] = "?";
  const long fd = raw::call(SYS_openat, AT_FDCWD, "/proc/self/comm", O_RDONLY | O_CLOEXEC);
  if (!raw::failed(fd)) {
    const long length = raw::call(SYS_read, fd, name, sizeof(name) - 1);
    if (length > 0) name[length - 1] = '\0';
    raw::call(SYS_close, fd);
  }
  Text text;
  text.add("plumbfs: process %ld (%s)\n", raw::call(SYS_getpid), name);
  text.add_tally("files", files);
  text.add_tally("maps", mappings);
  text.add("  reads   direct %" PRIu64 " (%" PRIu64 " bytes), kernel %" PRIu64 " (%" PRIu64 " bytes)\n",
           sum.direct_reads, sum.direct_read_bytes, sum.kernel_reads, sum.kernel_read_bytes);
  text.add("  writes  direct %" PRIu64 " (%" PRIu64 " bytes), kernel %" PRIu64 " (%" PRIu64 " bytes)\n",
           sum.direct_writes, sum.direct_write_bytes, sum.kernel_writes, sum.kernel_write_bytes);
  text.add("  syncs   nothing to do %" PRIu64 ", kernel %" PRIu64 "\n", sum.syncs_saved, sum.kernel_syncs);
  text.write_to(settings.stats);
}

void forget_stats() {
  for (Tally* tally : {&files, &mappings}) {
    tally->direct.store(0);
    tally->kernel.store(0);
    ::memset(tally->reasons, 0, sizeof(tally->reasons));
  }
  is_printed.store(false);
}

}  // namespace plumb::preload
