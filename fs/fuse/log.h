// Where the daemon's messages go: stderr until it is in the background, then syslog or the file of -o log=.
//
// The default logger of spdlog is ours; messages of libfuse go there too. Thread safety: log_* and spdlog's functions
// from any thread; the start_* functions before there are threads that log, or with spdlog's own locking of the default
// logger.
#pragma once

#include <string>
#include <string_view>

#include "pmem/result.h"

namespace plumb::fuse {

/// Log to stderr as "PROGRAM: message"; also takes over libfuse's messages.
void start_log(bool debug, const std::string& program = "plumbfs");

/// Whether `file` can be appended to; an empty name is fine.
[[nodiscard]] Status check_log_file(const std::string& file);

/// From now on to `file`, or to syslog if it is empty.
[[nodiscard]] Status log_to_file_or_syslog(const std::string& file, bool debug);

/// An error of the device or its structures, found by a request. A failing device must not fill the log: at most some
/// 20 lines in ten seconds, and how many were left out.
void log_failure(std::string_view message);

}  // namespace plumb::fuse
