// Lane: a native thread that executes a model's runs, and the batch that it has in hand.
#pragma once

#include <condition_variable>
#include <thread>
#include <vector>

#include "sched/job.h"

namespace tercel {

struct Lane {
  // A job's part in the batch. The lane holds one reference; null once the job was completed without
  // it.
  struct Part {
    Job* job;
    uint32_t first_row;  // in the block, or in the job's own memory
    uint32_t rows;
  };

  std::thread thread;
  OrtPtr<OrtRunOptions> run_options;

  std::condition_variable wake;  // no longer parked

  // Protected by the scheduler's mutex.
  bool parked = false;  // among the scheduler's parked lanes
  bool terminated = false;
  uint64_t chore = 0;  // the last one done
  bool running = false;
  std::vector<Part> parts;
  Ref<RowBlock> block;  // where the rows lie; null when a job runs on memory of its own
  Ref<Bucket> bucket;
  uint32_t rows = 0;
  // By part, taken from the jobs; empty where none came as JSON. Kept for their memory.
  std::vector<UnreadInputs> unread;
  bool any_unread = false;
  int64_t started_ns = 0;

  // The lane's own.
  int compute_threads = 0;  // granted by the budget
  int64_t busy_ns = 0;      // of the last run
  int64_t read_ns = 0;      // of them, before it: inputs that came as JSON
  Status status;            // of the last run
  bool retried = false;
  bool ran = false;  // the graph, at all
  bool predictions_dropped = false;
  std::vector<Status> part_statuses;
  std::vector<Ref<SharedOutputs>> part_outputs;
  std::vector<OrtValue*> values;
  std::vector<const char*> names;
};

}  // namespace tercel
