// The project's mutex: std::mutex that clang's -Wthread-safety understands.
//
// Invariants: none of its own. Name what a mutex protects with PLUMB_GUARDED_BY at the member, and who must hold it
// with PLUMB_REQUIRES at the function; state the lock rank in the header of the class. std::mutex and not absl::Mutex,
// because the thread sanitizer sees through the former only.
//
// Thread safety: it is what it is for.
#pragma once

#include <absl/base/thread_annotations.h>

#include <condition_variable>
#include <mutex>

#define PLUMB_GUARDED_BY(mutex) ABSL_GUARDED_BY(mutex)
#define PLUMB_REQUIRES(mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex)
#define PLUMB_EXCLUDES(mutex) ABSL_LOCKS_EXCLUDED(mutex)
#define PLUMB_ACQUIRE(mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex)
#define PLUMB_RELEASE(mutex) ABSL_UNLOCK_FUNCTION(mutex)

namespace plumb {

class ABSL_LOCKABLE Mutex {
 public:
  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }
  [[nodiscard]] bool try_lock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) { return mutex_.try_lock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

/// Holds a Mutex for the scope; wait() releases it while waiting.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() ABSL_UNLOCK_FUNCTION() = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  /// May wake without a reason: wait in a loop over the condition.
  void wait(std::condition_variable& condition) { condition.wait(lock_); }
  template <typename Duration>
  void wait_for(std::condition_variable& condition, Duration duration) {
    condition.wait_for(lock_, duration);
  }

 private:
  std::unique_lock<std::mutex> lock_;
};

}  // namespace plumb
