#include "fs/fuse/out_of_memory.h"

#include <syslog.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string_view>

namespace plumb::fuse {

void end_when_out_of_memory() {
  std::set_new_handler([] {
    // Neither needs operator new, which the logger does.
    static constexpr std::string_view kMessage =
        "plumbfs: out of memory; the daemon ends, and nothing that was answered is lost: mount again\n";
    syslog(LOG_CRIT, "%s", kMessage.data());
    const ssize_t written = ::write(STDERR_FILENO, kMessage.data(), kMessage.size());
    static_cast<void>(written);  // there may be no terminal
    std::abort();
  });
}

}  // namespace plumb::fuse
