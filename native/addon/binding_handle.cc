#include "binding_handle.h"

#include "closure.h"
#include "describe.h"
#include "device_handle.h"
#include "read.h"
#include "run_job.h"

namespace tercel::addon {

namespace {

// [{shape, onDevice, lease} or undefined]
bool ReadValueRequests(napi_env env, napi_value list, size_t count,
                       std::vector<Binding::ValueRequest>* out) {
  const Napi::Array array(env, list);
  out->resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    const Napi::Value item = array.Get(i);
    if (!item.IsObject()) continue;
    const Napi::Object request = item.As<Napi::Object>();
    const Napi::Value shape = request.Get("shape");
    if (shape.IsArray()) (*out)[i].dims = Integers(shape);
    (*out)[i].on_device = Flag(request, "onDevice");
    (*out)[i].lease = DeviceHandle::LeaseOf(env, request.Get("lease"));
  }
  bool pending = false;
  return Ok(napi_is_exception_pending(env, &pending)) && !pending;
}

// [{name, dtype, shape, buffer or onDevice}]; neither for strings.
napi_value DescribeValues(AddonEnv* addon, const std::vector<Binding::BoundValue>& values,
                          Status* status) {
  napi_env env = addon->env();
  napi_value list = nullptr;
  if (!Ok(napi_create_array_with_length(env, values.size(), &list))) return nullptr;
  for (size_t i = 0; i < values.size(); ++i) {
    const Binding::BoundValue& value = values[i];
    napi_value item = DescribeTensor(env, value.info->name, value.dtype, value.dims);
    if (!item) return nullptr;
    if (value.bytes > kMaxBufferBytes) {
      *status = Status::InvalidInput("bind: \"" + value.info->name + "\" is larger than 4 GiB");
      return nullptr;
    }
    if (value.lease) {
      napi_value buffer = LeaseToArrayBuffer(env, addon->runtime(), value.lease, value.bytes);
      if (!buffer) {
        *status = Status::Model("bind: this build of Node refuses external buffers; use run()");
        return nullptr;
      }
      napi_set_named_property(env, item, "buffer", buffer);
    }
    if (value.on_device) {
      napi_value handle = DeviceHandle::Create(Ref<AddonEnv>(addon), value.on_device, value.bytes);
      if (!handle) return nullptr;
      napi_set_named_property(env, item, "onDevice", handle);
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
  std::vector<Binding::ValueRequest> input_requests, output_requests;
  if (!ReadValueRequests(env, inputs, model->model()->inputs().size(), &input_requests) ||
      !ReadValueRequests(env, outputs, model->model()->outputs().size(), &output_requests)) {
    return nullptr;
  }
  Ref<BindingHandle> handle(new BindingHandle(model));
  Status status = Binding::Create(model->model(), input_requests, output_requests, &handle->binding_);
  if (!status.ok()) return addon->Throw(status);
  model->bindings().insert(handle.get());
  napi_value object = nullptr;
  if (!Ok(napi_create_object(env, &object))) return nullptr;
  napi_value in = DescribeValues(addon, handle->binding_->inputs(), &status);
  napi_value out = in ? DescribeValues(addon, handle->binding_->outputs(), &status) : nullptr;
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
  Ref<RunJob> job(new RunJob(self->model_));
  job->bound = self->binding_.get();
  job->counted_rows = self->binding_->counted_rows();
  job->binding_handle = Ref<BindingHandle>(self);
  for (const auto* values : {&self->binding_->inputs(), &self->binding_->outputs()}) {
    for (const Binding::BoundValue& value : *values) {
      if (value.lease) job->leases.push_back(value.lease);
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
  const Binding::BoundValue& value = self->binding_->inputs()[index];
  std::vector<std::string> strings;
  Status status = ReadStringArray(env, args[1], &strings);
  size_t wanted = 0;
  (void)CountElements(value.dims.data(), value.dims.size(), &wanted);
  if (status.ok() && strings.size() != wanted) {
    status =
        Status::InvalidInput("input \"" + value.info->name + "\": bound for " + std::to_string(wanted) +
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
