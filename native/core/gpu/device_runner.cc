#include "gpu/device_runner.h"

#include <algorithm>
#include <iterator>
#include <mutex>

#include "base/adaptive_lock.h"
#include "base/clock.h"
#include "ort/value.h"

namespace tercel {

namespace {

// Sets of shapes whose values a slot keeps, and graphs beside them.
constexpr size_t kMaxPlans = 64;
constexpr size_t kMaxGraphs = 64;
// Others leave the GPU alone at the end of their runs, but a model may load for minutes: then a run
// does without its graph, and tries again later; after a failure, much later.
constexpr int64_t kWaitToCaptureNs = 100'000'000;
constexpr int64_t kCaptureAgainNs = 1'000'000'000;
constexpr int64_t kFailedAgainNs = 60'000'000'000;
// Waking a thread that sleeps until the GPU is done costs some 30 us; what ends sooner is waited for.
constexpr int64_t kSpinNs = 60'000;

// Runs that ONNX Runtime does not wait for keep staging buffers until one that it does.
constexpr uint64_t kSynchronizeEvery = 256;

// Run options: "never" is the id that captures and replays nothing.
constexpr const char* kGraphId = "gpu_graph_id";
constexpr const char* kNoGraph = "-1";
constexpr const char* kDoNotSynchronize = "disable_synchronize_execution_providers";

OrtStatus* ToOrt(const Status& status) {
  return status.ok() ? nullptr : ort.CreateStatus(kOrtEpFail, status.message().c_str());
}

// Of the inputs, then the outputs.
const char* NameOf(const RunCall& call, size_t i) {
  return i < call.input_count ? call.input_names[i] : call.output_names[i - call.input_count];
}

Status MakeRunOptions(OrtPtr<OrtRunOptions>* out) {
  OrtRunOptions* raw = nullptr;
  Status status = ToStatus(ort.CreateRunOptions(&raw), Code::kModel);
  out->reset(raw);
  return status;
}

}  // namespace

Status DeviceRunner::Create(Device* device, DeviceRunnerOptions options,
                            std::unique_ptr<DeviceRunner>* out) {
  std::unique_ptr<DeviceRunner> runner(new DeviceRunner(device, std::move(options)));
  if (Status status = runner->Start(); !status.ok()) return status;
  *out = std::move(runner);
  return {};
}

Status DeviceRunner::Start() {
  Status status =
      CudaStatus(cuda_, cuda_->set_device(device_->id()), Code::kModel, "cannot use the GPU");
  auto call = [&](auto function, auto... arguments) {
    if (status.ok()) {
      status =
          CudaStatus(cuda_, function(arguments...), Code::kModel, "cannot make a stream on the GPU");
    }
  };
  if (options_.on_stream) call(cuda_->stream_create, &stream_, kCudaStreamNonBlocking);
  for (int i = 0; i < std::max(1, options_.slots); ++i) {
    Slot& slot = slots_.emplace_back();
    call(cuda_->stream_create, &slot.in, kCudaStreamNonBlocking);
    call(cuda_->stream_create, &slot.out, kCudaStreamNonBlocking);
    call(cuda_->event_create, &slot.in_start, 0u);
    call(cuda_->event_create, &slot.in_end, kCudaEventBlockingSync);
    call(cuda_->event_create, &slot.ran, kCudaEventBlockingSync);
    call(cuda_->event_create, &slot.out_start, 0u);
    call(cuda_->event_create, &slot.out_end, kCudaEventBlockingSync);
    free_.push_back(&slot);
  }
  if (status.ok()) status = MakeRunOptions(&direct_options_);
  if (status.ok() && options_.graphs) {
    status = ToStatus(ort.AddRunConfigEntry(direct_options_.get(), kGraphId, kNoGraph), Code::kModel);
  }
  return status;
}

DeviceRunner::~DeviceRunner() {
  (void)cuda_->set_device(device_->id());
  // A session that ends has the stream let go of what was staged for it, by a callback. If that were
  // the last to hold the session's pinned memory it would free it, which no callback may: ONNX Runtime
  // would end the process.
  if (stream_) (void)cuda_->stream_synchronize(stream_);
  staging_.reset();
  for (Slot& slot : slots_) {
    for (CudaEvent event : {slot.in_start, slot.in_end, slot.ran, slot.out_start, slot.out_end}) {
      if (event) (void)cuda_->event_destroy(event);
    }
    if (slot.in) (void)cuda_->stream_destroy(slot.in);
    if (slot.out) (void)cuda_->stream_destroy(slot.out);
  }
  if (stream_) (void)cuda_->stream_destroy(stream_);
}

void DeviceRunner::KeepStaging() {
  OrtMemoryInfo* memory = nullptr;
  OrtAllocator* allocator = nullptr;
  Status status = ToStatus(
      ort.CreateMemoryInfo("CudaPinned", kOrtDeviceAllocator, device_->id(), kOrtMemCpuOutput, &memory),
      Code::kModel);
  const OrtPtr<OrtMemoryInfo> owned(memory);
  // A provider that has none stages nothing there.
  if (status.ok()) status = ToStatus(ort.CreateAllocator(session_, memory, &allocator), Code::kModel);
  staging_.reset(allocator);
}

Status DeviceRunner::Attach(OrtSession* session, const std::vector<ValueInfo>& inputs,
                            const std::vector<ValueInfo>& outputs) {
  session_ = session;
  if (options_.on_stream && !options_.memory) KeepStaging();
  knows_places_ = options_.memory != nullptr;
  // Older libraries do not say: then ONNX Runtime copies where a value lies elsewhere.
  if (!ort.SessionGetMemoryInfoForInputs || options_.memory) return {};
  auto read = [&](auto call, const std::vector<ValueInfo>& values) {
    std::vector<const OrtMemoryInfo*> infos(values.size(), nullptr);
    Status status = ToStatus(call(session, infos.data(), infos.size()), Code::kModel);
    for (size_t i = 0; status.ok() && i < values.size(); ++i) {
      int type = kOrtDeviceCpu;
      if (infos[i]) ort.MemoryInfoGetDeviceType(infos[i], &type);
      if (type != kOrtDeviceGpu) on_host_.push_back(values[i].name.c_str());
    }
    return status;
  };
  // 1.23 fails where an output is an input or a constant.
  knows_places_ = read(ort.SessionGetMemoryInfoForInputs, inputs).ok() &&
                  read(ort.SessionGetMemoryInfoForOutputs, outputs).ok();
  if (!knows_places_) on_host_.clear();
  return {};
}

void DeviceRunner::SetRows(std::vector<uint32_t> rows) {
  std::lock_guard<std::mutex> lock(mutex_);
  rows_ = std::move(rows);
}

uint32_t DeviceRunner::RowsFor(int64_t rows) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto size = std::lower_bound(rows_.begin(), rows_.end(), rows);
  return size == rows_.end() ? 0 : *size;
}

namespace {

// What tells a thread from all others, also from those that have ended.
const std::shared_ptr<const int>& ThisThread() {
  thread_local const auto token = std::make_shared<const int>(0);
  return token;
}

}  // namespace

DeviceRunner::Slot* DeviceRunner::TakeSlot() {
  std::unique_lock<std::mutex> lock(mutex_);
  slot_free_.wait(lock, [this] { return !free_.empty(); });
  const auto owned_by = [&](const std::shared_ptr<const int>& owner) {
    return std::find_if(free_.begin(), free_.end(),
                        [&](Slot* slot) { return slot->owner.lock() == owner; });
  };
  auto chosen = owned_by(ThisThread());
  if (chosen == free_.end()) chosen = owned_by(nullptr);
  if (chosen == free_.end()) chosen = free_.begin();
  Slot* slot = *chosen;
  free_.erase(chosen);
  return slot;
}

void DeviceRunner::GiveSlot(Slot* slot) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(slot);
  }
  slot_free_.notify_one();
}

OrtStatus* DeviceRunner::Run(const OrtRunOptions* options, const RunCall& call) {
  Slot* slot = TakeSlot();
  OrtStatus* failed = RunIn(slot, options, call);
  GiveSlot(slot);
  return failed;
}

OrtStatus* DeviceRunner::RunAlone(const std::function<OrtStatus*(const OrtRunOptions* options)>& run) {
  const NoCapture no_capture;
  const std::lock_guard<std::mutex> lock(stream_mutex_);
  (void)cuda_->set_device(device_->id());
  device_->CountRun(false);
  return run(direct_options_.get());
}

OrtStatus* DeviceRunner::RunDirect(const OrtRunOptions* options, const RunCall& call) {
  return RunAlone([&](const OrtRunOptions* alone) {
    return ort.Run(session_, options_.graphs ? alone : options, call.input_names, call.inputs,
                   call.input_count, call.output_names, call.output_count, call.outputs);
  });
}

// Where a value is. `wanted_on_device`: as the session takes it.
Status DeviceRunner::Look(const OrtValue* value, bool wanted_on_device, Seen* seen) {
  *seen = {};
  int kind = 0;
  if (Status s = ToStatus(ort.GetValueType(value, &kind), Code::kRun); !s.ok()) return s;
  if (static_cast<OnnxKind>(kind) != OnnxKind::kTensor) return {};
  if (Status s = ReadTensorShape(value, &seen->dtype, seen->dims, &seen->rank); !s.ok()) return s;
  if (!CountBytes(seen->dtype, seen->dims, seen->rank, &seen->bytes) || DTypeBytes(seen->dtype) == 0) {
    return {};
  }
  const OrtMemoryInfo* memory = nullptr;
  if (Status s = ToStatus(ort.GetTensorMemoryInfo(value, &memory), Code::kRun); !s.ok()) return s;
  int type = kOrtDeviceCpu;
  ort.MemoryInfoGetDeviceType(memory, &type);
  Status status =
      ToStatus(ort.GetTensorMutableData(const_cast<OrtValue*>(value), &seen->data), Code::kRun);
  seen->needed = seen->bytes;
  const bool stands_in = options_.memory && device_->HasLeaseAt(seen->data);
  if (type != kOrtDeviceCpu || stands_in) {
    seen->where = Seen::Where::kDevice;
  } else if (wanted_on_device) {
    seen->where = Seen::Where::kHost;
  }
  return status;
}

// Writes slot->key.
void DeviceRunner::MakeKey(Slot* slot, const RunCall& call, const std::vector<Seen>& seen, bool graph) {
  std::vector<int64_t>& key = slot->key;
  key.assign(1, graph);
  for (size_t i = 0; i < seen.size(); ++i) {
    const Seen& value = seen[i];
    key.push_back(static_cast<int64_t>(reinterpret_cast<intptr_t>(NameOf(call, i))));
    key.push_back(static_cast<int64_t>(value.where));
    key.push_back(static_cast<int64_t>(value.dtype));
    key.push_back(static_cast<int64_t>(value.rank));
    key.insert(key.end(), value.dims, value.dims + value.rank);
    // A graph reads and writes where it did when it was captured.
    const bool is_there = graph && value.where == Seen::Where::kDevice;
    key.push_back(is_there ? static_cast<int64_t>(reinterpret_cast<intptr_t>(value.data)) : 0);
  }
}

// The plan of slot->key; null where it would be a graph too many.
Status DeviceRunner::PlanFor(Slot* slot, const RunCall& call, const std::vector<Seen>& seen, bool graph,
                             Plan** out) {
  const std::vector<int64_t>& key = slot->key;
  // All of it first: a plan must not point into what was let go.
  std::vector<std::pair<const char*, Ref<DeviceLease>>> grown;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (seen[i].where != Seen::Where::kHost) continue;
    const Ref<DeviceLease>& buffer = slot->buffers[NameOf(call, i)];
    if (buffer && buffer->bytes() >= seen[i].needed) continue;
    // By doubling, so that a slot that sees larger and larger shapes moves a few times only.
    const size_t bytes = std::max(seen[i].needed, buffer ? 2 * buffer->bytes() : 0);
    Ref<DeviceLease> larger;
    Status status = device_->Allocate(bytes, &larger);
    if (!status.ok() && bytes > seen[i].needed) status = device_->Allocate(seen[i].needed, &larger);
    if (!status.ok()) return status;
    // Rows that fill up a batch hold numbers, whatever was there before.
    status = device_->Clear(larger->data(), larger->bytes());
    if (!status.ok()) return status;
    grown.emplace_back(NameOf(call, i), std::move(larger));
  }
  if (!grown.empty()) {
    // All plans of the slot: few grow, and each has most values.
    slot->plans.clear();
    for (auto& [name, larger] : grown) slot->buffers[name] = std::move(larger);
  }
  if (auto found = slot->plans.find(key); found != slot->plans.end()) {
    found->second.used = ++slot->runs;
    *out = &found->second;
    return {};
  }
  size_t graphs = 0;
  auto oldest = slot->plans.end();
  for (auto it = slot->plans.begin(); it != slot->plans.end(); ++it) {
    graphs += it->second.graph;
    if (it->second.graph) continue;
    if (oldest == slot->plans.end() || it->second.used < oldest->second.used) oldest = it;
  }
  // A graph lives as long as the session, whoever still wants it.
  if (graph && graphs >= kMaxGraphs) return {};
  if (slot->plans.size() - graphs >= kMaxPlans) slot->plans.erase(oldest);
  Plan plan;
  plan.graph = graph;
  plan.used = ++slot->runs;
  if (Status s = MakeRunOptions(&plan.options); !s.ok()) return s;
  Status status;
  auto configure = [&](const char* name, const std::string& value) {
    if (status.ok()) {
      status = ToStatus(ort.AddRunConfigEntry(plan.options.get(), name, value.c_str()), Code::kRun);
    }
  };
  if (options_.on_stream) configure(kDoNotSynchronize, "1");
  if (options_.graphs) configure(kGraphId, graph ? std::to_string(++graphs_) : kNoGraph);
  for (size_t i = 0; i < seen.size() && status.ok(); ++i) {
    OrtValue* value = nullptr;
    if (seen[i].where == Seen::Where::kHost) {
      status = MakeTensor(memory(), seen[i].dtype, seen[i].dims, seen[i].rank,
                          slot->buffers[NameOf(call, i)]->data(), seen[i].needed, &value);
      plan.owned.emplace_back(value);
    }
    (i < call.input_count ? plan.inputs : plan.outputs).push_back(value);
  }
  if (!status.ok()) return status;
  *out = &(slot->plans[key] = std::move(plan));
  return {};
}

// Between the host and the slot's buffers, all inputs or all outputs, without waiting.
Status DeviceRunner::CopyAll(Slot* slot, const RunCall& call, const std::vector<Seen>& seen, bool in,
                             Copied* copied) {
  const char* const what = in ? "copy to the GPU" : "copy from the GPU";
  CudaStream stream = in ? slot->in : slot->out;
  const size_t end = in ? call.input_count : seen.size();
  for (size_t i = in ? 0 : call.input_count; i < end; ++i) {
    const Seen& value = seen[i];
    if (value.where != Seen::Where::kHost || value.bytes == 0) continue;
    uint8_t* there = slot->buffers[NameOf(call, i)]->data();
    int error = 0;
    if (copied->count == 0) error = cuda_->event_record(in ? slot->in_start : slot->out_start, stream);
    if (error == 0) {
      error = in ? cuda_->copy(there, value.data, value.bytes, kCudaCopyToDevice, stream)
                 : cuda_->copy(value.data, there, value.bytes, kCudaCopyToHost, stream);
    }
    if (error != 0) return CudaStatus(cuda_, error, Code::kRun, what);
    ++copied->count;
    copied->bytes += value.bytes;
  }
  if (copied->count == 0) return {};
  const int error = cuda_->event_record(in ? slot->in_end : slot->out_end, stream);
  return CudaStatus(cuda_, error, Code::kRun, what);
}

Status DeviceRunner::Wait(CudaEvent event) {
  const int64_t until = NowNs() + kSpinNs;
  do {
    const int error = cuda_->event_query(event);
    if (error != kCudaNotReady) return CudaStatus(cuda_, error, Code::kRun, "the GPU failed");
    for (int i = 0; i < 16; ++i) CpuRelax();
  } while (NowNs() < until);
  return CudaStatus(cuda_, cuda_->event_synchronize(event), Code::kRun, "the GPU failed");
}

int64_t DeviceRunner::Elapsed(CudaEvent start, CudaEvent end) {
  float ms = 0;
  if (cuda_->event_elapsed(&ms, start, end) == 0) return static_cast<int64_t>(ms * 1e6f);
  (void)cuda_->get_last_error();
  return 0;
}

// Whether the thread may have graphs in this slot, which is then its own.
bool DeviceRunner::MayCapture(Slot* slot) {
  const auto owner = slot->owner.lock();
  if (owner) return owner == ThisThread();
  // What a thread that has ended captured is nobody's.
  for (auto it = slot->plans.begin(); it != slot->plans.end();) {
    it = it->second.graph ? slot->plans.erase(it) : std::next(it);
  }
  slot->owner = ThisThread();
  return true;
}

OrtStatus* DeviceRunner::RunIn(Slot* slot, const OrtRunOptions* options, const RunCall& call) {
  std::vector<Seen> seen(call.input_count + call.output_count);
  auto is_on_host = [this](const char* name) {
    return std::find(on_host_.begin(), on_host_.end(), name) != on_host_.end();
  };
  // A replay looks at no value that it is given: what lies elsewhere would stay as it was.
  bool may_capture = options_.graphs;
  bool may_fill = true;  // only what the runner copies
  for (size_t i = 0; i < seen.size(); ++i) {
    const OrtValue* value = i < call.input_count ? call.inputs[i] : call.outputs[i - call.input_count];
    // What ONNX Runtime allocates, it copies.
    if (!value) return RunDirect(options, call);
    if (Status s = Look(value, !is_on_host(NameOf(call, i)), &seen[i]); !s.ok()) return ToOrt(s);
    may_capture &= seen[i].where != Seen::Where::kOther;
    may_fill &= seen[i].where == Seen::Where::kHost && seen[i].rank > 0;
  }
  const int64_t own_rows = !seen.empty() && seen[0].rank > 0 ? seen[0].dims[0] : 0;
  const uint32_t size = RowsFor(call.rows ? call.rows : own_rows);
  const bool fills = call.rows && size > call.rows && may_fill;
  std::vector<Seen> filled;
  if (fills) filled = seen;
  for (Seen& value : filled) {
    value.needed = value.bytes / call.rows * size;
    value.dims[0] = size;
  }
  const bool fits = size && size == own_rows;
  if (may_capture && (fills || fits || call.fixed) && MayCapture(slot)) {
    bool gave_up = false;
    OrtStatus* failed = RunStaged(slot, options, call, fills ? filled : seen, true, &gave_up);
    if (!gave_up) return failed;
  }
  if (fills) {
    bool gave_up = false;
    OrtStatus* failed = RunStaged(slot, options, call, filled, false, &gave_up);
    if (!gave_up) return failed;
  }
  return RunStaged(slot, options, call, seen, false, nullptr);
}

OrtStatus* DeviceRunner::RunStaged(Slot* slot, const OrtRunOptions* options, const RunCall& call,
                                   const std::vector<Seen>& seen, bool graph, bool* gave_up) {
  MakeKey(slot, call, seen, graph);
  // What did not come to be is not tried with each run again.
  auto give_up = [&](int64_t wait_ns) -> OrtStatus* {
    *gave_up = true;
    if (slot->no_capture_until.size() >= kMaxPlans) slot->no_capture_until.clear();
    if (wait_ns) slot->no_capture_until[slot->key] = NowNs() + wait_ns;
    slot->plans.erase(slot->key);
    return nullptr;
  };
  if (graph) {
    const auto refused = slot->no_capture_until.find(slot->key);
    if (refused != slot->no_capture_until.end() && NowNs() < refused->second) return give_up(0);
  }
  Status status = CudaStatus(cuda_, cuda_->set_device(device_->id()), Code::kRun, "cannot use the GPU");
  Plan* plan = nullptr;
  if (status.ok()) status = PlanFor(slot, call, seen, graph, &plan);
  // There may be room for less than a batch that is filled up.
  if (gave_up && (!status.ok() || !plan)) return give_up(graph ? kFailedAgainNs : 0);
  if (!status.ok()) return ToOrt(status);

  slot->inputs.clear();
  slot->outputs.clear();
  for (size_t i = 0; i < call.input_count; ++i) {
    slot->inputs.push_back(plan->inputs[i] ? plan->inputs[i] : call.inputs[i]);
  }
  for (size_t i = 0; i < call.output_count; ++i) {
    slot->outputs.push_back(plan->outputs[i] ? plan->outputs[i] : call.outputs[i]);
  }
  const bool captures = graph && !plan->captured;
  if (captures && !CaptureGate::Get().TryEnterAlone(kWaitToCaptureNs)) return give_up(kCaptureAgainNs);
  if (!captures) CaptureGate::Get().Enter();
  Copied in, out;
  OrtStatus* failed = nullptr;
  status = CopyAll(slot, call, seen, true, &in);
  auto run = [&](const OrtRunOptions* run_options) {
    failed = ort.Run(session_, run_options, call.input_names, slot->inputs.data(), call.input_count,
                     call.output_names, call.output_count, slot->outputs.data());
  };
  auto step = [&](int result, const char* what) {
    if (status.ok()) status = CudaStatus(cuda_, result, Code::kRun, what);
  };
  if (options_.on_stream) {
    if (status.ok()) {
      std::lock_guard<std::mutex> lock(stream_mutex_);
      if (in.count) step(cuda_->stream_wait_event(stream_, slot->in_end, 0), "copy to the GPU");
      // ONNX Runtime may read on the host what it was given on the GPU, without a look at our streams.
      if (in.count && !knows_places_ && status.ok()) status = Wait(slot->in_end);
      const bool waits = !graph && ++slot->unsynchronized >= kSynchronizeEvery;
      if (waits) slot->unsynchronized = 0;
      if (status.ok()) run(waits ? direct_options_.get() : plan->options.get());
      step(cuda_->event_record(slot->ran, stream_), "run on the GPU");
    }
    if (status.ok() && !failed) {
      step(cuda_->stream_wait_event(slot->out, slot->ran, 0), "copy from the GPU");
    }
  } else if (status.ok()) {
    if (in.count) status = Wait(slot->in_end);
    std::lock_guard<std::mutex> lock(stream_mutex_);
    if (status.ok()) run(options_.graphs ? plan->options.get() : options);
  }
  if (status.ok() && !failed) status = CopyAll(slot, call, seen, false, &out);
  if (status.ok() && !failed) {
    if (out.count) {
      status = Wait(slot->out_end);
    } else if (options_.on_stream) {
      status = Wait(slot->ran);
    }
  }
  const bool is_done = status.ok() && !failed;
  if (is_done) {
    // Still inside the gate.
    in.ns = in.count ? Elapsed(slot->in_start, slot->in_end) : 0;
    out.ns = out.count ? Elapsed(slot->out_start, slot->out_end) : 0;
  } else {
    // Nothing may be under way on memory that the caller lets go.
    for (CudaStream stream : {slot->in, stream_, slot->out}) {
      if (stream) (void)cuda_->stream_synchronize(stream);
    }
    (void)cuda_->get_last_error();
  }
  captures ? CaptureGate::Get().LeaveAlone() : CaptureGate::Get().Leave();
  if (!is_done) {
    // A replay is not tried again; what was filled up may have failed by rows that nobody asked for.
    if (!captures && (graph || !gave_up)) return failed ? failed : ToOrt(status);
    if (failed) ort.ReleaseStatus(failed);
    // Half a graph must not be replayed: another try gets another id.
    return give_up(captures ? kFailedAgainNs : 0);
  }
  plan->captured |= graph;
  device_->CountRun(graph);
  if (in.count) device_->CountIn(in.count, in.bytes, in.ns);
  if (out.count) device_->CountOut(out.count, out.bytes, out.ns);
  return nullptr;
}

}  // namespace tercel
