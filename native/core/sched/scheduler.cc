#include "sched/scheduler.h"

#include <algorithm>

#include "base/adaptive_lock.h"
#include "base/clock.h"

namespace tercel {

namespace {
// Waking a second lane pays only for runs that last longer than the wake itself.
constexpr int64_t kWorthASecondLaneNs = 60'000;
}  // namespace

Scheduler::Scheduler(OrtSession* session, const SchedulerOptions& options,
                     const SchedulerContext& context)
    : context_(context),
      claim_(context.device ? 1 : options.threads_per_run, options.weight),
      runner_(session, context_, this),
      delivery_(context.clock),
      former_(&queue_),
      lanes_([this](Lane* lane) { LaneLoop(lane); }) {
  Configure(options);
}

Scheduler::~Scheduler() {
  std::vector<Ref<Job>> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    for (int priority = 0; priority < kPriorities; ++priority) {
      while (Job* job = queue_.first(priority)) {
        queue_.Remove(job);
        if (job->parts_running_ > 0) {
          // Its last part completes it.
          job->state_ = Job::State::kRunning;
          job->cancelled_ = Status::Closed("the model was closed");
          continue;
        }
        job->state_ = Job::State::kDone;
        job->status = Status::Closed("the model was closed");
        dropped.push_back(Ref<Job>::Adopt(job));
      }
    }
    lanes_.TerminateAll();
    lanes_.WakeAll();
    more_.notify_all();
    chore_done_.notify_all();
  }
  context_.budget->Abandon(&claim_);
  for (Ref<Job>& job : dropped) delivery_.Complete(std::move(job));
  lanes_.Join();
}

void Scheduler::Configure(const SchedulerOptions& options) {
  std::lock_guard<std::mutex> lock(mutex_);
  options_ = options;
  lanes_.set_limit(options.lanes);
  former_.policy().Set(options.batch, options.lanes);
  max_batch_.store(former_.policy().options().max_batch, std::memory_order_relaxed);
  has_target_.store(options.batch.target_p99_ns != 0, std::memory_order_relaxed);
  preserve_order_.store(options.preserve_order, std::memory_order_relaxed);
  if (options.preserve_order) delivery_.KeepOrder();
  if (context_.device) context_.device->SetRows(options.device_rows);
  // A run on a GPU takes one of the device's.
  context_.budget->Configure(&claim_, context_.device ? 1 : options.threads_per_run, options.weight);
  // Who waits by the old numbers looks again.
  more_.notify_all();
  lanes_.WakeAll();
}

SchedulerOptions Scheduler::options() {
  std::lock_guard<std::mutex> lock(mutex_);
  return options_;
}

// Work that would come too late is not begun: it would only make others late.
Status Scheduler::AdmitInTime(const Job& job, uint32_t rows, int64_t now) {
  const bool has_target = options_.batch.target_p99_ns != 0;
  // Nothing is in its way, and without a run what is known of runs would stay as it is, right or wrong.
  if (busy_ == 0 && queue_.size() == 0) return {};
  if (!has_target && !job.deadline_ns) return {};
  if (job.deadline_ns) {
    const int64_t expected = former_.policy().Predict(rows, queue_.rows(), LaneFreeIn(now));
    if (now + expected > job.deadline_ns) {
      return Status::Timeout("the request would miss its deadline: it is expected to take " +
                             std::to_string(expected / 1000) + " us");
    }
  }
  if (has_target && queue_.rows() + rows > former_.policy().queue_rows()) {
    former_.policy().OnRefused();
    return Status::Overload("the request would miss the latency target of " +
                            std::to_string(options_.batch.target_p99_ns / 1000) +
                            " us: " + std::to_string(queue_.size()) + " requests are waiting");
  }
  return {};
}

int64_t Scheduler::LaneFreeIn(int64_t now) {
  if (busy_ < options_.lanes) return 0;
  int64_t soonest = INT64_MAX;
  for (const Lane& lane : lanes_.lanes()) {
    if (!lane.running) continue;
    const auto end = lane.started_ns + static_cast<int64_t>(former_.policy().cost().Mean(lane.rows));
    soonest = std::min(soonest, std::max<int64_t>(0, end - now));
  }
  return soonest == INT64_MAX ? 0 : soonest;
}

// On success the queue holds the job's reference, and *job stays valid for the caller.
Status Scheduler::Enter(Ref<Job>* job, bool ready, bool* started_lane) {
  Job* raw = job->get();
  const int64_t now = NowNs();
  raw->submitted_ns = raw->ready_ns = now;
  raw->scheduler_ = this;
  const bool has_clock = !raw->deadline_ns || context_.clock->Start();
  std::unique_lock<std::mutex> lock = LockAdaptive(mutex_);
  if (stopping_) return Status::Closed("the model was closed");
  if (raw->deadline_ns && raw->deadline_ns <= now) {
    ++stats_.expired;
    return Status::Timeout("the deadline passed");
  }
  auto refuse = [this](std::string why) {
    ++stats_.refused;
    return Status::Overload(std::move(why));
  };
  if (!has_clock) return refuse("the system has no thread to give for deadlines");
  if (queue_.size() >= options_.max_queue) {
    return refuse("the queue is full: " + std::to_string(queue_.size()) +
                  " requests are waiting (maxQueue)");
  }
  const uint32_t rows = std::max(1u, raw->rows);
  if (Status status = AdmitInTime(*raw, rows, now); !status.ok()) {
    ++stats_.refused;
    return status;
  }
  *started_lane = false;
  if (lanes_.empty() && !(*started_lane = lanes_.Start())) {
    return refuse("the system has no thread to give for a lane");
  }
  if (!ready) {
    raw->block = raw->bucket->Reserve(context_.arena, raw->priority - 1, rows, &raw->first_row);
    if (!raw->block) return refuse("no memory for a batch");
  }
  if (last_finish_ns_) {
    const int64_t gap = now - last_finish_ns_;
    gap_ns_ += gap > gap_ns_ ? gap_ns_ / 8 + 500 : -(gap_ns_ / 8);
    // Bounded: one long pause must not be remembered for long.
    gap_ns_ = std::min<int64_t>(gap_ns_, 200'000);
  }
  raw->state_ = Job::State::kQueued;
  raw->ready_ = ready;
  raw->rows_taken_ = raw->parts_running_ = 0;
  raw->runs_whole_ = false;
  raw->failure_ = {};
  raw->AddRef();  // the queue's
  queue_.Push(raw);
  ++stats_.submitted;
  delivery_.Expect(*job, options_.preserve_order);
  if (ready) Announce(*started_lane);
  return {};
}

void Scheduler::Announce(bool started_lane) {
  if (delaying_ > 0) {
    uint32_t rows = 0;
    int64_t until = 0;
    if (former_.Front(&rows, &until)) more_.notify_one();
    return;
  }
  if (!spinning_ && !started_lane && (busy_ == 0 || WorthAnotherLane())) lanes_.WakeOne();
}

bool Scheduler::WorthAnotherLane() {
  return !batch_time_.known() || batch_time_.value() > kWorthASecondLaneNs;
}

// Hands the job to the clock. A lane may have finished it in between: its Remove came too early.
void Scheduler::Watch(const Ref<Job>& job) {
  context_.clock->Add(job.get());
  std::unique_lock<std::mutex> lock = LockAdaptive(mutex_);
  const bool done = job->state_ == Job::State::kDone;
  lock.unlock();
  if (done) context_.clock->Remove(job.get());
}

Status Scheduler::Submit(Ref<Job> job) {
  bool started_lane = false;
  const bool has_deadline = job->deadline_ns != 0;
  // The lane may have completed it, and its sink let it go, before Enter returns.
  if (Status status = Enter(&job, true, &started_lane); !status.ok()) return status;
  if (has_deadline) Watch(job);
  return {};
}

Status Scheduler::Reserve(Ref<Job> job) {
  bool started_lane = false;
  return Enter(&job, false, &started_lane);
}

void Scheduler::Ready(const Ref<Job>* jobs, size_t count) {
  {
    const int64_t now = NowNs();
    const auto lock = LockAdaptive(mutex_);
    if (queue_.MarkReady(jobs, count, now) == 0) return;
    Announce(false);
  }
  for (size_t i = 0; i < count; ++i) {
    if (jobs[i]->deadline_ns) Watch(jobs[i]);
  }
}

void Scheduler::Delivered(int64_t ns) {
  const auto lock = LockAdaptive(mutex_);
  former_.policy().OnDone(ns, NowNs());
}

Lane::Part Scheduler::StillWanted(Lane* lane, size_t part) {
  std::lock_guard<std::mutex> lock(mutex_);
  // Terminated because nobody waits any more, or the model closes.
  return stopping_ || lane->terminated ? Lane::Part{nullptr, 0, 0} : lane->parts[part];
}

bool Scheduler::TakeWhole(Job* job) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (job->runs_whole_) return false;
  job->runs_whole_ = true;
  if (job->state_ == Job::State::kQueued) {
    queue_.Remove(job);
    job->state_ = Job::State::kRunning;
    job->rows_taken_ = job->rows;
  }
  return true;
}

bool Scheduler::Stop(Job* job, Status reason, bool* completed) {
  std::lock_guard<std::mutex> lock(mutex_);
  *completed = false;
  auto finish = [&] {
    job->state_ = Job::State::kDone;
    job->status = std::move(reason);
    ++(job->status.code() == Code::kTimeout ? stats_.expired : stats_.cancelled);
    *completed = true;
  };
  auto terminate = [](Lane* lane) {
    lane->terminated = true;
    (void)ToStatus(ort.RunOptionsSetTerminate(lane->run_options.get()), Code::kRun);
  };
  if (job->state_ == Job::State::kQueued) {
    queue_.Remove(job);
    if (job->parts_running_ == 0) {
      finish();
      return true;
    }
    job->state_ = Job::State::kRunning;
  }
  if (job->state_ != Job::State::kRunning) return false;
  if (job->block) {
    // The run goes on for its neighbours, on memory that the batch holds.
    bool others = false;
    for (Lane::Part& part : job->lane_->parts) {
      if (part.job == job) part.job = nullptr;
      others |= part.job != nullptr;
    }
    if (!others) terminate(job->lane_);
    finish();
    return true;
  }
  if (job->cancelled_.ok()) {
    job->cancelled_ = std::move(reason);
    for (Lane& lane : lanes_.lanes()) {
      if (!lane.parts.empty() && lane.parts.front().job == job) terminate(&lane);
    }
  }
  return true;
}

bool Scheduler::Cancel(Job* job, Status reason) {
  bool completed = false;
  const bool found = Stop(job, std::move(reason), &completed);
  if (completed) delivery_.Complete(Ref<Job>::Adopt(job));
  return found;
}

// The clock's way in: its mutex is held and the job's entry is gone already.
void Scheduler::Expire(Job* job) {
  bool completed = false;
  (void)Stop(job, Status::Timeout("the deadline passed"), &completed);
  if (completed) delivery_.Deliver(Ref<Job>::Adopt(job));
}

Status Scheduler::OnEachLane(const std::function<Status()>& work) {
  const std::lock_guard<std::mutex> turn(chore_mutex_);
  std::unique_lock<std::mutex> lock(mutex_);
  if (stopping_) return Status::Closed("the model was closed");
  while (static_cast<int>(lanes_.size()) < options_.lanes) {
    if (!lanes_.Start()) return Status::Overload("the system has no thread to give for a lane");
  }
  chore_ = &work;
  lanes_.set_chore(++chore_number_);
  chore_left_ = lanes_.size();
  chore_status_ = {};
  lanes_.WakeAll();
  more_.notify_all();
  chore_done_.wait(lock, [this] { return chore_left_ == 0 || (stopping_ && !chore_running_); });
  chore_ = nullptr;
  if (chore_left_ > 0) return Status::Closed("the model was closed");
  return chore_status_;
}

void Scheduler::DoChore(Lane* lane, std::unique_lock<std::mutex>* lock) {
  lane->chore = chore_number_;
  if (!chore_) return;
  if (chore_status_.ok()) {
    chore_running_ = true;
    lock->unlock();
    Status status = (*chore_)();
    lock->lock();
    chore_running_ = false;
    if (stopping_) idle_.notify_all();
    chore_status_ = std::move(status);
    // The next one's turn.
    lanes_.WakeAll();
    more_.notify_all();
  }
  --chore_left_;
  chore_done_.notify_all();
}

void Scheduler::Quiesce(int64_t timeout_ns) {
  std::unique_lock<std::mutex> lock(mutex_);
  stopping_ = true;
  lanes_.TerminateAll();
  lanes_.WakeAll();
  more_.notify_all();
  chore_done_.notify_all();
  idle_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                 [this] { return busy_ == 0 && !chore_running_; });
}

SchedulerStats Scheduler::Stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  SchedulerStats stats = stats_;
  stats.last_ns = last_finish_ns_;
  stats.queued = queue_.size();
  stats.lanes = lanes_.size();
  stats.running = static_cast<uint64_t>(busy_);
  stats.cap = former_.policy().cap();
  stats.delay_ns = former_.policy().delay_ns();
  stats.p99_ns = former_.policy().last_p99_ns();
  return stats;
}

}  // namespace tercel
