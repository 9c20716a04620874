// Delivery: hands jobs that are done to the threads that asked, in the order of submission where that
// is wanted.
#pragma once

#include <atomic>
#include <deque>
#include <mutex>
#include <vector>

#include "sched/deadline_clock.h"
#include "sched/job.h"

namespace tercel {

// Thread-safe. Its mutex is locked after a scheduler's, and held while completions that leave in order
// are posted.
class Delivery {
 public:
  explicit Delivery(DeadlineClock* clock) : clock_(clock) {}

  // Results leave in the order of Expect() from now on.
  void KeepOrder() { ordered_.store(true, std::memory_order_relaxed); }
  // A job was submitted; `in_order`: with a turn. REQUIRES: the scheduler's mutex is held.
  void Expect(const Ref<Job>& job, bool in_order);
  // REQUIRES of these: the job is done, and the scheduler's mutex is not held.
  void Complete(Ref<Job> job);
  // As Complete; the clock has no entry of the job.
  void Deliver(Ref<Job> job);
  // As Complete, of a batch; clears the list.
  void CompleteAll(std::vector<Ref<Job>>* jobs);

  // Jobs expected and not delivered; exact only for the thread that submits.
  size_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }

 private:
  struct Turn {
    Ref<Job> job;
    bool done = false;
  };

  void Post(Ref<Job> job);

  DeadlineClock* const clock_;
  std::atomic<size_t> in_flight_{0};
  std::atomic<bool> ordered_{false};  // jobs may be waiting for their turn
  std::mutex mutex_;
  std::deque<Turn> turns_;  // protected by mutex_
};

}  // namespace tercel
