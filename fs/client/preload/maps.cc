#include "fs/client/preload/maps.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fs/client/preload/addresses.h"
#include "fs/client/preload/device_pages.h"
#include "fs/client/preload/file.h"
#include "fs/client/preload/map_table.h"
#include "fs/client/preload/process.h"
#include "fs/client/preload/raw.h"
#include "fs/client/preload/slow_lock.h"
#include "fs/client/preload/stats.h"
#include "fs/client/preload/thread.h"

namespace plumb::preload {
namespace {

constexpr std::size_t kCopyMax = std::size_t{256} << 20;  // of a private map without copy-on-write

constexpr int kKnownFlags = MAP_TYPE | MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_SYNC | MAP_POPULATE | MAP_LOCKED |
                            MAP_NORESERVE | MAP_32BIT | MAP_NONBLOCK | MAP_DENYWRITE | MAP_EXECUTABLE;

// A reference to the file of `fd`, or null.
File* hold_file(int fd, Purpose purpose) {
  Entry entry;
  File* const file = find_file(fd, MayWait::kYes, &entry, purpose);
  if (file == nullptr) return nullptr;
  const Use use(file);
  if (!use || !(load(find_place(fd)) == entry)) return nullptr;
  hold(file);
  return file;
}

class Held {
 public:
  explicit Held(File* file) : file_(file) {}
  ~Held() {
    if (file_ != nullptr) drop(file_);
  }
  Held(const Held&) = delete;
  Held& operator=(const Held&) = delete;
  File* operator->() const { return file_; }
  [[nodiscard]] File* get() const { return file_; }
  explicit operator bool() const { return file_ != nullptr; }

 private:
  File* file_;
};

struct Request {
  std::size_t length;
  int protection;
  int flags;
  off64_t offset;
  [[nodiscard]] bool is_shared() const { return (flags & MAP_TYPE) != MAP_PRIVATE; }
  [[nodiscard]] bool is_sync() const { return (flags & MAP_TYPE) == MAP_SHARED_VALIDATE && (flags & MAP_SYNC) != 0; }
  [[nodiscard]] bool stores() const { return (protection & PROT_WRITE) != 0; }
};

// ---- Bookkeeping, with slow_lock held ----

void note_stores(const Map& map) {
  if (map.served == Served::kByDevice && map.is_shared && map.may_store) map.file->owned->note_stores();
}

// The addresses belong to somebody else, or nobody, by now.
void forget(std::uintptr_t start, std::uintptr_t end) {
  if (!maps.overlaps(start, end)) return;
  maps.split(start);
  maps.split(end);
  for (std::size_t index = maps.find(start); index < maps.size() && maps.at(index).start < end;) {
    const Map map = maps.at(index);
    maps.remove(index);
    note_stores(map);
    drop(map.file);
  }
}

void remember(void* address, const Request& request, File* file, Served served, bool may_store) {
  hold(file);
  if (may_store) file->stores_mapped.store(true, std::memory_order_relaxed);
  maps.insert({number(address), number(address) + whole_pages(request.length),
               static_cast<std::uint64_t>(request.offset), file, request.protection, served, request.is_shared(),
               may_store, request.is_sync()});
}

// ---- mmap ----

// Nothing but success is decided here: what is wrong with a request the kernel says.
bool can_be_direct(const File& file, const Request& request) {
  const int type = request.flags & MAP_TYPE;
  if (type != MAP_SHARED && type != MAP_PRIVATE && type != MAP_SHARED_VALIDATE) return false;
  if ((request.flags & ~kKnownFlags) != 0 || (request.protection & ~(PROT_READ | PROT_WRITE)) != 0) return false;
  if (request.length == 0 || request.offset < 0 || request.offset % kPageBytes != 0) return false;
  if (request.length > static_cast<std::size_t>(INT64_MAX) - static_cast<std::size_t>(request.offset) - kHugeBytes)
    return false;
  if (!file.reads.load(std::memory_order_relaxed) || file.anchor == nullptr) return false;
  return !request.is_shared() || !request.stores() || file.opened_write;
}

// Bytes of the file in memory of its own: a private map that is stored to, of a device that refuses MAP_PRIVATE
// (devdax) or would need whole pages of its own for it (hugetlbfs). False with errno.
bool copy_file(void* address, client::DirectFile& direct, const Request& request) {
  const auto offset = static_cast<std::uint64_t>(request.offset);
  std::uint64_t size = 0;
  const std::size_t whole = whole_pages(request.length);
  const bool is_known = direct.size(&size);
  if (whole > kCopyMax || !is_known || offset + whole > size + kPageBytes) {
    errno = whole > kCopyMax ? ENOMEM : is_known ? ENXIO : ENOTCONN;
    return false;
  }
  if (raw_mmap(address, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
    return false;
  const std::size_t wanted = std::min<std::uint64_t>(whole, size - std::min(size, offset));
  std::size_t done = 0;
  while (done < wanted) {
    const ssize_t got = direct.read(static_cast<std::byte*>(address) + done, wanted - done, offset + done);
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  if (done == wanted && raw::call(SYS_mprotect, address, whole, request.protection) == 0) return true;
  errno = ENXIO;  // a hole
  raw_mmap(address, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  return false;
}

// A map that is being made: who serves it, and what it takes beside itself.
struct Plan {
  Served served = Served::kByDevice;
  client::Padding padding;
};

// How a private map is served where the device has none.
Served served_apart(const Request& request) {
  return request.stores() ? Served::kByCopy : Served::kByDeviceRead;
}

// False with errno.
bool plan_map(client::DirectFile& direct, const Request& request, Plan* plan) {
  const bool has_large_pages = direct.align_bytes() > kPageBytes;
  if (!request.is_shared() && has_large_pages) {
    plan->served = served_apart(request);
    if (plan->served == Served::kByCopy) return true;
  }
  const bool stores = request.is_shared() && request.stores();
  return direct.find_padding(request.length, static_cast<std::uint64_t>(request.offset), stores, &plan->padding) == 0;
}

// At addresses that are ours to use. False with errno.
bool map_direct_at(void* address, File& file, const Request& request, const Plan& plan) {
  const bool stores = request.is_shared() && request.stores();
  client::DirectFile& direct = *file.owned;
  if (plan.served == Served::kByCopy) {
    if (!copy_file(address, direct, request)) return false;
  } else {
    int flags = request.flags & (MAP_TYPE | MAP_SYNC | MAP_POPULATE | MAP_LOCKED);
    if ((flags & MAP_TYPE) == MAP_SHARED) flags &= ~MAP_SYNC;  // ignored there, as by the kernel
    if (plan.served == Served::kByDeviceRead) flags = MAP_SHARED;
    const auto offset = static_cast<std::uint64_t>(request.offset);
    if (direct.map(address, request.length, offset, request.protection, stores, flags, plan.padding) != 0) return false;
  }
  forget(number(address), number(address) + whole_pages(request.length));
  remember(address, request, &file, plan.served, stores);
  return true;
}

// MAP_FAILED with errno: the kernel is to be asked, with the same request.
void* map_direct(void* address, File& file, const Request& request) {
  client::DirectFile& direct = *file.owned;
  const bool is_fixed = (request.flags & MAP_FIXED) != 0;
  Plan plan;
  if (!plan_map(direct, request, &plan)) return MAP_FAILED;
  const std::size_t align = plan.served == Served::kByCopy ? kPageBytes : direct.align_bytes();
  const client::Padding& padding = plan.padding;
  // What is around a fixed address is the program's.
  const bool is_padded = padding.before + padding.after > 0;
  if (is_fixed && (is_padded || number(address) % kPageBytes != 0)) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  void* const place = is_fixed ? address
                               : reserve(address, request.length, request.flags,
                                         static_cast<std::uint64_t>(request.offset), align, padding);
  if (place == MAP_FAILED) return place;
  const std::uintptr_t room = number(place) - padding.before;
  const std::size_t room_bytes = padding.before + whole_pages(request.length) + padding.after;
  if ((request.flags & MAP_FIXED_NOREPLACE) != 0 && place != address) {
    raw_munmap(pointer(room), room_bytes);  // a kernel that does not know the flag
    errno = EEXIST;
    return MAP_FAILED;
  }
  bool done = map_direct_at(place, file, request, plan);
  if (!done && errno == EINVAL && !request.is_shared() && plan.served == Served::kByDevice) {
    plan.served = served_apart(request);
    done = map_direct_at(place, file, request, plan);
  }
  if (done) return place;
  const int error = errno;
  if (!is_fixed) raw_munmap(pointer(room), room_bytes);
  errno = error;
  return MAP_FAILED;
}

// ---- Files that are left to the kernel ----

// What was direct of the inode becomes the kernel's, at the same addresses: the page cache has nothing of it yet, and
// takes what is on the device. False if there is no descriptor to do it by; then some are as they were.
bool give_maps_to_kernel(Inode* inode) {
  for (std::size_t index = 0; index < maps.size(); ++index) {
    Map& map = maps.at(index);
    if (map.file->inode != inode || map.served == Served::kByKernel || map.served == Served::kByCopy) continue;
    if (!map.is_shared && map.served == Served::kByDevice && (map.protection & PROT_WRITE) != 0)
      continue;  // has copies
    const bool writing = map.is_shared && map.file->opened_write;
    const int fd = find_descriptor(inode, nullptr, writing);
    if (fd < 0) return false;
    note_stores(map);
    const int flags = MAP_FIXED | (map.is_shared ? MAP_SHARED : MAP_PRIVATE);
    // Device pages go as a whole; their padding is of the file, too.
    const AddressRange whole = device_pages_of(map);
    const auto offset = static_cast<off64_t>(map.offset - (map.start - whole.begin));
    const void* const done = raw_mmap(pointer(whole.begin), whole.length(), map.protection, flags, fd, offset);
    if (done == MAP_FAILED) return false;
    map.served = Served::kByKernel;
    map.may_store = false;
    unmap_gaps(whole);
  }
  return true;
}

// Who has such a map of a file makes its stores durable by flushes alone: to the page cache they would be nothing.
bool has_sync_map(const Inode* inode) {
  for (std::size_t index = 0; index < maps.size(); ++index) {
    const Map& map = maps.at(index);
    if (map.file->inode == inode && map.is_sync && map.served == Served::kByDevice) return true;
  }
  return false;
}

void* map_by_kernel(void* address, File& file, const Request& request, int fd, const char* why) {
  if (file.owned != nullptr && has_sync_map(file.inode)) {
    note_map(false, why);
    errno = EOPNOTSUPP;
    return MAP_FAILED;
  }
  void* const place = raw_mmap(address, request.length, request.protection, request.flags, fd, request.offset);
  if (place == MAP_FAILED) return place;
  forget(number(place), number(place) + whole_pages(request.length));
  if (file.owned == nullptr) return place;
  note_map(false, why);
  Inode* const inode = file.inode;
  if (!inode->by_kernel) {
    leave_to_kernel(inode);
    if (!give_maps_to_kernel(inode)) {
      raw_munmap(place, request.length);
      errno = ENOMEM;
      return MAP_FAILED;
    }
  }
  remember(place, request, &file, Served::kByKernel, false);
  return place;
}

const char* reason_of(int error) {
  switch (error) {
    case ENXIO:
      return "a hole, or beyond the end of the file";
    case EINVAL:
      return "blocks below the page, or not aligned for the device";
    case EOPNOTSUPP:
      return "MAP_SYNC without a device that has it";
    default:
      return ::strerrordesc_np(error);
  }
}

}  // namespace

void* map_file(void* address, std::size_t length, int protection, int flags, int fd, off64_t offset) {
  const bool is_shared = (flags & MAP_TYPE) != MAP_PRIVATE;
  const Held file((flags & MAP_ANONYMOUS) == 0 ? hold_file(fd, is_shared ? Purpose::kShare : Purpose::kAny) : nullptr);
  const bool replaces = (flags & MAP_FIXED) != 0 && maps.may_have(number(address), number(address) + length);
  if (!file && !replaces) return raw_mmap(address, length, protection, flags, fd, offset);

  const int saved = errno;
  const Slow slow(Slow::How::kWait);
  if (!slow || !owns_tables()) return raw_mmap(address, length, protection, flags, fd, offset);
  if (replaces && make_way(number(address), number(address) + whole_pages(length))) {
    forget(number(address), number(address) + whole_pages(length));
  }
  if (!file) {
    void* const place = raw_mmap(address, length, protection, flags, fd, offset);
    if (place != MAP_FAILED) forget(number(place), number(place) + whole_pages(length));
    return place;
  }
  const Request request{length, protection, flags, offset};
  const char* why = "the file is left to the kernel";
  if (file->direct.load(std::memory_order_acquire) != nullptr) {
    why = "protection or flags that only the kernel has";
    if (can_be_direct(*file.get(), request)) {
      file->owned->use_descriptor(fd);
      void* const place = map_direct(address, *file.get(), request);
      if (place != MAP_FAILED) {
        note_map(true, "");
        errno = saved;
        return place;
      }
      why = reason_of(errno);
    }
  }
  void* const place = map_by_kernel(address, *file.get(), request, fd, why);
  if (place != MAP_FAILED) errno = saved;
  return place;
}

int unmap(void* address, std::size_t length) {
  const std::uintptr_t start = number(address);
  const std::uintptr_t end = start + whole_pages(length);
  if (!maps.may_have(start, end) || start % kPageBytes != 0) return raw_munmap(address, length);
  const Slow slow(Slow::How::kWait);
  if (!slow) return raw_munmap(address, length);
  const int result = unmap_pages(start, end);
  if (result == 0) {
    const int saved = errno;
    forget(start, end);
    bury();
    errno = saved;
  }
  return result;
}

// ---- mprotect ----

namespace {

// A private map of shared device pages gets memory of its own, at the same addresses: whole device pages, in one step.
bool copy_apart(std::size_t index) {
  const AddressRange whole = device_pages_of(maps.at(index));
  if (whole.length() > kCopyMax) return false;
  void* const copy = raw_mmap(nullptr, whole.length(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (copy == MAP_FAILED) return false;
  const bool is_readable = (maps.at(index).protection & PROT_READ) != 0 ||
                           raw::call(SYS_mprotect, whole.begin, whole.length(), PROT_READ) == 0;
  if (!is_readable) {
    raw_munmap(copy, whole.length());
    return false;
  }
  std::memcpy(copy, pointer(whole.begin), whole.length());
  const long moved =
      raw::call(SYS_mremap, copy, whole.length(), whole.length(), MREMAP_MAYMOVE | MREMAP_FIXED, pointer(whole.begin));
  if (raw::failed(moved)) {
    raw_munmap(copy, whole.length());
    return false;
  }
  maps.split(whole.begin);
  maps.split(whole.end);
  for (std::size_t at = maps.find(whole.begin); at < maps.size() && maps.at(at).start < whole.end; ++at)
    maps.at(at).served = Served::kByCopy;
  unmap_gaps(whole);
  return true;
}

// 0 or the errno: what has to be so before the kernel may let the map be stored to.
int prepare_stores(std::size_t index) {
  Map& map = maps.at(index);
  if (map.served == Served::kByKernel || map.served == Served::kByCopy) return 0;
  if (!map.is_shared) return map.served == Served::kByDevice || copy_apart(index) ? 0 : ENOMEM;
  if (!map.file->opened_write) return EACCES;
  if (map.may_store) return 0;
  const int fd = find_descriptor(map.file->inode, map.file, true);
  if (fd >= 0) {
    client::DirectFile& direct = *map.file->owned;
    direct.use_descriptor(fd);
    client::Padding padding;
    if (direct.find_padding(map.length(), map.offset, true, &padding) != 0 ||
        direct.map(pointer(map.start), map.length(), map.offset, map.protection, true, MAP_SHARED, padding) != 0) {
      return ENOMEM;
    }
  }
  map.may_store = true;
  map.file->stores_mapped.store(true, std::memory_order_relaxed);
  return 0;
}

}  // namespace

int protect(void* address, std::size_t length, int protection, int key) {
  const std::uintptr_t start = number(address);
  const std::uintptr_t end = start + whole_pages(length);
  const auto change = [&] {
    const long result = key == -1 ? raw::call(SYS_mprotect, address, length, protection)
                                  : raw::call(SYS_pkey_mprotect, address, length, protection, key);
    return static_cast<int>(raw::posix(result));
  };
  if (start % kPageBytes != 0 || !maps.may_have(start, end)) return change();
  const int saved = errno;
  const Slow slow(Slow::How::kWait);
  if (!slow || !maps.overlaps(start, end)) return change();
  maps.split(start);
  maps.split(end);
  if (!may_protect(start, end, protection)) {
    errno = EINVAL;  // as of the device itself
    return -1;
  }
  for (std::size_t index = maps.find(start); index < maps.size() && maps.at(index).start < end; ++index) {
    if ((protection & PROT_WRITE) != 0) {
      if (const int error = prepare_stores(index); error != 0) {
        errno = error;
        return -1;
      }
    }
    const Map& map = maps.at(index);
    if (map.served == Served::kByDevice && map.may_store) note_stores(map);
  }
  const AddressRange whole = protected_with(start, end);
  if (raw::posix(raw::call(SYS_mprotect, whole.begin, whole.end - whole.begin, protection)) != 0) return -1;
  for (std::size_t index = maps.find(start); index < maps.size() && maps.at(index).start < end; ++index)
    maps.at(index).protection = protection;
  errno = saved;
  return 0;
}

// ---- remap_file_pages ----

namespace {

// The one direct file that all of the range is shared maps of, or null.
File* direct_file_of(std::uintptr_t start, std::uintptr_t end) {
  File* file = nullptr;
  for (std::size_t index = maps.find(start); start < end; ++index) {
    if (index == maps.size()) return nullptr;
    const Map& map = maps.at(index);
    const bool fits = map.start <= start && map.served == Served::kByDevice && map.is_shared;
    if (!fits || (file != nullptr && map.file != file)) return nullptr;
    file = map.file;
    start = map.end;
  }
  return file;
}

}  // namespace

// The kernel would take the page for one of the device. What it serves itself becomes maps that this table does not
// know the offsets of; they are asked for by nobody.
int remap_pages(void* address, std::size_t length, int protection, std::size_t page, int flags) {
  const std::uintptr_t start = number(address) & ~(kPageBytes - 1);
  const std::uintptr_t end = start + (length & ~(kPageBytes - 1));
  const auto by_kernel = [&] {
    return static_cast<int>(raw::posix(raw::call(SYS_remap_file_pages, address, length, protection, page, flags)));
  };
  if (protection != 0 || end <= start || !maps.may_have(start, end)) return by_kernel();
  const int saved = errno;
  const Slow slow(Slow::How::kWait);
  if (!slow || !owns_tables() || !maps.overlaps(start, end)) return by_kernel();
  const Map first = maps.at(maps.find(start));
  if (first.served == Served::kByKernel) return by_kernel();
  File* const file = direct_file_of(start, end);
  const auto offset = static_cast<off64_t>(page * kPageBytes);
  const Request request{end - start, first.protection, MAP_SHARED | MAP_FIXED, offset};
  if (file == nullptr || page > INT64_MAX / kPageBytes || !can_be_direct(*file, request)) {
    errno = EINVAL;
    return -1;
  }
  const int fd = find_descriptor(file->inode, file, request.stores());
  if (fd < 0) {
    errno = ENOMEM;
    return -1;
  }
  file->owned->use_descriptor(fd);
  hold(file);
  const bool done = map_direct(pointer(start), *file, request) != MAP_FAILED;
  drop(file);
  errno = done ? saved : EINVAL;
  return done ? 0 : -1;
}

// ---- mremap ----

namespace {

void* fail_with(int error) {
  errno = error;
  return MAP_FAILED;
}

// The rest of a map that has grown in place, or all of it elsewhere.
bool map_part(const Map& map, std::uintptr_t address, std::uint64_t from, std::size_t length,
              const client::Padding& padding) {
  const bool shares = map.is_shared || map.served == Served::kByDeviceRead;
  return map.file->owned->map(pointer(address), length, map.offset + from, map.protection, map.may_store,
                              shares ? MAP_SHARED : MAP_PRIVATE, padding) == 0;
}

// True if it is done, else false with errno: EEXIST if something is behind it.
bool grow_in_place(const Map& map, std::size_t more) {
  void* const place = raw_mmap(pointer(map.end), more, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  if (place != pointer(map.end)) {
    if (place != MAP_FAILED) raw_munmap(place, more);
    errno = EEXIST;
    return false;
  }
  if (map_part(map, map.end, map.length(), more, {})) {
    maps.at(maps.find(map.start)).end += more;
    return true;
  }
  const int error = errno;
  raw_munmap(place, more);
  errno = error;
  return false;
}

// A map of device pages, which are pieces to the kernel, moved or made longer.
void* remap_direct(const Map map, std::size_t new_length, int flags, void* new_address) {
  const int fd = find_descriptor(map.file->inode, map.file, map.may_store);
  if (fd < 0) return fail_with(ENOMEM);
  client::DirectFile& direct = *map.file->owned;
  direct.use_descriptor(fd);
  const bool is_fixed = (flags & MREMAP_FIXED) != 0;
  // Of large device pages the last one may have to change, so these always move.
  if (!is_fixed && new_length > map.length() && direct.align_bytes() == kPageBytes) {
    if (grow_in_place(map, new_length - map.length())) return pointer(map.start);
    if (errno != EEXIST) return MAP_FAILED;
  }
  if ((flags & MREMAP_MAYMOVE) == 0) return fail_with(ENOMEM);
  client::Padding padding;
  if (direct.find_padding(new_length, map.offset, map.may_store, &padding) != 0) return MAP_FAILED;
  if (is_fixed && padding.before + padding.after > 0) return fail_with(EINVAL);
  void* const place =
      is_fixed ? new_address : reserve(nullptr, new_length, 0, map.offset, direct.align_bytes(), padding);
  if (place == MAP_FAILED) return place;
  if (!map_part(map, number(place), 0, new_length, padding)) {
    const int error = errno;
    const std::size_t room_bytes = padding.before + new_length + padding.after;
    if (!is_fixed) raw_munmap(pointer(number(place) - padding.before), room_bytes);
    return fail_with(error);
  }
  Map moved = map;
  moved.start = number(place);
  moved.end = moved.start + new_length;
  forget(moved.start, moved.end);
  hold(moved.file);
  maps.insert(moved);
  unmap_pages(map.start, map.end);
  forget(map.start, map.end);
  return place;
}

void* remap_locked(std::uintptr_t start, std::size_t old_length, std::size_t new_length, int flags, void* new_address) {
  const auto by_kernel = [&] {
    return reinterpret_cast<void*>(
        raw::posix(raw::call(SYS_mremap, pointer(start), old_length, new_length, flags, new_address)));
  };
  const std::uintptr_t end = start + old_length;
  const bool is_fixed = (flags & MREMAP_FIXED) != 0;
  if (start % kPageBytes != 0 || new_length == 0 || (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED)) != 0 ||
      (is_fixed && (flags & MREMAP_MAYMOVE) == 0)) {
    // Refused by the kernel, MREMAP_DONTUNMAP apart, which pieces of a map cannot have.
    return maps.overlaps(start, end) && (flags & MREMAP_DONTUNMAP) != 0 ? fail_with(EINVAL) : by_kernel();
  }
  if (is_fixed) {
    const std::uintptr_t to = number(new_address);
    if (to % kPageBytes != 0 || (to < end && start < to + new_length)) return fail_with(EINVAL);
  }
  if (!maps.overlaps(start, std::max(end, start + 1))) {
    void* const place = by_kernel();
    if (place != MAP_FAILED && is_fixed) forget(number(place), number(place) + new_length);
    return place;
  }
  if (const std::size_t index = maps.find(start);
      old_length == 0 || maps.at(index).start > start || maps.at(index).end < end) {
    return fail_with(old_length == 0 ? EINVAL : EFAULT);
  }
  maps.split(start);
  maps.split(end);
  Map map = maps.at(maps.find(start));
  if (!is_fixed && new_length <= old_length) {
    if (new_length < old_length) {
      if (unmap_pages(start + new_length, end) != 0) return MAP_FAILED;
      forget(start + new_length, end);
    }
    return pointer(start);
  }
  if (map.served == Served::kByDevice || map.served == Served::kByDeviceRead) {
    const bool has_copies = !map.is_shared && (map.protection & PROT_WRITE) != 0;
    if (has_copies) return fail_with(ENOMEM);
    void* const place = remap_direct(map, new_length, flags, new_address);
    const bool is_for_kernel = place == MAP_FAILED && (errno == ENXIO || errno == EINVAL);
    if (!is_for_kernel) return place;
    if (has_sync_map(map.file->inode)) return fail_with(ENOMEM);
    // Longer than the file, mostly. The map becomes the kernel's, one piece, and is moved as that.
    leave_to_kernel(map.file->inode);
    if (!give_maps_to_kernel(map.file->inode)) return fail_with(ENOMEM);
    map.served = Served::kByKernel;
    map.may_store = false;
  }
  if (map.served == Served::kByCopy && new_length > old_length) return fail_with(ENOMEM);
  void* const place = by_kernel();
  if (place == MAP_FAILED) return place;
  hold(map.file);
  forget(start, end);
  forget(number(place), number(place) + new_length);
  Map moved = map;
  moved.start = number(place);
  moved.end = moved.start + new_length;
  maps.insert(moved);
  return place;
}

}  // namespace

void* remap(void* address, std::size_t old_length, std::size_t new_length, int flags, void* new_address) {
  const std::uintptr_t start = number(address);
  const std::size_t old_whole = whole_pages(old_length);
  const std::size_t new_whole = whole_pages(new_length);
  const bool concerns =
      maps.may_have(start, start + old_whole + 1) ||
      ((flags & MREMAP_FIXED) != 0 && maps.may_have(number(new_address), number(new_address) + new_whole));
  if (concerns) {
    const int saved = errno;
    if (const Slow slow(Slow::How::kWait); slow) {
      void* const place = remap_locked(start, old_whole, new_whole, flags, new_address);
      if (place != MAP_FAILED) errno = saved;
      return place;
    }
  }
  return reinterpret_cast<void*>(
      raw::posix(raw::call(SYS_mremap, address, old_length, new_length, flags, new_address)));
}

void note_all_stores() {
  if (const Slow slow(Slow::How::kTry); slow) {
    for (std::size_t index = 0; index < maps.size(); ++index) note_stores(maps.at(index));
  }
}

}  // namespace plumb::preload
