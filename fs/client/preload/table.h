// What this process knows about its descriptors: an entry for each number.
//
// An entry is one word:
//   unknown   nobody has looked yet, or the number has been closed since. Carries a version, another one after every
//   close. closing   from before a close to its end: everything goes to the kernel, and nobody looks. kernel    not a
//   regular file of a plumbfs, or not on the direct path. file      a File that it holds a reference to.
// Who looks remembers the word, and puts in its finding only if the word is still there: so a finding about a
// descriptor that has been closed meanwhile is not believed. A close that nobody told about (libc's own, of descriptors
// that it does not give out) leaves an entry "unknown" at worst, as those descriptors are never read by number; fclose
// and syscall(2) do tell.
//
// Thread safety: any; no locks.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace plumb::preload {

struct File;

class Entry {
 public:
  constexpr Entry() = default;
  constexpr explicit Entry(std::uint64_t word) : word_(word) {}
  static Entry of(File* file) { return Entry(reinterpret_cast<std::uint64_t>(file)); }
  static Entry kernel() { return Entry(kKernel); }
  /// "closing", and what it becomes, are different from all others there were.
  static Entry closing();
  [[nodiscard]] Entry closed() const { return Entry((word_ & ~kTags) | kUnknown); }

  [[nodiscard]] bool is_file() const { return (word_ & kTags) == 0 && word_ != 0; }
  [[nodiscard]] File* file() const { return reinterpret_cast<File*>(word_); }
  [[nodiscard]] bool is_unknown() const { return word_ == 0 || (word_ & kTags) == kUnknown; }
  [[nodiscard]] std::uint64_t word() const { return word_; }
  friend bool operator==(Entry a, Entry b) { return a.word_ == b.word_; }

 private:
  static constexpr std::uint64_t kTags = 7;
  static constexpr std::uint64_t kUnknown = 1;
  static constexpr std::uint64_t kClosing = 2;
  static constexpr std::uint64_t kKernel = 3;

  std::uint64_t word_ = 0;
};

inline constexpr std::size_t kPageEntries = 4096;
inline constexpr std::size_t kPages = 4096;  // descriptors from 16 Mi on go to the kernel

using Page = std::atomic<std::uint64_t>[kPageEntries];
extern std::atomic<std::uint64_t> first_page[kPageEntries];
extern std::atomic<std::atomic<std::uint64_t>*> pages[kPages];

/// Null for what is no descriptor, or has no page yet.
__attribute__((always_inline)) inline std::atomic<std::uint64_t>* find_place(int fd) {
  const auto number = static_cast<unsigned>(fd);
  if (__builtin_expect(number < kPageEntries, 1)) return &first_page[number];
  if (number / kPageEntries >= kPages) return nullptr;
  std::atomic<std::uint64_t>* const page = pages[number / kPageEntries].load(std::memory_order_acquire);
  return page == nullptr ? nullptr : &page[number % kPageEntries];
}
/// Makes the page. Null for what is no descriptor, and without memory.
std::atomic<std::uint64_t>* make_place(int fd);

__attribute__((always_inline)) inline Entry load(const std::atomic<std::uint64_t>* place) {
  return Entry(place->load(std::memory_order_acquire));
}

/// Calls function(fd) for every descriptor in [first, last] whose entry is a file.
template <typename Function>
void for_each_file(unsigned first, unsigned last, Function&& function) {
  for (std::uint64_t page = first / kPageEntries; page < kPages && page * kPageEntries <= last; ++page) {
    std::atomic<std::uint64_t>* const entries = page == 0 ? first_page : pages[page].load(std::memory_order_acquire);
    if (entries == nullptr) continue;
    for (std::uint64_t i = 0; i < kPageEntries; ++i) {
      const std::uint64_t fd = page * kPageEntries + i;
      if (fd >= first && fd <= last && load(&entries[i]).is_file()) function(static_cast<int>(fd));
    }
  }
}

}  // namespace plumb::preload
