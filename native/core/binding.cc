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

Status Binding::MakeSlot(const char* role, const ValueInfo& info, const Dims& dims, const Wish& wish,
                         Slot* slot) {
  slot->info = &info;
  slot->dtype = info.type.dtype;
  slot->dims = dims;
  if (dims.size() > kMaxRank || !CountBytes(slot->dtype, dims.data(), dims.size(), &slot->bytes)) {
    return Status::InvalidInput(std::string("bind: ") + role + " \"" + info.name + "\": shape " +
                                ShapeText(dims.data(), dims.size()) + " is not possible");
  }
  Status status = CheckTensor(role, info, slot->dtype, dims.data(), dims.size());
  if (!status.ok()) return status;
  if (slot->dtype == DType::kString) return {};
  if (DTypeBytes(slot->dtype) == 0) return NotATensor(role, info);
  if (wish.on_device || wish.lease) return MakeDeviceSlot(role, wish, slot);
  Runtime* runtime = model_->runtime();
  slot->lease = Lease::Take(runtime->arena(), slot->bytes);
  if (!slot->lease) {
    return Status::Overload(std::string("bind: no memory for ") + role + " \"" + info.name + "\", " +
                            std::to_string(slot->bytes) + " bytes");
  }
  std::memset(slot->lease->data(), 0, slot->bytes);
  return MakeValue(slot);
}

// Over the slot's memory, wherever that is.
Status Binding::MakeValue(Slot* slot) {
  void* data = slot->lease ? slot->lease->data() : slot->on_device->data();
  const OrtMemoryInfo* memory =
      slot->lease ? model_->runtime()->cpu_memory() : model_->device()->memory();
  OrtValue* value = nullptr;
  Status status =
      MakeTensor(memory, slot->dtype, slot->dims.data(), slot->dims.size(), data, slot->bytes, &value);
  slot->value.reset(value);
  return status;
}

Status Binding::MakeDeviceSlot(const char* role, const Wish& wish, Slot* slot) {
  DeviceRunner* runner = model_->device();
  const std::string what = std::string("bind: ") + role + " \"" + slot->info->name + "\"";
  if (!runner) {
    return Status::InvalidInput(what + " cannot stay on a GPU: the model does not run on one");
  }
  Device* device = runner->device();
  Status status;
  if (!wish.lease) {
    status = device->Allocate(slot->bytes, &slot->on_device);
    if (status.ok()) status = device->Clear(slot->on_device->data(), slot->bytes);
    if (!status.ok()) return {status.code(), what + ": " + status.message()};
  } else if (wish.lease->device() != device) {
    return Status::InvalidInput(what + " is on GPU " + std::to_string(wish.lease->device()->id()) +
                                ", the model on GPU " + std::to_string(device->id()));
  } else if (wish.lease->bytes() < slot->bytes) {
    return Status::InvalidInput(what + ": expected " + std::to_string(slot->bytes) + " bytes, got " +
                                std::to_string(wish.lease->bytes()));
  } else {
    // A graph may write an output before it has read every input.
    const bool is_written = outputs_.size() > 0;
    for (const auto* slots : {&inputs_, &outputs_}) {
      for (const Slot& other : *slots) {
        if (!is_written || other.on_device.get() != wish.lease.get()) continue;
        return Status::InvalidInput(what + " and \"" + other.info->name + "\" share their memory");
      }
    }
    slot->on_device = wish.lease;
  }
  return MakeValue(slot);
}

// An output that is an input has that one's memory.
Status Binding::ShareInput(const Slot& input, const Dims& dims, Slot* output) {
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

Status Binding::BindSlotInput(const Slot& slot) {
  return ToStatus(ort.BindInput(binding_.get(), slot.info->name.c_str(), slot.value.get()),
                  Code::kInvalidInput);
}

Status Binding::BindSlotOutput(const Slot& slot) {
  const char* name = slot.info->name.c_str();
  return ToStatus(slot.value
                      ? ort.BindOutput(binding_.get(), name, slot.value.get())
                      : ort.BindOutputToDevice(binding_.get(), name, model_->runtime()->cpu_memory()),
                  Code::kInvalidInput);
}

Status Binding::Create(std::shared_ptr<Model> model, const std::vector<Wish>& inputs,
                       const std::vector<Wish>& outputs, Ref<Binding>* out) {
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
    Slot& slot = binding->inputs_[i];
    if (Status s = binding->MakeSlot("input", info, dims, inputs[i], &slot); !s.ok()) return s;
    for (size_t d = 0; d < info.type.dims.size(); ++d) {
      if (!info.type.symbols[d].empty()) symbols.emplace(info.type.symbols[d], dims[d]);
    }
    if (slot.dtype == DType::kString) {
      size_t count = 0;
      (void)CountElements(dims.data(), dims.size(), &count);
      if (count > kMaxStrings) {
        return Status::Overload("bind: no memory for input \"" + info.name + "\", " +
                                std::to_string(count) + " strings");
      }
      if (Status s = binding->SetStrings(i, std::vector<std::string>(count)); !s.ok()) return s;
    } else if (!binding->on_runner_) {
      if (Status s = binding->BindSlotInput(slot); !s.ok()) return s;
    }
    binding->names_.push_back(info.name.c_str());
    binding->input_values_.push_back(slot.value.get());
  }

  std::vector<Wish> wishes = outputs;
  bool probe = false;
  for (size_t i = 0; i < m->outputs().size(); ++i) {
    const ValueInfo& info = m->outputs()[i];
    if (info.type.kind != OnnxKind::kTensor) return NotATensor("output", info);
    Dims dims;
    if (!wishes[i].dims && ResolveShape(info.type, symbols, &dims)) wishes[i].dims = dims;
    probe |= !wishes[i].dims;
  }
  if (probe) {
    if (Status s = binding->ProbeOutputs(&wishes); !s.ok()) return s;
  }
  binding->outputs_.resize(m->outputs().size());
  for (size_t i = 0; i < m->outputs().size(); ++i) {
    Slot& slot = binding->outputs_[i];
    const ValueInfo& info = m->outputs()[i];
    const int input = m->output_plans()[i].input();
    const Slot* same = input >= 0 ? &binding->inputs_[static_cast<size_t>(input)] : nullptr;
    const bool is_shared = same && same->value && same->dtype != DType::kString;
    slot.info = &info;
    Status s = is_shared ? binding->ShareInput(*same, *wishes[i].dims, &slot)
                         : binding->MakeSlot("output", info, *wishes[i].dims, wishes[i], &slot);
    if (!s.ok()) return s;
    if (!binding->on_runner_) {
      if (Status s = binding->BindSlotOutput(slot); !s.ok()) return s;
    } else if (is_shared) {
      continue;  // the runner would copy back what nobody wrote
    }
    binding->names_.push_back(slot.info->name.c_str());
    binding->output_values_.push_back(slot.value.get());
  }
  *out = std::move(binding);
  return {};
}

Status Binding::ProbeOutputs(std::vector<Wish>* wishes) {
  std::vector<const char*> input_names;
  std::vector<const OrtValue*> values;
  for (const Slot& slot : inputs_) {
    input_names.push_back(slot.info->name.c_str());
    values.push_back(slot.value.get());
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
    if (status.ok() && !(*wishes)[i].dims) (*wishes)[i].dims = Dims(dims, dims + rank);
  }
  return status;
}

Status Binding::BindInputs() {
  for (const Slot& slot : inputs_) {
    if (Status s = BindSlotInput(slot); !s.ok()) return s;
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
  auto run = [&](const OrtRunOptions* how) {
    const Status status = BindInputs();
    if (!status.ok()) return ort.CreateStatus(kOrtEpFail, status.message().c_str());
    return ort.RunWithBinding(session, how, binding_.get());
  };
  return model_->device() ? model_->device()->RunAlone(run) : run(options);
}

Status Binding::RunSync() {
  // A clock read costs 25 ns; one run in 16 is enough to know the median.
  const bool timed = (runs_++ & 15) == 0;
  const int64_t start = timed ? NowNs() : 0;
  OrtStatus* failed = Run(nullptr);
  if (failed) return ToStatus(failed, Code::kRun);
  if (timed) model_->scheduler().run_time().Add(NowNs() - start);
  model_->CountSyncRun();
  return {};
}

Status Binding::SetStrings(size_t input, const std::vector<std::string>& strings) {
  Slot& slot = inputs_[input];
  OrtValue* value = nullptr;
  Status status = MakeStringTensor(strings, slot.dims.data(), slot.dims.size(), &value);
  if (!status.ok()) return status;
  slot.value.reset(value);
  return BindSlotInput(slot);
}

Status Binding::GetStrings(size_t output, std::vector<std::string>* strings) {
  const Slot& slot = outputs_[output];
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
  if (Dims(dims, dims + rank) != slot.dims) {
    return Status::Run("output \"" + slot.info->name + "\": bound as " +
                       ShapeText(slot.dims.data(), slot.dims.size()) + ", the run gave " +
                       ShapeText(dims, rank));
  }
  size_t elements = 0;
  (void)CountElements(dims, rank, &elements);
  status = ReadStrings(owned[output].get(), elements, strings);
  // Bound anew, so that the next run gets a fresh value instead of this one.
  return status.ok() ? BindSlotOutput(slot) : status;
}

}  // namespace tercel
