#include "run_job.h"

#include "clock.h"

namespace tercel::addon {

namespace {
// JS looks for the result by itself while it is expected sooner than a wake would bring it.
constexpr int64_t kWorthPollingNs = 100'000;
}  // namespace

RunJob::RunJob(Ref<ModelHandle> handle)
    : Job(handle->env()->sink()), handle_(std::move(handle)), model_(handle_->model()) {}

RunJob::~RunJob() = default;

void RunJob::Cancel(Status reason) { model_->scheduler().Cancel(this, std::move(reason)); }

napi_value SubmitJob(AddonEnv* env, Ref<RunJob> job, const Meta& meta) {
  const auto slot = static_cast<uint32_t>(meta.data[kMetaSlot]);
  const double timeout_ms = meta.data[kMetaTimeoutMs];
  const int64_t now = NowNs();
  if (timeout_ms > 0) job->deadline_ns = now + static_cast<int64_t>(timeout_ms * 1e6);
  job->priority = static_cast<int>(meta.data[kMetaPriority]);
  Scheduler& scheduler = job->handle()->model()->scheduler();
  const RunningMedian& run_time = scheduler.run_time();
  const bool poll = run_time.known() && run_time.value() < kWorthPollingNs;
  if (poll) {
    env->last_activity_ns = now;
    env->poll_limit_ns = 2 * run_time.value() + 50'000;
  }
  env->mailbox()->Expect(poll);
  env->Put(slot, job.get());
  env->meta().data[kMetaRunUs] = poll ? 1 : 0;  // tells JS to poll
  job->handle()->BeginJob();
  Status status = scheduler.Submit(job);
  if (status.ok()) {
    napi_value submitted = nullptr;
    napi_get_boolean(env->env(), true, &submitted);
    return submitted;
  }
  env->Remove(slot);
  env->mailbox()->Unexpect();
  job->handle()->EndJob();
  return env->Throw(status);
}

void RunJob::Employ(Ref<ModelHandle> handle) {
  handle_ = std::move(handle);
  model_ = handle_->model();
}

void RunJob::Remember(const Request& request) {
  reusable_ = true;
  signature_ = {static_cast<int64_t>(request.inputs.size()),
                static_cast<int64_t>(request.outputs.size())};
  for (const Argument& input : request.inputs) {
    signature_.insert(signature_.end(), {input.index, input.dtype, static_cast<int64_t>(input.rank)});
    signature_.insert(signature_.end(), input.dims, input.dims + input.rank);
  }
  for (const Request::Output& output : request.outputs) signature_.push_back(output.index);
}

bool RunJob::Fits(const Request& request) const {
  size_t at = 0;
  auto next = [&](int64_t value) { return at < signature_.size() && signature_[at++] == value; };
  if (!next(static_cast<int64_t>(request.inputs.size())) ||
      !next(static_cast<int64_t>(request.outputs.size()))) {
    return false;
  }
  for (const Argument& input : request.inputs) {
    if (!next(input.index) || !next(input.dtype) || !next(static_cast<int64_t>(input.rank)))
      return false;
    for (size_t i = 0; i < input.rank; ++i) {
      if (!next(input.dims[i])) return false;
    }
  }
  for (const Request::Output& output : request.outputs) {
    if (output.given || !next(output.index)) return false;
  }
  return at == signature_.size();
}

void RunJob::End() {
  const Ref<ModelHandle> handle = std::move(handle_);
  if (binding_handle) binding_handle->EndRun();
  keep.reset();
  model_.reset();
  if (reusable_ && status.ok() && !predictions_dropped) {
    Reset();
    handle->KeepSpare(Ref<RunJob>(this));
  }
  handle->EndJob();
}

napi_value RunJob::Finish(napi_env env, napi_value targets) {
  const Ref<AddonEnv> addon(handle_->env());
  Runtime* runtime = addon->runtime();
  struct AtEnd {
    RunJob* job;
    ~AtEnd() { job->End(); }
  } at_end{this};
  if (!status.ok()) return addon->Throw(status);
  if (predictions_dropped) model_->DistrustPlans();
  if (results.empty()) return Undefined(env);
  MetaWriter writer(addon->meta());
  napi_value values = nullptr;
  const size_t count = results.size();
  if (count != 1 && !Ok(napi_create_array_with_length(env, count, &values))) return nullptr;
  Status problem;
  for (size_t i = 0; i < count; ++i) {
    const ValueInfo& info = model_->outputs()[results[i].index];
    napi_value data = nullptr;
    switch (results[i].how) {
      case Result::kInPlace:
        continue;
      case Result::kCopy: {
        napi_value target = nullptr;
        napi_get_element(env, targets, static_cast<uint32_t>(i), &target);
        problem = CopyToGiven(env, runtime, info, outputs[i], target);
        if (!problem.ok()) return addon->Throw(problem);
        continue;
      }
      case Result::kMake:
        if (!OutputToJs(env, runtime, info.type, outputs[i], &writer, i, &data, &problem)) {
          return problem.ok() ? nullptr : addon->Throw(problem);
        }
    }
    if (!data) continue;  // in the scratch
    if (count == 1) {
      values = data;
    } else {
      napi_set_element(env, values, static_cast<uint32_t>(i), data);
    }
  }
  return values ? values : Undefined(env);
}

}  // namespace tercel::addon
