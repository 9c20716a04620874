#include "binding_handle.h"

#include "closure.h"
#include "describe.h"
#include "run_job.h"

namespace tercel::addon {

namespace {

bool ReadShapes(napi_env env, napi_value list, size_t count, std::vector<std::optional<Dims>>* out) {
  out->resize(count);
  for (size_t i = 0; i < count; ++i) {
    napi_value shape = nullptr;
    bool is_array = false;
    if (!Ok(napi_get_element(env, list, static_cast<uint32_t>(i), &shape))) return false;
    if (!Ok(napi_is_array(env, shape, &is_array))) return false;
    if (!is_array) continue;
    uint32_t rank = 0;
    napi_get_array_length(env, shape, &rank);
    Dims dims(rank);
    for (uint32_t d = 0; d < rank; ++d) {
      napi_value dim = nullptr;
      napi_get_element(env, shape, d, &dim);
      if (!Ok(napi_get_value_int64(env, dim, &dims[d]))) dims[d] = -1;
    }
    (*out)[i] = std::move(dims);
  }
  return true;
}

// [{name, dtype, shape, buffer}]; no buffer for strings.
napi_value DescribeSlots(napi_env env, Runtime* runtime, const std::vector<Binding::Slot>& slots,
                         Status* status) {
  napi_value list = nullptr;
  if (!Ok(napi_create_array_with_length(env, slots.size(), &list))) return nullptr;
  for (size_t i = 0; i < slots.size(); ++i) {
    const Binding::Slot& slot = slots[i];
    napi_value item = DescribeTensor(env, slot.info->name, slot.dtype, slot.dims);
    if (!item) return nullptr;
    if (slot.bytes > kMaxBufferBytes) {
      *status = Status::InvalidInput("bind: \"" + slot.info->name + "\" is larger than 4 GiB");
      return nullptr;
    }
    if (slot.lease) {
      napi_value buffer = LeaseToArrayBuffer(env, runtime, slot.lease, slot.bytes);
      if (!buffer) {
        *status = Status::Model("bind: this build of Node refuses external buffers; use run()");
        return nullptr;
      }
      napi_set_named_property(env, item, "buffer", buffer);
    }
    napi_set_element(env, list, static_cast<uint32_t>(i), item);
  }
  return list;
}

}  // namespace

BindingHandle::~BindingHandle() { model_->bindings().erase(this); }

napi_value BindingHandle::Create(Ref<ModelHandle> model, napi_value inputs, napi_value outputs) {
  AddonEnv* addon = model->env();
  napi_env env = addon->env();
  std::vector<std::optional<Dims>> input_shapes, output_shapes;
  if (!ReadShapes(env, inputs, model->model()->inputs().size(), &input_shapes) ||
      !ReadShapes(env, outputs, model->model()->outputs().size(), &output_shapes)) {
    return nullptr;
  }
  Ref<BindingHandle> handle(new BindingHandle(model));
  Status status = Binding::Create(model->model(), input_shapes, output_shapes, &handle->binding_);
  if (!status.ok()) return addon->Throw(status);
  model->bindings().insert(handle.get());
  napi_value object = nullptr;
  if (!Ok(napi_create_object(env, &object))) return nullptr;
  napi_value in = DescribeSlots(env, addon->runtime(), handle->binding_->inputs(), &status);
  napi_value out =
      in ? DescribeSlots(env, addon->runtime(), handle->binding_->outputs(), &status) : nullptr;
  if (!out) return status.ok() ? nullptr : addon->Throw(status);
  BindingHandle* self = handle.get();
  const bool made = Ok(napi_set_named_property(env, object, "inputs", in)) &&
                    Ok(napi_set_named_property(env, object, "outputs", out)) &&
                    AddFunction(env, object, "runSync", RunSync, self) &&
                    AddFunction(env, object, "run", Run, self) &&
                    AddFunction(env, object, "setStrings", SetStrings, self) &&
                    AddFunction(env, object, "getStrings", GetStrings, self) &&
                    AddFunction(env, object, "close", Close, self);
  return made ? object : nullptr;
}

Status BindingHandle::Unusable() const {
  if (!binding_) return Status::Closed("the binding was closed");
  return Status::InvalidInput("the binding is running; wait for its run() before the next use");
}

napi_value BindingHandle::RunHere() {
  Status status = binding_->RunSync();
  model_->env()->meta().data[kMetaRunUs] =
      static_cast<double>(binding_->model()->scheduler().run_time().value()) / 1000;
  return status.ok() ? nullptr : model_->env()->Throw(status);
}

napi_value BindingHandle::RunSync(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  if (!Ok(napi_get_cb_info(env, info, nullptr, nullptr, nullptr, &data))) return nullptr;
  auto* self = static_cast<BindingHandle*>(data);
  if (!self->binding_ || self->running_) return self->model_->env()->Throw(self->Unusable());
  return self->RunHere();
}

napi_value BindingHandle::Run(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<BindingHandle>(env, info, args);
  AddonEnv* addon = self->model_->env();
  if (!self->binding_ || self->running_) return addon->Throw(self->Unusable());
  const Meta& meta = addon->meta();
  const auto flags = static_cast<uint32_t>(meta.data[kMetaFlags]);
  if (self->model_->ShouldRunInline(flags & kMayRunInline, flags & kConcurrent)) return self->RunHere();
  if (Status s = self->binding_->Prepare(); !s.ok()) return addon->Throw(s);
  Ref<RunJob> job(new RunJob(self->model_));
  job->binding = self->binding_->handle();
  job->binding_handle = Ref<BindingHandle>(self);
  for (const auto* slots : {&self->binding_->inputs(), &self->binding_->outputs()}) {
    for (const Binding::Slot& slot : *slots) {
      if (slot.lease) job->leases.push_back(slot.lease);
    }
  }
  job->keep = self->binding_;
  self->running_ = true;
  self->slot_ = static_cast<uint32_t>(meta.data[kMetaSlot]);
  napi_value submitted = SubmitJob(addon, std::move(job), meta);
  if (!submitted) self->running_ = false;
  return submitted;
}

void BindingHandle::EndRun() { running_ = false; }

void BindingHandle::CloseNow() {
  if (running_) {
    if (JsCompletion* completion = model_->env()->Get(slot_)) {
      if (auto* job = dynamic_cast<RunJob*>(completion)) {
        job->Cancel(Status::Closed("the binding was closed"));
      }
    }
  }
  binding_.reset();
}

napi_value BindingHandle::SetStrings(napi_env env, napi_callback_info info) {
  napi_value args[2];
  auto* self = ReadCall<BindingHandle>(env, info, args);
  AddonEnv* addon = self->model_->env();
  if (!self->binding_ || self->running_) return addon->Throw(self->Unusable());
  const uint32_t index = ReadUint32(env, args[0]);
  const Binding::Slot& slot = self->binding_->inputs()[index];
  std::vector<std::string> strings;
  Status status = ReadStringArray(env, args[1], &strings);
  size_t wanted = 0;
  (void)CountElements(slot.dims.data(), slot.dims.size(), &wanted);
  if (status.ok() && strings.size() != wanted) {
    status =
        Status::InvalidInput("input \"" + slot.info->name + "\": bound for " + std::to_string(wanted) +
                             " strings, data has " + std::to_string(strings.size()));
  }
  if (status.ok()) status = self->binding_->SetStrings(index, strings);
  return status.ok() ? Undefined(env) : addon->Throw(status);
}

napi_value BindingHandle::GetStrings(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<BindingHandle>(env, info, args);
  AddonEnv* addon = self->model_->env();
  if (!self->binding_ || self->running_) return addon->Throw(self->Unusable());
  std::vector<std::string> strings;
  Status status = self->binding_->GetStrings(ReadUint32(env, args[0]), &strings);
  return status.ok() ? MakeStringArray(env, strings) : addon->Throw(status);
}

napi_value BindingHandle::Close(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<BindingHandle>(env, info, args);
  self->CloseNow();
  return Undefined(env);
}

}  // namespace tercel::addon
