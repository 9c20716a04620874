// Locking that spins before it sleeps: a lane and a JS thread that meet at a mutex hold it for tens of
// nanoseconds, while a futex wait and its wake cost microseconds on both sides.
#pragma once

#include <mutex>

namespace tercel {

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

inline std::unique_lock<std::mutex> LockAdaptive(std::mutex& mutex) {
  for (int i = 0; i < 200; ++i) {
    std::unique_lock<std::mutex> lock(mutex, std::try_to_lock);
    if (lock.owns_lock()) return lock;
    CpuRelax();
  }
  return std::unique_lock<std::mutex>(mutex);
}

inline void Relock(std::unique_lock<std::mutex>* lock) {
  for (int i = 0; i < 200; ++i) {
    if (lock->try_lock()) return;
    CpuRelax();
  }
  lock->lock();
}

}  // namespace tercel
