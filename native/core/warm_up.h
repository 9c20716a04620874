// Warm-up: runs on made-up inputs before a model serves, so that its first requests find memory planned
// and kernels ready, and so that what a batch costs is known.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model.h"

namespace tercel {

// Inputs of one run.
struct WarmSample {
  struct Input {
    uint32_t index;  // in the model's inputs
    DType dtype;
    std::vector<int64_t> dims;
    std::vector<uint8_t> bytes;  // empty for strings, which are then empty too
  };
  std::vector<Input> inputs;
};

// Runs each sample at least once and up to `repeat` times while `budget_ns` lasts: on this thread, or
// on each lane where the model runs on a GPU. *best_ns gets each sample's shortest run. The error names
// the sample.
Status WarmUp(Model* model, const std::vector<WarmSample>& samples, int repeat, int64_t budget_ns,
              std::vector<int64_t>* best_ns);

// Whether the two rows of the sample give what each of them gives alone: batches of unrelated requests
// are right only then. A model may mix rows (a softmax over the batch, a scale taken from all rows).
// REQUIRES: every input of the sample is of numbers and has two rows.
Status RowsAreIndependent(Model* model, const WarmSample& two_rows, bool* independent);

}  // namespace tercel
