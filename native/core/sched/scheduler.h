// Scheduler: per model, the bounded queue, the batch former, and the lanes that empty it.
//
//   Submit, Reserve + Ready          lanes                             sinks
//   -----------------------> queue -------> batch -> run -> split -----------> completions
//      refused: full,                 as many rows as the policy says,
//      too late                       of one bucket and side by side
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "base/compute_budget.h"
#include "base/run_counts.h"
#include "base/running_median.h"
#include "sched/batch_former.h"
#include "sched/batch_policy.h"
#include "sched/batch_runner.h"
#include "sched/delivery.h"
#include "sched/job.h"
#include "sched/job_queue.h"
#include "sched/lane_pool.h"
#include "sched/scheduler_context.h"

namespace tercel {

struct SchedulerOptions {
  int lanes = 1;
  size_t max_queue = 1024;  // jobs waiting; the next one is refused
  BatchOptions batch;
  bool preserve_order = false;        // completions leave in the order of submission
  int threads_per_run = 1;            // what a run takes of the compute budget
  double weight = 1;                  // the model's share of it while others want it too
  std::vector<uint32_t> device_rows;  // on a GPU: what batches are filled up to, ascending
};

struct SchedulerStats {
  uint64_t submitted = 0;
  uint64_t completed = 0;  // ran to the end, well or badly
  uint64_t failed = 0;     // the graph returned an error
  uint64_t invalid = 0;    // the inputs were to blame for that
  uint64_t refused = 0;    // the queue was full, or the request would have been too late
  uint64_t expired = 0;    // the deadline passed, in the queue or in the run
  uint64_t cancelled = 0;
  uint64_t queued = 0;   // now
  uint64_t running = 0;  // lanes busy now
  uint64_t lanes = 0;    // threads started
  uint64_t runs = 0;     // of the graph; a batch is one
  uint64_t rows = 0;     // of completed jobs; a job without rows is one
  uint64_t retried = 0;  // batches that failed and were run again one by one
  // Sums over completed jobs.
  int64_t queue_ns = 0;
  int64_t run_ns = 0;
  int64_t failed_ns = 0;  // of those that failed, queue and run
  int64_t last_ns = 0;    // when the last run ended; 0 before the first
  std::vector<BatchCount> batches;
  // The policy now.
  uint32_t cap = 1;
  int64_t delay_ns = 0;
  int64_t p99_ns = 0;  // of the last window, with a latency target
};

// Lanes start when there is work for them. After work a lane spins for a short, adaptive, bounded
// time, one lane at a time, then parks; an idle scheduler uses no CPU. Thread-safe.
class Scheduler : private BatchRunner::Owner {
 public:
  // `session` and what `context` points to outlive the scheduler.
  Scheduler(OrtSession* session, const SchedulerOptions& options, const SchedulerContext& context);
  // Ends running jobs by the terminate flag, completes queued ones with kClosed, joins the lanes.
  // Must not run on a lane.
  ~Scheduler();

  // Changes everything but the number of lanes that run already.
  void Configure(const SchedulerOptions& options);
  SchedulerOptions options();

  // Takes the job, or refuses it (kOverload, kClosed, kTimeout) without keeping it.
  Status Submit(Ref<Job> job);
  // The same for a job whose rows shall lie in a block of its bucket: gives it the rows. The caller
  // writes the inputs there and says Ready. REQUIRES: rows <= the bucket's capacity.
  Status Reserve(Ref<Job> job);
  void Ready(const Ref<Job>& job) { Ready(&job, 1); }
  // The same for several at once, which then are one batch as far as they may be.
  void Ready(const Ref<Job>* jobs, size_t count);
  // With a latency target: the caller got a job's result so many nanoseconds after Submit or Reserve.
  // For jobs with `reports_delivery`.
  void Delivered(int64_t ns);
  bool has_target() const { return has_target_.load(std::memory_order_relaxed); }
  // A queued job completes at once with `reason`, and so does one in a batch with others; one that runs
  // on memory of its own as soon as the graph notices. False when the job is already done.
  bool Cancel(Job* job, Status reason);
  // Starts all lanes and has each of them do `work`, one after the other, between its batches, while
  // the others serve: what is kept by thread is then there. Returns what the first of them that failed
  // said; kClosed when the scheduler ends. Calls wait for each other.
  Status OnEachLane(const std::function<Status()>& work);
  // At process exit: terminates what runs, takes nothing more, waits up to `timeout_ns`.
  void Quiesce(int64_t timeout_ns);

  // Jobs queued or running; exact only for the thread that submits.
  size_t in_flight() const { return delivery_.in_flight(); }
  // Rows of one batch at most; 1 is no batching.
  uint32_t max_batch() const { return max_batch_.load(std::memory_order_relaxed); }
  bool preserves_order() const { return preserve_order_.load(std::memory_order_relaxed); }
  // Of one job's run alone.
  RunningMedian& run_time() { return run_time_; }
  // Of a run of any size.
  const RunningMedian& batch_time() const { return batch_time_; }
  SchedulerStats Stats();

 private:
  friend class DeadlineClock;

  // Submission.
  Status Enter(Ref<Job>* job, bool ready, bool* started_lane);
  int64_t LaneFreeIn(int64_t now);                                 // REQUIRES: mutex_ held
  Status AdmitInTime(const Job& job, uint32_t rows, int64_t now);  // REQUIRES: mutex_ held
  void Announce(bool started_lane);                                // REQUIRES: mutex_ held
  void Watch(const Ref<Job>& job);
  void Expire(Job* job);
  bool WorthAnotherLane();  // REQUIRES: mutex_ held
  // Marks a queued job done or asks a running one to end; false when it is neither.
  bool Stop(Job* job, Status reason, bool* completed);

  // Lanes (lane.cc).
  void LaneLoop(Lane* lane);
  void SpinForWork(int64_t gap_ns);
  void DoChore(Lane* lane, std::unique_lock<std::mutex>* lock);
  void EndBatch(Lane* lane, std::vector<Ref<Job>>* done);  // REQUIRES: mutex_ held
  void EndJob(Job* job, Status status);                    // REQUIRES: mutex_ held
  void CountRun(uint32_t rows, int64_t ns);                // REQUIRES: mutex_ held

  // BatchRunner's.
  Lane::Part StillWanted(Lane* lane, size_t part) override;
  bool TakeWhole(Job* job) override;

  // Constant after construction.
  const SchedulerContext context_;
  ComputeClaim claim_;
  BatchRunner runner_;
  Delivery delivery_;

  RunningMedian run_time_;
  RunningMedian batch_time_;
  std::atomic<uint32_t> max_batch_{1};
  std::atomic<bool> preserve_order_{false};
  std::atomic<bool> has_target_{false};

  std::mutex chore_mutex_;  // held by OnEachLane; taken before mutex_
  std::mutex mutex_;
  // Protected by mutex_.
  SchedulerOptions options_;
  std::condition_variable more_;  // a lane that waits for a fuller batch
  std::condition_variable idle_;  // Quiesce waits for it
  std::condition_variable chore_done_;
  bool chore_running_ = false;
  const std::function<Status()>* chore_ = nullptr;  // what each lane has to do once
  uint64_t chore_number_ = 0;
  size_t chore_left_ = 0;  // lanes that have not
  Status chore_status_;
  JobQueue queue_;
  BatchFormer former_;
  LanePool lanes_;
  int busy_ = 0;
  int delaying_ = 0;
  bool spinning_ = false;
  bool stopping_ = false;
  int64_t gap_ns_ = 0;  // median time between a lane's end and the next submission
  int64_t last_finish_ns_ = 0;
  SchedulerStats stats_;
};

}  // namespace tercel
