#include "model.h"

#include <algorithm>
#include <optional>

#include "runtime.h"

namespace tercel {

namespace {

// Shapes of requests whose blocks a model keeps.
constexpr size_t kMaxBuckets = 32;

}  // namespace

void LoadCancellation::Cancel() {
  std::lock_guard<std::mutex> lock(mutex_);
  cancelled_.store(true);
  if (options_) (void)ToStatus(ort.SessionOptionsSetLoadCancellationFlag(options_, true), Code::kModel);
}

Status Model::Load(Runtime* runtime, const ModelSource& source, const ModelOptions& options,
                   LoadCancellation* cancellation, std::shared_ptr<Model>* out) {
  std::shared_ptr<Model> model(new Model(runtime));
  model->source_name_ = source.bytes ? "model of " + std::to_string(source.byte_count) + " bytes"
                                     : "model \"" + source.path + "\"";
  auto fail = [&](const Status& status) {
    return Status(status.code(), "cannot load " + model->source_name_ + ": " + status.message());
  };
  std::vector<std::string> named;
  for (const ProviderOptions& provider : options.providers) named.push_back(provider.name);
  std::optional<NoCapture> no_capture;
  if (UsesGpu(named)) no_capture.emplace(NoCapture::kLong);
  SessionOptions placed = options;
  placed.is_copied_from = options.gpu.stand_in.has_value();
  GpuPlacement gpu;
  Status status = PlaceOnGpu(options.gpu.slots, &placed, &gpu);
  if (status.ok() && options.gpu.stand_in) {
    Device* device = nullptr;
    status = Device::Get(0, &device);
    DeviceRunnerOptions stand_in = *options.gpu.stand_in;
    stand_in.memory = runtime->cpu_memory();
    if (status.ok()) status = DeviceRunner::Create(device, stand_in, &model->device_);
  }
  if (!status.ok()) return fail(status);
  OrtPtr<OrtSessionOptions> session_options;
  status = MakeSessionOptions(runtime->env(), placed, &session_options, &model->providers_,
                              &model->warnings_);
  if (!status.ok()) return fail(status);
  if (UsesGpu(model->providers_)) {
    // Else the provider's own message says what is missing.
    if (!gpu.unopened.ok() && gpu.needs_runner) return fail(gpu.unopened);
    if (!gpu.unopened.ok()) {
      model->warnings_.push_back(
          model->source_name_ +
          ": copies to and from the GPU are left to ONNX Runtime: " + gpu.unopened.message());
    }
    model->device_ = std::move(gpu.runner);
  }
  gpu.runner.reset();
  if (!source.external_names.empty()) {
    std::vector<const char*> names;
    std::vector<char*> buffers;
    std::vector<size_t> lengths;
    for (size_t i = 0; i < source.external_names.size(); ++i) {
      names.push_back(source.external_names[i].c_str());
      buffers.push_back(const_cast<char*>(static_cast<const char*>(source.external_bytes[i].first)));
      lengths.push_back(source.external_bytes[i].second);
    }
    status =
        ToStatus(ort.AddExternalInitializersFromFilesInMemory(
                     session_options.get(), names.data(), buffers.data(), lengths.data(), names.size()),
                 Code::kModel, "external data");
    if (!status.ok()) return fail(status);
  }
  if (cancellation) {
    std::lock_guard<std::mutex> lock(cancellation->mutex_);
    if (cancellation->cancelled()) return Status::Aborted("the load was cancelled");
    cancellation->options_ = session_options.get();
  }
  OrtSession* session = nullptr;
  OrtStatus* made =
      source.bytes
          ? ort.CreateSessionFromArray(runtime->env(), source.bytes, source.byte_count,
                                       session_options.get(), &session)
          : ort.CreateSession(runtime->env(), source.path.c_str(), session_options.get(), &session);
  if (cancellation) {
    std::lock_guard<std::mutex> lock(cancellation->mutex_);
    cancellation->options_ = nullptr;
  }
  status = ToStatus(made, Code::kModel);
  if (!status.ok()) {
    if (cancellation && cancellation->cancelled()) return Status::Aborted("the load was cancelled");
    return fail(status);
  }
  model->session_.reset(session);
  if (Status s = ReadGraph(session, &model->graph_); !s.ok()) return fail(s);
  auto has_rows = [](const ValueInfo& info) {
    const ValueType& type = info.type;
    return type.kind == OnnxKind::kTensor && type.has_shape && !type.dims.empty() && type.dims[0] < 0;
  };
  model->has_rows_ = std::all_of(model->inputs().begin(), model->inputs().end(), has_rows) &&
                     std::all_of(model->outputs().begin(), model->outputs().end(), has_rows);
  no_capture.reset();
  if (model->device_) {
    runtime->PinForGpu();
    status = model->device_->Attach(session, model->inputs(), model->outputs());
    if (!status.ok()) return fail(status);
  }
  DeviceRunner* device = model->device_.get();
  const SchedulerContext context{runtime->deadline_clock(),
                                 runtime->wake_cost(),
                                 device ? device->device()->budget() : runtime->budget(),
                                 runtime->arena(),
                                 runtime->cpu_memory(),
                                 device};
  SchedulerOptions scheduling = options.scheduler;
  // On a GPU a lane is a run in flight, not a processor.
  if (device && !options.gpu.lanes_given && options.gpu.slots > 0) scheduling.lanes = options.gpu.slots;
  model->scheduler_ = std::make_unique<Scheduler>(session, scheduling, context);
  runtime->Enter(model.get(), model->scheduler_.get());
  *out = std::move(model);
  return {};
}

Model::~Model() {
  if (scheduler_) runtime_->Leave(this);
  scheduler_.reset();
  std::optional<NoCapture> no_capture;
  if (device_ || UsesGpu(providers_)) no_capture.emplace();
  session_.reset();
  device_.reset();
}

Ref<Bucket> Model::BucketFor(const std::vector<Bucket::Shape>& inputs,
                             const std::vector<uint32_t>& outputs) {
  const uint32_t max_batch = scheduler_->max_batch();
  std::lock_guard<std::mutex> lock(buckets_mutex_);
  for (size_t i = buckets_.size(); i-- > 0;) {
    const Bucket& candidate = *buckets_[i];
    if (candidate.max_rows() != max_batch || candidate.trusts_plans() != trusts_plans() ||
        !candidate.Fits(inputs, outputs)) {
      continue;
    }
    std::rotate(buckets_.begin() + static_cast<std::ptrdiff_t>(i),
                buckets_.begin() + static_cast<std::ptrdiff_t>(i) + 1, buckets_.end());
    return buckets_.back();
  }
  Ref<Bucket> bucket = Bucket::Make(graph_.inputs, graph_.outputs, graph_.output_plans, inputs, outputs,
                                    max_batch, trusts_plans());
  if (!bucket) return nullptr;
  // Every shape that ever came has its memory here: let the one go that was not used for longest.
  if (buckets_.size() >= kMaxBuckets) buckets_.erase(buckets_.begin());
  buckets_.push_back(bucket);
  return bucket;
}

}  // namespace tercel
