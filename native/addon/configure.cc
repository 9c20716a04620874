// A model's policy, as numbers from TypeScript, and its warm-up.
#include "configure.h"

#include <algorithm>
#include <cstring>

#include "closure.h"
#include "model_handle.h"
#include "read.h"
#include "tasks.h"

namespace tercel::addon {

SchedulerOptions ReadSchedulerOptions(const Napi::Object& object) {
  SchedulerOptions options;
  options.lanes = static_cast<int>(Integer(object, "lanes", 1));
  options.max_queue = static_cast<size_t>(Integer(object, "maxQueue", 1024));
  options.threads_per_run = static_cast<int>(Integer(object, "computeThreads", 1));
  options.preserve_order = Flag(object, "preserveOrder");
  const Napi::Value weight = object.Get("weight");
  if (weight.IsNumber()) options.weight = weight.As<Napi::Number>().DoubleValue();
  options.batch.max_batch = static_cast<uint32_t>(Integer(object, "maxBatch", 1));
  options.batch.max_delay_ns = Integer(object, "maxDelayUs", 0) * 1000;
  options.batch.target_p99_ns = Integer(object, "targetP99Us", 0) * 1000;
  for (const int64_t size : Integers(object.Get("preferredSizes"))) {
    options.batch.preferred.push_back(static_cast<uint32_t>(size));
  }
  for (const int64_t rows : Integers(object.Get("deviceRows"))) {
    options.device_rows.push_back(static_cast<uint32_t>(rows));
  }
  return options;
}

ModelOptions ReadModelOptions(const Napi::Object& object) {
  ModelOptions options;
  options.intra_op_threads = static_cast<int>(Integer(object, "intraOpThreads", 1));
  options.inter_op_threads = static_cast<int>(Integer(object, "interOpThreads", 1));
  options.parallel = Flag(object, "parallel");
  options.spinning = Flag(object, "spinning");
  options.graph_level = static_cast<int>(Integer(object, "graphLevel", 99));
  options.deterministic = Flag(object, "deterministic");
  options.memory_pattern = Flag(object, "memoryPattern");
  const std::string memory = Text(object, "memory");
  options.memory = memory == "ort"      ? ModelOptions::Memory::kOrtArena
                   : memory == "malloc" ? ModelOptions::Memory::kMalloc
                                        : ModelOptions::Memory::kTercel;
  options.affinity = Text(object, "affinity");
  for (const auto& [name, value] : Pairs(object.Get("freeDimensions"))) {
    options.free_dimensions.emplace_back(name, std::strtoll(value.c_str(), nullptr, 10));
  }
  options.config = Pairs(object.Get("config"));
  const Napi::Array providers = object.Get("providers").As<Napi::Array>();
  for (uint32_t i = 0; i < providers.Length(); ++i) {
    const Napi::Object provider = Napi::Value(providers[i]).As<Napi::Object>();
    options.providers.push_back({Text(provider, "name"), Pairs(provider.Get("options")),
                                 Text(provider, "library"),
                                 static_cast<size_t>(Integer(provider, "device", 0))});
  }
  options.fallback = Flag(object, "fallback");
  options.optimized_path = Text(object, "optimizedModelPath");
  options.profile_prefix = Text(object, "profilePrefix");
  options.custom_op_libraries = Texts(object.Get("customOpLibraries"));
  options.log_level = static_cast<int>(Integer(object, "logLevel", 3));
  options.scheduler = ReadSchedulerOptions(object);
  options.gpu.slots = static_cast<int>(Integer(object, "gpuSlots", 2));
  options.gpu.lanes_given = Flag(object, "lanesGiven");
  if (Flag(object, "gpuStandIn")) {
    DeviceRunnerOptions runner;
    runner.slots = options.gpu.slots + 1;
    runner.on_stream = true;
    runner.graphs = Flag(object, "gpuStandInGraphs");
    options.gpu.stand_in = std::move(runner);
  }
  return options;
}

// configure({lanes, maxQueue, ..., padding: [{symbol, sizes, multiple}], padValues: [{input, bytes}]})
napi_value ModelHandle::Configure(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<ModelHandle>(env, info, args);
  if (self->closed_) return self->env_->Throw(self->ClosedStatus());
  const Napi::Object object(env, args[0]);
  self->model_->scheduler().Configure(ReadSchedulerOptions(object));
  self->pad_rules_.clear();
  self->pad_values_.clear();
  const Napi::Array rules = object.Get("padding").As<Napi::Array>();
  for (uint32_t i = 0; i < rules.Length(); ++i) {
    const Napi::Object rule = rules.Get(i).As<Napi::Object>();
    self->pad_rules_.push_back(
        {Text(rule, "symbol"), Integers(rule.Get("sizes")), Integer(rule, "multiple", 0)});
  }
  const Napi::Array values = object.Get("padValues").As<Napi::Array>();
  for (uint32_t i = 0; i < values.Length(); ++i) {
    const Napi::Object value = values.Get(i).As<Napi::Object>();
    const std::vector<uint8_t> bytes = CopyBytes(value.Get("bytes"));
    std::array<uint8_t, 8> element{};
    std::memcpy(element.data(), bytes.data(), std::min(bytes.size(), element.size()));
    self->pad_values_[static_cast<uint32_t>(Integer(value, "input", 0))] = element;
  }
  self->bucket_.reset();
  return Undefined(env);
}

// warm(slot, samples, {repeat, budgetMs, checkRows, throttle}): a sample is a list of
// {input, dtype, dims, bytes}. Resolves to {runNs: [...], rowsIndependent}.
napi_value ModelHandle::Warm(napi_env env, napi_callback_info info) {
  napi_value args[3];
  auto* self = ReadCall<ModelHandle>(env, info, args);
  if (self->closed_) return self->env_->Throw(self->ClosedStatus());
  const Napi::Object options(env, args[2]);
  Ref<WarmTask> task(new WarmTask(self->env_, self->model_));
  task->repeat = static_cast<int>(Integer(options, "repeat", 1));
  task->budget_ns = Integer(options, "budgetMs", 0) * 1'000'000;
  task->check_rows = Flag(options, "checkRows");
  // On a GPU the lanes do it, which are begun by it and would stay slow.
  if (Flag(options, "throttle") && !self->model_->device()) task->set_throttling(Throttling::kLowered);
  const Napi::Array samples(env, args[1]);
  for (uint32_t i = 0; i < samples.Length(); ++i) {
    const Napi::Array inputs = samples.Get(i).As<Napi::Array>();
    WarmSample sample;
    for (uint32_t k = 0; k < inputs.Length(); ++k) {
      const Napi::Object input = inputs.Get(k).As<Napi::Object>();
      sample.inputs.push_back({static_cast<uint32_t>(Integer(input, "input", 0)),
                               static_cast<DType>(Integer(input, "dtype", 0)),
                               Integers(input.Get("dims")), CopyBytes(input.Get("bytes"))});
    }
    task->samples.push_back(std::move(sample));
  }
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

}  // namespace tercel::addon
