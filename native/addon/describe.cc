#include "describe.h"

#include <algorithm>
#include <map>

#include "base/clock.h"
#include "device_handle.h"
#include "ort/session_options.h"
#include "runtime.h"

namespace tercel::addon {

namespace {

Napi::Array DescribeDims(Napi::Env env, const ValueType& type) {
  Napi::Array shape = Napi::Array::New(env, type.dims.size());
  for (uint32_t i = 0; i < type.dims.size(); ++i) {
    if (type.dims[i] >= 0) {
      shape[i] = Napi::Number::New(env, static_cast<double>(type.dims[i]));
    } else {
      shape[i] = Napi::String::New(env, type.symbols[i]);
    }
  }
  return shape;
}

// {kind, dtype (its code), hasShape, shape, element?, key?}
Napi::Object DescribeType(Napi::Env env, const ValueType& type) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("kind", static_cast<int>(type.kind));
  object.Set("dtype", static_cast<int>(type.dtype));
  object.Set("hasShape", type.has_shape);
  object.Set("shape", DescribeDims(env, type));
  if (type.element) object.Set("element", DescribeType(env, *type.element));
  if (type.kind == OnnxKind::kMap) object.Set("key", static_cast<int>(type.key));
  return object;
}

Napi::Array DescribeValues(Napi::Env env, const std::vector<ValueInfo>& values) {
  Napi::Array list = Napi::Array::New(env, values.size());
  for (uint32_t i = 0; i < values.size(); ++i) {
    Napi::Object item = DescribeType(env, values[i].type);
    item.Set("name", values[i].name);
    list[i] = item;
  }
  return list;
}

Napi::Array StringList(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array list = Napi::Array::New(env, strings.size());
  for (uint32_t i = 0; i < strings.size(); ++i) list[i] = Napi::String::New(env, strings[i]);
  return list;
}

void SetCount(Napi::Object object, const char* name, uint64_t value) {
  object.Set(name, Napi::Number::New(object.Env(), static_cast<double>(value)));
}

}  // namespace

napi_value DescribeTensor(napi_env env, const std::string& name, DType dtype,
                          const std::vector<int64_t>& dims) {
  Napi::Object object = Napi::Object::New(env);
  Napi::Array shape = Napi::Array::New(env, dims.size());
  for (uint32_t i = 0; i < dims.size(); ++i) shape[i] = static_cast<double>(dims[i]);
  object.Set("name", name);
  object.Set("dtype", static_cast<int>(dtype));
  object.Set("shape", shape);
  return object;
}

napi_value DescribeModel(napi_env env, const Model& model) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("inputs", DescribeValues(env, model.inputs()));
  object.Set("outputs", DescribeValues(env, model.outputs()));
  Napi::Object metadata = Napi::Object::New(env);
  metadata.Set("producer", model.graph().producer);
  metadata.Set("graph", model.graph().name);
  metadata.Set("description", model.graph().description);
  metadata.Set("version", static_cast<double>(model.graph().version));
  Napi::Object custom = Napi::Object::New(env);
  for (const auto& [key, value] : model.graph().custom_metadata) custom.Set(key, value);
  metadata.Set("custom", custom);
  object.Set("metadata", metadata);
  object.Set("providers", StringList(env, model.providers()));
  object.Set("onGpu", model.device() != nullptr || UsesGpu(model.providers()));
  object.Set("warnings", StringList(env, model.warnings()));
  return object;
}

napi_value DescribeModelStats(napi_env env, Model& model) {
  Scheduler& scheduler = model.scheduler();
  const SchedulerStats stats = scheduler.Stats();
  Napi::Object object = Napi::Object::New(env);
  object.Set("source", model.source_name());
  const RunCounts& sync = model.sync_runs();
  const int64_t median_ns = scheduler.run_time().value();
  const std::vector<BatchCount> sync_sizes = sync.Read(median_ns);
  uint64_t sync_runs = sync.failed() + sync.invalid();
  uint64_t sync_rows = 0, sync_good = 0;
  int64_t sync_ns = 0;
  for (const BatchCount& size : sync_sizes) {
    sync_good += size.runs;
    sync_rows += size.runs * size.rows;
    sync_ns += size.run_ns;
  }
  sync_runs += sync_good;
  SetCount(object, "runs", stats.completed + sync_runs);
  SetCount(object, "runsInline", sync_runs);
  SetCount(object, "runsOnLanes", stats.completed);
  SetCount(object, "failed", stats.failed + sync.failed());
  SetCount(object, "invalid", stats.invalid + sync.invalid());
  SetCount(object, "refused", stats.refused);
  SetCount(object, "expired", stats.expired);
  SetCount(object, "cancelled", stats.cancelled);
  SetCount(object, "queued", stats.queued);
  SetCount(object, "running", stats.running);
  SetCount(object, "lanes", stats.lanes);
  if (const DeviceRunner* runner = model.device()) {
    object["device"] = Napi::Number::New(env, runner->device()->id());
  }
  SetCount(object, "executions", stats.runs + sync_runs);
  SetCount(object, "rows", stats.rows + sync_rows);
  SetCount(object, "retriedBatches", stats.retried);
  object.Set("queueUs", static_cast<double>(stats.queue_ns) / 1000);
  object.Set("runUs", static_cast<double>(stats.run_ns) / 1000);
  object.Set("failedUs", static_cast<double>(stats.failed_ns) / 1000);
  object.Set("inlineUs", static_cast<double>(sync_ns) / 1000);
  const int64_t last_ns = std::max(stats.last_ns, sync.last_ns());
  object.Set("lastMs", last_ns == 0 ? 0 : WallMs(last_ns));
  // On lanes and inline.
  std::map<uint32_t, BatchCount> sizes;
  for (const std::vector<BatchCount>* counts : {&stats.batches, &sync_sizes}) {
    for (const BatchCount& count : *counts) {
      BatchCount& size = sizes[count.rows];
      size.runs += count.runs;
      size.run_ns += count.run_ns;
    }
  }
  Napi::Array batches = Napi::Array::New(env);
  for (const auto& [rows, size] : sizes) {
    Napi::Object batch = Napi::Object::New(env);
    batch.Set("rows", rows);
    SetCount(batch, "runs", size.runs);
    batch.Set("runUs", static_cast<double>(size.run_ns) / 1000);
    batches[batches.Length()] = batch;
  }
  object.Set("batches", batches);
  Napi::Object batching = Napi::Object::New(env);
  batching.Set("maxBatch", static_cast<double>(scheduler.max_batch()));
  batching.Set("batch", stats.cap);
  batching.Set("delayUs", static_cast<double>(stats.delay_ns) / 1000);
  batching.Set("p99Us", static_cast<double>(stats.p99_ns) / 1000);
  object.Set("batching", batching);
  object.Set("medianRunUs", static_cast<double>(median_ns) / 1000);
  return object;
}

napi_value DescribeRuntime(napi_env env) {
  Napi::Object object = Napi::Object::New(env);
  Runtime* runtime = Runtime::Current();
  if (!runtime) return object;
  Napi::Object library = Napi::Object::New(env);
  library.Set("path", OrtLibraryPath());
  library.Set("version", OrtLibraryVersion());
  object.Set("library", library);
  const ArenaStats arena_stats = runtime->arena()->Stats();
  Napi::Object arena = Napi::Object::New(env);
  SetCount(arena, "reservedBytes", arena_stats.reserved_bytes);
  SetCount(arena, "leasedBytes", arena_stats.leased_bytes);
  SetCount(arena, "peakLeasedBytes", arena_stats.peak_leased_bytes);
  SetCount(arena, "allocations", arena_stats.allocations);
  SetCount(arena, "frees", arena_stats.frees);
  SetCount(arena, "slabs", arena_stats.slabs);
  arena.Set("hugePages", arena_stats.huge_pages);
  arena.Set("locked", arena_stats.locked);
  arena.Set("pinned", arena_stats.pinned);
  object.Set("arena", arena);
  SetCount(object, "leases", Lease::Live());
  Napi::Object copies = Napi::Object::New(env);
  SetCount(copies, "bytesIn", runtime->copies()->in.load());
  SetCount(copies, "bytesOut", runtime->copies()->out.load());
  object.Set("copies", copies);
  object.Set("laneWakeUs", static_cast<double>(runtime->wake_cost()->value()) / 1000);
  const auto models = runtime->Models();
  Napi::Array list = Napi::Array::New(env, models.size());
  for (uint32_t i = 0; i < models.size(); ++i) {
    list[i] = Napi::Value(env, DescribeModelStats(env, *models[i]));
  }
  object.Set("models", list);
  object.Set("devices", Napi::Value(env, DescribeDevices(env)));
  return object;
}

}  // namespace tercel::addon
