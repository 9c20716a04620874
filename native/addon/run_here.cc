// Runs on the JS thread: inputs used where they are, outputs written to where JS will read them.
#include <cstring>

#include "base/clock.h"
#include "json/json_tensor.h"
#include "model_handle.h"

namespace tercel::addon {

namespace {
// V8 ends the process when it cannot have the memory of an ArrayBuffer.
constexpr size_t kMaxPredictedBytes = size_t{64} << 20;
}  // namespace

Status ModelHandle::CachedTensor(CachedValue* cached, const Argument& argument, const OrtValue** out) {
  const bool hit = cached->value && cached->data == argument.data && cached->dtype == argument.dtype &&
                   cached->rank == argument.rank &&
                   std::memcmp(cached->dims, argument.dims, argument.rank * sizeof(int64_t)) == 0;
  if (!hit) {
    OrtValue* value = nullptr;
    Status status = MakeTensor(model_->runtime(), argument.type(), argument.dims, argument.rank,
                               argument.data, argument.bytes, &value);
    if (!status.ok()) return status;
    cached->value.reset(value);
    fresh_values_ = true;
    // The freed value's address may come again.
    bound_ = false;
    last_values_.clear();
    cached->data = argument.data;
    cached->dtype = argument.dtype;
    // A shape of more than 8 dimensions is made anew each time.
    cached->rank = argument.rank <= 8 ? argument.rank : kMaxRank + 1;
    if (argument.rank <= 8) {
      std::memcpy(cached->dims, argument.dims, argument.rank * sizeof(int64_t));
    }
  }
  *out = cached->value.get();
  return {};
}

Status ModelHandle::ReadTexts() {
  read_.resize(model_->inputs().size());
  for (Argument& input : request_.inputs) {
    if (!input.text) continue;
    Ref<Lease>& lease = read_[input.index];
    if (!lease || lease->bytes() < input.bytes) {
      lease = Lease::Take(model_->runtime()->arena(), input.bytes);
      if (!lease) return Status::Overload("no memory for " + std::to_string(input.bytes) + " bytes");
    }
    const std::string_view text(input.text + input.begin, input.end - input.begin);
    size_t count = 0;
    CountElements(input.dims, input.rank, &count);
    Status status = ParseJsonTensor(text, input.begin, input.type(), NonFinite::kRefused, lease->data(),
                                    count, OipDatatype(input.type()));
    if (!status.ok()) {
      return {status.code(),
              "input \"" + model_->inputs()[input.index].name + "\": " + status.message()};
    }
    input.data = lease->data();
    input.text = nullptr;
  }
  return {};
}

napi_value ModelHandle::RunHere() {
  napi_env env = env_->env();
  Model* const model = model_.get();
  Runtime* runtime = model->runtime();
  input_names_.clear();
  input_values_.clear();
  output_names_.clear();
  output_values_.clear();
  owned_.clear();
  leases_.clear();
  fresh_values_ = false;
  Status status = ReadTexts();
  if (!status.ok()) return env_->Throw(status);
  for (const Argument& input : request_.inputs) {
    const ValueInfo& info = model->inputs()[input.index];
    const OrtValue* value = nullptr;
    if (input.is_numbers() && !input.aligned()) {
      // Bytes of a request's body lie anywhere; kernels may want better.
      Argument aligned = input;
      Ref<Lease> lease = Lease::Take(runtime->arena(), input.bytes);
      if (!lease)
        return env_->Throw(
            Status::Overload("no memory for " + std::to_string(input.bytes) + " bytes of input"));
      std::memcpy(lease->data(), input.data, input.bytes);
      runtime->copies()->in.fetch_add(input.bytes, std::memory_order_relaxed);
      aligned.data = lease->data();
      leases_.push_back(std::move(lease));
      status = CachedTensor(&input_cache_[input.index], aligned, &value);
    } else if (input.is_numbers()) {
      status = CachedTensor(&input_cache_[input.index], input, &value);
    } else {
      OrtValue* made = nullptr;
      status = MakeOwnedValue(env, runtime, info, input, &leases_, &made);
      owned_.emplace_back(made);
      fresh_values_ = true;
      value = made;
    }
    if (!status.ok()) return env_->Throw(status);
    input_names_.push_back(info.name.c_str());
    input_values_.push_back(value);
  }
  // What ONNX Runtime writes to memory of ours. To an output that is an input it writes nothing.
  auto is_ours = [model](const Request::Output& output) {
    return output.predicted || (output.given && model->output_plans()[output.index].input() < 0);
  };
  MetaWriter writer(env_->meta());
  const size_t count = request_.outputs.size();
  for (size_t i = 0; i < count; ++i) {
    Request::Output& output = request_.outputs[i];
    if (!output.given) Predict(i, &output, writer);
    const OrtValue* value = nullptr;
    if (is_ours(output)) {
      status = CachedTensor(&output_cache_[output.index], output.argument, &value);
      if (!status.ok()) return env_->Throw(status);
    }
    output_names_.push_back(model->outputs()[output.index].name.c_str());
    output_values_.push_back(const_cast<OrtValue*>(value));
  }

  // A clock read costs 25 ns: every run while the median is unknown, then one in 16.
  RunningMedian& run_time = model->scheduler().run_time();
  const bool timed = !run_time.known() || (timed_runs_++ & 15) == 0;
  const int64_t start = timed ? NowNs() : 0;
  OrtStatus* failed = CallRun();
  if (failed && ort.GetErrorCode(failed) == kOrtInvalidArgument) {
    // Where the model's declaration of a shape is wrong, ORT allocates.
    bool again = false;
    for (size_t i = 0; i < count; ++i) {
      again |= request_.outputs[i].predicted;
      if (request_.outputs[i].predicted) output_values_[i] = nullptr;
      request_.outputs[i].predicted = false;
    }
    if (again) {
      ort.ReleaseStatus(failed);
      failed = CallRun();
      if (!failed) model->DistrustPlans();
    }
  }
  // What ORT allocated is ours now, whether the run went well or not.
  for (size_t i = 0; i < count; ++i) {
    if (!is_ours(request_.outputs[i]) && output_values_[i]) owned_.emplace_back(output_values_[i]);
  }
  if (failed) {
    owned_.clear();
    status = RunStatus(failed);
    model->sync_runs().AddFailed(status.code() == Code::kInvalidInput);
    return env_->Throw(status);
  }
  const int64_t ns = timed ? NowNs() - start : 0;
  if (timed) run_time.Add(ns);
  env_->meta().data[kMetaRunUs] = static_cast<double>(run_time.value()) / 1000;
  model->sync_runs().Add(CountedRows(), ns);

  napi_value results = nullptr;
  if (count != 1 && !Ok(napi_create_array_with_length(env, count, &results))) return nullptr;
  for (size_t i = 0; i < count; ++i) {
    const Request::Output& output = request_.outputs[i];
    if (output.given) {
      if (is_ours(output)) continue;
      Numbers numbers;
      status = ReadNumbers(output_values_[i], &numbers);
      if (status.ok() && numbers.bytes != output.argument.bytes) {
        status = Status::InvalidInput("output \"" + model->outputs()[output.index].name +
                                      "\" is an input of another shape");
      }
      if (!status.ok()) {
        owned_.clear();
        return env_->Throw(status);
      }
      if (numbers.bytes) std::memcpy(output.argument.data, numbers.data, numbers.bytes);
      continue;
    }
    napi_value data = nullptr;
    if (output.predicted) {
      const Argument& argument = output.argument;
      writer.PutShape(argument.type(), output.in_scratch, argument.dims, argument.rank);
      data = output.made;
    } else if (!OutputToJs(env, runtime, model->outputs()[output.index].type, output_values_[i],
                           &writer, i, &data, &status)) {
      owned_.clear();
      return status.ok() ? nullptr : env_->Throw(status);
    }
    if (!data) continue;  // in the scratch
    if (count == 1) {
      results = data;
    } else {
      napi_set_element(env, results, static_cast<uint32_t>(i), data);
    }
  }
  owned_.clear();
  leases_.clear();
  return results;
}

OrtStatus* ModelHandle::CallRun() {
  const size_t inputs = input_values_.size();
  const size_t outputs = output_values_.size();
  bool same = !fresh_values_ && last_values_.size() == inputs + outputs;
  for (size_t i = 0; same && i < inputs; ++i) same = last_values_[i] == input_values_[i];
  for (size_t i = 0; same && i < outputs; ++i) {
    same = output_values_[i] && last_values_[inputs + i] == output_values_[i];
  }
  // Other providers copy inputs when they are bound, not when they run.
  same = same && model_->cpu_only() && !model_->device();
  if (same && bound_) return ort.RunWithBinding(model_->session(), nullptr, binding_.get());
  bound_ = false;
  if (same) {
    bound_ = BindValues();
    if (bound_) return ort.RunWithBinding(model_->session(), nullptr, binding_.get());
  }
  last_values_.assign(input_values_.begin(), input_values_.end());
  last_values_.insert(last_values_.end(), output_values_.begin(), output_values_.end());
  return model_->Run(nullptr, {input_names_.data(), input_values_.data(), inputs, output_names_.data(),
                               outputs, output_values_.data()});
}

bool ModelHandle::BindValues() {
  OrtIoBinding* raw = nullptr;
  if (!ToStatus(ort.CreateIoBinding(model_->session(), &raw), Code::kRun).ok()) return false;
  binding_.reset(raw);
  for (size_t i = 0; i < input_values_.size(); ++i) {
    OrtStatus* failed = ort.BindInput(raw, input_names_[i], input_values_[i]);
    if (!ToStatus(failed, Code::kRun).ok()) return false;
  }
  for (size_t i = 0; i < output_values_.size(); ++i) {
    OrtStatus* failed = ort.BindOutput(raw, output_names_[i], output_values_[i]);
    if (!ToStatus(failed, Code::kRun).ok()) return false;
  }
  return true;
}

bool ModelHandle::PredictShape(Request::Output* output) const {
  const ShapePlan& plan = model_->output_plans()[output->index];
  const DType dtype = model_->outputs()[output->index].type.dtype;
  Argument& argument = output->argument;
  if (!plan.known() || !model_->trusts_plans() || DTypeBytes(dtype) == 0) return false;
  auto dims_of = [this](uint32_t index) -> const int64_t* {
    for (const Argument& input : request_.inputs) {
      if (input.index == index) return input.dims;
    }
    return nullptr;
  };
  argument.dtype = static_cast<int>(dtype);
  argument.rank = plan.rank();
  // What a request says of sizes is not believed without bound: ORT finds out, and can fail.
  return plan.Fill(dims_of, argument.dims) &&
         CountBytes(dtype, argument.dims, argument.rank, &argument.bytes) &&
         argument.bytes <= kMaxPredictedBytes;
}

void ModelHandle::Predict(size_t position, Request::Output* output, const MetaWriter& meta) {
  if (!PredictShape(output)) return;
  Argument& argument = output->argument;
  output->made = nullptr;
  argument.data = meta.Scratch(position, argument.bytes);
  output->in_scratch = argument.data != nullptr;
  if (!output->in_scratch) {
    const size_t elements = argument.bytes / DTypeBytes(argument.type());
    output->made = MakeTypedArray(env_->env(), argument.type(), elements, &argument.data);
    if (!output->made) return;
  }
  output->predicted = true;
}

}  // namespace tercel::addon
