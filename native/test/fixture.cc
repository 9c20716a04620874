#include "fixture.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "check.h"
#include "gpu/cuda_runtime.h"
#include "ort/value.h"

namespace tercel::test {

namespace {
void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::abort();
}
}  // namespace

Runtime* TheRuntime() {
  static Runtime* runtime = [] {
    RuntimeOptions options;
    options.library = library_path;
    options.log_level = 4;
    Runtime* made = nullptr;
    Must(Runtime::Get(options, &made));
    return made;
  }();
  return runtime;
}

std::shared_ptr<Model> LoadModel(const std::string& path, const ModelOptions& options) {
  ModelSource source;
  source.path = path;
  std::shared_ptr<Model> model;
  Must(Model::Load(TheRuntime(), source, options, nullptr, &model));
  return model;
}

void Inbox::Post(Ref<Completion> completion) {
  std::lock_guard<std::mutex> lock(mutex_);
  jobs_.push_back(Ref<Job>::Adopt(static_cast<Job*>(completion.Release())));
  ++count_;
  arrived_.notify_all();
}

std::vector<Ref<Job>> Inbox::Wait(size_t count) {
  std::unique_lock<std::mutex> lock(mutex_);
  arrived_.wait(lock, [&] { return count_ >= count; });
  return std::exchange(jobs_, {});
}

size_t Inbox::count() {
  std::lock_guard<std::mutex> lock(mutex_);
  return count_;
}

Ref<Job> TinyJob(Model* model, Ref<Inbox> inbox, float value) {
  Ref<Job> job(new Job(inbox));
  Ref<Lease> lease = Lease::Take(TheRuntime()->arena(), 16);
  for (int i = 0; i < 4; ++i) reinterpret_cast<float*>(lease->data())[i] = value;
  const int64_t dims[] = {1, 4};
  OrtValue* x = nullptr;
  Must(MakeTensor(TheRuntime(), DType::kFloat32, dims, 2, lease->data(), 16, &x));
  job->leases.push_back(std::move(lease));
  job->input_names.push_back(model->inputs()[0].name.c_str());
  job->inputs.push_back(x);
  job->output_names.push_back(model->outputs()[0].name.c_str());
  job->outputs.push_back(nullptr);
  return job;
}

Ref<Job> SlowJob(Model* model, Ref<CompletionSink> inbox, int64_t rounds) {
  Ref<Job> job(new Job(inbox));
  Ref<Lease> lease = Lease::Take(TheRuntime()->arena(), 64 * 64 * 4 + 64);
  std::memset(lease->data(), 0, lease->bytes());
  *reinterpret_cast<int64_t*>(lease->data()) = rounds;
  const int64_t dims[] = {64, 64};
  OrtValue* x = nullptr;
  OrtValue* n = nullptr;
  Must(MakeTensor(TheRuntime(), DType::kFloat32, dims, 2, lease->data() + 64, 64 * 64 * 4, &x));
  Must(MakeTensor(TheRuntime(), DType::kInt64, nullptr, 0, lease->data(), 8, &n));
  job->leases.push_back(std::move(lease));
  job->input_names.push_back(model->inputs()[0].name.c_str());
  job->inputs.push_back(x);
  job->input_names.push_back(model->inputs()[1].name.c_str());
  job->inputs.push_back(n);
  job->output_names.push_back(model->outputs()[0].name.c_str());
  job->outputs.push_back(nullptr);
  return job;
}

Ref<Job> RowsJob(Model* model, Ref<Inbox> inbox, uint32_t rows) {
  Ref<Job> job(new Job(inbox));
  const int64_t dims[] = {rows, 4};
  job->bucket = model->BucketFor({{0, DType::kFloat32, dims, 2}}, {0});
  job->rows = rows;
  return job;
}

void Fill(Job* job, float value) {
  auto* to =
      reinterpret_cast<float*>(Bucket::InputAt(*job->block, job->bucket->inputs()[0], job->first_row));
  for (uint32_t i = 0; i < job->rows * 4; ++i) to[i] = value;
}

float Result(const Job* job) {
  float value;
  std::memcpy(&value, Bucket::OutputAt(*job->block, job->bucket->outputs()[0], job->first_row), 4);
  return value;
}

Status Enter(Model* model, Ref<Job> job, float value) {
  if (Status s = model->scheduler().Reserve(job); !s.ok()) return s;
  Fill(job.get(), value);
  model->scheduler().Ready(job);
  return {};
}

Ref<Job> EnterIndex(Model* model, Ref<Inbox> inbox, int64_t index) {
  const int64_t dims[] = {1};
  Ref<Job> job(new Job(inbox));
  job->bucket = model->BucketFor({{0, DType::kInt64, dims, 1}}, {0});
  CHECK(job->bucket.get() != nullptr);
  job->rows = 1;
  Must(model->scheduler().Reserve(job));
  std::memcpy(Bucket::InputAt(*job->block, job->bucket->inputs()[0], job->first_row), &index, 8);
  model->scheduler().Ready(job);
  return job;
}

void WaitUntilRunning(Model* model, uint64_t jobs) {
  while (model->scheduler().Stats().running < jobs) std::this_thread::yield();
}

FakeCuda* OpenFakeCuda() {
  const CudaRuntime* cuda = nullptr;
  CHECK_OK(OpenCudaRuntime(FAKE_CUDA_RUNTIME, &cuda));
  void* handle = dlopen(FAKE_CUDA_RUNTIME, RTLD_NOW | RTLD_NOLOAD);
  CHECK(handle != nullptr);
  auto* counts = static_cast<FakeCuda*>(dlsym(handle, "fake_cuda"));
  dlclose(handle);
  return counts;
}

}  // namespace tercel::test
