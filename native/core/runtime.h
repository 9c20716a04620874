// Runtime: the process's one ONNX Runtime environment, its arena, and the registry of models.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/compute_budget.h"
#include "memory/arena.h"
#include "ort/ort_library.h"
#include "ort/tensor.h"
#include "sched/deadline_clock.h"
#include "sched/scheduler.h"

namespace tercel {

class Model;

struct RuntimeOptions {
  std::string library;  // path of libonnxruntime
  ArenaOptions arena;
  std::string cuda_library;  // where the arena is pinned: path of libcudart; empty is the system's
  bool never_pin = false;    // also where models run on a GPU
  int log_level = 4;         // ORT's: 0 verbose to 4 fatal
};

// Bytes of tensors that Tercel copied, by reason.
struct CopyCounters {
  std::atomic<uint64_t> in{0};   // into a lease, so that an async run cannot see JS change its input
  std::atomic<uint64_t> out{0};  // into memory that the result owns
};

// Created once and never destroyed: ONNX Runtime's environment must outlive every session, and must
// not be torn down by static destructors. Thread-safe.
class Runtime {
 public:
  // The first call that succeeds fixes the options; later ones only check the library.
  static Status Get(const RuntimeOptions& options, Runtime** out);
  // Null before the first success.
  static Runtime* Current();

  OrtEnv* env() const { return env_; }
  // Describes plain CPU memory.
  const OrtMemoryInfo* cpu_memory() const { return cpu_memory_; }
  Arena* arena() { return &arena_; }
  // A model runs on a GPU: what is copied from and to it is better pinned.
  void PinForGpu() {
    if (!never_pin_) arena_.Pin();
  }
  LeaseTable* lease_table() { return &lease_table_; }
  CopyCounters* copies() { return &copies_; }
  DeadlineClock* deadline_clock() { return &deadline_clock_; }
  // Compute threads of all models together: as many as the machine has processors, until set.
  ComputeBudget* budget() { return &budget_; }
  // Nanoseconds from a submission to a parked lane at work, the median seen.
  RunningMedian* wake_cost() { return &wake_cost_; }

  // The model under `key`, or what `load` makes: one load at a time for a key, later callers wait for
  // it and share. An empty key is never shared. A load that fails is not remembered.
  using Loader = std::function<Status(std::shared_ptr<Model>* out)>;
  Status Share(const std::string& key, const Loader& load, std::shared_ptr<Model>* out);

  // After a model is gone: free slabs and heap pages go back to the system.
  void ReturnMemory();
  // After a load: what reading the model took of the heap. Whoever allocates in the part that is looked
  // at waits meanwhile: with a part of the loading thread that nobody has yet, not a lane that gets it
  // next.
  static void ReturnHeap();

  // Models alive, for statistics.
  std::vector<std::shared_ptr<Model>> Models();

 private:
  friend class Model;
  struct Entry {
    std::weak_ptr<Model> model;
    bool loading = false;
    int waiting = 0;
  };

  explicit Runtime(const RuntimeOptions& options);
  Status Start(const RuntimeOptions& options);
  void Enter(Model* model, Scheduler* scheduler);
  void Leave(Model* model);
  static void AtExit();

  Arena arena_;
  const bool never_pin_;
  LeaseTable lease_table_;
  CopyCounters copies_;
  DeadlineClock deadline_clock_;
  RunningMedian wake_cost_;
  ComputeBudget budget_;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* cpu_memory_ = nullptr;

  std::mutex mutex_;
  std::condition_variable loaded_;
  std::map<std::string, Entry> entries_;      // protected by mutex_
  std::map<Model*, Scheduler*> live_models_;  // protected by mutex_
};

// As MakeTensor of ort/value.h, over plain CPU memory.
Status MakeTensor(Runtime* runtime, DType dtype, const int64_t* dims, size_t rank, void* data,
                  size_t bytes, OrtValue** out);

}  // namespace tercel
