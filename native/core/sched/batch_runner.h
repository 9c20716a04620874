// BatchRunner: what a lane does with the batch that it has in hand, without the scheduler's mutex.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ort/ort_library.h"
#include "sched/job.h"
#include "sched/lane.h"
#include "sched/scheduler_context.h"

namespace tercel {

// Any lane at any time, each with a batch of its own.
class BatchRunner {
 public:
  // What it asks of the scheduler, whose mutex is taken for it.
  class Owner {
   public:
    // The part, or one without a job where nobody waits for it any more.
    virtual Lane::Part StillWanted(Lane* lane, size_t part) = 0;
    // Whether this lane is the one that runs all of a job whose parts fail.
    virtual bool TakeWhole(Job* job) = 0;

   protected:
    ~Owner() = default;
  };

  // All of these outlive it.
  BatchRunner(OrtSession* session, const SchedulerContext& context, Owner* owner)
      : session_(session), context_(context), owner_(owner) {}

  // Runs the batch; what became of it is in the lane.
  void Run(Lane* lane);

 private:
  void RetryOneByOne(Lane* lane);
  bool ReadInputs(Lane* lane);
  Status RunRows(Lane* lane, uint32_t first_row, uint32_t rows, bool divided,
                 Ref<SharedOutputs>* shared);
  Status RunPart(Lane* lane, Job* job, uint32_t first_row, uint32_t rows);
  Status RunValues(Lane* lane, Job* job);
  OrtStatus* Call(Lane* lane, const RunCall& call);

  OrtSession* const session_;
  const SchedulerContext& context_;
  Owner* const owner_;
};

}  // namespace tercel
