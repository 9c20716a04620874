// Job: one request to a model, from submission to completion.
//
//   new -> queued -> running -> done -> (the sink's thread)
//             \________________/^
//               Cancel
#pragma once

#include <cstdint>
#include <vector>

#include "base/inline_vector.h"
#include "base/ref.h"
#include "base/status.h"
#include "json/json_tensor.h"
#include "memory/arena.h"
#include "ort/ort_library.h"
#include "sched/bucket.h"

namespace tercel {

class Scheduler;
struct Lane;

// Something that finished on a native thread and is handed to the thread that asked for it.
class Completion {
 public:
  virtual ~Completion() = default;
  void AddRef() const { refs_.fetch_add(1, std::memory_order_relaxed); }
  void DropRef() const {
    if (refs_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
  Completion* next_completion = nullptr;  // owned by the sink

 private:
  mutable std::atomic<uint32_t> refs_{0};
};

// Takes completions from any thread. Post never blocks for long and never runs the caller's code.
class CompletionSink : public RefCounted<CompletionSink> {
 public:
  virtual void Post(Ref<Completion> completion) = 0;
  // The same for several, in order.
  virtual void PostAll(Ref<Completion>* completions, size_t count) {
    for (size_t i = 0; i < count; ++i) Post(std::move(completions[i]));
  }

 protected:
  friend class RefCounted<CompletionSink>;
  virtual ~CompletionSink() = default;
};

// A run whose values are fixed.
class BoundRun {
 public:
  virtual OrtStatus* Run(const OrtRunOptions* options) = 0;

 protected:
  ~BoundRun() = default;
};

inline constexpr int kPriorities = 8;
inline constexpr int kDefaultPriority = 4;

// Outputs of a batch that ONNX Runtime allocated: each job's are its rows of them.
class SharedOutputs : public RefCounted<SharedOutputs> {
 public:
  std::vector<OrtPtr<OrtValue>> values;
  // Several jobs' rows are in them, as many as went in; else all is one job's, whatever its rows.
  bool divided = false;

 private:
  friend class RefCounted<SharedOutputs>;
  ~SharedOutputs() = default;
};

// Inputs that came as JSON: the lane reads them straight to where they will run, so that the JS thread
// does not (mlp's 784 numbers take twice as long to read as to run).
struct UnreadInputs {
  struct Input {
    size_t index;  // in the bucket's inputs
    size_t begin;  // in the text
    size_t end;
    size_t offset;  // of `begin` in the request's body, for errors
  };
  static constexpr size_t kMostKeptBytes = 32 * 1024;
  std::string text;  // the inputs', one behind the other
  std::vector<Input> inputs;

  bool empty() const { return inputs.empty(); }
  // Keeps the memory for the next request, unless it is a lot.
  void Clear() {
    if (text.capacity() > kMostKeptBytes) text = std::string();
    text.clear();
    inputs.clear();
  }
};

// A job brings its values (inputs, outputs, leases), or its rows lie in a block of its bucket and share
// a run with their neighbours. One that brings values may have a bucket too, and sources and targets:
// then a run that would be larger than a batch is split.
class Job : public Completion {
 public:
  explicit Job(Ref<CompletionSink> sink) : sink(std::move(sink)) {}
  ~Job() override { DropValues(); }

  // Set before Submit or Reserve, constant after.
  const Ref<CompletionSink> sink;
  // Run this; the vectors below are then empty.
  BoundRun* bound = nullptr;
  InlineVector<const char*, 4> input_names;
  InlineVector<OrtValue*, 4> inputs;  // owned
  InlineVector<const char*, 4> output_names;
  std::vector<Ref<Lease>> leases;   // what the values above point into
  int64_t deadline_ns = 0;          // NowNs() clock; 0 is none
  int priority = kDefaultPriority;  // 1 (first) to kPriorities
  Ref<Bucket> bucket;
  uint32_t rows = 0;
  uint32_t counted_rows = 1;          // for the statistics, where it has no rows to be batched
  bool reports_delivery = false;      // the sink's thread says Delivered
  InlineVector<uint8_t*, 4> sources;  // row 0 of each input and output, in the bucket's order
  InlineVector<uint8_t*, 4> targets;
  // Set between Reserve and Ready; the lane takes them with the job.
  UnreadInputs unread;

  // Owned; null before the run where ORT shall allocate. Written by the lane.
  InlineVector<OrtValue*, 4> outputs;
  // Outputs whose memory has the shape that the model declares. Where the declaration is wrong, the
  // lane runs the job again and lets ORT allocate them.
  InlineVector<uint8_t, 4> predicted;  // as flags

  // Where the rows lie, from Reserve on, and the outputs after the run; null for a job of values.
  Ref<RowBlock> block;
  // After a run whose outputs ORT allocated: they, and the job's first row in them. Null otherwise.
  Ref<SharedOutputs> shared_outputs;
  uint32_t first_row = 0;  // in the block; in shared_outputs when those are there

  // Written before the sink gets the job.
  bool predictions_dropped = false;
  Status status;
  int64_t submitted_ns = 0;
  int64_t ready_ns = 0;  // when its data was there
  int64_t started_ns = 0;
  int64_t finished_ns = 0;

  // Makes a job that is done ready to be submitted again, with the same values; rows are to be reserved
  // anew. REQUIRES: nobody else holds it.
  void Reset() {
    status = {};
    cancelled_ = {};
    failure_ = {};
    state_ = State::kNew;
    block.reset();
    shared_outputs.reset();
    unread.Clear();
    first_row = 0;
    submitted_ns = ready_ns = started_ns = finished_ns = deadline_ns = 0;
  }

 private:
  friend class Scheduler;
  friend class JobQueue;
  friend class BatchFormer;
  friend class BatchRunner;
  friend class DeadlineClock;
  enum class State : uint8_t { kNew, kQueued, kRunning, kDone };

  void DropValues() {
    for (OrtValue* value : inputs) ort.ReleaseValue(value);
    for (OrtValue* value : outputs) {
      if (value) ort.ReleaseValue(value);
    }
  }

  // Protected by the scheduler's mutex.
  Scheduler* scheduler_ = nullptr;
  State state_ = State::kNew;
  bool ready_ = false;  // its data is there
  Lane* lane_ = nullptr;
  Job* next_ = nullptr;
  Job* prev_ = nullptr;
  Status cancelled_;  // why, when Cancel found the job running
  Status failure_;    // the first of its parts
  // A job that is split: rows given to lanes, and runs under way.
  uint32_t rows_taken_ = 0;
  uint32_t parts_running_ = 0;
  bool runs_whole_ = false;  // its declared outputs are wrong: parts count for nothing
};

}  // namespace tercel
