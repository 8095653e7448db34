#include "fs/fuse/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>
#include <syslog.h>

#include <atomic>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>

#include "fs/fuse/fuse_api.h"

namespace plumb::fuse {
namespace {

constexpr int kLinesPerPeriod = 20;
constexpr std::int64_t kPeriodSeconds = 10;

spdlog::level::level_enum level_of(fuse_log_level level) {
  switch (level) {
    case FUSE_LOG_EMERG:
    case FUSE_LOG_ALERT:
    case FUSE_LOG_CRIT:
      return spdlog::level::critical;
    case FUSE_LOG_ERR:
      return spdlog::level::err;
    case FUSE_LOG_WARNING:
      return spdlog::level::warn;
    case FUSE_LOG_NOTICE:
    case FUSE_LOG_INFO:
      return spdlog::level::info;
    default:
      return spdlog::level::debug;
  }
}

__attribute__((format(printf, 2, 0))) void log_of_libfuse(fuse_log_level level, const char* format, va_list arguments) {
  std::array<char, 1024> line{};
  const int written = std::vsnprintf(line.data(), line.size(), format, arguments);
  if (written <= 0) return;
  std::string_view text(line.data());
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  if (text.substr(0, 6) == "fuse: ") text.remove_prefix(6);
  spdlog::log(level_of(level), "libfuse: {}", text);
}

void use(std::shared_ptr<spdlog::logger> logger, const char* pattern, bool debug) {
  logger->set_pattern(pattern);
  logger->set_level(debug ? spdlog::level::debug : spdlog::level::info);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace

void start_log(bool debug, const std::string& program) {
  use(std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>()), "%n: %v", debug);
  fuse_set_log_func(log_of_libfuse);
}

Status check_log_file(const std::string& file) {
  if (file.empty() || std::ofstream(file, std::ios::app)) return {};
  return fail(errno, "the log file " + file);
}

Status log_to_file_or_syslog(const std::string& file, bool debug) {
  // By start_log().
  const std::string program = spdlog::default_logger()->name();
  try {
    if (file.empty()) {
      auto sink = std::make_shared<spdlog::sinks::syslog_sink_mt>(program, LOG_PID, LOG_DAEMON, false);
      use(std::make_shared<spdlog::logger>(program, std::move(sink)), "%v", debug);
    } else {
      auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
      use(std::make_shared<spdlog::logger>(program, std::move(sink)), "%Y-%m-%d %H:%M:%S.%e [%P] %l: %v", debug);
    }
  } catch (const std::exception& exception) {
    return fail(EIO, std::string("the log cannot be opened: ") + exception.what());
  }
  return {};
}

void log_failure(std::string_view message) {
  static std::atomic<std::int64_t> period{-1};
  static std::atomic<int> lines{0};
  const std::int64_t now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count() /
      kPeriodSeconds;
  std::int64_t seen = period.load(std::memory_order_relaxed);
  if (seen != now && period.compare_exchange_strong(seen, now, std::memory_order_relaxed)) {
    const int before = lines.exchange(0, std::memory_order_relaxed);
    if (before > kLinesPerPeriod) spdlog::error("{} similar messages were left out", before - kLinesPerPeriod);
  }
  if (lines.fetch_add(1, std::memory_order_relaxed) < kLinesPerPeriod) spdlog::error("{}", message);
}

}  // namespace plumb::fuse
