#include "fs/client/registry_lock.h"

#include <pthread.h>

namespace plumb::client {
namespace {

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_once_t once = PTHREAD_ONCE_INIT;

void lock() {
  pthread_mutex_lock(&mutex);
}
void unlock() {
  pthread_mutex_unlock(&mutex);
}
void watch_forks() {
  pthread_atfork(lock, unlock, unlock);
}

}  // namespace

RegistryLock::RegistryLock() noexcept {
  pthread_once(&once, watch_forks);
  lock();
}

RegistryLock::~RegistryLock() noexcept {
  unlock();
}

}  // namespace plumb::client
