// BatchFormer: which jobs run next, and together.
#pragma once

#include <cstdint>

#include "sched/batch_policy.h"
#include "sched/job_queue.h"
#include "sched/lane.h"

namespace tercel {

// REQUIRES of all: the scheduler's mutex is held.
class BatchFormer {
 public:
  explicit BatchFormer(JobQueue* queue) : queue_(queue) {}

  BatchPolicy& policy() { return policy_; }
  // The first ready job that shall run now, and how many rows. Null where none is ready, or where all
  // that are wait for others until *until.
  Job* Front(uint32_t* rows, int64_t* until);
  // Takes the job, and those that may share its run, from the queue into the lane's hand.
  void Take(Lane* lane, Job* first, uint32_t rows);

 private:
  uint32_t RowsNow(const Job* first, int64_t* until) const;

  JobQueue* const queue_;
  BatchPolicy policy_;
};

}  // namespace tercel
