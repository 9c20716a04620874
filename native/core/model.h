// Model: one loaded graph (one ONNX Runtime session), its metadata and its scheduler.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/run_counts.h"
#include "gpu/gpu_placement.h"
#include "ort/graph.h"
#include "ort/ort_library.h"
#include "ort/session_options.h"
#include "sched/scheduler.h"

namespace tercel {

class Runtime;

struct ModelOptions : SessionOptions {
  GpuOptions gpu;
  SchedulerOptions scheduler;
};

// What to load. Bytes must stay until the load returns.
struct ModelSource {
  std::string path;  // used when bytes is null
  const void* bytes = nullptr;
  size_t byte_count = 0;
  // External data files by the name the model gives them; empty to read them beside `path`.
  std::vector<std::string> external_names;
  std::vector<std::pair<const void*, size_t>> external_bytes;
};

// Ends a load from another thread. Thread-safe.
class LoadCancellation {
 public:
  void Cancel();
  bool cancelled() const { return cancelled_.load(); }

 private:
  friend class Model;
  std::mutex mutex_;
  OrtSessionOptions* options_ = nullptr;  // protected by mutex_; while the session is made
  std::atomic<bool> cancelled_{false};
};

// Everything but the scheduler and the counters is constant after Load. Thread-safe.
class Model : public std::enable_shared_from_this<Model> {
 public:
  static Status Load(Runtime* runtime, const ModelSource& source, const ModelOptions& options,
                     LoadCancellation* cancellation, std::shared_ptr<Model>* out);
  // Joins the lanes: must not run on one.
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  OrtSession* session() const { return session_.get(); }
  // Null where the model runs on the CPU.
  DeviceRunner* device() const { return device_.get(); }
  // As OrtApi::Run, wherever the model runs.
  OrtStatus* Run(const OrtRunOptions* options, const RunCall& call) {
    return RunSession(session_.get(), device_.get(), options, call);
  }
  Runtime* runtime() const { return runtime_; }
  Scheduler& scheduler() { return *scheduler_; }

  // The bucket of requests with these inputs and outputs, or null when they cannot share a batch.
  // Thread-safe.
  Ref<Bucket> BucketFor(const std::vector<Bucket::Shape>& inputs, const std::vector<uint32_t>& outputs);

  const Graph& graph() const { return graph_; }
  const std::vector<ValueInfo>& inputs() const { return graph_.inputs; }
  const std::vector<ValueInfo>& outputs() const { return graph_.outputs; }
  // In the order of the outputs.
  const std::vector<ShapePlan>& output_plans() const { return graph_.output_plans; }
  // Whether no run has shown a declared shape to be wrong.
  bool trusts_plans() const { return trusts_plans_.load(std::memory_order_relaxed); }
  void DistrustPlans() { trusts_plans_.store(false, std::memory_order_relaxed); }
  const std::string& source_name() const { return source_name_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

  const std::vector<std::string>& providers() const { return providers_; }
  bool cpu_only() const { return providers_.size() == 1; }

  // The file's bytes, where the session goes on reading them.
  void Keep(std::vector<uint8_t> bytes) { kept_bytes_ = std::move(bytes); }

  // Runs on threads other than lanes.
  RunCounts& sync_runs() { return sync_runs_; }
  // Rows of a run in the statistics: those that all inputs have, of a model whose inputs and outputs
  // have rows. `dims_of` gives the dimensions of an input by its position, null where it has none.
  template <typename DimsOf>
  uint32_t CountedRows(size_t inputs, const DimsOf& dims_of) const {
    if (!has_rows_ || inputs == 0) return 1;
    int64_t rows = 0;
    for (size_t i = 0; i < inputs; ++i) {
      const int64_t* dims = dims_of(i);
      if (!dims || (i > 0 && dims[0] != rows)) return 1;
      rows = dims[0];
    }
    return rows > 0 && rows <= UINT32_MAX ? static_cast<uint32_t>(rows) : 1;
  }

 private:
  explicit Model(Runtime* runtime) : runtime_(runtime) {}

  Runtime* const runtime_;
  std::vector<uint8_t> kept_bytes_;       // outlives the session
  std::unique_ptr<DeviceRunner> device_;  // the same: it computes on its stream
  OrtPtr<OrtSession> session_;
  std::unique_ptr<Scheduler> scheduler_;
  Graph graph_;
  std::string source_name_;
  std::vector<std::string> warnings_;
  std::vector<std::string> providers_;
  std::mutex buckets_mutex_;
  std::vector<Ref<Bucket>> buckets_;  // protected by buckets_mutex_; the last used at the end
  std::atomic<bool> trusts_plans_{true};
  bool has_rows_ = false;  // every input and output is a tensor whose first dimension is open
  RunCounts sync_runs_;
};

}  // namespace tercel
