// Requests that share a batch: their rows are copied once, straight to where the batch will run.
#include <algorithm>
#include <cstring>

#include "model_handle.h"
#include "run_job.h"
#include "sched/padding.h"

namespace tercel::addon {

namespace {
constexpr size_t kStagedSpares = 256;
}

void ModelHandle::KeepStaged(Ref<RunJob> job) {
  if (!closed_ && staged_spares_.size() < kStagedSpares) staged_spares_.push_back(std::move(job));
}

// Rounds the request's dimensions up by the rules. False when none of them is concerned.
bool ModelHandle::PadShapes() {
  bool padded = false;
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    const Argument& input = request_.inputs[i];
    const ValueType& type = model_->inputs()[input.index].type;
    int64_t* dims = padded_dims_[i].data();
    std::copy(input.dims, input.dims + input.rank, dims);
    for (size_t axis = 1; axis < input.rank && axis < type.symbols.size(); ++axis) {
      for (const PadRule& rule : pad_rules_) {
        if (type.symbols[axis] != rule.symbol) continue;
        dims[axis] = rule.SizeFor(input.dims[axis]);
        padded |= dims[axis] != input.dims[axis];
      }
    }
  }
  return padded;
}

bool ModelHandle::FindBucket(uint32_t* rows) {
  for (const Request::Output& output : request_.outputs) {
    if (output.given) return false;
  }
  shapes_.clear();
  const bool may_pad = !pad_rules_.empty();
  padded_dims_.resize(std::max(padded_dims_.size(), request_.inputs.size()));
  padded_ = may_pad && PadShapes();
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    const Argument& input = request_.inputs[i];
    if (!input.is_numbers() || input.rank == 0 || input.bytes == 0) return false;
    if (i > 0 && input.dims[0] != request_.inputs[0].dims[0]) return false;
    shapes_.push_back(
        {input.index, input.type(), padded_ ? padded_dims_[i].data() : input.dims, input.rank});
  }
  if (shapes_.empty() || shapes_[0].dims[0] > UINT32_MAX) return false;
  *rows = static_cast<uint32_t>(shapes_[0].dims[0]);
  wanted_.clear();
  for (const Request::Output& output : request_.outputs) wanted_.push_back(output.index);
  if (!bucket_ || bucket_->max_rows() != model_->scheduler().max_batch() ||
      bucket_->trusts_plans() != model_->trusts_plans() || !bucket_->Fits(shapes_, wanted_)) {
    bucket_ = model_->BucketFor(shapes_, wanted_);
  }
  if (bucket_ && padded_ && !bucket_->has_outputs()) {
    // What the outputs would be without the padding is not known: nothing is padded then.
    for (size_t i = 0; i < shapes_.size(); ++i) shapes_[i].dims = request_.inputs[i].dims;
    padded_ = false;
    bucket_ = model_->BucketFor(shapes_, wanted_);
  }
  return bucket_.get() != nullptr;
}

Ref<RunJob> ModelHandle::Stage() {
  Scheduler& scheduler = model_->scheduler();
  uint32_t rows = 0;
  if (scheduler.max_batch() <= 1 || !FindBucket(&rows)) return nullptr;
  if (rows > bucket_->capacity()) return nullptr;
  if (scheduler.in_flight() == 0 && !padded_) {
    // It may well run alone: what can be used in place is not copied then.
    for (const Argument& input : request_.inputs) {
      if (input.text) continue;
      if (env_->runtime()->lease_table()->Find(input.data, input.bytes)) return nullptr;
      if (IsShared(env_->env(), input.js)) return nullptr;
    }
  }
  // What is padded is copied row by row: it has to be numbers. What cannot be read is refused there.
  if (padded_ && !ReadTexts().ok()) return nullptr;
  Ref<RunJob> job;
  if (staged_spares_.empty()) {
    job = Ref<RunJob>(new RunJob(Ref<ModelHandle>(this)));
  } else {
    job = std::move(staged_spares_.back());
    staged_spares_.pop_back();
    job->Assign(Ref<ModelHandle>(this));
  }
  job->Stage(bucket_, rows, request_);
  if (padded_) {
    for (const Request::Output& output : request_.outputs) {
      const ShapePlan& plan = model_->output_plans()[output.index];
      std::vector<int64_t> dims(plan.rank());
      // Cannot fail: it went well with the padded shapes.
      (void)plan.Fill([this](uint32_t index) { return DimsOf(index); }, dims.data());
      job->unpadded.push_back(std::move(dims));
    }
  }
  return job;
}

const int64_t* ModelHandle::DimsOf(uint32_t input) const {
  for (const Argument& argument : request_.inputs) {
    if (argument.index == input) return argument.dims;
  }
  return nullptr;
}

void ModelHandle::WriteRows(RunJob* job) {
  static const uint8_t kZeros[8] = {};
  size_t copied = 0;
  for (size_t i = 0; i < request_.inputs.size(); ++i) {
    const Argument& input = request_.inputs[i];
    const Bucket::Value& value = job->bucket->inputs()[i];
    if (input.text) {
      UnreadInputs& unread = job->unread;
      const size_t at = unread.text.size();
      unread.text.append(input.text + input.begin, input.end - input.begin);
      unread.inputs.push_back({i, at, unread.text.size(), input.begin});
      continue;
    }
    uint8_t* to = Bucket::InputAt(*job->block, value, job->first_row);
    if (padded_) {
      const std::vector<int64_t> padded(padded_dims_[i].begin(), padded_dims_[i].begin() + input.rank);
      const auto fill = pad_values_.find(input.index);
      Pad(input.data, input.dims, padded, DTypeBytes(input.type()),
          fill == pad_values_.end() ? kZeros : fill->second.data(), to);
    } else {
      std::memcpy(to, input.data, input.bytes);
    }
    copied += input.bytes;
  }
  env_->runtime()->copies()->in.fetch_add(copied, std::memory_order_relaxed);
}

}  // namespace tercel::addon
