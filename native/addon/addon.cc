// The addon's exports. src/native.ts is the only file that loads it, and declares their types.
#include <napi.h>

#include <cstring>
#include <memory>
#include <thread>

#include "base/clock.h"
#include "base/file_lock.h"
#include "closure.h"
#include "configure.h"
#include "describe.h"
#include "device_handle.h"
#include "env.h"
#include "json.h"
#include "measure.h"
#include "memory/shared_memory.h"
#include "ort/provider_plugins.h"
#include "ort/session_options.h"
#include "profile.h"
#include "read.h"
#include "tasks.h"
#include "values.h"

namespace tercel::addon {

namespace {

// start({library, maxBytes, hugePages, lockMemory, pinMemory, neverPin, cudaLibrary, logLevel})
napi_value Start(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const Napi::Object object(env, args[0]);
  RuntimeOptions options;
  options.library = Text(object, "library");
  options.arena.max_bytes = static_cast<size_t>(Integer(object, "maxBytes", 0));
  options.arena.pages.huge = Flag(object, "hugePages");
  options.arena.pages.lock = Flag(object, "lockMemory");
  options.arena.pages.pin = Flag(object, "pinMemory");
  options.never_pin = Flag(object, "neverPin");
  options.cuda_library = Text(object, "cudaLibrary");
  options.log_level = static_cast<int>(Integer(object, "logLevel", 3));
  Runtime* runtime = nullptr;
  Status status = Runtime::Get(options, &runtime);
  return status.ok() ? Undefined(env) : self->Throw(status);
}

// load(slot, source, options): source is {path} or {bytes}, with {externalNames, externalBytes}
napi_value Load(napi_env env, napi_callback_info info) {
  napi_value args[3];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const Napi::Object source(env, args[1]);
  const Napi::Object options(env, args[2]);
  Ref<LoadTask> task(new LoadTask(Ref<AddonEnv>(self)));
  task->key = Text(options, "key");
  task->path = Text(source, "path");
  const Napi::Value bytes = source.Get("bytes");
  task->from_bytes = bytes.IsTypedArray();
  task->bytes = CopyBytes(bytes);
  task->external_names = Texts(source.Get("externalNames"));
  const Napi::Value external = source.Get("externalBytes");
  if (external.IsArray()) {
    const Napi::Array list = external.As<Napi::Array>();
    for (uint32_t i = 0; i < list.Length(); ++i) task->external_bytes.push_back(CopyBytes(list[i]));
  }
  task->options = ReadModelOptions(options);
  const std::string inline_mode = Text(options, "inline");
  task->inline_mode = inline_mode == "always"  ? ModelHandle::Inline::kAlways
                      : inline_mode == "never" ? ModelHandle::Inline::kNever
                                               : ModelHandle::Inline::kAuto;
  // A provider makes threads and measures kernels as it likes.
  const std::vector<ProviderOptions>& providers = task->options.providers;
  const bool is_cpu = providers.empty() || IsProvider(providers.front().name, "cpu");
  if (Flag(options, "throttle") && is_cpu) {
    // Threads of a model that has several would stay slow.
    const bool is_alone = task->options.intra_op_threads == 1 && !task->options.parallel;
    task->set_throttling(is_alone ? Throttling::kLowered : Throttling::kPauses);
  }
  bool pending = false;
  if (!Ok(napi_is_exception_pending(env, &pending)) || pending) return nullptr;
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

// next(): the slot of a completion, -1 when there is none, -2 when polling is over as well
napi_value Next(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const int64_t now = NowNs();
  const bool stop =
      self->mailbox()->outstanding() == 0 || now - self->last_activity_ns > self->poll_limit_ns;
  int32_t slot = stop ? -2 : -1;
  if (const JsCompletion* completion = self->TakeNext(stop)) {
    self->last_activity_ns = now;
    slot = static_cast<int32_t>(completion->slot);
  } else if (!stop) {
    // Polling gives way to whoever has work to do: lanes, other JS threads, clients on this machine.
    std::this_thread::yield();
  }
  napi_value result = nullptr;
  napi_create_int32(env, slot, &result);
  return result;
}

// finish(targets): the result of the completion that next() named, or its error thrown
napi_value Finish(napi_env env, napi_callback_info info) {
  napi_value args[1];
  return ReadCall<AddonEnv>(env, info, args)->FinishCurrent(args[0]);
}

// cancel(slot)
napi_value Cancel(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  self->Flush();
  if (auto* job = dynamic_cast<Cancellable*>(self->Get(ReadUint32(env, args[0])))) {
    job->Cancel(Status::Aborted("the operation was aborted"));
  }
  return Undefined(env);
}

// flush(): tells the lanes of what was held
napi_value Flush(napi_env env, napi_callback_info info) {
  napi_value args[1];
  ReadCall<AddonEnv>(env, info, args)->Flush();
  return Undefined(env);
}

// allocate(bytes): a cleared ArrayBuffer over a lease
napi_value Allocate(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  int64_t bytes = 0;
  napi_get_value_int64(env, args[0], &bytes);
  if (static_cast<uint64_t>(bytes) > kMaxBufferBytes) {
    return self->Throw(Status::Overload("allocate: no memory for " + std::to_string(bytes) +
                                        " bytes; a tensor holds at most 4 GiB"));
  }
  Runtime* runtime = self->runtime();
  Ref<Lease> lease = Lease::Take(runtime->arena(), static_cast<size_t>(bytes));
  if (!lease) {
    return self->Throw(Status::Overload("allocate: no memory for " + std::to_string(bytes) + " bytes"));
  }
  std::memset(lease->data(), 0, static_cast<size_t>(bytes));
  napi_value buffer = LeaseToArrayBuffer(env, runtime, lease, static_cast<size_t>(bytes));
  if (buffer) return buffer;
  // A build that refuses external buffers (Electron): ordinary memory, which run() copies.
  void* data = nullptr;
  napi_create_arraybuffer(env, static_cast<size_t>(bytes), &data, &buffer);
  return buffer;
}

// mapShared(key, offset, bytes): an ArrayBuffer over system shared memory that others made
napi_value MapShared(napi_env env, napi_callback_info info) {
  napi_value args[3];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  int64_t offset = 0, bytes = 0;
  napi_get_value_int64(env, args[1], &offset);
  napi_get_value_int64(env, args[2], &bytes);
  if (offset < 0 || bytes < 0 || static_cast<uint64_t>(bytes) > kMaxBufferBytes) {
    return self->Throw(Status::InvalidInput("shared memory: a region has at most 4 GiB"));
  }
  Runtime* runtime = self->runtime();
  Ref<Lease> lease;
  Status status = MapSharedMemory(Napi::Value(env, args[0]).ToString().Utf8Value(),
                                  static_cast<uint64_t>(offset), static_cast<uint64_t>(bytes), &lease);
  if (!status.ok()) return self->Throw(status);
  napi_value buffer = LeaseToArrayBuffer(env, runtime, lease, static_cast<size_t>(bytes));
  if (buffer) return buffer;
  return self->Throw(Status::InvalidInput("shared memory: this build of Node has no external buffers"));
}

// The lease that an ArrayBuffer stands for, if any.
Ref<Lease> LeaseOf(napi_env env, AddonEnv* self, napi_value buffer) {
  void* data = nullptr;
  size_t bytes = 0;
  if (napi_get_arraybuffer_info(env, buffer, &data, &bytes) != napi_ok || bytes == 0) return nullptr;
  return self->runtime()->lease_table()->Find(data, bytes);
}

// sharedIntact(buffer): false once the object is shorter than the region
napi_value SharedIntact(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const Ref<Lease> lease = LeaseOf(env, self, args[0]);
  return Napi::Boolean::New(env, lease && lease->intact());
}

// detachShared(buffer): JS can no longer reach it; the mapping ends with the runs that use it, and the
// garbage collector's next turn
napi_value DetachShared(napi_env env, napi_callback_info info) {
  napi_value args[1];
  ReadCall<AddonEnv>(env, info, args);
  napi_detach_arraybuffer(env, args[0]);
  return nullptr;
}

napi_value Stats(napi_env env, napi_callback_info) { return DescribeRuntime(env); }

napi_value Providers(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  std::vector<std::string> names;
  Status status = AvailableProviders(&names);
  return status.ok() ? MakeStringArray(env, names) : self->Throw(status);
}

// registerProvider(path): its library becomes known, by an absolute path
napi_value RegisterProvider(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const Status status =
      RegisterProviderLibrary(self->runtime()->env(), Napi::Value(env, args[0]).ToString().Utf8Value());
  return status.ok() ? Undefined(env) : self->Throw(status);
}

// providerDevices(path): what the library offers, or with "" all do
napi_value ListProviderDevices(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  std::vector<ProviderDevice> devices;
  const Status status = ProviderDevices(self->runtime()->env(),
                                        Napi::Value(env, args[0]).ToString().Utf8Value(), &devices);
  if (!status.ok()) return self->Throw(status);
  static const char* const kTypes[] = {"cpu", "gpu", "npu"};
  Napi::Array list = Napi::Array::New(env, devices.size());
  for (uint32_t i = 0; i < devices.size(); ++i) {
    const ProviderDevice& device = devices[i];
    Napi::Object object = Napi::Object::New(env);
    auto pairs = [env](const auto& from) {
      Napi::Object to = Napi::Object::New(env);
      for (const auto& [key, value] : from) to[key] = Napi::String::New(env, value);
      return to;
    };
    const auto type = static_cast<size_t>(device.type);
    object["provider"] = Napi::String::New(env, device.provider);
    object["vendor"] = Napi::String::New(env, device.vendor);
    object["type"] = Napi::String::New(env, type < 3 ? kTypes[type] : "other");
    object["hardwareVendor"] = Napi::String::New(env, device.hardware_vendor);
    object["vendorId"] = Napi::Number::New(env, device.vendor_id);
    object["deviceId"] = Napi::Number::New(env, device.device_id);
    object["metadata"] = pairs(device.metadata);
    object["options"] = pairs(device.options);
    list[i] = object;
  }
  return list;
}

// gpu(id): what an engine of TensorRT is made for
napi_value Gpu(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  return DescribeGpu(self, static_cast<int>(ReadUint32(env, args[0])));
}

// tryLock(path): what unlock() takes, or undefined while another holds it
napi_value TryLock(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  std::unique_ptr<FileLock> lock;
  const Status status = FileLock::Try(Napi::Value(env, args[0]).ToString().Utf8Value(), &lock);
  if (!status.ok()) return self->Throw(status);
  if (!lock) return Undefined(env);
  auto* held = new std::unique_ptr<FileLock>(std::move(lock));
  auto drop = [](napi_env, void* data, void*) { delete static_cast<std::unique_ptr<FileLock>*>(data); };
  napi_value external = nullptr;
  if (napi_create_external(env, held, drop, nullptr, &external) != napi_ok) delete held;
  return external;
}

// unlock(lock)
napi_value Unlock(napi_env env, napi_callback_info info) {
  napi_value args[1];
  ReadCall<AddonEnv>(env, info, args);
  void* data = nullptr;
  if (napi_get_value_external(env, args[0], &data) == napi_ok) {
    static_cast<std::unique_ptr<FileLock>*>(data)->reset();
  }
  return Undefined(env);
}

// setComputeThreads(n): runnable at once, over all models; returns the number now (0 only asks)
napi_value SetComputeThreads(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  ComputeBudget* budget = self->runtime()->budget();
  if (const uint32_t threads = ReadUint32(env, args[0])) budget->SetLimit(static_cast<int>(threads));
  napi_value result = nullptr;
  napi_create_int32(env, budget->limit(), &result);
  return result;
}

napi_value Trim(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  if (self->runtime()) self->runtime()->ReturnMemory();
  return Undefined(env);
}

napi_value SetMeta(napi_env env, napi_callback_info info) {
  napi_value args[1];
  ReadCall<AddonEnv>(env, info, args)->SetMeta(args[0]);
  return Undefined(env);
}

// connect(makeError, onWake)
napi_value Connect(napi_env env, napi_callback_info info) {
  napi_value args[2];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  self->SetErrorFactory(args[0]);
  self->SetWakeCallback(args[1]);
  return Undefined(env);
}

}  // namespace

napi_value Init(napi_env env, napi_value exports) {
  AddonEnv* self = AddonEnv::Create(env);
  if (!self) return nullptr;
  const bool made =
      AddFunction(env, exports, "start", Start, self) &&
      AddFunction(env, exports, "load", Load, self) && AddFunction(env, exports, "next", Next, self) &&
      AddFunction(env, exports, "finish", Finish, self) &&
      AddFunction(env, exports, "cancel", Cancel, self) &&
      AddFunction(env, exports, "flush", Flush, self) &&
      AddFunction(env, exports, "allocate", Allocate, self) &&
      AddFunction(env, exports, "mapShared", MapShared, self) &&
      AddFunction(env, exports, "sharedIntact", SharedIntact, self) &&
      AddFunction(env, exports, "detachShared", DetachShared, self) &&
      AddFunction(env, exports, "stats", Stats, self) &&
      AddFunction(env, exports, "providers", Providers, self) &&
      AddFunction(env, exports, "registerProvider", RegisterProvider, self) &&
      AddFunction(env, exports, "providerDevices", ListProviderDevices, self) &&
      AddFunction(env, exports, "gpu", Gpu, self) &&
      AddFunction(env, exports, "tryLock", TryLock, self) &&
      AddFunction(env, exports, "unlock", Unlock, self) &&
      AddFunction(env, exports, "trim", Trim, self) &&
      AddFunction(env, exports, "setComputeThreads", SetComputeThreads, self) &&
      AddFunction(env, exports, "setMeta", SetMeta, self) &&
      AddFunction(env, exports, "connect", Connect, self) && AddJsonFunctions(env, exports, self) &&
      AddMeasureFunctions(env, exports, self) && AddProfileFunctions(env, exports, self);
  return made ? exports : nullptr;
}

}  // namespace tercel::addon

NAPI_MODULE_INIT() { return tercel::addon::Init(env, exports); }
