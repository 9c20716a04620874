#include "model_handle.h"

#include <cstring>
#include <thread>

#include "base/clock.h"
#include "binding_handle.h"
#include "closure.h"
#include "describe.h"
#include "json/json_tensor.h"
#include "run_job.h"
#include "tasks.h"

namespace tercel::addon {

namespace {
// Until the wake of a lane has been measured, a run this short is taken for cheaper than the hop.
constexpr int64_t kAssumedHopNs = 40'000;
// What a lane costs the JS thread alone: submitting and taking the result (bench/async.ts).
constexpr int64_t kSubmitCostNs = 3'000;
constexpr size_t kMaxArgs = 34;
// How many short runs wait for a lane before this thread takes its share. Tiny with 64 in flight, us a
// run: 2.0 inline only, 1.4 on a lane only, together 1.7 at 16, 1.3 at 48.
constexpr size_t kLaneShare = 48;
// Spare jobs of a handle, and the largest memory that one may keep.
constexpr size_t kSpareJobs = 64;
constexpr size_t kSpareBytes = 4096;

// To the arena's alignment.
size_t RoundUp(size_t bytes) { return (bytes + 63) & ~size_t{63}; }
}  // namespace

ModelHandle::ModelHandle(Ref<AddonEnv> env, std::shared_ptr<Model> model, Inline inline_mode)
    : env_(std::move(env)), model_(std::move(model)), inline_mode_(inline_mode) {
  input_cache_.resize(model_->inputs().size());
  output_cache_.resize(model_->outputs().size());
  env_->handles().insert(this);
}

ModelHandle::~ModelHandle() { env_->handles().erase(this); }

napi_value ModelHandle::Wrap(Ref<AddonEnv> env, std::shared_ptr<Model> model, Inline inline_mode) {
  Ref<ModelHandle> handle(new ModelHandle(env, std::move(model), inline_mode));
  napi_env e = env->env();
  napi_value object = DescribeModel(e, *handle->model_);
  if (!object) return nullptr;
  ModelHandle* self = handle.get();
  const bool made =
      AddFunction(e, object, "runSync", RunSync, self) && AddFunction(e, object, "run", Run, self) &&
      AddFunction(e, object, "bind", Bind, self) && AddFunction(e, object, "stats", Stats, self) &&
      AddFunction(e, object, "configure", Configure, self) &&
      AddFunction(e, object, "endProfile", EndProfile, self) &&
      AddFunction(e, object, "warm", Warm, self) && AddFunction(e, object, "abandon", EndRuns, self) &&
      AddFunction(e, object, "close", Close, self);
  return made ? object : nullptr;
}

Status ModelHandle::ClosedStatus() const { return Status::Closed("the model was closed"); }

bool ModelHandle::ShouldRunInline(bool allowed, bool concurrent) const {
  if (inline_mode_ != Inline::kAuto) return inline_mode_ == Inline::kAlways;
  // The thread would only wait, and what others bring meanwhile would not overlap.
  if (model_->device()) return false;
  Scheduler& scheduler = model_->scheduler();
  if (!scheduler.run_time().known() || scheduler.preserves_order()) return false;
  static const bool has_other_processors = std::thread::hardware_concurrency() > 1;
  const int64_t run_ns = scheduler.run_time().value();
  if (run_ns < kSubmitCostNs) {
    // Shorter than handing it over, and still: with many under way, a lane on another processor takes
    // what it can, and this thread the rest.
    const size_t in_flight = scheduler.in_flight();
    return !has_other_processors || !(concurrent || in_flight > 0) || in_flight >= kLaneShare;
  }
  if (!allowed || scheduler.in_flight() != 0) return false;
  // Others are on their way: they batch, or at least leave this thread to bring the next.
  if (concurrent && has_other_processors) return false;
  const RunningMedian* wake = env_->runtime()->wake_cost();
  return run_ns < (wake->known() ? wake->value() : kAssumedHopNs);
}

napi_value ModelHandle::RunSync(napi_env env, napi_callback_info info) {
  napi_value args[kMaxArgs];
  size_t count = 0;
  auto* self = ReadCall<ModelHandle>(env, info, args, &count);
  if (self->closed_) return self->env_->Throw(self->ClosedStatus());
  if (Status s = self->Read(args, count); !s.ok()) return self->env_->Throw(s);
  return self->RunHere();
}

napi_value ModelHandle::Run(napi_env env, napi_callback_info info) {
  napi_value args[kMaxArgs];
  size_t count = 0;
  auto* self = ReadCall<ModelHandle>(env, info, args, &count);
  if (self->closed_) return self->env_->Throw(self->ClosedStatus());
  if (Status s = self->Read(args, count); !s.ok()) return self->env_->Throw(s);
  const uint32_t flags = self->request_.flags;
  if (self->ShouldRunInline(flags & kMayRunInline, flags & kConcurrent)) return self->RunHere();
  return self->Submit();
}

void ModelHandle::KeepSpare(Ref<RunJob> job) {
  if (!closed_ && spares_.size() < kSpareJobs) spares_.push_back(std::move(job));
}

Ref<RunJob> ModelHandle::TakeSpare() {
  if (spares_.empty() || !spares_.back()->Fits(request_)) return nullptr;
  for (const Argument& input : request_.inputs) {
    // What can be used in place is not copied into a spare.
    if (env_->runtime()->lease_table()->Find(input.data, input.bytes)) return nullptr;
    if (IsShared(env_->env(), input.js)) return nullptr;
  }
  Ref<RunJob> job = std::move(spares_.back());
  spares_.pop_back();
  job->Assign(Ref<ModelHandle>(this));
  uint8_t* data = job->leases[0]->data();
  for (const Argument& input : request_.inputs) {
    if (input.bytes) std::memcpy(data, input.data, input.bytes);
    env_->runtime()->copies()->in.fetch_add(input.bytes, std::memory_order_relaxed);
    data += RoundUp(input.bytes);
  }
  return job;
}

napi_value ModelHandle::Submit() {
  napi_env env = env_->env();
  Runtime* runtime = model_->runtime();
  const Meta& meta = env_->meta();
  const bool share_results = request_.flags & kShareResults;
  if (Ref<RunJob> staged = Stage()) {
    staged->share_results = share_results;
    return SubmitJob(
        env_.get(), std::move(staged), meta, [this](RunJob* job) { WriteRows(job); },
        request_.flags & kHold);
  }
  if (Status read = ReadTexts(); !read.ok()) return env_->Throw(read);
  if (Ref<RunJob> spare = TakeSpare()) {
    spare->share_results = share_results;
    spare->counted_rows = CountedRows();
    return SubmitJob(env_.get(), std::move(spare), meta);
  }
  Ref<RunJob> job(new RunJob(Ref<ModelHandle>(this)));
  job->share_results = share_results;
  job->counted_rows = CountedRows();
  Status status;

  // One lease for all ordinary inputs, so that what JS does to its buffers meanwhile does not matter,
  // and for the outputs whose shape is known.
  size_t lease_bytes = 0;
  auto in_place = [&](const Argument& argument) -> bool {
    if (argument.bytes == 0) return true;
    Ref<Lease> lease = runtime->lease_table()->Find(argument.data, argument.bytes);
    // Shared memory: JS keeps the buffer until the promise settles.
    if (!lease) return IsShared(env, argument.js);
    job->leases.push_back(std::move(lease));
    return true;
  };
  InlineVector<uint8_t, 4> copied;
  for (const Argument& input : request_.inputs) {
    copied.push_back(input.is_numbers() && !in_place(input));
    if (copied[copied.size() - 1]) lease_bytes += RoundUp(input.bytes);
  }
  for (Request::Output& output : request_.outputs) {
    output.predicted = !output.given && PredictShape(&output);
    if (output.predicted) lease_bytes += RoundUp(output.argument.bytes);
  }
  Ref<Lease> lease;
  if (lease_bytes) {
    lease = Lease::Take(runtime->arena(), lease_bytes);
    if (!lease) {
      return env_->Throw(Status::Overload("no memory for the inputs and outputs, " +
                                          std::to_string(lease_bytes) + " bytes"));
    }
    job->leases.push_back(lease);
  }
  uint32_t rows = 0;
  const bool has_rows = model_->scheduler().max_batch() > 1 && FindBucket(&rows) && !padded_;
  std::vector<uint8_t*> sources, targets;  // when it may be split
  size_t offset = 0;
  auto take = [&](size_t bytes) {
    uint8_t* data = lease->data() + offset;
    offset += RoundUp(bytes);
    return data;
  };
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    const Argument& input = request_.inputs[i];
    const ValueInfo& info = model_->inputs()[input.index];
    OrtValue* value = nullptr;
    if (!input.is_numbers()) {
      status = MakeOwnedValue(env, runtime, info, input, &job->leases, &value);
    } else {
      void* data = input.data;
      if (copied[i]) {
        data = take(input.bytes);
        std::memcpy(data, input.data, input.bytes);
        runtime->copies()->in.fetch_add(input.bytes, std::memory_order_relaxed);
      }
      status = MakeTensor(runtime, input.type(), input.dims, input.rank, data, input.bytes, &value);
    }
    if (!status.ok()) return env_->Throw(status);
    if (has_rows)
      sources.push_back(static_cast<uint8_t*>(copied[i] ? lease->data() + offset - RoundUp(input.bytes)
                                                        : input.data));
    job->input_names.push_back(info.name.c_str());
    job->inputs.push_back(value);
  }
  for (const Request::Output& output : request_.outputs) {
    const ValueInfo& info = model_->outputs()[output.index];
    OrtValue* value = nullptr;
    RunJob::Result result{output.index, RunJob::Result::kMake};
    if (output.given) {
      const Argument& argument = output.argument;
      result.kind = RunJob::Result::kCopy;
      if (in_place(argument) && model_->output_plans()[output.index].input() < 0) {
        result.kind = RunJob::Result::kInPlace;
        status = MakeTensor(runtime, argument.type(), argument.dims, argument.rank, argument.data,
                            argument.bytes, &value);
        if (!status.ok()) return env_->Throw(status);
      }
    }
    if (output.predicted) {
      const Argument& argument = output.argument;
      uint8_t* data = argument.bytes ? take(argument.bytes) : nullptr;
      if (has_rows) targets.push_back(data);
      status = MakeTensor(runtime, argument.type(), argument.dims, argument.rank, data, argument.bytes,
                          &value);
      if (!status.ok()) return env_->Throw(status);
    }
    job->predicted.push_back(output.predicted);
    job->results.push_back(result);
    job->output_names.push_back(info.name.c_str());
    job->outputs.push_back(value);
  }
  bool reusable = lease_bytes > 0 && lease_bytes <= kSpareBytes && job->leases.size() == 1;
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    reusable = reusable && copied[i] && request_.inputs[i].bytes > 0;
  }
  for (const Request::Output& output : request_.outputs) {
    reusable = reusable && output.predicted && output.argument.bytes > 0;
  }
  if (reusable) job->Remember(request_);
  if (has_rows) {
    job->rows = rows;
    job->bucket = bucket_;
    const bool may_split = rows > bucket_->capacity() && bucket_->has_outputs();
    if (may_split && targets.size() == request_.outputs.size()) {
      for (uint8_t* source : sources) job->sources.push_back(source);
      for (uint8_t* target : targets) job->targets.push_back(target);
    }
  }
  return SubmitJob(env_.get(), std::move(job), meta);
}

void ModelHandle::EndJob() {
  --jobs_;
  if (jobs_ == 0 && wants_close_) ReleaseModel();
}

napi_value ModelHandle::Bind(napi_env env, napi_callback_info info) {
  napi_value args[2];
  auto* self = ReadCall<ModelHandle>(env, info, args);
  if (self->closed_) return self->env_->Throw(self->ClosedStatus());
  return BindingHandle::Create(Ref<ModelHandle>(self), args[0], args[1]);
}

napi_value ModelHandle::Stats(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<ModelHandle>(env, info, args);
  if (self->closed_) return self->env_->Throw(self->ClosedStatus());
  return DescribeModelStats(env, *self->model_);
}

void ModelHandle::CancelRuns() {
  for (JsCompletion* completion : env_->slots()) {
    auto* job = dynamic_cast<RunJob*>(completion);
    if (job && job->handle().get() == this) job->Cancel(ClosedStatus());
  }
}

// abandon(): what a close with drain left in flight ends
napi_value ModelHandle::EndRuns(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<ModelHandle>(env, info, args);
  if (self->closed_) self->CancelRuns();
  return Undefined(env);
}

// endProfile(): {file, startNs}: ONNX Runtime's own profile is written, and when it began by the
// real-time clock
napi_value ModelHandle::EndProfile(napi_env env, napi_callback_info info) {
  napi_value args[1];
  auto* self = ReadCall<ModelHandle>(env, info, args);
  if (self->closed_) return self->env_->Throw(self->ClosedStatus());
  uint64_t start_ns = 0;
  char* file = nullptr;
  OrtSession* session = self->model_->session();
  Status status = ToStatus(ort.SessionGetProfilingStartTimeNs(session, &start_ns), Code::kRun);
  if (status.ok()) {
    status = ToStatus(ort.SessionEndProfiling(session, DefaultOrtAllocator(), &file), Code::kRun);
  }
  if (!status.ok()) return self->env_->Throw(status);
  Napi::Object object = Napi::Object::New(env);
  object["file"] = Napi::String::New(env, TakeOrtString(file));
  object["startNs"] = Napi::Number::New(env, static_cast<double>(start_ns));
  return object;
}

// close(slot, drain): with drain, what is in flight goes on to its end
napi_value ModelHandle::Close(napi_env env, napi_callback_info info) {
  napi_value args[2];
  auto* self = ReadCall<ModelHandle>(env, info, args);
  if (self->closed_) return Undefined(env);
  self->env_->Flush();
  self->closed_ = true;
  self->wants_close_ = true;
  self->close_slot_ = ReadUint32(env, args[0]);
  bool drain = false;
  napi_get_value_bool(env, args[1], &drain);
  for (BindingHandle* binding : std::set<BindingHandle*>(self->bindings_)) binding->CloseNow();
  if (!drain) self->CancelRuns();
  if (self->jobs_ == 0) self->ReleaseModel();
  return Undefined(env);
}

// Releasing a session takes milliseconds: not on the JS thread.
void ModelHandle::ReleaseModel() {
  wants_close_ = false;
  DropCaches();
  Ref<ReleaseTask> task(new ReleaseTask(env_, std::move(model_)));
  task->Start(close_slot_);
}

void ModelHandle::DropCaches() {
  spares_.clear();
  staged_spares_.clear();
  bucket_.reset();
  binding_.reset();
  bound_ = false;
  last_values_.clear();
  input_cache_.clear();
  output_cache_.clear();
  read_.clear();
}

void ModelHandle::Abandon() {
  closed_ = true;
  for (BindingHandle* binding : std::set<BindingHandle*>(bindings_)) binding->CloseNow();
  DropCaches();
  model_.reset();
}

}  // namespace tercel::addon
