#include "binding.h"

#include <cstring>
#include <map>

#include "base/clock.h"
#include "ort/value.h"
#include "runtime.h"

namespace tercel {

namespace {

// A binding's strings are held three times over: more than these are a mistake.
constexpr size_t kMaxStrings = size_t{1} << 24;

// The declared shape with named dimensions filled in; false if one stays open.
bool ResolveShape(const ValueType& type, const std::map<std::string, int64_t>& symbols, Dims* out) {
  // A tensor without a declared shape looks like a scalar here: only a run can tell.
  if (!type.has_shape) return false;
  *out = type.dims;
  for (size_t i = 0; i < out->size(); ++i) {
    if ((*out)[i] >= 0) continue;
    auto it = symbols.find(type.symbols[i]);
    if (type.symbols[i].empty() || it == symbols.end()) return false;
    (*out)[i] = it->second;
  }
  return true;
}

Status NotATensor(const char* role, const ValueInfo& info) {
  return Status::InvalidInput(std::string("bind: ") + role + " \"" + info.name + "\" is " +
                              info.type.Text() + "; a binding holds tensors only");
}

}  // namespace

Status Binding::Prepare(const char* role, const ValueInfo& info, const Dims& dims,
                        const ValueRequest& request, BoundValue* bound) {
  bound->info = &info;
  bound->dtype = info.type.dtype;
  bound->dims = dims;
  if (dims.size() > kMaxRank || !CountBytes(bound->dtype, dims.data(), dims.size(), &bound->bytes)) {
    return Status::InvalidInput(std::string("bind: ") + role + " \"" + info.name + "\": shape " +
                                ShapeText(dims.data(), dims.size()) + " is not possible");
  }
  Status status = CheckTensor(role, info, bound->dtype, dims.data(), dims.size());
  if (!status.ok()) return status;
  if (bound->dtype == DType::kString) return {};
  if (DTypeBytes(bound->dtype) == 0) return NotATensor(role, info);
  if (request.on_device || request.lease) return PrepareOnDevice(role, request, bound);
  Runtime* runtime = model_->runtime();
  bound->lease = Lease::Take(runtime->arena(), bound->bytes);
  if (!bound->lease) {
    return Status::Overload(std::string("bind: no memory for ") + role + " \"" + info.name + "\", " +
                            std::to_string(bound->bytes) + " bytes");
  }
  std::memset(bound->lease->data(), 0, bound->bytes);
  return MakeValue(bound);
}

// Over the value's memory, wherever that is.
Status Binding::MakeValue(BoundValue* bound) {
  void* data = bound->lease ? bound->lease->data() : bound->on_device->data();
  const OrtMemoryInfo* memory =
      bound->lease ? model_->runtime()->cpu_memory() : model_->device()->memory();
  OrtValue* value = nullptr;
  Status status = MakeTensor(memory, bound->dtype, bound->dims.data(), bound->dims.size(), data,
                             bound->bytes, &value);
  bound->value.reset(value);
  return status;
}

Status Binding::PrepareOnDevice(const char* role, const ValueRequest& request, BoundValue* bound) {
  DeviceRunner* runner = model_->device();
  const std::string what = std::string("bind: ") + role + " \"" + bound->info->name + "\"";
  if (!runner) {
    return Status::InvalidInput(what + " cannot stay on a GPU: the model does not run on one");
  }
  Device* device = runner->device();
  Status status;
  if (!request.lease) {
    status = device->Allocate(bound->bytes, &bound->on_device);
    if (status.ok()) status = device->Clear(bound->on_device->data(), bound->bytes);
    if (!status.ok()) return {status.code(), what + ": " + status.message()};
  } else if (request.lease->device() != device) {
    return Status::InvalidInput(what + " is on GPU " + std::to_string(request.lease->device()->id()) +
                                ", the model on GPU " + std::to_string(device->id()));
  } else if (request.lease->bytes() < bound->bytes) {
    return Status::InvalidInput(what + ": expected " + std::to_string(bound->bytes) + " bytes, got " +
                                std::to_string(request.lease->bytes()));
  } else {
    // A graph may write an output before it has read every input.
    const bool is_written = outputs_.size() > 0;
    for (const auto* bound_values : {&inputs_, &outputs_}) {
      for (const BoundValue& other : *bound_values) {
        if (!is_written || other.on_device.get() != request.lease.get()) continue;
        return Status::InvalidInput(what + " and \"" + other.info->name + "\" share their memory");
      }
    }
    bound->on_device = request.lease;
  }
  return MakeValue(bound);
}

// An output that is an input has that one's memory.
Status Binding::ShareInput(const BoundValue& input, const Dims& dims, BoundValue* output) {
  output->dtype = input.dtype;
  output->dims = input.dims;
  output->bytes = input.bytes;
  if (dims != input.dims) {
    return Status::InvalidInput("bind: output \"" + output->info->name +
                                "\" is the input of the same name, and has its shape");
  }
  output->lease = input.lease;
  output->on_device = input.on_device;
  return MakeValue(output);
}

Status Binding::BindAsInput(const BoundValue& bound) {
  return ToStatus(ort.BindInput(binding_.get(), bound.info->name.c_str(), bound.value.get()),
                  Code::kInvalidInput);
}

Status Binding::BindAsOutput(const BoundValue& bound) {
  const char* name = bound.info->name.c_str();
  return ToStatus(bound.value
                      ? ort.BindOutput(binding_.get(), name, bound.value.get())
                      : ort.BindOutputToDevice(binding_.get(), name, model_->runtime()->cpu_memory()),
                  Code::kInvalidInput);
}

Status Binding::Create(std::shared_ptr<Model> model, const std::vector<ValueRequest>& inputs,
                       const std::vector<ValueRequest>& outputs, Ref<Binding>* out) {
  Ref<Binding> binding(new Binding(std::move(model)));
  Model* m = binding->model_.get();
  binding->on_runner_ = m->device() != nullptr;
  for (const auto* values : {&m->inputs(), &m->outputs()}) {
    for (const ValueInfo& info : *values) {
      if (info.type.dtype == DType::kString) binding->on_runner_ = false;
    }
  }
  OrtIoBinding* raw = nullptr;
  if (Status s = ToStatus(ort.CreateIoBinding(m->session(), &raw), Code::kModel); !s.ok()) return s;
  binding->binding_.reset(raw);

  std::map<std::string, int64_t> symbols;
  binding->inputs_.resize(m->inputs().size());
  for (size_t i = 0; i < m->inputs().size(); ++i) {
    const ValueInfo& info = m->inputs()[i];
    if (info.type.kind != OnnxKind::kTensor) return NotATensor("input", info);
    Dims dims;
    if (inputs[i].dims) {
      dims = *inputs[i].dims;
    } else if (!ResolveShape(info.type, symbols, &dims) && !info.type.dims.empty()) {
      return Status::InvalidInput("bind: input \"" + info.name + "\" is " + info.type.Text() +
                                  ": give its shape");
    }
    BoundValue& bound = binding->inputs_[i];
    if (Status s = binding->Prepare("input", info, dims, inputs[i], &bound); !s.ok()) return s;
    for (size_t d = 0; d < info.type.dims.size(); ++d) {
      if (!info.type.symbols[d].empty()) symbols.emplace(info.type.symbols[d], dims[d]);
    }
    if (bound.dtype == DType::kString) {
      size_t count = 0;
      (void)CountElements(dims.data(), dims.size(), &count);
      if (count > kMaxStrings) {
        return Status::Overload("bind: no memory for input \"" + info.name + "\", " +
                                std::to_string(count) + " strings");
      }
      if (Status s = binding->SetStrings(i, std::vector<std::string>(count)); !s.ok()) return s;
    } else if (!binding->on_runner_) {
      if (Status s = binding->BindAsInput(bound); !s.ok()) return s;
    }
    binding->names_.push_back(info.name.c_str());
    binding->input_values_.push_back(bound.value.get());
  }

  binding->counted_rows_ = m->CountedRows(m->inputs().size(), [&](size_t i) {
    const Dims& dims = binding->inputs_[i].dims;
    return dims.empty() ? nullptr : dims.data();
  });

  std::vector<ValueRequest> requests = outputs;
  bool probe = false;
  for (size_t i = 0; i < m->outputs().size(); ++i) {
    const ValueInfo& info = m->outputs()[i];
    if (info.type.kind != OnnxKind::kTensor) return NotATensor("output", info);
    Dims dims;
    if (!requests[i].dims && ResolveShape(info.type, symbols, &dims)) requests[i].dims = dims;
    probe |= !requests[i].dims;
  }
  if (probe) {
    if (Status s = binding->ProbeOutputs(&requests); !s.ok()) return s;
  }
  binding->outputs_.resize(m->outputs().size());
  for (size_t i = 0; i < m->outputs().size(); ++i) {
    BoundValue& bound = binding->outputs_[i];
    const ValueInfo& info = m->outputs()[i];
    const int input = m->output_plans()[i].input();
    const BoundValue* same = input >= 0 ? &binding->inputs_[static_cast<size_t>(input)] : nullptr;
    const bool is_shared = same && same->value && same->dtype != DType::kString;
    bound.info = &info;
    Status s = is_shared ? binding->ShareInput(*same, *requests[i].dims, &bound)
                         : binding->Prepare("output", info, *requests[i].dims, requests[i], &bound);
    if (!s.ok()) return s;
    if (!binding->on_runner_) {
      if (Status s = binding->BindAsOutput(bound); !s.ok()) return s;
    } else if (is_shared) {
      continue;  // the runner would copy back what nobody wrote
    }
    binding->names_.push_back(bound.info->name.c_str());
    binding->output_values_.push_back(bound.value.get());
  }
  *out = std::move(binding);
  return {};
}

Status Binding::ProbeOutputs(std::vector<ValueRequest>* requests) {
  std::vector<const char*> input_names;
  std::vector<const OrtValue*> values;
  for (const BoundValue& bound : inputs_) {
    input_names.push_back(bound.info->name.c_str());
    values.push_back(bound.value.get());
  }
  std::vector<const char*> output_names;
  for (const ValueInfo& info : model_->outputs()) output_names.push_back(info.name.c_str());
  std::vector<OrtValue*> results(output_names.size(), nullptr);
  Status status =
      ToStatus(model_->Run(nullptr, {input_names.data(), values.data(), values.size(),
                                     output_names.data(), output_names.size(), results.data()}),
               Code::kInvalidInput,
               "bind: the shapes of the outputs are not declared, and the run on zeros "
               "that would show them failed; give them in bind()");
  std::vector<OrtPtr<OrtValue>> owned(results.begin(), results.end());
  for (size_t i = 0; status.ok() && i < results.size(); ++i) {
    DType dtype;
    int64_t dims[kMaxRank];
    size_t rank = 0;
    status = ReadTensorShape(results[i], &dtype, dims, &rank);
    if (status.ok() && !(*requests)[i].dims) (*requests)[i].dims = Dims(dims, dims + rank);
  }
  return status;
}

Status Binding::BindInputs() {
  for (const BoundValue& bound : inputs_) {
    if (Status s = BindAsInput(bound); !s.ok()) return s;
  }
  return {};
}

OrtStatus* Binding::Run(const OrtRunOptions* options) {
  OrtSession* session = model_->session();
  if (on_runner_ && output_values_.empty()) return nullptr;  // all outputs are inputs
  if (on_runner_) {
    const size_t inputs = input_values_.size();
    return model_->Run(options, {names_.data(), input_values_.data(), inputs, names_.data() + inputs,
                                 output_values_.size(), output_values_.data(), 0, true});
  }
  if (model_->cpu_only()) return ort.RunWithBinding(session, options, binding_.get());
  // Other providers copy inputs when they are bound, on the thread that binds them.
  auto run = [&](const OrtRunOptions* run_options) {
    const Status status = BindInputs();
    if (!status.ok()) return ort.CreateStatus(kOrtEpFail, status.message().c_str());
    return ort.RunWithBinding(session, run_options, binding_.get());
  };
  return model_->device() ? model_->device()->RunAlone(run) : run(options);
}

Status Binding::RunSync() {
  // A clock read costs 25 ns; one run in 16 is enough to know the median.
  const bool timed = (runs_++ & 15) == 0;
  const int64_t start = timed ? NowNs() : 0;
  OrtStatus* failed = Run(nullptr);
  if (failed) {
    Status status = RunStatus(failed);
    model_->sync_runs().AddFailed(status.code() == Code::kInvalidInput);
    return status;
  }
  const int64_t ns = timed ? NowNs() - start : 0;
  if (timed) model_->scheduler().run_time().Add(ns);
  model_->sync_runs().Add(counted_rows_, ns);
  return {};
}

Status Binding::SetStrings(size_t input, const std::vector<std::string>& strings) {
  BoundValue& bound = inputs_[input];
  OrtValue* value = nullptr;
  Status status = MakeStringTensor(strings, bound.dims.data(), bound.dims.size(), &value);
  if (!status.ok()) return status;
  bound.value.reset(value);
  return BindAsInput(bound);
}

Status Binding::GetStrings(size_t output, std::vector<std::string>* strings) {
  const BoundValue& bound = outputs_[output];
  OrtValue** values = nullptr;
  size_t count = 0;
  Status status = ToStatus(
      ort.GetBoundOutputValues(binding_.get(), DefaultOrtAllocator(), &values, &count), Code::kRun);
  if (!status.ok()) return status;
  std::vector<OrtPtr<OrtValue>> owned(values, values + count);
  if (values) TakeOrtString(reinterpret_cast<char*>(values));
  DType dtype;
  int64_t dims[kMaxRank];
  size_t rank = 0;
  status = ReadTensorShape(owned[output].get(), &dtype, dims, &rank);
  if (!status.ok()) return status;
  if (Dims(dims, dims + rank) != bound.dims) {
    return Status::Run("output \"" + bound.info->name + "\": bound as " +
                       ShapeText(bound.dims.data(), bound.dims.size()) + ", the run gave " +
                       ShapeText(dims, rank));
  }
  size_t elements = 0;
  (void)CountElements(dims, rank, &elements);
  status = ReadStrings(owned[output].get(), elements, strings);
  // Bound anew, so that the next run gets a fresh value instead of this one.
  return status.ok() ? BindAsOutput(bound) : status;
}

}  // namespace tercel
