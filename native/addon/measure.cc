#include "measure.h"

#include "closure.h"
#include "configure.h"
#include "measure/bare_loop.h"
#include "read.h"
#include "tasks.h"

namespace tercel::addon {

namespace {

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
  return AddFunction(env, exports, "bareLoop", MakeBareLoop, self);
}

}  // namespace tercel::addon
