#include "run_job.h"

#include <algorithm>

#include "base/clock.h"
#include "sched/padding.h"

namespace tercel::addon {

namespace {
// JS looks for the result by itself while it is expected sooner than a wake would bring it.
constexpr int64_t kWorthPollingNs = 100'000;
// Under load batches take longer, and a lane that wakes us loses as much time as we.
constexpr int64_t kLongestPolledNs = 1'000'000;
// Three years are no timeout.
constexpr double kLongestTimeoutMs = 1e11;
}  // namespace

RunJob::RunJob(Ref<ModelHandle> handle)
    : Job(handle->env()->sink()), handle_(std::move(handle)), model_(handle_->model()) {
  reports_delivery = true;
}

RunJob::~RunJob() = default;

void RunJob::Cancel(Status reason) { model_->scheduler().Cancel(this, std::move(reason)); }

napi_value SubmitJob(AddonEnv* env, Ref<RunJob> job, const Meta& meta,
                     const std::function<void(RunJob*)>& write, bool hold) {
  const auto slot = static_cast<uint32_t>(meta.data[kMetaSlot]);
  const double timeout_ms = meta.data[kMetaTimeoutMs];
  const int64_t now = NowNs();
  if (timeout_ms > 0 && timeout_ms < kLongestTimeoutMs)
    job->deadline_ns = now + static_cast<int64_t>(timeout_ms * 1e6);
  job->priority = static_cast<int>(meta.data[kMetaPriority]);
  Scheduler& scheduler = job->handle()->model()->scheduler();
  const RunningMedian& run_time = scheduler.run_time();
  const bool worth = run_time.known() && run_time.value() < kWorthPollingNs &&
                     scheduler.batch_time().value() < kLongestPolledNs;
  const bool poll = worth && env->MayPoll();
  if (poll) {
    env->last_activity_ns = now;
    env->poll_limit_ns = 2 * scheduler.batch_time().value() + 50'000;
  }
  env->mailbox()->Expect(poll);
  env->Put(slot, job.get());
  env->meta().data[kMetaRunUs] = poll ? 1 : 0;  // tells JS to poll
  job->handle()->BeginJob();
  Status status;
  if (write) {
    status = scheduler.Reserve(job);
    if (status.ok()) {
      write(job.get());
      if (hold) {
        env->Hold(job->handle()->model(), job);
      } else {
        scheduler.Ready(job);
      }
    }
  } else {
    status = scheduler.Submit(job);
  }
  if (status.ok()) {
    napi_value submitted = nullptr;
    napi_get_boolean(env->env(), true, &submitted);
    return submitted;
  }
  env->Remove(slot);
  env->mailbox()->Unexpect();
  env->StopPolling();
  job->handle()->EndJob();
  return env->Throw(status);
}

void RunJob::Assign(Ref<ModelHandle> handle) {
  handle_ = std::move(handle);
  model_ = handle_->model();
}

void RunJob::Stage(Ref<Bucket> staged, uint32_t row_count, const Request& request) {
  bucket = std::move(staged);
  rows = row_count;
  unpadded.clear();
  results.clear();
  for (const Request::Output& output : request.outputs)
    results.push_back({output.index, Result::kMake});
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
  const bool staged = block || shared_outputs;
  if (staged) {
    Reset();
    bucket.reset();
    handle->KeepStaged(Ref<RunJob>(this));
  } else if (reusable_ && status.ok() && !predictions_dropped) {
    Reset();
    handle->KeepSpare(Ref<RunJob>(this));
  }
  handle->EndJob();
}

Status RunJob::Output(size_t i, Numbers* numbers, Holder* holder) {
  if (!block) {
    Status status = ReadNumbers(outputs[i], numbers);
    if (!status.ok() || !share_results || numbers->bytes < kShareFromBytes) return status;
    for (const Ref<Lease>& lease : leases) {
      const auto* data = static_cast<const uint8_t*>(numbers->data);
      if (data >= lease->data() && data < lease->data() + lease->bytes()) holder->lease = lease;
    }
    // An output that is an input, in memory of JS: it is JS's to change and to let go.
    if (!holder->lease && model_->output_plans()[results[i].index].input() >= 0) return {};
    // What ORT allocated goes with its value.
    holder->outputs = Ref<SharedOutputs>(new SharedOutputs);
    holder->outputs->values.emplace_back(outputs[i]);
    outputs[i] = nullptr;
    return {};
  }
  const Bucket::Value& value = bucket->outputs()[i];
  if (shared_outputs) {
    Status status = ReadNumbers(shared_outputs->values[i].get(), numbers);
    if (!status.ok()) return status;
    if (shared_outputs->divided) {
      const size_t row_bytes = numbers->bytes / static_cast<size_t>(numbers->dims[0]);
      numbers->data = static_cast<const uint8_t*>(numbers->data) + row_bytes * first_row;
      numbers->bytes = row_bytes * rows;
      numbers->dims[0] = rows;
    }
    if (share_results) {
      holder->outputs = shared_outputs;
      // An output that is an input lies where that does.
      if (model_->output_plans()[results[i].index].input() >= 0) holder->lease = block->inputs();
    }
    return {};
  }
  numbers->dtype = value.dtype;
  numbers->rank = value.dims.size();
  std::copy(value.dims.begin(), value.dims.end(), numbers->dims);
  numbers->dims[0] = rows;
  numbers->data = Bucket::OutputAt(*block, value, first_row);
  numbers->bytes = value.row_bytes * rows;
  if (share_results) holder->lease = block->outputs();
  return {};
}

bool RunJob::MakeResult(napi_env env, size_t i, MetaWriter* writer, napi_value* out, Status* problem) {
  Runtime* runtime = model_->runtime();
  Numbers numbers;
  Holder holder;
  *problem = Output(i, &numbers, &holder);
  if (!problem->ok()) return false;
  std::vector<uint8_t> cropped;
  if (i < unpadded.size()) {
    bool holds = unpadded[i].size() == numbers.rank;
    for (size_t axis = 0; holds && axis < numbers.rank; ++axis) {
      holds = unpadded[i][axis] <= numbers.dims[axis];
    }
    if (!holds) {
      *problem = Status::Run("a padded output is " + ShapeText(numbers.dims, numbers.rank) +
                             ", not as the model declares it: it cannot be padded");
      return false;
    }
  }
  if (i < unpadded.size() && !std::equal(unpadded[i].begin(), unpadded[i].end(), numbers.dims)) {
    cropped.resize(numbers.bytes);
    numbers.bytes =
        Crop(numbers.data, numbers.dims, unpadded[i], DTypeBytes(numbers.dtype), cropped.data());
    numbers.data = cropped.data();
    std::copy(unpadded[i].begin(), unpadded[i].end(), numbers.dims);
    holder = {};
  }
  return NumbersToJs(env, runtime, numbers, holder, writer, i, out);
}

napi_value RunJob::Finish(napi_env env, napi_value targets) {
  const Ref<AddonEnv> addon(handle_->env());
  Runtime* runtime = addon->runtime();
  struct AtEnd {
    RunJob* job;
    ~AtEnd() { job->End(); }
  } at_end{this};
  if (!status.ok()) return addon->Throw(status);
  if (model_->scheduler().has_target()) model_->scheduler().Delivered(NowNs() - submitted_ns);
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
    switch (results[i].kind) {
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
        if (block || (share_results && info.type.kind == OnnxKind::kTensor &&
                      DTypeBytes(info.type.dtype) != 0)) {
          if (MakeResult(env, i, &writer, &data, &problem)) break;
          return problem.ok() ? nullptr : addon->Throw(problem);
        }
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
