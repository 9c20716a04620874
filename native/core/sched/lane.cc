// The lanes' side of the scheduler: forming batches, waiting for them, handing out the results. Running
// them is in lane_run.cc.
#include "sched/lane.h"

#include <pthread.h>
#if defined(__linux__)
#include <sys/prctl.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/adaptive_lock.h"
#include "base/clock.h"
#include "base/processor_share.h"
#include "sched/scheduler.h"

namespace tercel {

namespace {

// A lane spins at most this long after work (bench/async.ts: longer spins gained nothing).
constexpr int64_t kMaxSpinNs = 50'000;
// A wait this short is spun through: the clock's wake alone costs as much.
constexpr int64_t kSpinDelayNs = 30'000;
// Statistics by size, up to so many rows; larger ones count as this.
constexpr uint32_t kCountedRows = 4096;
// Jobs of other buckets that the search for neighbours passes over.
constexpr size_t kMaxOthers = 256;
// Buckets that may wait for their delay at once, while others are looked at.
constexpr size_t kMaxWaiting = 16;
// A batch takes no more JSON than this and its last request: while the lane reads, the JS thread shall
// have answers to send (mlp, 64 clients: 1.05x of all at once).
constexpr size_t kMaxTextBytes = 256 * 1024;

// Runs of so many nanoseconds are those that the system's clock interrupts.
constexpr int64_t kLongRunNs = 1'000'000;

// The slice of lanes with such runs (processor_share.h). Beside a process of nice 10, p99 was 1.9 times
// the quiet one, and is 1.06. Shorter runs do 3 % more with the usual one, where clients compute as
// well.
constexpr int64_t kLongRunSliceNs = 100'000'000;

}  // namespace

void Scheduler::SpinForWork(int64_t gap_ns) {
  // Worth it only while the next job is expected within the bound.
  if (gap_ns > kMaxSpinNs / 2) return;
  const int64_t until = NowNs() + (2 * gap_ns + 5'000 < kMaxSpinNs ? 2 * gap_ns + 5'000 : kMaxSpinNs);
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready_.load(std::memory_order_acquire) != 0) return;
      CpuRelax();
    }
  } while (NowNs() < until);
}

// The first ready job that shall run now, and how many rows. Null where none is ready, or where all
// that are wait for others until *until.
Job* Scheduler::Front(uint32_t* rows, int64_t* until) {
  *until = 0;
  if (ready_.load(std::memory_order_relaxed) == 0) return nullptr;
  const Bucket* waiting[kMaxWaiting];
  size_t count = 0;
  for (Queue& queue : queues_) {
    for (Job* job = queue.head; job; job = job->next_) {
      if (!job->ready_) continue;
      const Bucket** end = waiting + count;
      if (job->block && std::find(waiting, end, job->bucket.get()) != end) continue;
      int64_t job_until = 0;
      *rows = RowsNow(job, &job_until);
      if (*rows > 0) return job;
      if (*until == 0 || job_until < *until) *until = job_until;
      if (count == kMaxWaiting) return nullptr;
      waiting[count++] = job->bucket.get();
    }
  }
  return nullptr;
}

uint32_t Scheduler::RowsNow(const Job* first, int64_t* until) {
  if (!first->block) {
    if (first->sources.empty()) return std::max(1u, first->rows);
    return std::min({first->rows - first->rows_taken_, policy_.cap(), first->bucket->capacity()});
  }
  const uint32_t ready = first->bucket->ready_rows;
  if (policy_.delay_ns() == 0 && policy_.options().preferred.empty()) {
    return std::min(ready, policy_.cap());
  }
  return policy_.Choose(ready, first->submitted_ns, NowNs(), until);
}

void Scheduler::TakeBatch(Lane* lane, Job* first, uint32_t rows) {
  lane->parts.clear();
  lane->bucket = first->bucket;
  if (first->block) {
    lane->block = first->block;
    uint32_t next_row = first->first_row;
    size_t others = 0;
    size_t text_bytes = 0;
    // Neighbours only: what lies side by side runs where it lies.
    for (Job* job = first; job && lane->rows < rows && others < kMaxOthers;) {
      Job* const next = job->next_;
      if (job->block.get() != lane->block.get()) {
        ++others;
      } else {
        if (!job->ready_) break;
        // What the lane reads while others bring more: not all of it at once.
        if (text_bytes > kMaxTextBytes) break;
        // A gap is what a cancelled request left.
        if (job->first_row != next_row || (job != first && lane->rows + job->rows > rows)) break;
        Unlink(job);
        job->state_ = Job::State::kRunning;
        job->lane_ = lane;
        const size_t part = lane->parts.size();
        lane->parts.push_back({job, job->first_row, job->rows});
        if (!job->unread.empty()) {
          // Once the job is completed, by whomever, it is its owner's again.
          if (lane->unread.size() <= part) lane->unread.resize(part + 1);
          text_bytes += job->unread.text.size();
          std::swap(lane->unread[part], job->unread);
          lane->any_unread = true;
        }
        lane->rows += job->rows;
        next_row += job->rows;
      }
      job = next;
    }
    lane->bucket->Close(lane->block.get());
    return;
  }
  const bool whole = rows >= first->rows;
  const uint32_t from = first->rows_taken_;
  lane->rows = std::max(1u, whole ? first->rows : std::min(rows, first->rows - from));
  lane->parts.push_back({first, from, lane->rows});
  ++first->parts_running_;
  if (whole || from + lane->rows == first->rows) {
    Unlink(first);
    first->rows_taken_ = first->rows;
    first->state_ = Job::State::kRunning;
    return;
  }
  // The rest goes behind the others of its priority, so that a large request does not hold them up.
  Unlink(first);
  first->rows_taken_ += lane->rows;
  Queue& queue = queues_[first->priority - 1];
  first->prev_ = queue.tail;
  (queue.tail ? queue.tail->next_ : queue.head) = first;
  queue.tail = first;
  ++queued_;
  queued_rows_ += first->rows - first->rows_taken_;
  ready_.store(ready_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

void Scheduler::LaneLoop(Lane* lane) {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "tercel-lane");
  // The default lets the kernel add 50 us to every wait.
  prctl(PR_SET_TIMERSLACK, 1000UL);
#endif
  bool woken = true;      // parked since the last job
  bool may_spin = false;  // once after each job
  bool has_long_slice = false;
  std::vector<Ref<Job>> done;
  std::unique_lock<std::mutex> lock(mutex_);
  auto give_back = [&] {
    if (lane->compute_threads) {
      context_.budget->Release(&claim_, lane->compute_threads, lane->busy_ns);
    }
    lane->compute_threads = 0;
    lane->busy_ns = 0;
  };
  while (!stopping_) {
    if (lane->chore != chore_number_ && !chore_running_) {
      give_back();
      DoChore(lane, &lock);
      continue;
    }
    uint32_t rows = 0;
    int64_t until = 0;
    Job* first = Front(&rows, &until);
    if (!first && until == 0) {
      give_back();
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
      parked_.push_back(lane);
      lane->parked = true;
      lane->wake.wait(lock, [lane] { return !lane->parked; });
      woken = true;
      continue;
    }
    if (!first) {
      give_back();
      woken = false;  // what follows is not the cost of a wake
      const int64_t left = until - NowNs();
      ++delaying_;
      if (left > kSpinDelayNs) {
        more_.wait_for(lock, std::chrono::nanoseconds(left));
      } else {
        lock.unlock();
        for (int i = 0; i < 64; ++i) CpuRelax();
        Relock(&lock);
      }
      --delaying_;
      continue;
    }
    if (!lane->compute_threads) {
      lane->compute_threads = context_.budget->TryAcquire(&claim_);
      if (!lane->compute_threads) {
        // While others compute, the batch may grow; it is formed when it is our turn.
        woken = false;
        lock.unlock();
        lane->compute_threads = context_.budget->Acquire(&claim_);
        Relock(&lock);
        continue;
      }
    }
    lane->rows = 0;
    TakeBatch(lane, first, rows);
    ++busy_;
    // More is waiting, and no lane is about to look: pass the wake on.
    if (!spinning_ && delaying_ == 0 && ready_.load(std::memory_order_relaxed) > 0 &&
        WorthAnotherLane()) {
      WakeOne();
    }
    if (delaying_ > 0 && ready_.load(std::memory_order_relaxed) > 0) more_.notify_one();
    lane->started_ns = NowNs();
    lane->running = true;
    const int64_t ready_ns = lane->parts.front().job->ready_ns;
    const bool measure_wake = woken && busy_ == 1;
    lock.unlock();
    if (measure_wake) context_.wake_cost->Add(lane->started_ns - ready_ns);
    RunBatch(lane);
    Relock(&lock);
    EndBatch(lane, &done);
    --busy_;
    if (stopping_) idle_.notify_all();
    lock.unlock();
    give_back();
    CompleteAll(&done);
    // On a GPU the lane only waits.
    const bool runs_long = !context_.device && batch_time_.known() && batch_time_.value() > kLongRunNs;
    if (runs_long != has_long_slice) {
      has_long_slice = runs_long;
      SetSlice(runs_long ? kLongRunSliceNs : 0);
    }
    woken = false;
    may_spin = true;
    Relock(&lock);
  }
  lock.unlock();
  give_back();
}

void Scheduler::EndJob(Job* job, Status status) {
  if (!job->cancelled_.ok()) {
    job->status = job->cancelled_;
    ++(job->status.code() == Code::kTimeout ? stats_.expired : stats_.cancelled);
  } else {
    job->status = std::move(status);
    // What was no input is the client's mistake, as where it is refused at once.
    if (!job->status.ok() && job->status.code() != Code::kInvalidInput) {
      ++stats_.failed;
      stats_.failed_ns += job->finished_ns - job->submitted_ns;
    }
  }
  if (job->cancelled_.ok()) ++stats_.completed;
  if (job->status.ok()) {
    stats_.rows += std::max(1u, job->rows);
    stats_.queue_ns += job->started_ns - job->submitted_ns;
    stats_.run_ns += job->finished_ns - job->started_ns;
  }
  if (job->status.ok() && !job->reports_delivery) {
    policy_.OnDone(job->finished_ns - job->submitted_ns, job->finished_ns);
  }
  job->state_ = Job::State::kDone;
  job->lane_ = nullptr;
}

void Scheduler::CountRun(uint32_t rows, int64_t ns) {
  ++stats_.runs;
  const uint32_t size = std::min(rows, kCountedRows);
  auto entry = std::lower_bound(stats_.batches.begin(), stats_.batches.end(), size,
                                [](const BatchCount& b, uint32_t n) { return b.rows < n; });
  if (entry == stats_.batches.end() || entry->rows != size) {
    entry = stats_.batches.insert(entry, BatchCount{size, 0, 0});
  }
  ++entry->runs;
  entry->run_ns += ns;
}

void Scheduler::EndBatch(Lane* lane, std::vector<Ref<Job>>* done) {
  const int64_t now = NowNs();
  lane->busy_ns = now - lane->started_ns;
  const int64_t ns = lane->busy_ns - lane->read_ns;
  lane->running = false;
  last_finish_ns_ = now;
  if (lane->ran) CountRun(lane->rows, ns);
  const bool single = lane->parts.size() == 1;
  if (lane->status.ok()) {
    batch_time_.Add(ns);
    if (single) run_time_.Add(ns);
    policy_.OnRun(lane->rows, lane->busy_ns, now);
  }
  if (lane->retried) ++stats_.retried;
  if (lane->terminated) {
    lane->terminated = false;
    if (!stopping_) {
      (void)ToStatus(ort.RunOptionsUnsetTerminate(lane->run_options.get()), Code::kRun);
    }
  }
  const bool by_part = !lane->part_statuses.empty();
  const uint32_t first_row = lane->parts.front().first_row;
  for (size_t i = 0; i < lane->parts.size(); ++i) {
    Job* job = lane->parts[i].job;
    if (!job) continue;  // cancelled meanwhile
    if (job->started_ns == 0) job->started_ns = lane->started_ns + lane->read_ns;
    job->finished_ns = now;
    Status status = by_part ? lane->part_statuses[i] : lane->status;
    if (!lane->block) {
      if (!status.ok() && job->failure_.ok()) job->failure_ = std::move(status);
      --job->parts_running_;
      if (!job->failure_.ok() && job->state_ == Job::State::kQueued) {
        // What is left of a split job need not run.
        Unlink(job);
        job->state_ = Job::State::kRunning;
      }
      if (job->state_ == Job::State::kQueued || job->parts_running_ > 0) continue;
      EndJob(job, job->failure_);
    } else {
      const Ref<SharedOutputs>& shared = lane->part_outputs[lane->part_outputs.size() > 1 ? i : 0];
      if (shared) {
        job->shared_outputs = shared;
        job->first_row = shared->divided ? job->first_row - first_row : 0;
      }
      job->predictions_dropped = lane->predictions_dropped;
      EndJob(job, std::move(status));
    }
    done->push_back(Ref<Job>::Adopt(job));
  }
  lane->parts.clear();
  lane->part_outputs.clear();
  lane->any_unread = false;
  lane->block.reset();
  lane->bucket.reset();
}

}  // namespace tercel
