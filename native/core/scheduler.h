// Scheduler: per model, the bounded queue and the lanes that empty it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <list>
#include <mutex>
#include <thread>

#include "deadline_clock.h"
#include "job.h"

namespace tercel {

// The median of a stream, approximately: each sample moves it by 1/16 towards itself, so that a page
// fault or a preempted run counts once, whatever its size. Readers may be on any thread.
class RunningMedian {
 public:
  void Add(int64_t sample) {
    const int64_t value = value_.load(std::memory_order_relaxed);
    const uint32_t count = count_.load(std::memory_order_relaxed);
    int64_t next;
    if (count < 4) {
      next = count == 0 || sample < value ? sample : value;
      count_.store(count + 1, std::memory_order_relaxed);
    } else {
      next = value + (sample > value ? value / 16 + 1 : -(value / 16 + 1));
    }
    value_.store(next > 1 ? next : 1, std::memory_order_relaxed);
  }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }
  bool known() const { return count_.load(std::memory_order_relaxed) >= 4; }

 private:
  std::atomic<int64_t> value_{0};
  std::atomic<uint32_t> count_{0};
};

struct SchedulerOptions {
  int lanes = 1;
  size_t max_queue = 1024;  // jobs waiting; the next one is refused
};

struct SchedulerStats {
  uint64_t submitted = 0;
  uint64_t completed = 0;  // ran to the end, well or badly
  uint64_t failed = 0;     // the graph returned an error
  uint64_t refused = 0;    // the queue was full
  uint64_t expired = 0;    // the deadline passed, in the queue or in the run
  uint64_t cancelled = 0;
  uint64_t queued = 0;   // now
  uint64_t running = 0;  // now
  uint64_t lanes = 0;    // threads started
};

// Lanes start when there is work for them. After work a lane spins for a short, adaptive, bounded
// time, one lane at a time, then parks; an idle scheduler uses no CPU. Thread-safe.
class Scheduler {
 public:
  // `session`, `clock` and `wake_cost` outlive the scheduler.
  Scheduler(OrtSession* session, const SchedulerOptions& options, DeadlineClock* clock,
            RunningMedian* wake_cost);
  // Ends running jobs by the terminate flag, completes queued ones with kClosed, joins the lanes.
  // Must not run on a lane.
  ~Scheduler();

  // Takes the job, or refuses it (kOverload, kClosed, kTimeout) without keeping it.
  Status Submit(Ref<Job> job);
  // A queued job completes at once with `reason`; a running one as soon as the graph notices.
  // False when the job is already done.
  bool Cancel(Job* job, Status reason);
  // At process exit: terminates what runs, takes nothing more, waits up to `timeout_ns`.
  void Quiesce(int64_t timeout_ns);

  // Jobs queued or running; exact only for the thread that submits.
  size_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  RunningMedian& run_time() { return run_time_; }
  SchedulerStats Stats();

 private:
  friend class DeadlineClock;
  struct Queue {
    Job* head = nullptr;
    Job* tail = nullptr;
  };

  void Expire(Job* job);
  void LaneLoop(Lane* lane);
  void SpinForWork(int64_t gap_ns);
  void RunJob(Lane* lane, Job* job);
  bool StartLane();       // REQUIRES: mutex_ held
  void WakeOne();         // REQUIRES: mutex_ held
  Job* Pop();             // REQUIRES: mutex_ held
  void Unlink(Job* job);  // REQUIRES: mutex_ held
  // Marks a queued job done or asks a running one to end; false when it is neither.
  bool Stop(Job* job, Status reason, bool* was_queued);
  void Complete(Ref<Job> job);  // REQUIRES: mutex_ not held; state is kDone
  void Post(Ref<Job> job);      // REQUIRES: as Complete; the clock has no entry

  // Constant after construction.
  OrtSession* const session_;
  const SchedulerOptions options_;
  DeadlineClock* const clock_;
  RunningMedian* const wake_cost_;

  RunningMedian run_time_;
  std::atomic<size_t> in_flight_{0};
  std::atomic<size_t> queued_{0};  // spinning lanes read it without the lock

  std::mutex mutex_;
  // Protected by mutex_.
  std::condition_variable work_;
  std::condition_variable idle_;  // Quiesce waits for it
  Queue queues_[kPriorities];
  std::list<Lane> lanes_;
  int parked_ = 0;
  int busy_ = 0;
  bool spinning_ = false;
  bool stopping_ = false;
  int64_t gap_ns_ = 0;  // median time between a lane's end and the next submission
  int64_t last_finish_ns_ = 0;
  SchedulerStats stats_;
};

}  // namespace tercel
