// The only door to the memory of a device.
//
// A Device maps one devdax device, block device or file, completely, shared, and offers loads, stores and durability on
// it. Every store of data and metadata goes through this interface: that is what makes crash testing (CrashDevice) and
// error handling possible. Nobody else casts the mapping to something writable.
//
// Durability contract
//   store / store_nt / zero   change the bytes that every later load sees at once. After a crash each may be there or
//   not:
//                             memory kind:  every aligned 8-byte word independently holds any value stored since its
//                             last
//                                           flush + drain (caches evict when they like);
//                             cached kind:  the death of the process loses nothing; after a power cut every 512-byte
//                                           sector independently holds any version since its last successful flush.
//   flush(range)              starts writing back the range. memory kind: clwb of its cache lines. cached kind: msync
//   of its
//                             pages; complete when it returns.
//   drain()                   after it, everything that was flushed (or stored with store_nt) before it by this thread
//   is
//                             durable. memory kind: sfence. cached kind: nothing left to do, counted all the same; a
//                             caller never relies on the kind.
//   deep_flush(range)         additionally past the memory controller, where the platform has a flush file.
// On the memory kind store_nt needs no flush, only the drain. On the cached kind store_nt is an ordinary store: flush
// it. So the one rule for callers: store or store_nt, flush, drain. (flush after store_nt on the memory kind is free:
// see flush_after_nt().)
//
// Errors: a machine check or a truncated / unbacked file under the mapping (SIGBUS) during a load or a store of this
// interface is EIO (or ENOSPC-like conditions of a sparse file: EIO with a detail that says so), never the death of the
// process. The place is kept for take_faults(), so that no caller has to remember to report it. A failed msync is EIO
// or what the kernel said; the pages count as lost.
//
// Thread safety: all functions may be called from any thread at the same time; overlapping stores are the caller's
// problem, as with memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "pmem/mutex.h"
#include "pmem/result.h"

#ifdef PLUMBFS_MUTATION
#include <source_location>

#include "pmem/mutation.h"
#endif

namespace plumb::pmem {

enum class DeviceKind : std::uint8_t {
  kMemory,  // loads and stores are the medium (or memory itself): flush = clwb, drain = sfence
  kCached,  // the kernel's page cache is in between: flush = msync
};

/// Facts about an open device; constant from open on.
struct DeviceInfo {
  std::string path;  // as given by the user
  DeviceKind kind = DeviceKind::kCached;
  std::string type;          // "devdax", "fsdax file", "tmpfs file", "file", "block device", "crash test double", ...
  bool is_volatile = false;  // contents do not survive a power cut at all (tmpfs, ram behind devdax)
  bool read_only = false;
  bool assumed_pmem = false;  // -o assume=pmem
  std::uint64_t size_bytes = 0;
  std::uint64_t align_bytes = 4096;  // granularity of mappings (devdax align), a power of two
  std::uint64_t device_number = 0;   // st_rdev of a device node, else 0
  std::uint64_t file_device = 0;     // st_dev and inode number of the file or node
  std::uint64_t file_inode = 0;
};

/// How to open. Claiming comes first, before any byte of the device is read.
struct OpenOptions {
  bool read_only = false;
  bool assume_pmem = false;  // treat a page-cached file as memory: tests only, logged loudly by the caller
  bool exclusive =
      true;  // claim: flock(LOCK_EX) on the mapped description (block device: also O_EXCL). EBUSY if taken.
  // What `exclusive` adds for a block device. False for a fuseblk mount, which the kernel refuses while the device is
  // held exclusively; the flock remains.
  bool hold_block_device = true;
  bool assert_persistent = false;  // user asserts that a devdax without nd region is persistent
};

/// Counters since open; relaxed, for statistics.
struct DeviceCounters {
  std::atomic<std::uint64_t> stored_bytes{0};
  std::atomic<std::uint64_t> flush_calls{0};
  std::atomic<std::uint64_t> flushed_bytes{0};
  std::atomic<std::uint64_t> drains{0};
  std::atomic<std::uint64_t> errors{0};
};

/// What each kind of device does in its own way. A class apart, so that a build for mutation tests can put itself
/// between callers and it.
class DeviceOperations {
 public:
  DeviceOperations(const DeviceOperations&) = delete;
  DeviceOperations& operator=(const DeviceOperations&) = delete;
  virtual ~DeviceOperations() = default;

  /// Cached stores: for small things that will be read again soon.
  [[nodiscard]] virtual Status store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) = 0;
  /// Streaming stores: for data and log records. memory kind: durable after the next drain() of this thread.
  [[nodiscard]] virtual Status store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) = 0;
  /// Streaming stores of zeros; same durability as store_nt.
  [[nodiscard]] virtual Status zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) = 0;

  [[nodiscard]] virtual Status flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) = 0;
  [[nodiscard]] virtual Status drain() = 0;
  [[nodiscard]] virtual Status deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes) = 0;

 protected:
  DeviceOperations() = default;
};

class Device : public DeviceOperations {
 public:
  [[nodiscard]] const DeviceInfo& info() const { return info_; }
  [[nodiscard]] std::uint64_t size_bytes() const { return info_.size_bytes; }
  [[nodiscard]] bool is_memory() const { return info_.kind == DeviceKind::kMemory; }
  [[nodiscard]] const DeviceCounters& counters() const { return counters_; }

  /// One sentence for the user: what survives the death of the daemon and a power cut.
  [[nodiscard]] std::string durability_sentence() const;

  /// The bytes [offset, offset+length) as they are mapped, for reading only. The caller keeps within size_bytes()
  /// (asserted). Touching poisoned or unbacked memory through it is SIGBUS unless done by load() or inside a guard.
  [[nodiscard]] const std::byte* view(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;

  /// Copies from the device. EIO on a machine check, EINVAL out of range.
  [[nodiscard]] Status load(std::uint64_t offset_bytes, std::span<std::byte> out) const;

  /// True if the range reads as zeros. EIO on a machine check.
  /// It may stop at the first byte that is not zero, and say so although the rest cannot be read.
  [[nodiscard]] Result<bool> is_zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;

  /// True if every cache line of the range can be loaded. A question about the medium: what it meets is no fault that
  /// take_faults() returns, and no error that is counted. The caller keeps within size_bytes() (asserted).
  [[nodiscard]] bool is_readable(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;

  /// Where loads and stores have met poison, or nothing at all, since the last call: offsets, each of a page that
  /// cannot be used. At most kMaxFaults are kept; whoever touches the place of another one again is told again.
  [[nodiscard]] std::vector<std::uint64_t> take_faults();
  static constexpr std::size_t kMaxFaults = 1024;

  /// The offset of a byte that view() has shown; nothing if the address is not of this device.
  [[nodiscard]] std::optional<std::uint64_t> offset_of(const void* address) const;

#ifndef PLUMBFS_MUTATION
  /// What store_nt and zero still need before drain(): nothing on the memory kind, flush() on the cached kind.
  [[nodiscard]] Status flush_after_nt(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    return is_memory() ? Status{} : flush(offset_bytes, length_bytes);
  }
  /// flush + drain of one range.
  [[nodiscard]] Status persist(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    PLUMB_TRY(flush(offset_bytes, length_bytes));
    return drain();
  }
#else
  // The same, and the operations that they hide, by way of pmem/mutation.h, which may leave out those of one place.
  using Site = std::source_location;
  [[nodiscard]] Status store(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
    return mutation::after_store(operations().store(offset_bytes, bytes));
  }
  [[nodiscard]] Status store_nt(std::uint64_t offset_bytes, std::span<const std::byte> bytes) {
    return mutation::after_store(operations().store_nt(offset_bytes, bytes));
  }
  [[nodiscard]] Status zero(std::uint64_t offset_bytes, std::uint64_t length_bytes) {
    return mutation::after_store(operations().zero(offset_bytes, length_bytes));
  }
  [[nodiscard]] Status flush(std::uint64_t offset_bytes, std::uint64_t length_bytes, Site where = Site::current()) {
    return mutation::perform(mutation::Call::kFlush, where,
                             [=, this] { return operations().flush(offset_bytes, length_bytes); });
  }
  [[nodiscard]] Status drain(Site where = Site::current()) {
    return mutation::perform(mutation::Call::kDrain, where, [this] { return operations().drain(); });
  }
  [[nodiscard]] Status deep_flush(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                                  Site where = Site::current()) {
    return mutation::perform(mutation::Call::kFlush, where,
                             [=, this] { return operations().deep_flush(offset_bytes, length_bytes); });
  }
  [[nodiscard]] Status flush_after_nt(std::uint64_t offset_bytes, std::uint64_t length_bytes,
                                      Site where = Site::current()) {
    return is_memory() ? Status{} : flush(offset_bytes, length_bytes, where);
  }
  [[nodiscard]] Status persist(std::uint64_t offset_bytes, std::uint64_t length_bytes, Site where = Site::current()) {
    PLUMB_TRY(flush(offset_bytes, length_bytes, where));
    return drain(where);
  }
#endif

 protected:
  Device() = default;
  [[nodiscard]] Status check_range(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
  /// check_range for a store: EROFS on a device that was opened for reading only.
  [[nodiscard]] Status check_store(std::uint64_t offset_bytes, std::uint64_t length_bytes) const;
  /// The error of a SIGBUS at `address` inside the mapping; counts it and keeps the place.
  [[nodiscard]] tl::unexpected<Error> fault_error(const std::byte* address, bool is_poison) const;

  DeviceInfo info_;
  std::byte* base_ = nullptr;  // the mapping, or the working image of a test double
  mutable DeviceCounters counters_;

 private:
  mutable Mutex fault_mutex_;  // leaf
  mutable std::vector<std::uint64_t> faults_ PLUMB_GUARDED_BY(fault_mutex_);

#ifdef PLUMBFS_MUTATION
  [[nodiscard]] DeviceOperations& operations() {
    return *this;
  }
#endif
};

/// Opens, claims (first of all) and maps `path`; picks the kind as documented in fs/DESIGN.md, "Devices".
/// Errors, each with a clear detail: ENOENT, EACCES, EBUSY (in use by another plumbfs, a mount, swap, md, ...),
/// ENODEV (a dax device in system-ram mode, or not bound to device_dax), EINVAL (not a file or device; PMEM_NO_FLUSH=1
/// in the environment; empty), EROFS.
[[nodiscard]] Result<std::unique_ptr<Device>> open_device(const std::string& path, const OpenOptions& options);

}  // namespace plumb::pmem
