#include "measure/bare_loop.h"

#include <time.h>

#include <cstring>
#include <thread>

#include "base/clock.h"
#include "ort/value.h"

namespace tercel {

namespace {

constexpr uintptr_t kAlignment = 64;

int64_t ProcessCpuNs() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

Status BareLoop::Make(OrtEnv* env, const std::string& path, const SessionOptions& options,
                      const std::vector<Input>& inputs, int loops, BareLoop* out) {
  SessionOptions bare = options;
  bare.memory = SessionOptions::Memory::kOrtArena;
  OrtPtr<OrtSessionOptions> session_options;
  std::vector<std::string> providers, warnings;
  Status status = MakeSessionOptions(env, bare, &session_options, &providers, &warnings);
  if (!status.ok()) return status;
  OrtSession* session = nullptr;
  status =
      ToStatus(ort.CreateSession(env, path.c_str(), session_options.get(), &session), Code::kModel);
  if (!status.ok()) return status;
  out->session_.reset(session);
  OrtMemoryInfo* memory = nullptr;
  status =
      ToStatus(ort.CreateCpuMemoryInfo(kOrtDeviceAllocator, kOrtMemDefault, &memory), Code::kModel);
  if (!status.ok()) return status;
  out->memory_.reset(memory);
  size_t outputs = 0;
  status = ToStatus(ort.SessionGetOutputCount(session, &outputs), Code::kModel);
  for (size_t i = 0; status.ok() && i < outputs; ++i) {
    char* name = nullptr;
    status = ToStatus(ort.SessionGetOutputName(session, i, DefaultOrtAllocator(), &name), Code::kModel);
    if (status.ok()) out->output_names_.push_back(TakeOrtString(name));
  }
  if (!status.ok()) return status;
  for (const Input& input : inputs) {
    out->input_names_.push_back(input.name);
    out->data_.emplace_back(input.bytes.size() + kAlignment);
  }
  out->loops_.resize(static_cast<size_t>(loops));
  for (Loop& loop : out->loops_) {
    status = out->MakeBinding(inputs, &loop);
    if (!status.ok()) return status;
  }
  return {};
}

Status BareLoop::MakeBinding(const std::vector<Input>& inputs, Loop* loop) {
  OrtIoBinding* binding = nullptr;
  Status status = ToStatus(ort.CreateIoBinding(session_.get(), &binding), Code::kRun);
  if (!status.ok()) return status;
  loop->binding.reset(binding);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Input& input = inputs[i];
    const auto address = reinterpret_cast<uintptr_t>(data_[i].data());
    auto* data = reinterpret_cast<uint8_t*>((address + kAlignment - 1) & ~(kAlignment - 1));
    if (!input.bytes.empty()) std::memcpy(data, input.bytes.data(), input.bytes.size());
    OrtValue* value = nullptr;
    status = MakeTensor(memory_.get(), input.dtype, input.dims.data(), input.dims.size(), data,
                        input.bytes.size(), &value);
    if (!status.ok()) return status;
    loop->values.emplace_back(value);
    status = ToStatus(ort.BindInput(binding, input_names_[i].c_str(), value), Code::kRun);
    if (!status.ok()) return status;
  }
  // What a first run allocates is bound for all that follow.
  for (const std::string& name : output_names_) {
    status = ToStatus(ort.BindOutputToDevice(binding, name.c_str(), memory_.get()), Code::kRun);
    if (!status.ok()) return status;
  }
  status = ToStatus(ort.RunWithBinding(session_.get(), nullptr, binding), Code::kRun);
  if (!status.ok()) return status;
  OrtValue** outputs = nullptr;
  size_t count = 0;
  OrtAllocator* allocator = DefaultOrtAllocator();
  status = ToStatus(ort.GetBoundOutputValues(binding, allocator, &outputs, &count), Code::kRun);
  if (!status.ok()) return status;
  for (size_t i = 0; i < count; ++i) loop->values.emplace_back(outputs[i]);
  (void)ToStatus(ort.AllocatorFree(allocator, outputs), Code::kRun);
  for (size_t i = 0; status.ok() && i < count; ++i) {
    const OrtValue* value = loop->values[inputs.size() + i].get();
    status = ToStatus(ort.BindOutput(binding, output_names_[i].c_str(), value), Code::kRun);
  }
  return status;
}

Status BareLoop::RunLoop(const Loop& loop, int64_t until_ns, uint64_t* runs) {
  do {
    if (OrtStatus* failed = ort.RunWithBinding(session_.get(), nullptr, loop.binding.get())) {
      return ToStatus(failed, Code::kRun);
    }
    ++*runs;
  } while (NowNs() < until_ns);
  return {};
}

Status BareLoop::Run(int64_t duration_ns, Result* result) {
  const int64_t cpu = ProcessCpuNs();
  const int64_t start = NowNs();
  std::vector<uint64_t> runs(loops_.size());
  std::vector<Status> statuses(loops_.size());
  std::vector<std::thread> threads;
  for (size_t i = 1; i < loops_.size(); ++i) {
    threads.emplace_back([&, i] { statuses[i] = RunLoop(loops_[i], start + duration_ns, &runs[i]); });
  }
  statuses[0] = RunLoop(loops_[0], start + duration_ns, &runs[0]);
  for (std::thread& thread : threads) thread.join();
  result->elapsed_ns = NowNs() - start;
  result->cpu_ns = ProcessCpuNs() - cpu;
  for (const uint64_t count : runs) result->runs += count;
  for (Status& status : statuses) {
    if (!status.ok()) return std::move(status);
  }
  return {};
}

}  // namespace tercel
