// JobQueue: the jobs of a scheduler that wait, first those of the highest priority.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "sched/job.h"

namespace tercel {

// Holds a reference to each job in it. REQUIRES of all but ready(): the scheduler's mutex is held.
class JobQueue {
 public:
  // At the end of its priority. Takes over a reference.
  void Push(Job* job) {
    List& list = lists_[job->priority - 1];
    job->prev_ = list.tail;
    job->next_ = nullptr;
    (list.tail ? list.tail->next_ : list.head) = job;
    list.tail = job;
    ++size_;
    rows_ += RowsOf(job);
    if (job->ready_) CountReady(1);
  }
  // Gives the reference to the caller.
  void Remove(Job* job) {
    List& list = lists_[job->priority - 1];
    (job->prev_ ? job->prev_->next_ : list.head) = job->next_;
    (job->next_ ? job->next_->prev_ : list.tail) = job->prev_;
    job->next_ = job->prev_ = nullptr;
    --size_;
    rows_ -= RowsOf(job);
    if (!job->ready_) return;
    CountReady(-1);
    if (job->block) job->bucket->ready_rows -= job->rows;
  }
  // The data of jobs whose rows lie in blocks is there; how many of them still wait. Lanes that spin
  // learn of all of them at once.
  size_t MarkReady(const Ref<Job>* jobs, size_t count, int64_t now) {
    int marked = 0;
    for (size_t i = 0; i < count; ++i) {
      Job* job = jobs[i].get();
      if (job->state_ != Job::State::kQueued) continue;  // cancelled, or the scheduler ends
      job->ready_ = true;
      job->ready_ns = now;
      job->bucket->ready_rows += job->rows;
      ++marked;
    }
    if (marked > 0) CountReady(marked);
    return static_cast<size_t>(marked);
  }

  // The first of a priority, from 0.
  Job* first(int priority) const { return lists_[priority].head; }
  size_t size() const { return size_; }
  // That no lane has yet.
  uint64_t rows() const { return rows_; }
  // Jobs whose data is there. Lanes that spin read it without the mutex.
  size_t ready() const { return ready_.load(std::memory_order_acquire); }

 private:
  struct List {
    Job* head = nullptr;
    Job* tail = nullptr;
  };

  static uint64_t RowsOf(const Job* job) { return std::max(1u, job->rows) - job->rows_taken_; }
  void CountReady(int change) {
    ready_.store(ready_.load(std::memory_order_relaxed) + static_cast<size_t>(change),
                 std::memory_order_release);
  }

  List lists_[kPriorities];
  size_t size_ = 0;
  uint64_t rows_ = 0;
  std::atomic<size_t> ready_{0};
};

}  // namespace tercel
