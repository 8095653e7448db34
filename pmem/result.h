// Errors as values.
//
// Result<T> carries either a value or an Error: an errno, what it happened to and where. No exception leaves a layer of
// plumbfs on purpose; std::bad_alloc is caught at the FUSE boundary and becomes ENOMEM.
//
// Conventions for the code of bad media (never an assert):
//   EUCLEAN  structure is wrong although its checksum is right
//   EBADMSG  checksum is wrong
//   EIO      the medium failed
#pragma once

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>
#include <tl/expected.hpp>
#include <utility>

namespace plumb {

/// What went wrong. `code` is a positive errno; `detail` is empty for ordinary POSIX outcomes (ENOENT, EEXIST, ...) and
/// one clear clause that names the object otherwise; `offset_bytes` is the place on the device, or kNoOffset.
struct Error {
  static constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};

  int code = EIO;
  std::string detail;
  std::uint64_t offset_bytes = kNoOffset;

  /// "detail: strerror (offset N)"; for logs and tools.
  [[nodiscard]] std::string message() const {
    std::string text = detail;
    if (!text.empty()) text += ": ";
    text += std::generic_category().message(code);
    if (offset_bytes != kNoOffset) text += " (at byte " + std::to_string(offset_bytes) + ")";
    return text;
  }
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

[[nodiscard]] inline tl::unexpected<Error> fail(int code) {
  return tl::unexpected<Error>(Error{code, {}, Error::kNoOffset});
}
[[nodiscard]] inline tl::unexpected<Error> fail(int code, std::string detail,
                                                std::uint64_t offset_bytes = Error::kNoOffset) {
  return tl::unexpected<Error>(Error{code, std::move(detail), offset_bytes});
}

}  // namespace plumb

// Leaves the function with the error of `expr`, if it has one.
#define PLUMB_TRY(expr)                                                                \
  do {                                                                                 \
    auto plumb_try_result = (expr);                                                    \
    if (!plumb_try_result) return tl::unexpected(std::move(plumb_try_result).error()); \
  } while (false)

#define PLUMB_CONCAT_(a, b) a##b
#define PLUMB_CONCAT(a, b) PLUMB_CONCAT_(a, b)
// PLUMB_ASSIGN(auto x, expr): declares or assigns the value of `expr`, or leaves with its error.
#define PLUMB_ASSIGN(lhs, expr) PLUMB_ASSIGN_(PLUMB_CONCAT(plumb_result_, __LINE__), lhs, expr)
#define PLUMB_ASSIGN_(tmp, lhs, expr)                      \
  auto tmp = (expr);                                       \
  if (!tmp) return tl::unexpected(std::move(tmp).error()); \
  lhs = std::move(*tmp)
