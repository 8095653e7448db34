// Survives SIGBUS while a device mapping is read or written.
//
// A machine check on a load, a file truncated under its mapping and a hole that a full host cannot back all arrive as
// SIGBUS at the instruction that touched the address. One process-wide handler jumps back to a thread-local recovery
// point if there is one for that address; every other SIGBUS gets what it would have got without us (the handler
// installed before, or the default action: death with a core).
//
// Rules for what runs inside a guard:
//   - no locks and nothing with a destructor may be alive between run_guarded() and the access: the jump skips
//   destructors;
//   - it touches the pages of the guarded range and private memory; a SIGBUS at any other address is not caught;
//   - a store that faults may have stored anything before the fault.
// Threads never block SIGBUS: the kernel kills a process that faults with the signal blocked.
//
// A machine check that was not consumed (BUS_MCEERR_AO: another process hit the poison, or a scrubber) inside a
// registered mapping is ignored: the load that consumes it reports it.
//
// Cost: a sigsetjmp without signal mask, about 5 ns.
//
// Thread safety: all functions from any thread; guards nest.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <span>

namespace plumb::pmem {

/// Installs the handler; later calls do nothing. open_device() and the test doubles call it.
void install_sigbus_handler();

/// Tells the handler which addresses are device mappings (for BUS_MCEERR_AO). At most 64 at a time; the rest are not
/// known to it, which costs only that tolerance.
void register_mapping(const std::byte* base, std::size_t length_bytes);
void unregister_mapping(const std::byte* base);

/// Where a guarded operation was stopped; false if it was not.
struct Fault {
  const std::byte* address = nullptr;  // inside the guarded range
  bool is_poison = false;              // a machine check; otherwise there is no storage behind the address

  explicit operator bool() const { return address != nullptr; }
};

namespace sigbus_internal {

struct Frame {
  sigjmp_buf recovery_point;
  const std::byte* begin;
  const std::byte* end;
  Frame* outer;
  Fault fault;
};

// initial-exec: no lazy allocation of thread-local storage inside a signal handler.
[[gnu::tls_model("initial-exec")]] extern constinit thread_local Frame* innermost;

}  // namespace sigbus_internal

/// Runs op() and returns an empty Fault, or the first fault inside `range` that stopped it.
template <typename Op>
[[nodiscard]] Fault run_guarded(std::span<const std::byte> range, const Op& op) {
  using sigbus_internal::Frame;
  using sigbus_internal::innermost;
  Frame frame;
  frame.begin = range.data();
  frame.end = range.data() + range.size();
  frame.outer = innermost;
  // No signal mask: saving it is a system call. The handler puts it back instead.
  if (sigsetjmp(frame.recovery_point, 0) != 0) {
    innermost = frame.outer;
    return frame.fault;
  }
  frame.fault = Fault{};
  innermost = &frame;
  // The compiler may not move accesses of op() out of the guard; the same thread needs no more than that.
  __asm__ volatile("" ::: "memory");
  op();
  __asm__ volatile("" ::: "memory");
  innermost = frame.outer;
  return Fault{};
}

/// memcpy from a device mapping; false if the source failed, and the destination holds garbage then.
[[nodiscard]] bool guarded_copy(void* destination, const void* source, std::size_t length_bytes);

}  // namespace plumb::pmem
