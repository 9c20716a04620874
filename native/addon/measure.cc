#include "measure.h"

#include <cstring>

#include "closure.h"
#include "configure.h"
#include "load/http_load.h"
#include "measure/bare_loop.h"
#include "read.h"
#include "tasks.h"

namespace tercel::addon {

namespace {

double Number(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  return value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : 0;
}

// A typed array of 32-bit numbers with at least `count` of them; null otherwise.
template <typename T>
T* Words(const Napi::Value& value, size_t count) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().ByteLength() < count * sizeof(T)) {
    return nullptr;
  }
  void* data = nullptr;
  napi_get_typedarray_info(value.Env(), value, nullptr, nullptr, &data, nullptr, nullptr);
  return static_cast<T*>(data);
}

// JS keeps the arrays until the task is over, and an environment that ends waits for it.
class HttpLoadTask : public ThreadTask, public Cancellable {
 public:
  explicit HttpLoadTask(Ref<AddonEnv> env) : ThreadTask(std::move(env)) {}

  HttpLoadOptions options;
  HttpLoadProgress* progress = nullptr;
  uint32_t* latency = nullptr;
  uint32_t* service = nullptr;

  void Cancel(Status) override { __atomic_store_n(&progress->stop, 1, __ATOMIC_RELAXED); }

  napi_value Finish(napi_env env, napi_value) override {
    if (!status_.ok()) return env_->Throw(status_);
    const HttpLoadResult& r = result_;
    Napi::Object object = Napi::Object::New(env);
    auto put = [&](const char* name, double value) { object[name] = Napi::Number::New(env, value); };
    put("completed", static_cast<double>(r.completed));
    put("perSecond", r.per_second);
    put("broken", static_cast<double>(r.broken));
    put("unanswered", static_cast<double>(r.unanswered));
    put("unsent", static_cast<double>(r.unsent));
    put("bytesIn", static_cast<double>(r.bytes_in));
    put("bytesOut", static_cast<double>(r.bytes_out));
    put("startNs", static_cast<double>(r.start_ns));
    put("elapsedNs", static_cast<double>(r.elapsed_ns));
    put("cpuNs", static_cast<double>(r.cpu_ns));
    put("lateNs", static_cast<double>(r.late_ns));
    put("maxNs", static_cast<double>(r.max_ns));
    object["gone"] = Napi::Boolean::New(env, r.gone);
    object["firstError"] = Napi::String::New(env, r.first_error);
    Napi::Object statuses = Napi::Object::New(env);
    for (const auto& [status, count] : r.other_statuses) {
      statuses[std::to_string(status)] = Napi::Number::New(env, static_cast<double>(count));
    }
    object["statuses"] = statuses;
    return object;
  }

 private:
  void Work() override {
    status_ = RunHttpLoad(options, progress, &result_);
    std::memcpy(latency, result_.latency.data(), result_.latency.size() * sizeof(uint32_t));
    std::memcpy(service, result_.service.data(), result_.service.size() * sizeof(uint32_t));
  }

  HttpLoadResult result_;
  Status status_;
};

// httpLoad(slot, {host, port, requests, connections, rate, poisson, seed, durationNs, drainNs, spinNs},
//          progress: Int32Array, latency: Uint32Array, service: Uint32Array)
napi_value HttpLoad(napi_env env, napi_callback_info info) {
  napi_value args[5];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const Napi::Object object(env, args[1]);
  Ref<HttpLoadTask> task(new HttpLoadTask(Ref<AddonEnv>(self)));
  HttpLoadOptions& options = task->options;
  options.host = Text(object, "host");
  options.port = static_cast<uint16_t>(Integer(object, "port", 0));
  const Napi::Array requests = object.Get("requests").As<Napi::Array>();
  for (uint32_t i = 0; i < requests.Length(); ++i) {
    const std::vector<uint8_t> bytes = CopyBytes(requests[i]);
    options.requests.emplace_back(bytes.begin(), bytes.end());
  }
  options.connections = static_cast<uint32_t>(Integer(object, "connections", 1));
  options.rate = Number(object, "rate");
  options.poisson = Flag(object, "poisson");
  options.seed = static_cast<uint64_t>(Integer(object, "seed", 1));
  options.duration_ns = Integer(object, "durationNs", 0);
  options.drain_ns = Integer(object, "drainNs", 0);
  options.spin_ns = Integer(object, "spinNs", 0);
  task->progress = Words<HttpLoadProgress>(Napi::Value(env, args[2]), 1);
  task->latency = Words<uint32_t>(Napi::Value(env, args[3]), kHistogramBuckets);
  task->service = Words<uint32_t>(Napi::Value(env, args[4]), kHistogramBuckets);
  if (!task->progress || !task->latency || !task->service) {
    return self->Throw(Status::InvalidInput("httpLoad: arrays are missing or too short"));
  }
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

// A BareLoop of JS's. The function on the JS object holds it, and a task that runs it does too.
class BareLoopHandle : public RefCounted<BareLoopHandle> {
 public:
  explicit BareLoopHandle(Ref<AddonEnv> env) : env(std::move(env)) {}
  const Ref<AddonEnv> env;
  BareLoop loop;

 private:
  friend class RefCounted<BareLoopHandle>;
  ~BareLoopHandle() = default;
};

class BareRunTask : public ThreadTask {
 public:
  BareRunTask(Ref<BareLoopHandle> handle, int64_t duration_ns)
      : ThreadTask(handle->env), handle_(std::move(handle)), duration_ns_(duration_ns) {}

  napi_value Finish(napi_env env, napi_value) override {
    if (!status_.ok()) return env_->Throw(status_);
    Napi::Object object = Napi::Object::New(env);
    object["runs"] = Napi::Number::New(env, static_cast<double>(result_.runs));
    object["elapsedNs"] = Napi::Number::New(env, static_cast<double>(result_.elapsed_ns));
    object["cpuNs"] = Napi::Number::New(env, static_cast<double>(result_.cpu_ns));
    return object;
  }

 private:
  void Work() override { status_ = handle_->loop.Run(duration_ns_, &result_); }

  const Ref<BareLoopHandle> handle_;
  const int64_t duration_ns_;
  BareLoop::Result result_;
  Status status_;
};

// run(slot, durationNs): one at a time
napi_value BareRun(napi_env env, napi_callback_info info) {
  napi_value args[2];
  auto* self = ReadCall<BareLoopHandle>(env, info, args);
  const auto duration = Napi::Value(env, args[1]).ToNumber().Int64Value();
  Ref<BareRunTask> task(new BareRunTask(Ref<BareLoopHandle>(self), duration));
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

// close(): not while it runs
napi_value BareClose(napi_env env, napi_callback_info info) {
  napi_value args[1];
  ReadCall<BareLoopHandle>(env, info, args)->loop = BareLoop();
  return Undefined(env);
}

class BareLoadTask : public ThreadTask {
 public:
  explicit BareLoadTask(Ref<AddonEnv> env)
      : ThreadTask(std::move(env)), handle_(new BareLoopHandle(env_)) {}

  // Set before Start.
  std::string path;
  ModelOptions options;
  std::vector<BareLoop::Input> inputs;
  int loops = 1;

  napi_value Finish(napi_env env, napi_value) override {
    if (!status_.ok()) return env_->Throw(status_);
    Napi::Object object = Napi::Object::New(env);
    AddFunction(env, object, "run", BareRun, handle_.get());
    AddFunction(env, object, "close", BareClose, handle_.get());
    return object;
  }

 private:
  void Work() override {
    status_ = BareLoop::Make(env_->runtime()->env(), path, options, inputs, loops, &handle_->loop);
  }

  const Ref<BareLoopHandle> handle_;
  Status status_;
};

// bareLoop(slot, path, options as load(), inputs: [{name, dtype, dims, bytes}], loops): {run, close}
napi_value MakeBareLoop(napi_env env, napi_callback_info info) {
  napi_value args[5];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  Ref<BareLoadTask> task(new BareLoadTask(Ref<AddonEnv>(self)));
  task->path = Napi::Value(env, args[1]).ToString().Utf8Value();
  task->options = ReadModelOptions(Napi::Object(env, args[2]));
  const Napi::Array inputs = Napi::Array(env, args[3]);
  for (uint32_t i = 0; i < inputs.Length(); ++i) {
    const Napi::Object input = inputs.Get(i).As<Napi::Object>();
    task->inputs.push_back({Text(input, "name"), static_cast<DType>(Integer(input, "dtype", 0)),
                            Integers(input.Get("dims")), CopyBytes(input.Get("bytes"))});
  }
  task->loops = std::max(1, static_cast<int>(ReadUint32(env, args[4])));
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

}  // namespace

bool AddMeasureFunctions(napi_env env, napi_value exports, AddonEnv* self) {
  return AddFunction(env, exports, "httpLoad", HttpLoad, self) &&
         AddFunction(env, exports, "bareLoop", MakeBareLoop, self);
}

}  // namespace tercel::addon
