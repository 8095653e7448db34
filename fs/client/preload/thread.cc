#include "fs/client/preload/thread.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <time.h>

#include "fs/client/preload/raw.h"

namespace plumb::preload {

constinit thread_local Thread* this_thread = nullptr;
constinit std::atomic<bool> fence_needed{true};

namespace {

// Of all threads there were; a thread that ends leaves its place to the next one.
struct Block {
  Thread threads[32];
  std::atomic<Block*> next;
};
constinit Block first_block{};
constinit pthread_key_t key = 0;
constinit std::atomic<bool> has_key{false};
constinit thread_local bool vfork_child __attribute__((tls_model("initial-exec"))) = false;
constinit thread_local Thread* before_vfork __attribute__((tls_model("initial-exec"))) = nullptr;

// The counters stay, and go on with the next thread.
void leave_place(Thread& thread) {
  for (auto& slot : thread.slots) slot.store(nullptr, std::memory_order_release);
  thread.depth.store(0, std::memory_order_relaxed);
  thread.is_used.store(false, std::memory_order_release);
}

void leave_thread(void* thread) {
  this_thread = nullptr;
  leave_place(*static_cast<Thread*>(thread));
}

Block* next_block(Block& block) {
  Block* next = block.next.load(std::memory_order_acquire);
  if (next != nullptr) return next;
  const long address =
      raw::call(SYS_mmap, nullptr, sizeof(Block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw::failed(address)) return nullptr;
  if (block.next.compare_exchange_strong(next, reinterpret_cast<Block*>(address), std::memory_order_acq_rel)) {
    return reinterpret_cast<Block*>(address);
  }
  raw::call(SYS_munmap, address, sizeof(Block));
  return next;
}

template <typename Function>
void for_each_thread(Function&& function) {
  for (Block* block = &first_block; block != nullptr; block = block->next.load(std::memory_order_acquire)) {
    for (Thread& thread : block->threads) function(thread);
  }
}

void pause_us(long microseconds) {
  const timespec pause{0, microseconds * 1000};
  raw::call(SYS_nanosleep, &pause, nullptr);
}

void register_barrier() {
  const bool is_refused = raw::call(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0;
  fence_needed.store(is_refused, std::memory_order_relaxed);
}

bool on_alternative_stack() {
  stack_t stack{};
  raw::call(SYS_sigaltstack, nullptr, &stack);
  return (stack.ss_flags & SS_ONSTACK) != 0;
}

}  // namespace

Thread* enter_thread() {
  if (vfork_child) return nullptr;
  for (Block* block = &first_block; block != nullptr; block = next_block(*block)) {
    for (Thread& thread : block->threads) {
      bool used = false;
      if (thread.is_used.load(std::memory_order_relaxed) ||
          !thread.is_used.compare_exchange_strong(used, true, std::memory_order_acquire)) {
        continue;
      }
      // A handler that came in between has taken another place, which stays with this thread then.
      if (this_thread != nullptr) {
        thread.is_used.store(false, std::memory_order_release);
        return this_thread;
      }
      this_thread = &thread;
      if (has_key.load(std::memory_order_acquire)) ::pthread_setspecific(key, &thread);
      return &thread;
    }
  }
  return nullptr;
}

bool in_vfork_child() {
  return vfork_child;
}

// Called by vfork() below, in the child and then, when it has ended or executed another program, in the parent.
extern "C" void plumb_preload_vfork_child() {
  before_vfork = this_thread;
  this_thread = nullptr;
  vfork_child = true;
}
extern "C" void plumb_preload_vfork_parent() {
  if (!vfork_child) return;
  vfork_child = false;
  this_thread = before_vfork;
}

// It returns twice into the frame of its caller, so it must have none of its own: the address that it returns to waits
// in a register, which each of the two has for itself, while the child uses the stack.
__asm__(R"(
  .text
  .globl vfork, __vfork
  .type vfork, @function
  .type __vfork, @function
vfork:
__vfork:
  .cfi_startproc
  pop %rdi
  .cfi_adjust_cfa_offset -8
  .cfi_register %rip, %rdi
  mov $58, %eax
  syscall
  push %rdi
  .cfi_adjust_cfa_offset 8
  .cfi_rel_offset %rip, 0
  push %rax
  .cfi_adjust_cfa_offset 8
  test %eax, %eax
  jnz 1f
  call plumb_preload_vfork_child
  jmp 2f
1:
  call plumb_preload_vfork_parent
2:
  pop %rax
  .cfi_adjust_cfa_offset -8
  cmp $-4096, %rax
  ja 3f
  ret
3:
  neg %eax
  mov %eax, %edi
  sub $8, %rsp
  .cfi_adjust_cfa_offset 8
  call plumb_preload_set_errno
  add $8, %rsp
  .cfi_adjust_cfa_offset -8
  mov $-1, %rax
  ret
  .cfi_endproc
  .size vfork, .-vfork
  .size __vfork, .-__vfork
)");
extern "C" void plumb_preload_set_errno(int error) {
  errno = error;
}

unsigned Use::take_slot(std::uintptr_t frame) {
  if (thread_ == nullptr) {
    thread_ = enter_thread();
    if (thread_ == nullptr) return kThreadSlots;
  }
  unsigned level = thread_->depth.load(std::memory_order_relaxed);
  // The frame of a slot that is really in use is further up on the same stack.
  while (level > 0 && thread_->frames[level - 1] <= frame && !on_alternative_stack()) {
    --level;
    thread_->slots[level].store(nullptr, std::memory_order_release);
    thread_->depth.store(level, std::memory_order_relaxed);
  }
  return level;
}

Busy busy(const File* file) {
  Busy result = Busy::kNo;
  const Thread* const self = this_thread;
  for_each_thread([&](Thread& thread) {
    for (const auto& slot : thread.slots) {
      if (slot.load(std::memory_order_acquire) != file) continue;
      if (&thread == self) {
        result = Busy::kByThisThread;
      } else if (result == Busy::kNo) {
        result = Busy::kByOthers;
      }
    }
  });
  return result;
}

void all_pass() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (fence_needed.load(std::memory_order_relaxed)) return;
  if (raw::call(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0) return;
  // A sandbox (seccomp) that the program has put on since. Who fills a slot from now on has a fence. Who did without
  // one has its store in a buffer of the processor, which is empty long before this is over.
  fence_needed.store(true, std::memory_order_seq_cst);
  pause_us(1000);
}

bool wait_unused(const File* file, int milliseconds) {
  all_pass();
  for (int waited_us = 0;; waited_us += 50) {
    const Busy now = busy(file);
    if (now == Busy::kNo) return true;
    if (now == Busy::kByThisThread || waited_us >= milliseconds * 1000) return false;
    pause_us(50);
  }
}

void start_threads() {
  register_barrier();
  if (::pthread_key_create(&key, leave_thread) == 0) has_key.store(true, std::memory_order_release);
}

void keep_this_thread_only() {
  for_each_thread([](Thread& thread) {
    if (&thread != this_thread) leave_place(thread);
    thread.counters = Counters{};
  });
  // A child starts with what its parent has told the kernel, but not after every kernel.
  if (!fence_needed.load(std::memory_order_relaxed)) register_barrier();
}

Counters sum_counters() {
  Counters sum;
  for_each_thread([&](Thread& thread) {
    const Counters& one = thread.counters;
    sum.direct_reads += one.direct_reads;
    sum.direct_read_bytes += one.direct_read_bytes;
    sum.direct_writes += one.direct_writes;
    sum.direct_write_bytes += one.direct_write_bytes;
    sum.kernel_reads += one.kernel_reads;
    sum.kernel_read_bytes += one.kernel_read_bytes;
    sum.kernel_writes += one.kernel_writes;
    sum.kernel_write_bytes += one.kernel_write_bytes;
    sum.syncs_saved += one.syncs_saved;
    sum.kernel_syncs += one.kernel_syncs;
  });
  return sum;
}

}  // namespace plumb::preload
