// Job: one run of a model on a lane, from submission to completion.
//
//   new -> queued -> running -> done -> (the sink's thread)
//             \________________/^
//               Cancel
#pragma once

#include <cstdint>
#include <vector>

#include "arena.h"
#include "inline_vector.h"
#include "ort_library.h"
#include "ref.h"
#include "status.h"

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

 protected:
  friend class RefCounted<CompletionSink>;
  virtual ~CompletionSink() = default;
};

inline constexpr int kPriorities = 8;
inline constexpr int kDefaultPriority = 4;

class Job : public Completion {
 public:
  explicit Job(Ref<CompletionSink> sink) : sink(std::move(sink)) {}
  ~Job() override {
    for (OrtValue* value : inputs) ort.ReleaseValue(value);
    for (OrtValue* value : outputs) {
      if (value) ort.ReleaseValue(value);
    }
  }

  // Set before Submit, constant after.
  const Ref<CompletionSink> sink;
  OrtIoBinding* binding = nullptr;  // run this binding; the vectors below are then empty
  InlineVector<const char*, 4> input_names;
  InlineVector<OrtValue*, 4> inputs;  // owned
  InlineVector<const char*, 4> output_names;
  std::vector<Ref<Lease>> leases;   // what the values above point into
  int64_t deadline_ns = 0;          // NowNs() clock; 0 is none
  int priority = kDefaultPriority;  // 1 (first) to kPriorities

  // Owned; null before the run where ORT shall allocate. Written by the lane.
  InlineVector<OrtValue*, 4> outputs;
  // Outputs whose memory has the shape that the model declares. Where the declaration is wrong, the
  // lane runs the job again and lets ORT allocate them.
  InlineVector<uint8_t, 4> predicted;  // as flags
  // Written before the sink gets the job.
  bool predictions_dropped = false;
  Status status;
  int64_t submitted_ns = 0;
  int64_t started_ns = 0;
  int64_t finished_ns = 0;

  // Makes a job that is done ready to be submitted again, with the same values.
  // REQUIRES: nobody else holds it.
  void Reset() {
    status = {};
    cancelled_ = {};
    state_ = State::kNew;
    submitted_ns = started_ns = finished_ns = deadline_ns = 0;
  }

 private:
  friend class Scheduler;
  friend class DeadlineClock;
  enum class State : uint8_t { kNew, kQueued, kRunning, kDone };

  // Protected by the scheduler's mutex.
  Scheduler* scheduler_ = nullptr;
  State state_ = State::kNew;
  Lane* lane_ = nullptr;
  Job* next_ = nullptr;
  Job* prev_ = nullptr;
  Status cancelled_;  // why, when Cancel found the job running
};

}  // namespace tercel
