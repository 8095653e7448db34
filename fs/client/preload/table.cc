#include "fs/client/preload/table.h"

#include <sys/mman.h>

#include "fs/client/preload/raw.h"

namespace plumb::preload {

constinit std::atomic<std::uint64_t> first_page[kPageEntries] = {};
constinit std::atomic<std::atomic<std::uint64_t>*> pages[kPages] = {};

namespace {
constinit std::atomic<std::uint64_t> versions{1};
}  // namespace

Entry Entry::closing() {
  return Entry((versions.fetch_add(1, std::memory_order_relaxed) << 3) | kClosing);
}

std::atomic<std::uint64_t>* make_place(int fd) {
  if (std::atomic<std::uint64_t>* const place = find_place(fd); place != nullptr) return place;
  const auto number = static_cast<unsigned>(fd);
  if (number / kPageEntries >= kPages) return nullptr;
  const long address =
      raw::call(SYS_mmap, nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw::failed(address)) return nullptr;
  std::atomic<std::uint64_t>* expected = nullptr;
  if (!pages[number / kPageEntries].compare_exchange_strong(
          expected, reinterpret_cast<std::atomic<std::uint64_t>*>(address), std::memory_order_acq_rel)) {
    raw::call(SYS_munmap, address, sizeof(Page));
  }
  return find_place(fd);
}

}  // namespace plumb::preload
