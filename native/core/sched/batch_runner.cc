// Reading inputs that came as JSON, running, and running one by one what failed together.
#include "sched/batch_runner.h"

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "ort/value.h"

namespace tercel {

namespace {

Status ReadJsonInput(const Bucket::Value& value, const UnreadInputs& unread,
                     const UnreadInputs::Input& input, uint8_t* to, size_t bytes) {
  const std::string_view text(unread.text.data() + input.begin, input.end - input.begin);
  const Status status = ParseJsonTensor(text, input.offset, value.dtype, NonFinite::kRefused, to,
                                        bytes / DTypeBytes(value.dtype), OipDatatype(value.dtype));
  if (status.ok()) return {};
  return {status.code(), "input \"" + std::string(value.name) + "\": " + status.message()};
}

}  // namespace

OrtStatus* BatchRunner::Call(Lane* lane, const RunCall& call) {
  return RunSession(session_, context_.device, lane->run_options.get(), call);
}

void BatchRunner::Run(Lane* lane) {
  lane->retried = lane->predictions_dropped = false;
  lane->read_ns = 0;
  lane->ran = true;
  lane->part_statuses.clear();
  lane->part_outputs.clear();
  if (!lane->block) {
    // Nobody else completes a job that runs on its own memory.
    const Lane::Part& part = lane->parts.front();
    const bool whole = lane->rows >= part.job->rows;
    lane->status =
        whole ? RunValues(lane, part.job) : RunPart(lane, part.job, part.first_row, part.rows);
    return;
  }
  lane->part_outputs.emplace_back();
  const uint32_t first_row = lane->parts.front().first_row;
  if (lane->any_unread && !ReadInputs(lane)) {
    lane->ran = false;
    return;
  }
  lane->status =
      RunRows(lane, first_row, lane->rows, lane->parts.size() > 1, &lane->part_outputs.front());
  if (!lane->status.ok() && lane->parts.size() > 1) {
    RetryOneByOne(lane);
    return;
  }
  // Those whose inputs were no numbers have failed, whatever became of the others.
  for (Status& status : lane->part_statuses) {
    if (status.ok()) status = lane->status;
  }
}

// Reads what came as JSON to the rows of the batch. What is none fails its own job, and zeros run in
// its place. False when nothing is left to run.
bool BatchRunner::ReadInputs(Lane* lane) {
  lane->any_unread = false;
  const int64_t start = NowNs();
  bool any = false;
  for (size_t i = 0; i < lane->parts.size(); ++i) {
    Status status;
    if (i < lane->unread.size()) {
      // Not lane->parts[i].job, which may be gone by now.
      const Lane::Part& part = lane->parts[i];
      for (const UnreadInputs::Input& input : lane->unread[i].inputs) {
        const Bucket::Value& value = lane->bucket->inputs()[input.index];
        const size_t bytes = value.row_bytes * part.rows;
        uint8_t* to = Bucket::InputAt(*lane->block, value, part.first_row);
        if (status.ok()) status = ReadJsonInput(value, lane->unread[i], input, to, bytes);
        if (!status.ok()) std::memset(to, 0, bytes);
      }
      lane->unread[i].Clear();
    }
    any |= status.ok();
    if (!status.ok() && lane->part_statuses.empty()) lane->part_statuses.resize(lane->parts.size());
    if (!status.ok()) lane->part_statuses[i] = std::move(status);
  }
  lane->read_ns = NowNs() - start;
  if (!any) lane->status = lane->part_statuses.front();
  return any;
}

// A batch failed because of one request in it, perhaps: only the guilty shall fail.
void BatchRunner::RetryOneByOne(Lane* lane) {
  lane->part_statuses.resize(lane->parts.size());
  lane->part_outputs.resize(lane->parts.size());
  for (size_t i = 0; i < lane->parts.size(); ++i) {
    if (!lane->part_statuses[i].ok()) continue;  // its inputs could not be read
    const Lane::Part part = owner_->StillWanted(lane, i);
    if (!part.job) {
      lane->part_statuses[i] = lane->status;
      continue;
    }
    lane->retried = true;
    lane->part_statuses[i] = RunRows(lane, part.first_row, part.rows, false, &lane->part_outputs[i]);
  }
}

// Runs rows where they lie. Outputs go to the block, or to *shared where ORT allocates them; `divided`:
// they are several jobs'.
Status BatchRunner::RunRows(Lane* lane, uint32_t first_row, uint32_t rows, bool divided,
                            Ref<SharedOutputs>* shared) {
  const Bucket& bucket = *lane->bucket;
  const size_t inputs = bucket.inputs().size();
  const size_t outputs = bucket.outputs().size();
  lane->values.assign(inputs + outputs, nullptr);
  lane->names.clear();
  Status status;
  auto make = [&](const Bucket::Value& value, uint8_t* data, OrtValue** out) {
    int64_t dims[kMaxRank];
    std::copy(value.dims.begin(), value.dims.end(), dims);
    dims[0] = rows;
    if (!status.ok()) return;
    status = MakeTensor(context_.cpu_memory, value.dtype, dims, value.dims.size(), data,
                        value.row_bytes * rows, out);
  };
  for (size_t i = 0; i < inputs; ++i) {
    const Bucket::Value& value = bucket.inputs()[i];
    make(value, Bucket::InputAt(*lane->block, value, first_row), &lane->values[i]);
    lane->names.push_back(bucket.inputs()[i].name);
  }
  for (size_t i = 0; i < outputs; ++i) {
    const Bucket::Value& value = bucket.outputs()[i];
    if (bucket.has_outputs()) {
      make(value, Bucket::OutputAt(*lane->block, value, first_row), &lane->values[inputs + i]);
    }
    lane->names.push_back(bucket.outputs()[i].name);
  }
  auto run = [&] {
    return Call(lane, {lane->names.data(), lane->values.data(), inputs, lane->names.data() + inputs,
                       outputs, lane->values.data() + inputs, rows});
  };
  bool allocated = !bucket.has_outputs();
  if (status.ok()) {
    OrtStatus* failed = run();
    if (failed && !allocated && ort.GetErrorCode(failed) == kOrtInvalidArgument) {
      // The model may declare its outputs wrongly: then ORT allocates them.
      ort.ReleaseStatus(failed);
      for (size_t i = inputs; i < inputs + outputs; ++i) {
        ort.ReleaseValue(lane->values[i]);
        lane->values[i] = nullptr;
      }
      allocated = lane->predictions_dropped = true;
      failed = run();
    }
    status = RunStatus(failed);
  }
  for (size_t i = 0; i < inputs; ++i) {
    if (lane->values[i]) ort.ReleaseValue(lane->values[i]);
  }
  Ref<SharedOutputs> owned(new SharedOutputs);
  for (size_t i = inputs; i < inputs + outputs; ++i) owned->values.emplace_back(lane->values[i]);
  if (!status.ok() || !allocated) return status;
  // Each job's part is its rows: without as many rows as went in there are no parts.
  for (const OrtPtr<OrtValue>& value : owned->values) {
    DType dtype;
    int64_t dims[kMaxRank];
    size_t rank = 0;
    if (Status s = ReadTensorShape(value.get(), &dtype, dims, &rank); !s.ok()) return s;
    if (divided && (rank == 0 || dims[0] != rows)) {
      return Status::Run("an output of " + ShapeText(dims, rank) +
                         " cannot be divided among a batch of " + std::to_string(rows) + " rows");
    }
  }
  owned->divided = divided;
  *shared = std::move(owned);
  return {};
}

// Some rows of a job that is larger than a batch, from its memory into its memory.
Status BatchRunner::RunPart(Lane* lane, Job* job, uint32_t first_row, uint32_t rows) {
  const Bucket& bucket = *job->bucket;
  std::vector<OrtPtr<OrtValue>> owned;
  std::vector<OrtValue*> values;
  Status status;
  auto make = [&](const Bucket::Value& value, uint8_t* data) {
    std::vector<int64_t> dims = value.dims;
    dims[0] = rows;
    OrtValue* made = nullptr;
    if (status.ok()) {
      status = MakeTensor(context_.cpu_memory, value.dtype, dims.data(), dims.size(),
                          data + value.row_bytes * first_row, value.row_bytes * rows, &made);
    }
    owned.emplace_back(made);
    values.push_back(made);
  };
  lane->names.clear();
  for (size_t i = 0; i < bucket.inputs().size(); ++i) {
    make(bucket.inputs()[i], job->sources[i]);
    lane->names.push_back(bucket.inputs()[i].name);
  }
  for (size_t i = 0; i < bucket.outputs().size(); ++i) {
    make(bucket.outputs()[i], job->targets[i]);
    lane->names.push_back(bucket.outputs()[i].name);
  }
  if (!status.ok()) return status;
  const size_t inputs = bucket.inputs().size();
  OrtStatus* failed =
      Call(lane, {lane->names.data(), values.data(), inputs, lane->names.data() + inputs,
                  bucket.outputs().size(), values.data() + inputs, rows});
  if (!failed || ort.GetErrorCode(failed) != kOrtInvalidArgument) return RunStatus(failed);
  // The model may declare its outputs wrongly: then the parts do not fit together, and one lane runs
  // the whole, with memory of ORT's.
  ort.ReleaseStatus(failed);
  return owner_->TakeWhole(job) ? RunValues(lane, job) : Status();
}

namespace {

// False when there is none to drop.
bool DropPredictions(Job* job) {
  bool dropped = false;
  for (size_t i = 0; i < job->predicted.size(); ++i) {
    if (!job->predicted[i]) continue;
    ort.ReleaseValue(job->outputs[i]);
    job->outputs[i] = nullptr;
    job->predicted[i] = false;
    dropped = true;
  }
  job->predictions_dropped = dropped;
  return dropped;
}

}  // namespace

Status BatchRunner::RunValues(Lane* lane, Job* job) {
  auto run = [&] {
    if (job->bound) return job->bound->Run(lane->run_options.get());
    return Call(lane, {job->input_names.data(), job->inputs.data(), job->inputs.size(),
                       job->output_names.data(), job->output_names.size(), job->outputs.data()});
  };
  OrtStatus* failed = run();
  if (failed && ort.GetErrorCode(failed) == kOrtInvalidArgument && DropPredictions(job)) {
    ort.ReleaseStatus(failed);
    failed = run();
  }
  return RunStatus(failed);
}

}  // namespace tercel
