// The lanes' side of the scheduler: waiting for work, taking it, and accounting for what became of it.
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
      if (queue_.ready() != 0) return;
      CpuRelax();
    }
  } while (NowNs() < until);
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
    Job* first = former_.Front(&rows, &until);
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
      lanes_.Park(lane, &lock);
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
    former_.Take(lane, first, rows);
    ++busy_;
    // More is waiting, and no lane is about to look: pass the wake on.
    if (!spinning_ && delaying_ == 0 && queue_.ready() > 0 && WorthAnotherLane()) {
      lanes_.WakeOne();
    }
    if (delaying_ > 0 && queue_.ready() > 0) more_.notify_one();
    lane->started_ns = NowNs();
    lane->running = true;
    const int64_t ready_ns = lane->parts.front().job->ready_ns;
    const bool measure_wake = woken && busy_ == 1;
    lock.unlock();
    if (measure_wake) context_.wake_cost->Add(lane->started_ns - ready_ns);
    runner_.Run(lane);
    Relock(&lock);
    EndBatch(lane, &done);
    --busy_;
    if (stopping_) idle_.notify_all();
    lock.unlock();
    give_back();
    delivery_.CompleteAll(&done);
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
    if (job->status.code() == Code::kInvalidInput) {
      ++stats_.invalid;
    } else if (!job->status.ok()) {
      ++stats_.failed;
      stats_.failed_ns += job->finished_ns - job->submitted_ns;
    }
  }
  if (job->cancelled_.ok()) ++stats_.completed;
  if (job->status.ok()) {
    stats_.rows += job->rows ? job->rows : job->counted_rows;
    stats_.queue_ns += job->started_ns - job->submitted_ns;
    stats_.run_ns += job->finished_ns - job->started_ns;
  }
  if (job->status.ok() && !job->reports_delivery) {
    former_.policy().OnDone(job->finished_ns - job->submitted_ns, job->finished_ns);
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
  if (lane->ran) {
    const Job* only = lane->parts.size() == 1 ? lane->parts.front().job : nullptr;
    CountRun(only && only->rows == 0 ? only->counted_rows : lane->rows, ns);
  }
  const bool single = lane->parts.size() == 1;
  if (lane->status.ok()) {
    batch_time_.Add(ns);
    if (single) run_time_.Add(ns);
    former_.policy().OnRun(lane->rows, lane->busy_ns, now);
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
        queue_.Remove(job);
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
