#include "runtime.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <thread>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "gpu/cuda_runtime.h"
#include "gpu/device.h"
#include "memory/allocation_log.h"
#include "model.h"
#include "ort/value.h"

namespace tercel {

namespace {

// What ONNX Runtime calls for every CPU allocation of a session that uses the environment's allocator.
struct ArenaAllocator : OrtAllocator {
  Arena* arena = nullptr;
  const OrtMemoryInfo* info = nullptr;
};

void* ArenaAlloc(OrtAllocator* self, size_t bytes) {
  if (bytes == 0) return nullptr;
  void* data = static_cast<ArenaAllocator*>(self)->arena->Allocate(bytes);
  // Kernels do not look for null: the library's own allocator throws, and its executor makes a status
  // of it. Returning null killed the process at the first write.
  if (!data) throw std::bad_alloc();
  AllocationLog::Record(data, bytes);
  return data;
}
void ArenaFree(OrtAllocator* self, void* data) {
  if (data) AllocationLog::Record(data, 0);
  static_cast<ArenaAllocator*>(self)->arena->Free(data);
}
const OrtMemoryInfo* ArenaInfo(const OrtAllocator* self) {
  return static_cast<const ArenaAllocator*>(self)->info;
}

std::mutex runtime_mutex;
std::atomic<Runtime*> the_runtime{nullptr};

}  // namespace

Runtime::Runtime(const RuntimeOptions& options)
    : arena_(options.arena),
      never_pin_(options.never_pin),
      budget_(static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))) {}

Status Runtime::Get(const RuntimeOptions& options, Runtime** out) {
  std::lock_guard<std::mutex> lock(runtime_mutex);
  if (Status status = OpenOrtLibrary(options.library); !status.ok()) return status;
  if (Runtime* runtime = the_runtime.load()) {
    *out = runtime;
    return {};
  }
  if (options.arena.pages.pin) {
    const CudaRuntime* cuda = nullptr;
    Status status = OpenCudaRuntime(options.cuda_library, &cuda);
    if (!status.ok()) return Status::Model("cannot pin the arena: " + status.message());
  }
  auto runtime = std::unique_ptr<Runtime>(new Runtime(options));
  if (Status status = runtime->Start(options); !status.ok()) {
    // ONNX Runtime may keep the allocator: what it could call must stay.
    (void)runtime.release();
    return status;
  }
  *out = runtime.release();
  the_runtime.store(*out);
  std::atexit(&Runtime::AtExit);
  return {};
}

Runtime* Runtime::Current() { return the_runtime.load(); }

namespace {

// Weights go through malloc. glibc raises the size from which it maps memory apart to the largest that
// was ever freed, up to 32 MB; what is below lies in the heap of whichever thread loaded it, between
// things that stay. 200 loads and unloads of a 25 MB model: RSS grew by 55 MB in steps, with this it is
// flat (npm run soak:cycles).
void ReturnLargeMemory() {
#if defined(__GLIBC__)
  if (!std::getenv("MALLOC_MMAP_THRESHOLD_")) mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
}

}  // namespace

Status Runtime::Start(const RuntimeOptions& options) {
  ReturnLargeMemory();
  if (Status s = ToStatus(ort.CreateEnv(options.log_level, "tercel", &env_), Code::kModel,
                          "cannot create the ONNX Runtime environment");
      !s.ok()) {
    return s;
  }
  if (Status s = ToStatus(ort.DisableTelemetryEvents(env_), Code::kModel); !s.ok()) return s;
  if (Status s = ToStatus(ort.SetLanguageProjection(env_, kOrtNodeJs), Code::kModel); !s.ok()) {
    return s;
  }
  if (Status s = ToStatus(ort.CreateCpuMemoryInfo(kOrtDeviceAllocator, kOrtMemDefault, &cpu_memory_),
                          Code::kModel);
      !s.ok()) {
    return s;
  }
  auto* allocator = new ArenaAllocator{};  // lives as long as the environment: the process
  allocator->version = kOldestApi;
  allocator->Alloc = ArenaAlloc;
  allocator->Reserve = ArenaAlloc;
  allocator->Free = ArenaFree;
  allocator->Info = ArenaInfo;
  allocator->arena = &arena_;
  allocator->info = cpu_memory_;
  return ToStatus(ort.RegisterAllocator(env_, allocator), Code::kModel,
                  "cannot register Tercel's allocator with ONNX Runtime");
}

Status Runtime::Share(const std::string& key, const Loader& load, std::shared_ptr<Model>* out) {
  if (key.empty()) return load(out);
  std::unique_lock<std::mutex> lock(mutex_);
  Entry& entry = entries_[key];  // stays put: nobody erases an entry that is waited for
  ++entry.waiting;
  loaded_.wait(lock, [&] { return !entry.loading; });
  --entry.waiting;
  if ((*out = entry.model.lock())) return {};
  entry.loading = true;
  lock.unlock();
  Status status = load(out);
  lock.lock();
  entry.loading = false;
  if (status.ok()) entry.model = *out;
  loaded_.notify_all();
  // Forget keys of models that are gone.
  for (auto it = entries_.begin(); it != entries_.end();) {
    const Entry& e = it->second;
    it = (!e.loading && e.waiting == 0 && e.model.expired()) ? entries_.erase(it) : std::next(it);
  }
  return status;
}

void Runtime::ReturnMemory() {
  arena_.Trim();
  for (Device* device : Device::Open()) device->Trim();
  ReturnHeap();
}

void Runtime::ReturnHeap() {
#if defined(__GLIBC__)
  // Seen with a 96 MB model: the heap kept 85 MB of it without this.
  malloc_trim(0);
#endif
}

void Runtime::Enter(Model* model, Scheduler* scheduler) {
  std::lock_guard<std::mutex> lock(mutex_);
  live_models_[model] = scheduler;
}

void Runtime::Leave(Model* model) {
  std::lock_guard<std::mutex> lock(mutex_);
  live_models_.erase(model);
}

std::vector<std::shared_ptr<Model>> Runtime::Models() {
  std::vector<std::shared_ptr<Model>> models;
  std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [model, scheduler] : live_models_) {
    if (auto shared = model->weak_from_this().lock()) models.push_back(std::move(shared));
  }
  return models;
}

// Runs before ONNX Runtime's static destructors, which were registered earlier: no lane may be inside
// the library when they run.
void Runtime::AtExit() {
  Runtime* runtime = Current();
  std::lock_guard<std::mutex> lock(runtime->mutex_);
  for (auto& [model, scheduler] : runtime->live_models_) scheduler->Quiesce(2'000'000'000);
}

Status MakeTensor(Runtime* runtime, DType dtype, const int64_t* dims, size_t rank, void* data,
                  size_t bytes, OrtValue** out) {
  return MakeTensor(runtime->cpu_memory(), dtype, dims, rank, data, bytes, out);
}

}  // namespace tercel
