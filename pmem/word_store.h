// Stores that a crash cannot tear inside an aligned 8-byte word.
//
// memcpy promises nothing about the size of its stores. The failure model of device.h does: every aligned 8-byte word
// holds one of the values that were stored into it. So whole words are stored with one instruction each, and a part of
// a word either with one instruction (1, 2, 4 bytes, aligned) or by exchanging the whole word.
//
// Thread safety: stores to different bytes of one word from several threads do not lose each other.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace plumb::pmem {

inline constexpr std::size_t kWordBytes = 8;

namespace word_store_internal {

template <typename Word>
inline void store_one(std::byte* destination, const std::byte* source) {
  Word value;
  std::memcpy(&value, source, sizeof value);
  __atomic_store_n(reinterpret_cast<Word*>(destination), value, __ATOMIC_RELAXED);
}

// `length_bytes` < 8 at any place inside one aligned word. Not inlined: rare, and it keeps the common path short.
// Not for the thread sanitizer: it would take the exchange of the whole word for a race with readers of the other
// bytes.
[[gnu::noinline, gnu::no_sanitize_thread]] inline void exchange_part(std::byte* destination, const std::byte* source,
                                                                     std::size_t length_bytes) {
  const std::size_t skip = reinterpret_cast<std::uintptr_t>(destination) % kWordBytes;
  auto* word = reinterpret_cast<std::uint64_t*>(destination - skip);
  std::uint64_t old_value = __atomic_load_n(word, __ATOMIC_RELAXED);
  std::uint64_t new_value = 0;
  do {
    new_value = old_value;
    std::memcpy(reinterpret_cast<std::byte*>(&new_value) + skip, source, length_bytes);
  } while (!__atomic_compare_exchange_n(word, &old_value, new_value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

inline void store_part(std::byte* destination, const std::byte* source, std::size_t length_bytes) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(destination) % length_bytes == 0;
  if (length_bytes == 4 && aligned) {
    store_one<std::uint32_t>(destination, source);
  } else if (length_bytes == 2 && aligned) {
    store_one<std::uint16_t>(destination, source);
  } else if (length_bytes == 1) {
    store_one<std::uint8_t>(destination, source);
  } else {
    exchange_part(destination, source, length_bytes);
  }
}

}  // namespace word_store_internal

/// Copies to a mapping. The word around the first and the last byte must be mapped entirely.
inline void store_words(std::byte* destination, const std::byte* source, std::size_t length_bytes) {
  using word_store_internal::store_one;
  using word_store_internal::store_part;
  const std::size_t skip = reinterpret_cast<std::uintptr_t>(destination) % kWordBytes;
  if (skip != 0 && length_bytes != 0) {
    const std::size_t head = std::min(length_bytes, kWordBytes - skip);
    store_part(destination, source, head);
    destination += head;
    source += head;
    length_bytes -= head;
  }
  for (; length_bytes >= kWordBytes; length_bytes -= kWordBytes) {
    store_one<std::uint64_t>(destination, source);
    destination += kWordBytes;
    source += kWordBytes;
  }
  if (length_bytes != 0) store_part(destination, source, length_bytes);
}

}  // namespace plumb::pmem
