#include "scheduler.h"

#include <pthread.h>

#include <chrono>
#include <system_error>

#include "adaptive_lock.h"
#include "clock.h"

namespace tercel {

struct Lane {
  std::thread thread;
  OrtPtr<OrtRunOptions> run_options;
  bool terminated = false;  // protected by the scheduler's mutex
};

namespace {

// A lane spins at most this long after work (bench/async.ts: longer spins gained nothing).
constexpr int64_t kMaxSpinNs = 50'000;
// Waking a second lane pays only for runs that last longer than the wake itself.
constexpr int64_t kWorthASecondLaneNs = 60'000;

}  // namespace

Scheduler::Scheduler(OrtSession* session, const SchedulerOptions& options, DeadlineClock* clock,
                     RunningMedian* wake_cost)
    : session_(session), options_(options), clock_(clock), wake_cost_(wake_cost) {}

Scheduler::~Scheduler() {
  std::vector<Ref<Job>> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    while (Job* job = Pop()) {
      job->state_ = Job::State::kDone;
      job->status = Status::Closed("the model was closed");
      dropped.push_back(Ref<Job>::Adopt(job));
    }
    for (Lane& lane : lanes_) {
      (void)ToStatus(ort.RunOptionsSetTerminate(lane.run_options.get()), Code::kRun);
    }
    work_.notify_all();
  }
  for (Ref<Job>& job : dropped) Complete(std::move(job));
  for (Lane& lane : lanes_) {
    if (lane.thread.joinable()) lane.thread.join();
  }
}

Status Scheduler::Submit(Ref<Job> job) {
  const int64_t now = NowNs();
  job->submitted_ns = now;
  job->scheduler_ = this;
  if (job->deadline_ns && job->deadline_ns <= now) {
    return Status::Timeout("the deadline passed before the request was queued");
  }
  if (job->deadline_ns && !clock_->Start()) {
    return Status::Overload("the system has no thread to give for deadlines");
  }
  std::unique_lock<std::mutex> lock = LockAdaptive(mutex_);
  if (stopping_) return Status::Closed("the model was closed");
  const size_t queued = queued_.load(std::memory_order_relaxed);
  if (queued >= options_.max_queue) {
    ++stats_.refused;
    return Status::Overload("the queue is full: " + std::to_string(queued) +
                            " requests are waiting (maxQueue)");
  }
  bool started = false;
  if (lanes_.empty() && !(started = StartLane())) {
    return Status::Overload("the system has no thread to give for a lane");
  }
  if (last_finish_ns_) {
    const int64_t gap = now - last_finish_ns_;
    gap_ns_ += gap > gap_ns_ ? gap_ns_ / 8 + 500 : -(gap_ns_ / 8);
    if (gap_ns_ > 4 * kMaxSpinNs) gap_ns_ = 4 * kMaxSpinNs;
  }
  Job* raw = job.get();
  raw->state_ = Job::State::kQueued;
  Queue& queue = queues_[raw->priority - 1];
  raw->prev_ = queue.tail;
  raw->next_ = nullptr;
  (queue.tail ? queue.tail->next_ : queue.head) = raw;
  queue.tail = raw;
  (void)job.Release();  // the queue holds it
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  queued_.store(queued + 1, std::memory_order_release);
  ++stats_.submitted;
  const bool has_deadline = raw->deadline_ns != 0;
  Ref<Job> keep(has_deadline ? raw : nullptr);
  if (!spinning_ && !started) {
    const bool worth_it = busy_ == 0 || run_time_.value() > kWorthASecondLaneNs || !run_time_.known();
    if (worth_it) WakeOne();
  }
  lock.unlock();
  if (has_deadline) {
    clock_->Add(raw);
    // A lane may have finished it in between: its Remove came too early.
    std::unique_lock<std::mutex> again = LockAdaptive(mutex_);
    const bool done = raw->state_ == Job::State::kDone;
    again.unlock();
    if (done) clock_->Remove(raw);
  }
  return {};
}

void Scheduler::WakeOne() {
  if (parked_ > 0) {
    work_.notify_one();
    return;
  }
  // Where there is no thread to be had now, the lanes that exist do the work.
  if (static_cast<int>(lanes_.size()) < options_.lanes) (void)StartLane();
}

bool Scheduler::StartLane() {
  OrtRunOptions* run_options = nullptr;
  if (OrtStatus* status = ort.CreateRunOptions(&run_options)) {
    ort.ReleaseStatus(status);
    return false;
  }
  lanes_.emplace_back();
  Lane* lane = &lanes_.back();
  lane->run_options.reset(run_options);
  try {
    lane->thread = std::thread([this, lane] { LaneLoop(lane); });
    stats_.lanes = lanes_.size();
    return true;
  } catch (const std::system_error&) {
    lanes_.pop_back();
    return false;
  }
}

Job* Scheduler::Pop() {
  for (Queue& queue : queues_) {
    if (Job* job = queue.head) {
      Unlink(job);
      return job;
    }
  }
  return nullptr;
}

void Scheduler::Unlink(Job* job) {
  Queue& queue = queues_[job->priority - 1];
  (job->prev_ ? job->prev_->next_ : queue.head) = job->next_;
  (job->next_ ? job->next_->prev_ : queue.tail) = job->prev_;
  job->next_ = job->prev_ = nullptr;
  queued_.store(queued_.load(std::memory_order_relaxed) - 1, std::memory_order_release);
}

bool Scheduler::Stop(Job* job, Status reason, bool* was_queued) {
  std::lock_guard<std::mutex> lock(mutex_);
  *was_queued = job->state_ == Job::State::kQueued;
  if (*was_queued) {
    Unlink(job);
    job->state_ = Job::State::kDone;
    job->status = std::move(reason);
    ++(job->status.code() == Code::kTimeout ? stats_.expired : stats_.cancelled);
    return true;
  }
  if (job->state_ != Job::State::kRunning) return false;
  if (job->cancelled_.ok()) {
    job->cancelled_ = std::move(reason);
    job->lane_->terminated = true;
    (void)ToStatus(ort.RunOptionsSetTerminate(job->lane_->run_options.get()), Code::kRun);
  }
  return true;
}

bool Scheduler::Cancel(Job* job, Status reason) {
  bool was_queued = false;
  const bool found = Stop(job, std::move(reason), &was_queued);
  if (was_queued) Complete(Ref<Job>::Adopt(job));
  return found;
}

// The clock's way in: its mutex is held and the job's entry is gone already.
void Scheduler::Expire(Job* job) {
  bool was_queued = false;
  (void)Stop(job, Status::Timeout("the deadline passed"), &was_queued);
  if (was_queued) Post(Ref<Job>::Adopt(job));
}

void Scheduler::Quiesce(int64_t timeout_ns) {
  std::unique_lock<std::mutex> lock(mutex_);
  stopping_ = true;
  for (Lane& lane : lanes_) {
    (void)ToStatus(ort.RunOptionsSetTerminate(lane.run_options.get()), Code::kRun);
  }
  work_.notify_all();
  idle_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return busy_ == 0; });
}

void Scheduler::Complete(Ref<Job> job) {
  if (job->deadline_ns) clock_->Remove(job.get());
  Post(std::move(job));
}

void Scheduler::Post(Ref<Job> job) {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  const Ref<CompletionSink> sink = job->sink;  // outlives the job, which may go before Post returns
  sink->Post(std::move(job));
}

void Scheduler::SpinForWork(int64_t gap_ns) {
  // Worth it only while the next job is expected within the bound.
  if (gap_ns > kMaxSpinNs / 2) return;
  const int64_t until = NowNs() + (2 * gap_ns + 5'000 < kMaxSpinNs ? 2 * gap_ns + 5'000 : kMaxSpinNs);
  do {
    for (int i = 0; i < 16; ++i) {
      if (queued_.load(std::memory_order_acquire) != 0) return;
      CpuRelax();
    }
  } while (NowNs() < until);
}

void Scheduler::LaneLoop(Lane* lane) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "tercel-lane");
#endif
  bool woken = true;      // parked since the last job
  bool may_spin = false;  // once after each job
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    Job* job = Pop();
    if (!job) {
      if (may_spin && !spinning_) {
        may_spin = false;
        spinning_ = true;
        const int64_t gap_ns = gap_ns_;
        lock.unlock();
        SpinForWork(gap_ns);
        Relock(&lock);
        spinning_ = false;
        continue;
      }
      ++parked_;
      work_.wait(lock);
      --parked_;
      woken = true;
      continue;
    }
    job->state_ = Job::State::kRunning;
    job->lane_ = lane;
    ++busy_;
    // More is waiting, and no lane is about to look: pass the wake on.
    if (!spinning_ && queued_.load(std::memory_order_relaxed) > 0 &&
        (run_time_.value() > kWorthASecondLaneNs || !run_time_.known())) {
      WakeOne();
    }
    const bool measure_wake = woken && busy_ == 1;
    lock.unlock();
    job->started_ns = NowNs();
    if (measure_wake) wake_cost_->Add(job->started_ns - job->submitted_ns);
    RunJob(lane, job);
    job->finished_ns = NowNs();
    if (job->status.ok()) run_time_.Add(job->finished_ns - job->started_ns);
    Relock(&lock);
    --busy_;
    last_finish_ns_ = job->finished_ns;
    ++stats_.completed;
    if (!job->cancelled_.ok()) {
      job->status = job->cancelled_;
      ++(job->status.code() == Code::kTimeout ? stats_.expired : stats_.cancelled);
    } else if (!job->status.ok()) {
      ++stats_.failed;
    }
    if (lane->terminated) {
      lane->terminated = false;
      (void)ToStatus(ort.RunOptionsUnsetTerminate(lane->run_options.get()), Code::kRun);
    }
    job->state_ = Job::State::kDone;
    job->lane_ = nullptr;
    if (stopping_) idle_.notify_all();
    lock.unlock();
    Complete(Ref<Job>::Adopt(job));
    woken = false;
    may_spin = true;
    Relock(&lock);
  }
}

namespace {

// False when there is none to drop.
bool DropPredictions(Job* job) {
  bool dropped = false;
  for (size_t i = 0; i < job->predicted.size(); ++i) {
    if (!job->predicted[i]) continue;
    ort.ReleaseValue(job->outputs[i]);
    job->outputs[i] = nullptr;
    job->predicted[i] = false;
    dropped = true;
  }
  job->predictions_dropped = dropped;
  return dropped;
}

}  // namespace

void Scheduler::RunJob(Lane* lane, Job* job) {
  const OrtRunOptions* run_options = lane->run_options.get();
  auto run = [&] {
    if (job->binding) return ort.RunWithBinding(session_, run_options, job->binding);
    return ort.Run(session_, run_options, job->input_names.data(), job->inputs.data(),
                   job->inputs.size(), job->output_names.data(), job->output_names.size(),
                   job->outputs.data());
  };
  OrtStatus* failed = run();
  if (failed && ort.GetErrorCode(failed) == kOrtInvalidArgument && DropPredictions(job)) {
    ort.ReleaseStatus(failed);
    failed = run();
  }
  job->status = ToStatus(failed, Code::kRun);
}

SchedulerStats Scheduler::Stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  SchedulerStats stats = stats_;
  stats.queued = queued_.load(std::memory_order_relaxed);
  stats.running = static_cast<uint64_t>(busy_);
  return stats;
}

}  // namespace tercel
