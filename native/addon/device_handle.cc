#include "device_handle.h"

#include <cstring>

#include "closure.h"
#include "gpu/nvml.h"
#include "gpu/tensorrt.h"
#include "tasks.h"
#include "values.h"

namespace tercel::addon {

namespace {

// A typed array's memory, also over a SharedArrayBuffer. REQUIRES: it is one, as TypeScript checked.
uint8_t* Bytes(napi_env env, napi_value array, size_t* bytes) {
  static const size_t kSizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 2};  // by napi_typedarray_type
  napi_typedarray_type type = napi_uint8_array;
  size_t length = 0;
  void* data = nullptr;
  *bytes = 0;
  if (!Ok(napi_get_typedarray_info(env, array, &type, &length, &data, nullptr, nullptr)))
    return nullptr;
  *bytes = length * kSizes[type];
  return static_cast<uint8_t*>(data);
}

// A copy that JS does not wait for, by way of a lease: JS may do what it likes with its own meanwhile.
class CopyTask : public ThreadTask {
 public:
  CopyTask(Ref<AddonEnv> env, Ref<DeviceLease> on_device, Ref<Lease> on_host, size_t bytes, bool in)
      : ThreadTask(std::move(env)),
        on_device_(std::move(on_device)),
        on_host_(std::move(on_host)),
        bytes_(bytes),
        in_(in) {}

  napi_value Finish(napi_env env, napi_value) override {
    if (!status_.ok()) return env_->Throw(status_);
    if (in_) return Undefined(env);
    napi_value buffer = LeaseToArrayBuffer(env, env_->runtime(), on_host_, bytes_);
    if (buffer) return buffer;
    void* data = nullptr;
    napi_create_arraybuffer(env, bytes_, &data, &buffer);
    if (data) std::memcpy(data, on_host_->data(), bytes_);
    return buffer;
  }

 private:
  void Work() override {
    Device* device = on_device_->device();
    status_ = in_ ? device->CopyIn(on_device_->data(), on_host_->data(), bytes_)
                  : device->CopyOut(on_host_->data(), on_device_->data(), bytes_);
  }

  const Ref<DeviceLease> on_device_;
  const Ref<Lease> on_host_;
  const size_t bytes_;
  const bool in_;
  Status status_;
};

}  // namespace

napi_value DeviceHandle::Create(Ref<AddonEnv> addon, Ref<DeviceLease> lease, size_t bytes) {
  napi_env env = addon->env();
  const int id = lease->device()->id();
  DeviceLease* raw = lease.get();
  Ref<DeviceHandle> handle(new DeviceHandle(std::move(addon), std::move(lease), bytes));
  napi_value object = nullptr, external = nullptr;
  if (!Ok(napi_create_object(env, &object))) return nullptr;
  raw->AddRef();
  auto drop = [](napi_env, void* data, void*) { static_cast<DeviceLease*>(data)->DropRef(); };
  if (!Ok(napi_create_external(env, raw, drop, nullptr, &external))) {
    raw->DropRef();
    return nullptr;
  }
  Napi::Object made(env, object);
  made["device"] = Napi::Number::New(env, id);
  made["bytes"] = Napi::Number::New(env, static_cast<double>(bytes));
  DeviceHandle* self = handle.get();
  const bool complete = Ok(napi_set_named_property(env, object, "lease", external)) &&
                        AddFunction(env, object, "readSync", ReadSync, self) &&
                        AddFunction(env, object, "writeSync", WriteSync, self) &&
                        AddFunction(env, object, "read", Read, self) &&
                        AddFunction(env, object, "write", Write, self);
  return complete ? object : nullptr;
}

Ref<DeviceLease> DeviceHandle::LeaseOf(napi_env env, napi_value external) {
  napi_valuetype type = napi_undefined;
  void* data = nullptr;
  if (napi_typeof(env, external, &type) != napi_ok || type != napi_external ||
      napi_get_value_external(env, external, &data) != napi_ok) {
    return nullptr;
  }
  return Ref<DeviceLease>(static_cast<DeviceLease*>(data));
}

// readSync(array), writeSync(array): as many bytes as the array has. REQUIRES: no more than `bytes`.
napi_value DeviceHandle::ReadSync(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<DeviceHandle>(env, info, args);
  size_t bytes = 0;
  uint8_t* data = Bytes(env, args[0], &bytes);
  const Status status = self->lease_->device()->CopyOut(data, self->lease_->data(), bytes);
  return status.ok() ? Undefined(env) : self->addon_->Throw(status);
}

napi_value DeviceHandle::WriteSync(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<DeviceHandle>(env, info, args);
  size_t bytes = 0;
  const uint8_t* data = Bytes(env, args[0], &bytes);
  const Status status = self->lease_->device()->CopyIn(self->lease_->data(), data, bytes);
  return status.ok() ? Undefined(env) : self->addon_->Throw(status);
}

// read(slot): resolves to an ArrayBuffer
napi_value DeviceHandle::Read(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<DeviceHandle>(env, info, args);
  Ref<Lease> lease = Lease::Take(self->addon_->runtime()->arena(), self->bytes_);
  if (!lease) {
    return self->addon_->Throw(
        Status::Overload("read: no memory for " + std::to_string(self->bytes_) + " bytes"));
  }
  Ref<CopyTask> task(new CopyTask(self->addon_, self->lease_, std::move(lease), self->bytes_, false));
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

// write(slot, array)
napi_value DeviceHandle::Write(napi_env env, napi_callback_info info) {
  napi_value args[2];
  auto* self = ReadCall<DeviceHandle>(env, info, args);
  size_t bytes = 0;
  const uint8_t* data = Bytes(env, args[1], &bytes);
  Runtime* runtime = self->addon_->runtime();
  Ref<Lease> lease = Lease::Take(runtime->arena(), bytes);
  if (!lease) {
    return self->addon_->Throw(
        Status::Overload("write: no memory for " + std::to_string(bytes) + " bytes"));
  }
  if (bytes) std::memcpy(lease->data(), data, bytes);
  runtime->copies()->in.fetch_add(bytes, std::memory_order_relaxed);
  Ref<CopyTask> task(new CopyTask(self->addon_, self->lease_, std::move(lease), bytes, true));
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

napi_value DescribeGpu(AddonEnv* addon, int id) {
  napi_env env = addon->env();
  Device* device = nullptr;
  const Status status = [&] {
    const NoCapture no_capture;
    return Device::Get(id, &device);
  }();
  if (!status.ok()) return addon->Throw(status);
  GpuReading reading;
  (void)ReadGpu(device->pci_bus_id(), &reading).ok();
  Napi::Object object = Napi::Object::New(env);
  object["name"] = Napi::String::New(env, reading.name);
  object["capability"] = Napi::String::New(env, device->capability());
  // Of the driver itself where it says so, else the CUDA that it knows.
  const std::string cuda = "CUDA " + std::to_string(device->cuda()->driver);
  object["driver"] = Napi::String::New(env, reading.driver.empty() ? cuda : reading.driver);
  object["tensorRt"] = Napi::Number::New(env, TensorRtVersion());
  return object;
}

napi_value DescribeDevices(napi_env env) {
  const std::vector<Device*> devices = Device::Open();
  Napi::Array list = Napi::Array::New(env, devices.size());
  for (uint32_t i = 0; i < devices.size(); ++i) {
    Device* device = devices[i];
    const DeviceStats stats = device->Stats();
    Napi::Object object = Napi::Object::New(env);
    auto number = [env](Napi::Object& to, const char* name, auto value) {
      to[name] = Napi::Number::New(env, static_cast<double>(value));
    };
    number(object, "device", device->id());
    object["capability"] = Napi::String::New(env, device->capability());
    object["pciBusId"] = Napi::String::New(env, device->pci_bus_id());
    number(object, "reservedBytes", stats.reserved_bytes);
    number(object, "leasedBytes", stats.leased_bytes);
    number(object, "leases", stats.leases);
    number(object, "runs", stats.runs);
    number(object, "graphRuns", stats.graph_runs);
    auto copies = [&](const char* name, uint64_t count, uint64_t bytes, int64_t ns) {
      Napi::Object to = Napi::Object::New(env);
      number(to, "count", count);
      number(to, "bytes", bytes);
      number(to, "us", static_cast<double>(ns) / 1000);
      object[name] = to;
    };
    copies("copiesIn", stats.copies_in, stats.bytes_in, stats.copy_in_ns);
    copies("copiesOut", stats.copies_out, stats.bytes_out, stats.copy_out_ns);
    // What is missing is left out.
    size_t free = 0, total = 0;
    GpuReading reading;
    const bool has_reading = ReadGpu(device->pci_bus_id(), &reading).ok();
    if (device->MemoryInfo(&free, &total).ok()) {
      number(object, "totalBytes", total);
      number(object, "usedBytes", total - free);
    } else if (reading.total_bytes) {
      number(object, "totalBytes", reading.total_bytes);
      number(object, "usedBytes", reading.used_bytes);
    }
    if (has_reading && !reading.name.empty()) object["name"] = Napi::String::New(env, reading.name);
    if (has_reading && !reading.driver.empty()) {
      object["driver"] = Napi::String::New(env, reading.driver);
    }
    if (reading.utilization >= 0) number(object, "utilization", reading.utilization);
    if (reading.memory_utilization >= 0) {
      number(object, "memoryUtilization", reading.memory_utilization);
    }
    if (reading.watts >= 0) number(object, "watts", reading.watts);
    if (reading.celsius >= 0) number(object, "celsius", reading.celsius);
    list[i] = object;
  }
  return list;
}

}  // namespace tercel::addon
