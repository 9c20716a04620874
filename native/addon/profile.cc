#include "profile.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#include <time.h>

#include <algorithm>
#include <memory>

#include "closure.h"
#include "measure/roofline.h"
#include "memory/allocation_log.h"
#include "tasks.h"

namespace tercel::addon {

namespace {

constexpr uint32_t kMostEvents = 1 << 24;

// The process's: one profile at a time. Never destroyed at exit, when threads may still allocate.
std::mutex log_mutex;
AllocationLog* the_log = nullptr;   // protected by log_mutex
AddonEnv* the_log_owner = nullptr;  // protected by log_mutex; who started it

// REQUIRES: log_mutex held.
void DropLog() {
  delete the_log;
  the_log = nullptr;
  the_log_owner = nullptr;
}

napi_value Number(napi_env env, double value) { return Napi::Number::New(env, value); }

// startAllocationLog(capacity)
napi_value StartLog(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  std::lock_guard<std::mutex> lock(log_mutex);
  if (the_log) {
    return self->Throw(Status::InvalidInput("a profile is being made: one at a time in a process"));
  }
  the_log = new AllocationLog(std::min(ReadUint32(env, args[0]), kMostEvents));
  the_log_owner = self;
  the_log->Start();
  return Undefined(env);
}

// stopAllocationLog(): {events: Float64Array of nanoseconds, address and bytes (0: freed), dropped}
napi_value StopLog(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  std::lock_guard<std::mutex> lock(log_mutex);
  if (!the_log || the_log_owner != self) return Undefined(env);
  the_log->Stop();
  const size_t count = the_log->size();
  Napi::Float64Array events = Napi::Float64Array::New(env, count * 3);
  for (size_t i = 0; i < count; ++i) {
    const AllocationEvent& event = the_log->events()[i];
    events[i * 3] = static_cast<double>(event.ns);
    events[i * 3 + 1] = static_cast<double>(event.address);
    events[i * 3 + 2] = static_cast<double>(event.bytes);
  }
  Napi::Object object = Napi::Object::New(env);
  object["events"] = events;
  object["dropped"] = Number(env, static_cast<double>(the_log->dropped()));
  DropLog();
  return object;
}

// arenaUse(): {slabs: [address, bytes, ...], classes: [{objectBytes, spans, freeObjects}],
//              freePageBytes, largestFreeBytes}
napi_value ArenaUse(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  if (!self->runtime()) return Undefined(env);
  const Arena::Usage usage = self->runtime()->arena()->Use();
  Napi::Object object = Napi::Object::New(env);
  Napi::Array slabs = Napi::Array::New(env);
  for (const auto& [address, bytes] : usage.slabs) {
    slabs[slabs.Length()] = static_cast<double>(address);
    slabs[slabs.Length()] = static_cast<double>(bytes);
  }
  object["slabs"] = slabs;
  Napi::Array classes = Napi::Array::New(env);
  for (const Arena::ClassUse& use : usage.classes) {
    Napi::Object one = Napi::Object::New(env);
    one["objectBytes"] = Number(env, static_cast<double>(use.object_bytes));
    one["spans"] = Number(env, static_cast<double>(use.spans));
    one["freeObjects"] = Number(env, static_cast<double>(use.free_objects));
    classes[classes.Length()] = one;
  }
  object["classes"] = classes;
  object["freePageBytes"] = Number(env, static_cast<double>(usage.free_page_bytes));
  object["largestFreeBytes"] = Number(env, static_cast<double>(usage.largest_free_bytes));
  return object;
}

// mallocUse(): {usedBytes, freeBytes, mappedBytes}; undefined where the C library does not say
napi_value MallocUse(napi_env env, napi_callback_info) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 33)
  const struct mallinfo2 use = mallinfo2();
  Napi::Object object = Napi::Object::New(env);
  object["usedBytes"] = Number(env, static_cast<double>(use.uordblks));
  object["freeBytes"] = Number(env, static_cast<double>(use.fordblks));
  object["mappedBytes"] = Number(env, static_cast<double>(use.hblkhd));
  return object;
#else
  return Undefined(env);
#endif
}

// clocks(): {realMinusMonotonicNs, monotonicNs}, read together
napi_value Clocks(napi_env env, napi_callback_info) {
  timespec real, monotonic;
  clock_gettime(CLOCK_REALTIME, &real);
  clock_gettime(CLOCK_MONOTONIC, &monotonic);
  auto ns = [](const timespec& t) {
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
  };
  Napi::Object object = Napi::Object::New(env);
  // Their difference in whole nanoseconds fits a double; either alone does not, quite.
  object["realMinusMonotonicNs"] =
      Number(env, static_cast<double>((int64_t{real.tv_sec} - monotonic.tv_sec) * 1'000'000'000 +
                                      (real.tv_nsec - monotonic.tv_nsec)));
  object["monotonicNs"] = Number(env, ns(monotonic));
  return object;
}

class RoofTask : public ThreadTask {
 public:
  RoofTask(Ref<AddonEnv> env, int threads) : ThreadTask(std::move(env)), threads_(threads) {}

  napi_value Finish(napi_env env, napi_value) override {
    Napi::Object object = Napi::Object::New(env);
    object["bytesPerSecond"] = Number(env, roof_.bytes_per_second);
    object["flopsPerSecond"] = Number(env, roof_.flops_per_second);
    return object;
  }

 private:
  void Work() override { roof_ = MeasureRoof(threads_); }

  const int threads_;
  Roof roof_;
};

// measureRoof(slot, threads)
napi_value MeasureRoofLater(napi_env env, napi_callback_info info) {
  napi_value args[2];
  auto* self = ReadCall<AddonEnv>(env, info, args);
  const int threads = std::clamp(static_cast<int>(ReadUint32(env, args[1])), 1, 1024);
  Ref<RoofTask> task(new RoofTask(Ref<AddonEnv>(self), threads));
  task->Start(ReadUint32(env, args[0]));
  return Undefined(env);
}

}  // namespace

void StopAllocationLogOf(AddonEnv* env) {
  std::lock_guard<std::mutex> lock(log_mutex);
  if (!the_log || the_log_owner != env) return;
  the_log->Stop();
  DropLog();
}

bool AddProfileFunctions(napi_env env, napi_value exports, AddonEnv* self) {
  return AddFunction(env, exports, "startAllocationLog", StartLog, self) &&
         AddFunction(env, exports, "stopAllocationLog", StopLog, self) &&
         AddFunction(env, exports, "arenaUse", ArenaUse, self) &&
         AddFunction(env, exports, "mallocUse", MallocUse, self) &&
         AddFunction(env, exports, "clocks", Clocks, self) &&
         AddFunction(env, exports, "measureRoof", MeasureRoofLater, self);
}

}  // namespace tercel::addon
