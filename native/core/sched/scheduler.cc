#include "sched/scheduler.h"

#include <algorithm>
#include <system_error>

#include "base/adaptive_lock.h"
#include "base/clock.h"
#include "sched/lane.h"

namespace tercel {

namespace {
// Waking a second lane pays only for runs that last longer than the wake itself.
constexpr int64_t kWorthASecondLaneNs = 60'000;
}  // namespace

Scheduler::Scheduler(OrtSession* session, const SchedulerOptions& options,
                     const SchedulerContext& context)
    : session_(session),
      context_(context),
      claim_(context.device ? 1 : options.threads_per_run, options.weight) {
  Configure(options);
}

Scheduler::~Scheduler() {
  std::vector<Ref<Job>> dropped;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    for (Queue& queue : queues_) {
      while (Job* job = queue.head) {
        Unlink(job);
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
    for (Lane& lane : lanes_) {
      (void)ToStatus(ort.RunOptionsSetTerminate(lane.run_options.get()), Code::kRun);
    }
    WakeAll();
    more_.notify_all();
    chore_done_.notify_all();
  }
  context_.budget->Abandon(&claim_);
  for (Ref<Job>& job : dropped) Complete(std::move(job));
  for (Lane& lane : lanes_) {
    if (lane.thread.joinable()) lane.thread.join();
  }
}

void Scheduler::Configure(const SchedulerOptions& options) {
  std::lock_guard<std::mutex> lock(mutex_);
  options_ = options;
  policy_.Set(options.batch, options.lanes);
  max_batch_.store(policy_.options().max_batch, std::memory_order_relaxed);
  has_target_.store(options.batch.target_p99_ns != 0, std::memory_order_relaxed);
  preserve_order_.store(options.preserve_order, std::memory_order_relaxed);
  if (options.preserve_order) ever_ordered_.store(true, std::memory_order_relaxed);
  if (context_.device) context_.device->SetRows(options.device_rows);
  // A run on a GPU takes one of the device's.
  context_.budget->Configure(&claim_, context_.device ? 1 : options.threads_per_run, options.weight);
  // Who waits by the old numbers looks again.
  more_.notify_all();
  WakeAll();
}

SchedulerOptions Scheduler::options() {
  std::lock_guard<std::mutex> lock(mutex_);
  return options_;
}

// Work that would come too late is not begun: it would only make others late.
Status Scheduler::AdmitInTime(const Job& job, uint32_t rows, int64_t now) {
  const bool has_target = options_.batch.target_p99_ns != 0;
  // Nothing is in its way, and without a run what is known of runs would stay as it is, right or wrong.
  if (busy_ == 0 && queued_ == 0) return {};
  if (!has_target && !job.deadline_ns) return {};
  if (job.deadline_ns) {
    const int64_t expected = policy_.Predict(rows, queued_rows_, LaneFreeIn(now));
    if (now + expected > job.deadline_ns) {
      return Status::Timeout("the request would miss its deadline: it is expected to take " +
                             std::to_string(expected / 1000) + " us");
    }
  }
  if (has_target && queued_rows_ + rows > policy_.queue_rows()) {
    policy_.OnRefused();
    return Status::Overload("the request would miss the latency target of " +
                            std::to_string(options_.batch.target_p99_ns / 1000) +
                            " us: " + std::to_string(queued_) + " requests are waiting");
  }
  return {};
}

int64_t Scheduler::LaneFreeIn(int64_t now) {
  if (busy_ < options_.lanes) return 0;
  int64_t soonest = INT64_MAX;
  for (const Lane& lane : lanes_) {
    if (!lane.running) continue;
    const auto end = lane.started_ns + static_cast<int64_t>(policy_.cost().Mean(lane.rows));
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
  if (raw->deadline_ns && raw->deadline_ns <= now) {
    return Status::Timeout("the deadline passed before the request was queued");
  }
  if (raw->deadline_ns && !context_.clock->Start()) {
    return Status::Overload("the system has no thread to give for deadlines");
  }
  std::unique_lock<std::mutex> lock = LockAdaptive(mutex_);
  if (stopping_) return Status::Closed("the model was closed");
  if (queued_ >= options_.max_queue) {
    ++stats_.refused;
    return Status::Overload("the queue is full: " + std::to_string(queued_) +
                            " requests are waiting (maxQueue)");
  }
  const uint32_t rows = std::max(1u, raw->rows);
  if (Status status = AdmitInTime(*raw, rows, now); !status.ok()) {
    ++stats_.refused;
    return status;
  }
  *started_lane = false;
  if (lanes_.empty() && !(*started_lane = StartLane())) {
    return Status::Overload("the system has no thread to give for a lane");
  }
  if (!ready) {
    raw->block = raw->bucket->Reserve(context_.arena, raw->priority - 1, rows, &raw->first_row);
    if (!raw->block) return Status::Overload("no memory for a batch");
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
  Queue& queue = queues_[raw->priority - 1];
  raw->prev_ = queue.tail;
  raw->next_ = nullptr;
  (queue.tail ? queue.tail->next_ : queue.head) = raw;
  queue.tail = raw;
  raw->AddRef();  // the queue's
  ++queued_;
  queued_rows_ += rows;
  ++stats_.submitted;
  in_flight_.fetch_add(1, std::memory_order_relaxed);
  if (options_.preserve_order) {
    std::lock_guard<std::mutex> order(order_mutex_);
    turns_.push_back({*job, false});
  }
  if (ready) {
    ready_.store(ready_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    Announce(*started_lane);
  }
  return {};
}

void Scheduler::Announce(bool started_lane) {
  if (delaying_ > 0) {
    uint32_t rows = 0;
    int64_t until = 0;
    if (Front(&rows, &until)) more_.notify_one();
    return;
  }
  if (!spinning_ && !started_lane && (busy_ == 0 || WorthAnotherLane())) WakeOne();
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
    size_t ready = 0;
    for (size_t i = 0; i < count; ++i) {
      Job* job = jobs[i].get();
      if (job->state_ != Job::State::kQueued) continue;  // cancelled, or the scheduler ends
      job->ready_ = true;
      job->ready_ns = now;
      job->bucket->ready_rows += job->rows;
      ++ready;
    }
    if (ready == 0) return;
    ready_.store(ready_.load(std::memory_order_relaxed) + ready, std::memory_order_release);
    Announce(false);
  }
  for (size_t i = 0; i < count; ++i) {
    if (jobs[i]->deadline_ns) Watch(jobs[i]);
  }
}

void Scheduler::Delivered(int64_t ns) {
  const auto lock = LockAdaptive(mutex_);
  policy_.OnDone(ns, NowNs());
}

namespace {

void Unpark(Lane* lane) {
  lane->parked = false;
  lane->wake.notify_one();
}

}  // namespace

// The lane that parked last: its stack and its processor's caches are warm, and the others' processors
// are left to others. Woken in turns, two lanes push whatever else computes from one processor to the
// other.
void Scheduler::WakeOne() {
  if (!parked_.empty()) {
    Unpark(parked_.back());
    parked_.pop_back();
    return;
  }
  // Where there is no thread to be had now, the lanes that exist do the work.
  if (static_cast<int>(lanes_.size()) < options_.lanes) (void)StartLane();
}

void Scheduler::WakeAll() {
  for (Lane* lane : parked_) Unpark(lane);
  parked_.clear();
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
  lane->chore = chore_number_;
  try {
    lane->thread = std::thread([this, lane] { LaneLoop(lane); });
    stats_.lanes = lanes_.size();
    return true;
  } catch (const std::system_error&) {
    lanes_.pop_back();
    return false;
  }
}

void Scheduler::Unlink(Job* job) {
  Queue& queue = queues_[job->priority - 1];
  (job->prev_ ? job->prev_->next_ : queue.head) = job->next_;
  (job->next_ ? job->next_->prev_ : queue.tail) = job->prev_;
  job->next_ = job->prev_ = nullptr;
  --queued_;
  queued_rows_ -= std::max(1u, job->rows) - job->rows_taken_;
  if (!job->ready_) return;
  ready_.store(ready_.load(std::memory_order_relaxed) - 1, std::memory_order_release);
  if (job->block) job->bucket->ready_rows -= job->rows;
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
    Unlink(job);
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
    for (Lane& lane : lanes_) {
      if (!lane.parts.empty() && lane.parts.front().job == job) terminate(&lane);
    }
  }
  return true;
}

bool Scheduler::Cancel(Job* job, Status reason) {
  bool completed = false;
  const bool found = Stop(job, std::move(reason), &completed);
  if (completed) Complete(Ref<Job>::Adopt(job));
  return found;
}

// The clock's way in: its mutex is held and the job's entry is gone already.
void Scheduler::Expire(Job* job) {
  bool completed = false;
  (void)Stop(job, Status::Timeout("the deadline passed"), &completed);
  if (completed) Deliver(Ref<Job>::Adopt(job));
}

Status Scheduler::OnEachLane(const std::function<Status()>& work) {
  const std::lock_guard<std::mutex> turn(chore_mutex_);
  std::unique_lock<std::mutex> lock(mutex_);
  if (stopping_) return Status::Closed("the model was closed");
  while (static_cast<int>(lanes_.size()) < options_.lanes) {
    if (!StartLane()) return Status::Overload("the system has no thread to give for a lane");
  }
  chore_ = &work;
  ++chore_number_;
  chore_left_ = lanes_.size();
  chore_status_ = {};
  WakeAll();
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
    WakeAll();
    more_.notify_all();
  }
  --chore_left_;
  chore_done_.notify_all();
}

void Scheduler::Quiesce(int64_t timeout_ns) {
  std::unique_lock<std::mutex> lock(mutex_);
  stopping_ = true;
  for (Lane& lane : lanes_) {
    (void)ToStatus(ort.RunOptionsSetTerminate(lane.run_options.get()), Code::kRun);
  }
  WakeAll();
  more_.notify_all();
  chore_done_.notify_all();
  idle_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                 [this] { return busy_ == 0 && !chore_running_; });
}

void Scheduler::Complete(Ref<Job> job) {
  if (job->deadline_ns) context_.clock->Remove(job.get());
  Deliver(std::move(job));
}

void Scheduler::Deliver(Ref<Job> job) {
  if (!ever_ordered_.load(std::memory_order_relaxed)) {
    Post(std::move(job));
    return;
  }
  std::lock_guard<std::mutex> lock(order_mutex_);
  auto turn = std::find_if(turns_.begin(), turns_.end(),
                           [&](const Turn& t) { return t.job.get() == job.get(); });
  if (turn == turns_.end()) {  // it came before the order was asked for
    Post(std::move(job));
    return;
  }
  turn->done = true;
  job.reset();  // the last reference must not be dropped here: the job may hold the model
  while (!turns_.empty() && turns_.front().done) {
    Ref<Job> next = std::move(turns_.front().job);
    turns_.pop_front();
    Post(std::move(next));
  }
}

void Scheduler::Post(Ref<Job> job) {
  in_flight_.fetch_sub(1, std::memory_order_relaxed);
  const Ref<CompletionSink> sink = job->sink;  // outlives the job, which may go before Post returns
  sink->Post(std::move(job));
}

// A batch's jobs mostly go to one sink: one lock and at most one wake for all of them.
void Scheduler::CompleteAll(std::vector<Ref<Job>>* jobs) {
  if (ever_ordered_.load(std::memory_order_relaxed)) {
    for (Ref<Job>& job : *jobs) Complete(std::move(job));
    jobs->clear();
    return;
  }
  for (const Ref<Job>& job : *jobs) {
    if (job->deadline_ns) context_.clock->Remove(job.get());
  }
  in_flight_.fetch_sub(jobs->size(), std::memory_order_relaxed);
  std::vector<Ref<Completion>> list;
  list.reserve(jobs->size());
  for (size_t i = 0; i < jobs->size();) {
    const Ref<CompletionSink> sink = (*jobs)[i]->sink;
    list.clear();
    while (i < jobs->size() && (*jobs)[i]->sink.get() == sink.get())
      list.push_back(std::move((*jobs)[i++]));
    sink->PostAll(list.data(), list.size());
  }
  jobs->clear();
}

SchedulerStats Scheduler::Stats() {
  std::lock_guard<std::mutex> lock(mutex_);
  SchedulerStats stats = stats_;
  stats.queued = queued_;
  stats.running = static_cast<uint64_t>(busy_);
  stats.cap = policy_.cap();
  stats.delay_ns = policy_.delay_ns();
  stats.p99_ns = policy_.last_p99_ns();
  return stats;
}

}  // namespace tercel
