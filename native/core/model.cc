#include "model.h"

#include <algorithm>
#include <optional>

#include "gpu/gpu_placement.h"
#include "ort/session_options.h"
#include "runtime.h"

namespace tercel {

namespace {

// Shapes of requests whose blocks a model keeps.
constexpr size_t kMaxBuckets = 32;

Status ReadType(const OrtTypeInfo* info, ValueType* out);

Status ReadTensorType(const OrtTypeInfo* info, ValueType* out) {
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  if (Status s = ToStatus(ort.CastTypeInfoToTensorInfo(info, &tensor), Code::kModel); !s.ok()) {
    return s;
  }
  if (!tensor) return {};
  int type = 0;
  if (Status s = ToStatus(ort.GetTensorElementType(tensor, &type), Code::kModel); !s.ok()) return s;
  out->dtype = static_cast<DType>(type);
  size_t rank = 0;
  if (Status s = ToStatus(ort.GetDimensionsCount(tensor, &rank), Code::kModel); !s.ok()) return s;
  out->dims.resize(rank);
  std::vector<const char*> symbols(rank, nullptr);
  if (Status s = ToStatus(ort.GetDimensions(tensor, out->dims.data(), rank), Code::kModel); !s.ok()) {
    return s;
  }
  if (Status s = ToStatus(ort.GetSymbolicDimensions(tensor, symbols.data(), rank), Code::kModel);
      !s.ok()) {
    return s;
  }
  for (const char* symbol : symbols) out->symbols.emplace_back(symbol ? symbol : "");
  // ONNX Runtime reports a missing shape as rank 0; a declared scalar looks the same, and a tensor of
  // any rank is then let through to the session, which knows better.
  out->has_shape = rank > 0;
  return {};
}

Status ReadElement(OrtTypeInfo* raw, ValueType* out) {
  OrtPtr<OrtTypeInfo> owned(raw);
  out->element = std::make_unique<ValueType>();
  return ReadType(raw, out->element.get());
}

Status ReadType(const OrtTypeInfo* info, ValueType* out) {
  int kind = 0;
  if (Status s = ToStatus(ort.GetOnnxTypeFromTypeInfo(info, &kind), Code::kModel); !s.ok()) return s;
  out->kind = static_cast<OnnxKind>(kind);
  OrtTypeInfo* element = nullptr;
  switch (out->kind) {
    case OnnxKind::kTensor:
      return ReadTensorType(info, out);
    case OnnxKind::kSequence: {
      const OrtSequenceTypeInfo* sequence = nullptr;
      Status s = ToStatus(ort.CastTypeInfoToSequenceTypeInfo(info, &sequence), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetSequenceElementType(sequence, &element), Code::kModel);
      return s.ok() ? ReadElement(element, out) : s;
    }
    case OnnxKind::kOptional: {
      const OrtOptionalTypeInfo* optional = nullptr;
      Status s = ToStatus(ort.CastTypeInfoToOptionalTypeInfo(info, &optional), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetOptionalContainedTypeInfo(optional, &element), Code::kModel);
      return s.ok() ? ReadElement(element, out) : s;
    }
    case OnnxKind::kMap: {
      const OrtMapTypeInfo* map = nullptr;
      int key = 0;
      Status s = ToStatus(ort.CastTypeInfoToMapTypeInfo(info, &map), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetMapKeyType(map, &key), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetMapValueType(map, &element), Code::kModel);
      out->key = static_cast<DType>(key);
      return s.ok() ? ReadElement(element, out) : s;
    }
    default:
      return {};
  }
}

using CountCall = OrtStatus* (*)(const OrtSession*, size_t*);
using NameCall = OrtStatus* (*)(const OrtSession*, size_t, OrtAllocator*, char**);
using TypeCall = OrtStatus* (*)(const OrtSession*, size_t, OrtTypeInfo**);

Status ReadValues(OrtSession* session, CountCall count_call, NameCall name_call, TypeCall type_call,
                  std::vector<ValueInfo>* out) {
  size_t count = 0;
  if (Status s = ToStatus(count_call(session, &count), Code::kModel); !s.ok()) return s;
  out->resize(count);
  for (size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    if (Status s = ToStatus(name_call(session, i, DefaultOrtAllocator(), &name), Code::kModel);
        !s.ok()) {
      return s;
    }
    (*out)[i].name = TakeOrtString(name);
    OrtTypeInfo* info = nullptr;
    if (Status s = ToStatus(type_call(session, i, &info), Code::kModel); !s.ok()) return s;
    OrtPtr<OrtTypeInfo> owned(info);
    if (Status s = ReadType(info, &(*out)[i].type); !s.ok()) return s;
  }
  return {};
}

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
  ModelOptions placed = options;
  GpuPlacement gpu;
  Status status = PlaceOnGpu(&placed, &gpu);
  if (status.ok() && options.gpu.stand_in) {
    Device* device = nullptr;
    status = Device::Get(0, &device);
    DeviceRunnerOptions how = *options.gpu.stand_in;
    how.memory = runtime->cpu_memory();
    if (status.ok()) status = DeviceRunner::Create(device, how, &model->device_);
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
  if (Status s = model->ReadMetadata(); !s.ok()) return fail(s);
  no_capture.reset();
  if (model->device_) {
    runtime->PinForGpu();
    status = model->device_->Attach(session, model->inputs_, model->outputs_);
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
  Ref<Bucket> bucket =
      Bucket::Make(inputs_, outputs_, output_plans_, inputs, outputs, max_batch, trusts_plans());
  if (!bucket) return nullptr;
  // Every shape that ever came has its memory here: let the one go that was not used for longest.
  if (buckets_.size() >= kMaxBuckets) buckets_.erase(buckets_.begin());
  buckets_.push_back(bucket);
  return bucket;
}

Status Model::ReadMetadata() {
  OrtSession* session = session_.get();
  Status status = ReadValues(session, ort.SessionGetInputCount, ort.SessionGetInputName,
                             ort.SessionGetInputTypeInfo, &inputs_);
  if (!status.ok()) return status;
  status = ReadValues(session, ort.SessionGetOutputCount, ort.SessionGetOutputName,
                      ort.SessionGetOutputTypeInfo, &outputs_);
  if (!status.ok()) return status;

  for (const ValueInfo& output : outputs_) output_plans_.emplace_back(output, inputs_);

  OrtModelMetadata* raw = nullptr;
  status = ToStatus(ort.SessionGetModelMetadata(session, &raw), Code::kModel);
  if (!status.ok()) return status;
  OrtPtr<OrtModelMetadata> metadata(raw);
  OrtAllocator* allocator = DefaultOrtAllocator();
  auto text = [&](OrtStatus* failure, char* value, std::string* into) {
    *into = TakeOrtString(value);
    return ToStatus(failure, Code::kModel);
  };
  char* value = nullptr;
  OrtStatus* call = ort.ModelMetadataGetProducerName(raw, allocator, &value);
  if (Status s = text(call, value, &producer_); !s.ok()) return s;
  value = nullptr;
  call = ort.ModelMetadataGetGraphName(raw, allocator, &value);
  if (Status s = text(call, value, &graph_name_); !s.ok()) return s;
  value = nullptr;
  call = ort.ModelMetadataGetDescription(raw, allocator, &value);
  if (Status s = text(call, value, &description_); !s.ok()) return s;
  status = ToStatus(ort.ModelMetadataGetVersion(raw, &version_), Code::kModel);
  if (!status.ok()) return status;

  char** keys = nullptr;
  int64_t count = 0;
  status =
      ToStatus(ort.ModelMetadataGetCustomMetadataMapKeys(raw, allocator, &keys, &count), Code::kModel);
  if (!status.ok()) return status;
  for (int64_t i = 0; i < count; ++i) {
    const std::string key = TakeOrtString(keys[i]);
    value = nullptr;
    call = ort.ModelMetadataLookupCustomMetadataMap(raw, allocator, key.c_str(), &value);
    std::string entry;
    if (Status s = text(call, value, &entry); s.ok()) custom_metadata_.emplace_back(key, entry);
  }
  if (keys) TakeOrtString(reinterpret_cast<char*>(keys));
  return {};
}

}  // namespace tercel
