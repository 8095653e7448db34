#include "fs/client/persist.h"

#include <cpuid.h>
#include <immintrin.h>

#include <atomic>
#include <cstdint>
#include <cstring>

namespace plumb::client {
namespace {

constexpr std::size_t kLineBytes = 64;
// Below it a copy through the cache and a flush of its lines are faster than streaming stores.
constexpr std::size_t kStreamFromBytes = 256;

enum class FlushWith : unsigned char { kUnknown, kClflush, kClflushopt, kClwb };

// Both are what every thread would find; whoever comes first stores it for the others.
std::atomic<FlushWith> flush_instruction{FlushWith::kUnknown};
constexpr unsigned char kUnknownWidth = 0xff;
std::atomic<unsigned char> widest{kUnknownWidth};

FlushWith find_flush() {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  FlushWith found = FlushWith::kClflush;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    if ((b & bit_CLWB) != 0) {
      found = FlushWith::kClwb;
    } else if ((b & bit_CLFLUSHOPT) != 0) {
      found = FlushWith::kClflushopt;
    }
  }
  flush_instruction.store(found, std::memory_order_relaxed);
  return found;
}

__attribute__((target("clwb"))) void flush_clwb(const char* line, const char* end) {
  for (; line < end; line += kLineBytes) _mm_clwb(const_cast<char*>(line));
}

__attribute__((target("clflushopt"))) void flush_clflushopt(const char* line, const char* end) {
  for (; line < end; line += kLineBytes) _mm_clflushopt(const_cast<char*>(line));
}

void flush_clflush(const char* line, const char* end) {
  for (; line < end; line += kLineBytes) _mm_clflush(line);
}

// Starts writing back the lines of the range; a fence waits for them.
void flush(const void* address, std::size_t length) {
  if (length == 0) return;
  const auto first = reinterpret_cast<std::uintptr_t>(address) & ~std::uintptr_t{kLineBytes - 1};
  const char* line = reinterpret_cast<const char*>(first);
  const char* end = static_cast<const char*>(address) + length;
  FlushWith with = flush_instruction.load(std::memory_order_relaxed);
  if (with == FlushWith::kUnknown) with = find_flush();
  switch (with) {
    case FlushWith::kClwb:
      flush_clwb(line, end);
      break;
    case FlushWith::kClflushopt:
      flush_clflushopt(line, end);
      break;
    default:
      flush_clflush(line, end);
      break;
  }
}

// The stream_ functions copy whole lines to an address that is a line's.

void stream_sse2(char* to, const char* from, std::size_t length) {
  for (; length > 0; to += kLineBytes, from += kLineBytes, length -= kLineBytes) {
    const auto* source = reinterpret_cast<const __m128i*>(from);
    auto* target = reinterpret_cast<__m128i*>(to);
    const __m128i a = _mm_loadu_si128(source);
    const __m128i b = _mm_loadu_si128(source + 1);
    const __m128i c = _mm_loadu_si128(source + 2);
    const __m128i d = _mm_loadu_si128(source + 3);
    _mm_stream_si128(target, a);
    _mm_stream_si128(target + 1, b);
    _mm_stream_si128(target + 2, c);
    _mm_stream_si128(target + 3, d);
  }
}

__attribute__((target("avx"))) void stream_avx(char* to, const char* from, std::size_t length) {
  for (; length > 0; to += kLineBytes, from += kLineBytes, length -= kLineBytes) {
    const auto* source = reinterpret_cast<const __m256i*>(from);
    auto* target = reinterpret_cast<__m256i*>(to);
    const __m256i a = _mm256_loadu_si256(source);
    const __m256i b = _mm256_loadu_si256(source + 1);
    _mm256_stream_si256(target, a);
    _mm256_stream_si256(target + 1, b);
  }
}

__attribute__((target("avx512f"))) void stream_avx512(char* to, const char* from, std::size_t length) {
  for (; length >= 4 * kLineBytes; to += 4 * kLineBytes, from += 4 * kLineBytes, length -= 4 * kLineBytes) {
    const __m512i a = _mm512_loadu_si512(from);
    const __m512i b = _mm512_loadu_si512(from + kLineBytes);
    const __m512i c = _mm512_loadu_si512(from + 2 * kLineBytes);
    const __m512i d = _mm512_loadu_si512(from + 3 * kLineBytes);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), a);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + kLineBytes), b);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + 2 * kLineBytes), c);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + 3 * kLineBytes), d);
  }
  for (; length > 0; to += kLineBytes, from += kLineBytes, length -= kLineBytes) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
  }
}

CopyWidth find_widest() {
  CopyWidth found = CopyWidth::kSse2;
  if (is_supported(CopyWidth::kAvx)) found = CopyWidth::kAvx;
  if (is_supported(CopyWidth::kAvx512)) found = CopyWidth::kAvx512;
  widest.store(static_cast<unsigned char>(found), std::memory_order_relaxed);
  return found;
}

}  // namespace

bool is_supported(CopyWidth width) noexcept {
  // Asks the operating system, too, whether it saves the registers.
  __builtin_cpu_init();
  switch (width) {
    case CopyWidth::kSse2:
      return true;
    case CopyWidth::kAvx:
      return __builtin_cpu_supports("avx") != 0;
    case CopyWidth::kAvx512:
      return __builtin_cpu_supports("avx512f") != 0;
  }
  return false;
}

void persist(const void* address, std::size_t length) noexcept {
  flush(address, length);
  _mm_sfence();
}

void copy_persist_with(CopyWidth width, void* to, const void* from, std::size_t length) noexcept {
  if (length < kStreamFromBytes) {
    std::memcpy(to, from, length);
    persist(to, length);
    return;
  }
  auto* target = static_cast<char*>(to);
  const auto* source = static_cast<const char*>(from);
  const std::size_t head = -reinterpret_cast<std::uintptr_t>(to) & (kLineBytes - 1);
  const std::size_t body = (length - head) & ~(kLineBytes - 1);
  const std::size_t tail = length - head - body;
  if (head > 0) {
    std::memcpy(target, source, head);
    flush(target, head);
  }
  switch (width) {
    case CopyWidth::kSse2:
      stream_sse2(target + head, source + head, body);
      break;
    case CopyWidth::kAvx:
      stream_avx(target + head, source + head, body);
      break;
    case CopyWidth::kAvx512:
      stream_avx512(target + head, source + head, body);
      break;
  }
  if (tail > 0) {
    std::memcpy(target + head + body, source + head + body, tail);
    flush(target + head + body, tail);
  }
  // Streaming stores and flushes are ordered by nothing else: before it the bytes may be in buffers of this processor,
  // after it they are in the domain of persistence.
  _mm_sfence();
}

void copy_persist(void* to, const void* from, std::size_t length) noexcept {
  const unsigned char known = widest.load(std::memory_order_relaxed);
  copy_persist_with(known == kUnknownWidth ? find_widest() : static_cast<CopyWidth>(known), to, from, length);
}

}  // namespace plumb::client
