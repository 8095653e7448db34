// Which file each thread is copying from or to at the moment, so that who closes a file can wait for it.
//
// A thread writes the file into its slot, looks again whether its descriptor still leads to the file, and only then
// copies. Who closes takes the file out of the table of descriptors, and then looks at the slots. One of the two sees
// the other: between its store and its load the closer has all threads pass a full barrier (membarrier(2)), which is
// why the copying side needs none; without that system call it has one.
//
// A signal handler may read and write in the middle of a copy of its own thread, so a thread has a few slots, used as
// a stack. A handler that leaves by siglongjmp leaves its slots behind; they are found out by the address of the
// stack frame.
//
// Thread safety: any. Nothing here takes a lock or allocates by malloc.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace plumb::preload {

struct File;

/// What one thread did with files of plumbfs.
struct Counters {
  std::uint64_t direct_reads = 0;
  std::uint64_t direct_read_bytes = 0;
  std::uint64_t direct_writes = 0;
  std::uint64_t direct_write_bytes = 0;
  std::uint64_t kernel_reads = 0;
  std::uint64_t kernel_read_bytes = 0;
  std::uint64_t kernel_writes = 0;
  std::uint64_t kernel_write_bytes = 0;
  std::uint64_t syncs_saved = 0;
  std::uint64_t kernel_syncs = 0;
};

inline constexpr unsigned kThreadSlots = 4;

struct alignas(128) Thread {
  std::atomic<unsigned> depth;  // slots in use; by the thread and its signal handlers only
  std::atomic<File*> slots[kThreadSlots];
  std::uintptr_t frames[kThreadSlots];  // addresses on the stack of who uses the slot
  std::atomic<bool> is_used;
  Counters counters;
};

/// Of this thread; null before its first use of a file, and in a child of vfork(2), which has the memory of its parent
/// and descriptors of its own.
extern thread_local Thread* this_thread __attribute__((tls_model("initial-exec")));
/// Without membarrier(2), or since it has been forbidden.
extern std::atomic<bool> fence_needed;

/// Null if there is no memory for it.
Thread* enter_thread();
/// True in the child of vfork(2) until it ends.
[[nodiscard]] bool in_vfork_child();

/// A file that this thread uses, from its construction to its end. Look whether it got a slot, and then, before
/// anything else, whether the descriptor still leads to the file.
class Use {
 public:
  __attribute__((always_inline)) explicit Use(File* file) : thread_(this_thread) {
    const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    if (__builtin_expect(thread_ == nullptr || thread_->depth.load(std::memory_order_relaxed) != 0, 0)) {
      level_ = take_slot(frame);
      if (level_ == kThreadSlots) return;
    }
    thread_->frames[level_] = frame;
    thread_->depth.store(level_ + 1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    thread_->slots[level_].store(file, std::memory_order_relaxed);
    if (__builtin_expect(fence_needed.load(std::memory_order_relaxed), 0))
      std::atomic_thread_fence(std::memory_order_seq_cst);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  __attribute__((always_inline)) ~Use() {
    if (level_ == kThreadSlots) return;
    thread_->slots[level_].store(nullptr, std::memory_order_release);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    thread_->depth.store(level_, std::memory_order_relaxed);
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;
  explicit operator bool() const { return level_ != kThreadSlots; }
  [[nodiscard]] Counters& counters() const { return thread_->counters; }

 private:
  unsigned take_slot(std::uintptr_t frame);

  Thread* thread_;
  unsigned level_ = 0;
};

enum class Busy { kNo, kByOthers, kByThisThread };
/// Whether a thread uses `file`, which no descriptor leads to any more. After all_pass().
[[nodiscard]] Busy busy(const File* file);
/// What this process stored before is seen by every thread that has not filled its slot yet.
void all_pass();
/// Waits until no other thread uses `file`; false if one still does after `milliseconds`, or this thread does.
bool wait_unused(const File* file, int milliseconds);

void start_threads();
/// In the child of a fork, where this thread is alone.
void keep_this_thread_only();
[[nodiscard]] Counters sum_counters();

}  // namespace plumb::preload
