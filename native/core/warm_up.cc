#include "warm_up.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/clock.h"
#include "ort/value.h"
#include "runtime.h"
#include "sched/throttle.h"

namespace tercel {

namespace {

// The inputs as values, and where their memory is.
struct Feeds {
  std::vector<const char*> names;
  std::vector<OrtPtr<OrtValue>> owned;
  std::vector<const OrtValue*> values;
  std::vector<Ref<Lease>> leases;
};

// Row `row` of each input, or all rows when it is below 0.
Status MakeFeeds(Model* model, const WarmSample& sample, int64_t row, Feeds* feeds) {
  Runtime* runtime = model->runtime();
  for (const WarmSample::Input& input : sample.inputs) {
    std::vector<int64_t> dims = input.dims;
    const uint8_t* from = input.bytes.data();
    size_t bytes = input.bytes.size();
    if (row >= 0) {
      bytes /= static_cast<size_t>(dims[0]);
      from += bytes * static_cast<size_t>(row);
      dims[0] = 1;
    }
    OrtValue* value = nullptr;
    Status status;
    if (input.dtype == DType::kString) {
      size_t count = 0;
      (void)CountElements(dims.data(), dims.size(), &count);
      status = MakeStringTensor(std::vector<std::string>(count), dims.data(), dims.size(), &value);
    } else {
      Ref<Lease> lease = Lease::Take(runtime->arena(), bytes);
      if (!lease) return Status::Overload("no memory for " + std::to_string(bytes) + " bytes of input");
      if (bytes) std::memcpy(lease->data(), from, bytes);
      status = MakeTensor(runtime, input.dtype, dims.data(), dims.size(), lease->data(), bytes, &value);
      feeds->leases.push_back(std::move(lease));
    }
    if (!status.ok()) return status;
    feeds->owned.emplace_back(value);
    feeds->values.push_back(value);
    feeds->names.push_back(model->inputs()[input.index].name.c_str());
  }
  return {};
}

// Memory for the outputs as the model declares them; a null value where that does not say it.
Status MakeTargets(Model* model, const WarmSample& sample, Feeds* targets) {
  Runtime* runtime = model->runtime();
  for (size_t i = 0; i < model->outputs().size(); ++i) {
    const ValueInfo& info = model->outputs()[i];
    const ShapePlan& plan = model->output_plans()[i];
    auto dims_of = [&](uint32_t index) -> const int64_t* {
      for (const WarmSample::Input& input : sample.inputs) {
        if (input.index == index) return input.dims.data();
      }
      return nullptr;
    };
    OrtValue* value = nullptr;
    int64_t dims[kMaxRank];
    size_t bytes = 0;
    if (plan.known() && model->trusts_plans() && DTypeBytes(info.type.dtype) > 0 &&
        plan.Fill(dims_of, dims) && CountBytes(info.type.dtype, dims, plan.rank(), &bytes)) {
      if (Ref<Lease> lease = Lease::Take(runtime->arena(), bytes)) {
        Status status =
            MakeTensor(runtime, info.type.dtype, dims, plan.rank(), lease->data(), bytes, &value);
        if (!status.ok()) return status;
        targets->leases.push_back(std::move(lease));
      }
    }
    targets->owned.emplace_back(value);
  }
  return {};
}

// Runs; *results gets what `targets` has, or what ONNX Runtime allocated. `rows`: see RunCall.
Status RunFeeds(Model* model, const Feeds& feeds, Feeds* targets, uint32_t rows,
                std::vector<OrtPtr<OrtValue>>* results) {
  std::vector<const char*> names;
  for (const ValueInfo& info : model->outputs()) names.push_back(info.name.c_str());
  std::vector<OrtValue*> values(names.size(), nullptr);
  if (targets) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = targets->owned[i].get();
  }
  auto run = [&] {
    return model->Run(nullptr, {feeds.names.data(), feeds.values.data(), feeds.values.size(),
                                names.data(), names.size(), values.data(), rows});
  };
  OrtStatus* failed = run();
  if (failed && targets && ort.GetErrorCode(failed) == kOrtInvalidArgument) {
    // The model may declare its outputs wrongly: then ONNX Runtime allocates them.
    ort.ReleaseStatus(failed);
    std::fill(values.begin(), values.end(), nullptr);
    for (auto& owned : targets->owned) owned.reset();
    failed = run();
    if (!failed) model->DistrustPlans();
  }
  const Status status = ToStatus(failed, Code::kRun);
  results->clear();
  for (size_t i = 0; i < values.size(); ++i) {
    const bool is_ours = targets && values[i] && values[i] == targets->owned[i].get();
    results->emplace_back(is_ours ? nullptr : values[i]);
  }
  return status;
}

// The rows of a sample that may be filled up, as those of a batch; else 0.
uint32_t RowsOf(Model* model, const WarmSample& sample, const Feeds& targets) {
  std::vector<Bucket::Shape> shapes;
  std::vector<uint32_t> outputs;
  int64_t rows = 0;
  for (const WarmSample::Input& input : sample.inputs) {
    if (input.dims.empty() || (rows && input.dims[0] != rows)) return 0;
    rows = input.dims[0];
    shapes.push_back({input.index, input.dtype, input.dims.data(), input.dims.size()});
  }
  for (uint32_t i = 0; i < model->outputs().size(); ++i) outputs.push_back(i);
  for (const auto& target : targets.owned) {
    if (!target) return 0;
  }
  const bool has_rows = rows > 0 && model->BucketFor(shapes, outputs);
  return has_rows ? static_cast<uint32_t>(rows) : 0;
}

std::string Describe(Model* model, const WarmSample& sample) {
  std::string text;
  for (const WarmSample::Input& input : sample.inputs) {
    text += (text.empty() ? "" : ", ") + model->inputs()[input.index].name + " " +
            DTypeName(input.dtype) + ShapeText(input.dims.data(), input.dims.size());
  }
  return text;
}

// As far as two floats may be apart that were summed in another order.
bool Near(double a, double b, double relative) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= relative * (0.1 + std::abs(b));
}

double FromHalf(uint16_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return exponent ? sign * std::ldexp(1024 + fraction, exponent - 25)
                  : sign * std::ldexp(fraction, -24);
}

bool SameElements(DType dtype, const uint8_t* a, const uint8_t* b, size_t bytes) {
  if (dtype == DType::kFloat32) {
    for (size_t i = 0; i < bytes; i += 4) {
      float x, y;
      std::memcpy(&x, a + i, 4);
      std::memcpy(&y, b + i, 4);
      if (!Near(x, y, 1e-3)) return false;
    }
    return true;
  }
  if (dtype == DType::kFloat64) {
    for (size_t i = 0; i < bytes; i += 8) {
      double x, y;
      std::memcpy(&x, a + i, 8);
      std::memcpy(&y, b + i, 8);
      if (!Near(x, y, 1e-6)) return false;
    }
    return true;
  }
  if (dtype == DType::kFloat16) {
    for (size_t i = 0; i < bytes; i += 2) {
      uint16_t x, y;
      std::memcpy(&x, a + i, 2);
      std::memcpy(&y, b + i, 2);
      if (!Near(FromHalf(x), FromHalf(y), 2e-2)) return false;
    }
    return true;
  }
  if (dtype == DType::kBFloat16) {
    for (size_t i = 0; i < bytes; i += 2) {
      uint32_t x = 0, y = 0;
      std::memcpy(reinterpret_cast<uint8_t*>(&x) + 2, a + i, 2);
      std::memcpy(reinterpret_cast<uint8_t*>(&y) + 2, b + i, 2);
      float p, q;
      std::memcpy(&p, &x, 4);
      std::memcpy(&q, &y, 4);
      if (!Near(p, q, 5e-2)) return false;
    }
    return true;
  }
  return std::memcmp(a, b, bytes) == 0;
}

}  // namespace

namespace {

Status WarmHere(Model* model, const std::vector<WarmSample>& samples, int repeat, int64_t budget_ns,
                std::vector<int64_t>* best_ns) {
  const int64_t end = NowNs() + budget_ns;
  for (const WarmSample& sample : samples) {
    Feeds feeds, targets;
    Status status = MakeFeeds(model, sample, -1, &feeds);
    uint32_t rows = 0;
    // On a GPU what is copied back counts, and a graph wants memory to write to.
    if (status.ok() && model->device()) {
      status = MakeTargets(model, sample, &targets);
      if (status.ok()) rows = RowsOf(model, sample, targets);
    }
    int64_t best = INT64_MAX;
    for (int i = 0; status.ok() && i < repeat && (i == 0 || NowNs() < end); ++i) {
      std::vector<OrtPtr<OrtValue>> results;
      const Throttle::Uninterrupted uninterrupted;
      const int64_t start = NowNs(), paused = Throttle::PausedNs();
      status = RunFeeds(model, feeds, model->device() ? &targets : nullptr, rows, &results);
      best = std::min(best, NowNs() - start - (Throttle::PausedNs() - paused));
    }
    if (!status.ok()) {
      return {status.code(), "warm-up with " + Describe(model, sample) + ": " + status.message()};
    }
    best_ns->push_back(best);
  }
  return {};
}

}  // namespace

Status WarmUp(Model* model, const std::vector<WarmSample>& samples, int repeat, int64_t budget_ns,
              std::vector<int64_t>* best_ns) {
  if (!model->device()) return WarmHere(model, samples, repeat, budget_ns, best_ns);
  // What a GPU's slots and graphs need is kept by thread: each lane makes its own.
  return model->scheduler().OnEachLane([&] {
    best_ns->clear();
    return WarmHere(model, samples, repeat, budget_ns, best_ns);
  });
}

Status RowsAreIndependent(Model* model, const WarmSample& two_rows, bool* independent) {
  *independent = false;
  std::vector<OrtPtr<OrtValue>> together, alone;
  Feeds both;
  if (Status s = MakeFeeds(model, two_rows, -1, &both); !s.ok()) return s;
  if (Status s = RunFeeds(model, both, nullptr, 0, &together); !s.ok()) return s;
  for (int64_t row = 0; row < 2; ++row) {
    Feeds one;
    if (Status s = MakeFeeds(model, two_rows, row, &one); !s.ok()) return s;
    if (Status s = RunFeeds(model, one, nullptr, 0, &alone); !s.ok()) return s;
    for (size_t i = 0; i < together.size(); ++i) {
      DType dtype, single_dtype;
      int64_t dims[kMaxRank], single_dims[kMaxRank];
      size_t rank = 0, single_rank = 0, bytes = 0, single_bytes = 0;
      if (Status s = ReadTensorShape(together[i].get(), &dtype, dims, &rank); !s.ok()) return s;
      if (Status s = ReadTensorShape(alone[i].get(), &single_dtype, single_dims, &single_rank);
          !s.ok()) {
        return s;
      }
      if (rank == 0 || single_rank != rank || dims[0] != 2 || single_dims[0] != 1) return {};
      if (!CountBytes(dtype, dims, rank, &bytes) ||
          !CountBytes(dtype, single_dims, rank, &single_bytes) || bytes != 2 * single_bytes ||
          DTypeBytes(dtype) == 0) {
        return {};
      }
      void *a = nullptr, *b = nullptr;
      if (Status s = ToStatus(ort.GetTensorMutableData(together[i].get(), &a), Code::kRun); !s.ok()) {
        return s;
      }
      if (Status s = ToStatus(ort.GetTensorMutableData(alone[i].get(), &b), Code::kRun); !s.ok()) {
        return s;
      }
      const auto* row_of_both =
          static_cast<const uint8_t*>(a) + single_bytes * static_cast<size_t>(row);
      if (!SameElements(dtype, row_of_both, static_cast<const uint8_t*>(b), single_bytes)) return {};
    }
  }
  *independent = true;
  return {};
}

}  // namespace tercel
