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
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

#include "base/compute_budget.h"
#include "base/running_median.h"
#include "gpu/device_runner.h"
#include "sched/batch_policy.h"
#include "sched/deadline_clock.h"
#include "sched/job.h"

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

// Runs of one size.
struct BatchCount {
  uint32_t rows = 0;
  uint64_t runs = 0;
  int64_t run_ns = 0;
};

struct SchedulerStats {
  uint64_t submitted = 0;
  uint64_t completed = 0;  // ran to the end, well or badly
  uint64_t failed = 0;     // the graph returned an error
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
  std::vector<BatchCount> batches;
  // The policy now.
  uint32_t cap = 1;
  int64_t delay_ns = 0;
  int64_t p99_ns = 0;  // of the last window, with a latency target
};

// What the process's schedulers share.
struct SchedulerContext {
  DeadlineClock* clock;
  RunningMedian* wake_cost;
  ComputeBudget* budget;
  Arena* arena;
  const OrtMemoryInfo* cpu_memory;
  DeviceRunner* device = nullptr;  // where the session runs on a GPU
};

// Lanes start when there is work for them. After work a lane spins for a short, adaptive, bounded
// time, one lane at a time, then parks; an idle scheduler uses no CPU. Thread-safe.
class Scheduler {
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
  size_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
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
  struct Queue {
    Job* head = nullptr;
    Job* tail = nullptr;
  };

  // Submission.
  Status Enter(Ref<Job>* job, bool ready, bool* started_lane);
  int64_t LaneFreeIn(int64_t now);                                 // REQUIRES: mutex_ held
  Status AdmitInTime(const Job& job, uint32_t rows, int64_t now);  // REQUIRES: mutex_ held
  void Announce(bool started_lane);                                // REQUIRES: mutex_ held
  void Watch(const Ref<Job>& job);
  void Expire(Job* job);
  bool StartLane();         // REQUIRES: mutex_ held
  void WakeOne();           // REQUIRES: mutex_ held
  void WakeAll();           // REQUIRES: mutex_ held
  void Unlink(Job* job);    // REQUIRES: mutex_ held
  bool WorthAnotherLane();  // REQUIRES: mutex_ held
  // Marks a queued job done or asks a running one to end; false when it is neither.
  bool Stop(Job* job, Status reason, bool* completed);
  void Complete(Ref<Job> job);  // REQUIRES: mutex_ not held; state is kDone
  void Deliver(Ref<Job> job);   // REQUIRES: as Complete; the clock has no entry
  void Post(Ref<Job> job);
  void CompleteAll(std::vector<Ref<Job>>* jobs);

  // Lanes (lane.cc).
  void LaneLoop(Lane* lane);
  void SpinForWork(int64_t gap_ns);
  Job* Front(uint32_t* rows, int64_t* until);             // REQUIRES: mutex_ held
  uint32_t RowsNow(const Job* first, int64_t* until);     // REQUIRES: mutex_ held
  void TakeBatch(Lane* lane, Job* first, uint32_t rows);  // REQUIRES: mutex_ held
  void RunBatch(Lane* lane);
  void RetryOneByOne(Lane* lane);
  bool ReadInputs(Lane* lane);
  Status RunRows(Lane* lane, uint32_t first_row, uint32_t rows, bool divided,
                 Ref<SharedOutputs>* shared);
  Status RunPart(Lane* lane, Job* job, uint32_t first_row, uint32_t rows);
  bool TakeWhole(Job* job);
  Status RunValues(Lane* lane, Job* job);
  OrtStatus* Call(Lane* lane, const RunCall& call);
  void DoChore(Lane* lane, std::unique_lock<std::mutex>* lock);
  void EndBatch(Lane* lane, std::vector<Ref<Job>>* done);  // REQUIRES: mutex_ held
  void EndJob(Job* job, Status status);                    // REQUIRES: mutex_ held
  void CountRun(uint32_t rows, int64_t ns);                // REQUIRES: mutex_ held

  // Constant after construction.
  OrtSession* const session_;
  const SchedulerContext context_;
  ComputeClaim claim_;

  RunningMedian run_time_;
  RunningMedian batch_time_;
  std::atomic<size_t> in_flight_{0};
  std::atomic<size_t> ready_{0};  // queued jobs whose data is there; spinning lanes read it unlocked
  std::atomic<uint32_t> max_batch_{1};
  std::atomic<bool> preserve_order_{false};
  std::atomic<bool> has_target_{false};
  std::atomic<bool> ever_ordered_{false};  // jobs may be waiting for their turn

  std::mutex chore_mutex_;  // held by OnEachLane; taken before mutex_
  std::mutex mutex_;
  // Protected by mutex_.
  SchedulerOptions options_;
  BatchPolicy policy_;
  std::condition_variable more_;  // a lane that waits for a fuller batch
  std::condition_variable idle_;  // Quiesce waits for it
  std::condition_variable chore_done_;
  bool chore_running_ = false;
  const std::function<Status()>* chore_ = nullptr;  // what each lane has to do once
  uint64_t chore_number_ = 0;
  size_t chore_left_ = 0;  // lanes that have not
  Status chore_status_;
  Queue queues_[kPriorities];
  size_t queued_ = 0;
  uint64_t queued_rows_ = 0;
  std::list<Lane> lanes_;
  std::vector<Lane*> parked_;  // without work; the last parked last
  int busy_ = 0;
  int delaying_ = 0;
  bool spinning_ = false;
  bool stopping_ = false;
  int64_t gap_ns_ = 0;  // median time between a lane's end and the next submission
  int64_t last_finish_ns_ = 0;
  SchedulerStats stats_;

  // Completions that leave in order. Locked after nothing; held while they are posted.
  struct Turn {
    Ref<Job> job;
    bool done = false;
  };
  std::mutex order_mutex_;
  std::deque<Turn> turns_;  // protected by order_mutex_
};

}  // namespace tercel
