// Throttle: work that can wait gives way to runs. Linux; elsewhere nothing happens.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace tercel {

// Throttles the thread that makes it while it lives; one a thread.
//
// The system lets whoever it owes a share run on to its next tick, up to 4 ms, also at the lowest
// priority, while who wakes there waits. So a timer's signal, the last real-time one that has no
// handler, interrupts the thread: while runs compute it pauses half of the time, which also halves what
// it takes of caches and of the memory's bandwidth; else it lets others first who wait. It gives
// nothing away while it had less than a third of the time. System calls that are interrupted go on
// (SA_RESTART).
//
// bench/swaps.ts on two processors, p99 of runs of 3.5 ms while 1 GB loads, of the quiet one, and how
// long that takes. At nice 19 with slices of 0.1 ms alone: 1.2 to 1.7, 1.5 s; one run at a time: 1.0 to
// 1.1, 3.3 s; two at once: 1.22 and 2.1 s before, 0.95 to 1.05 and 5.6 s. Letting go of the processor
// every 0.1 or 0.2 ms, without a pause: 1.1 to 1.3. Pauses for 0.2 ms after 0.2: 1.06, 1.11; for 0.05
// after 0.1: 1.06, 1.09, 2.7 s. Nice 19 or such slices alone: 1.6 to 1.8; SCHED_IDLE: 1.9; bound to a
// processor: 1.1 to 1.8.
class Throttle {
 public:
  // `computing`: above 0 while runs compute that shall not be held up. `lower`: the thread gets only
  // what nobody else wants (nice 19, slices of 0.1 ms), and so do threads that it begins, for good.
  // `least`: it gives nothing away while it had less than one of so many nanoseconds.
  Throttle(const std::atomic<int>& computing, bool lower, int64_t least = 3);
  ~Throttle();
  Throttle(const Throttle&) = delete;
  Throttle& operator=(const Throttle&) = delete;

  // How long this thread has paused until now, which is no part of what its work takes; 0 where nothing
  // throttles it.
  static int64_t PausedNs();

  // While it lives, for up to a millisecond, the thread is not interrupted, so that what is measured is
  // what it takes; then it gives way at once.
  class Uninterrupted {
   public:
    Uninterrupted();
    ~Uninterrupted();
    Uninterrupted(const Uninterrupted&) = delete;
    Uninterrupted& operator=(const Uninterrupted&) = delete;
  };

 private:
  class Timer;
  std::unique_ptr<Timer> timer_;  // null where the system has none to give
};

}  // namespace tercel
