// DeviceRunner: runs a session whose values lie on a GPU.
//
//   slot 1   in ====>| run ########|            | out <====
//   slot 2           in ====>      | run ########|           | out <====
//
// A slot is a run in flight: its inputs and outputs on the device, always at the same addresses, and
// streams for its copies. While one slot's run computes, the next one's inputs come in and the last
// one's outputs go out. Each run waits on the host once, for its outputs.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gpu/device.h"
#include "ort/ort_library.h"
#include "ort/tensor.h"

namespace tercel {

// What one run of a session takes and gives. Values are in host memory or on a device; outputs may be
// null, and ONNX Runtime then allocates them in host memory.
struct RunCall {
  const char* const* input_names;
  const OrtValue* const* inputs;
  size_t input_count;
  const char* const* output_names;
  size_t output_count;
  OrtValue** outputs;
  // The first dimension of every value, where rows may be added to fill up a batch; 0: leave them.
  uint32_t rows = 0;
  // The same shapes come again and again: worth a CUDA graph.
  bool fixed = false;
};

struct DeviceRunnerOptions {
  int slots = 2;
  // The session was given stream() as its own (`user_compute_stream`): then the order of a run's copies
  // and kernels is the streams' matter. Else runs wait on the host for their inputs, and ONNX Runtime
  // for the kernels.
  bool on_stream = false;
  // The session captures CUDA graphs (`enable_cuda_graph`): for batches of the rows that SetRows says,
  // and for calls of fixed shapes.
  bool graphs = false;
  // Where the session takes its values, if that is not the device: for tests on the CPU.
  const OrtMemoryInfo* memory = nullptr;
};

// Thread-safe.
class DeviceRunner {
 public:
  // Takes streams of the device.
  static Status Create(Device* device, DeviceRunnerOptions options, std::unique_ptr<DeviceRunner>* out);
  // REQUIRES: the session is gone, or does not run.
  ~DeviceRunner();

  Device* device() const { return device_; }
  // Where the session takes its values.
  const OrtMemoryInfo* memory() const { return options_.memory ? options_.memory : device_->memory(); }
  // What the session is to compute on, before it is made.
  CudaStream stream() const { return stream_; }
  // REQUIRES: once, before the first run; the session outlives the last one. Calls name values by the
  // pointers that are in `inputs` and `outputs`, which outlive the runner.
  Status Attach(OrtSession* session, const std::vector<ValueInfo>& inputs,
                const std::vector<ValueInfo>& outputs);

  bool has_graphs() const { return options_.graphs; }
  // Batches are filled up to the next of these from now on; ascending. Larger ones are left as they
  // are.
  void SetRows(std::vector<uint32_t> rows);

  // As OrtApi::Run; waits for a free slot, the one that the thread had last if it can. `options` may
  // end the run where ONNX Runtime waits for it.
  OrtStatus* Run(const OrtRunOptions* options, const RunCall& call);
  // `run` with nothing else on the session's stream, and with options that capture nothing.
  OrtStatus* RunAlone(const std::function<OrtStatus*(const OrtRunOptions* options)>& run);

 private:
  // Values of one set of shapes on the device, made once.
  struct Plan {
    std::vector<OrtPtr<OrtValue>> owned;
    std::vector<OrtValue*> inputs;   // null where the call's own value is taken
    std::vector<OrtValue*> outputs;  // the same
    OrtPtr<OrtRunOptions> options;
    bool graph = false;
    bool captured = false;
    uint64_t used = 0;
  };
  struct Slot {
    CudaStream in = nullptr;
    CudaStream out = nullptr;
    CudaEvent in_start = nullptr;
    CudaEvent in_end = nullptr;
    CudaEvent ran = nullptr;
    CudaEvent out_start = nullptr;
    CudaEvent out_end = nullptr;
    std::map<const char*, Ref<DeviceLease>> buffers;  // by the value's name
    std::map<std::vector<int64_t>, Plan> plans;
    uint64_t runs = 0;
    uint64_t unsynchronized = 0;  // runs that ONNX Runtime did not wait for, since the last that it did
    // Whose the slot's graphs are, a thread that lives: ONNX Runtime keeps graphs by thread, and what
    // one thread captured another would capture again.
    std::weak_ptr<const int> owner;
    std::map<std::vector<int64_t>, int64_t> no_capture_until;  // what did not come to be, by key
    // Kept for their memory.
    std::vector<int64_t> key;
    std::vector<const OrtValue*> inputs;
    std::vector<OrtValue*> outputs;
  };
  // A value of a call, looked at.
  struct Seen {
    enum class Where { kHost, kDevice, kOther } where = Where::kOther;
    DType dtype = DType::kUndefined;
    int64_t dims[kMaxRank];
    size_t rank = 0;
    size_t bytes = 0;   // on the host
    size_t needed = 0;  // on the device, with the rows that fill up
    void* data = nullptr;
  };

  // What was copied one way.
  struct Copied {
    size_t count = 0;
    size_t bytes = 0;
    int64_t ns = 0;
  };

  DeviceRunner(Device* device, DeviceRunnerOptions options)
      : device_(device), cuda_(device->cuda()), options_(std::move(options)) {}
  Status Start();
  void KeepStaging();
  Slot* TakeSlot();
  // What a batch of `rows` is filled up to, or 0.
  uint32_t RowsFor(int64_t rows);
  void GiveSlot(Slot* slot);
  OrtStatus* RunIn(Slot* slot, const OrtRunOptions* options, const RunCall& call);
  // *gave_up, if it may, says that it did not come to be: another try does without the graph, or
  // without more rows than there are.
  OrtStatus* RunStaged(Slot* slot, const OrtRunOptions* options, const RunCall& call,
                       const std::vector<Seen>& seen, bool graph, bool* gave_up);
  bool MayCapture(Slot* slot);
  // Without copies of our own.
  OrtStatus* RunDirect(const OrtRunOptions* options, const RunCall& call);
  Status Look(const OrtValue* value, bool wanted_on_device, Seen* seen);
  void MakeKey(Slot* slot, const RunCall& call, const std::vector<Seen>& seen, bool graph);
  Status PlanFor(Slot* slot, const RunCall& call, const std::vector<Seen>& seen, bool graph,
                 Plan** out);
  Status CopyAll(Slot* slot, const RunCall& call, const std::vector<Seen>& seen, bool in,
                 Copied* copied);
  Status Wait(CudaEvent event);
  int64_t Elapsed(CudaEvent start, CudaEvent end);

  Device* const device_;
  const CudaRuntime* const cuda_;
  const DeviceRunnerOptions options_;
  OrtSession* session_ = nullptr;
  CudaStream stream_ = nullptr;
  OrtPtr<OrtAllocator> staging_;          // of the session: see the destructor
  OrtPtr<OrtRunOptions> direct_options_;  // of runs that capture nothing
  bool knows_places_ = false;             // what the next line says is known
  std::vector<const char*> on_host_;      // values that the session takes from or leaves in host memory
  std::list<Slot> slots_;                 // constant after Create

  // Held while a run is put on the stream, ours or the user's: runs there share handles of cuBLAS and
  // cuDNN.
  std::mutex stream_mutex_;
  std::atomic<int32_t> graphs_{0};  // ids given away; 0 is none

  std::mutex mutex_;
  std::condition_variable slot_free_;
  // Protected by mutex_.
  std::vector<Slot*> free_;
  std::vector<uint32_t> rows_;
};

// Runs a session, on `runner` if there is one.
inline OrtStatus* RunSession(OrtSession* session, DeviceRunner* runner, const OrtRunOptions* options,
                             const RunCall& call) {
  if (runner) return runner->Run(options, call);
  return ort.Run(session, options, call.input_names, call.inputs, call.input_count, call.output_names,
                 call.output_count, call.outputs);
}

}  // namespace tercel
