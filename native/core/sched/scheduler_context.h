// What a scheduler is given by its model and the process.
#pragma once

#include "base/compute_budget.h"
#include "base/running_median.h"
#include "gpu/device_runner.h"
#include "memory/arena.h"
#include "ort/ort_library.h"
#include "sched/deadline_clock.h"

namespace tercel {

// Outlives the scheduler.
struct SchedulerContext {
  DeadlineClock* clock;
  RunningMedian* wake_cost;
  ComputeBudget* budget;
  Arena* arena;
  const OrtMemoryInfo* cpu_memory;
  DeviceRunner* device = nullptr;  // where the session runs on a GPU
};

}  // namespace tercel
