// Before a session is made: where its options say "cuda" or "tensorrt", the GPU is opened and the
// session is told to compute on a stream of ours.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gpu/device_runner.h"
#include "ort/session_options.h"

namespace tercel {

// For "cuda" and "tensorrt" among the providers.
struct GpuOptions {
  int slots = 2;  // runs in flight, and lanes unless they are given; 0 leaves copies to ONNX Runtime
  bool lanes_given = false;
  // For tests: a session of the CPU's that is run as if it were on GPU 0.
  std::optional<DeviceRunnerOptions> stand_in;
};

struct GpuPlacement {
  // Null where no such provider is named, where `slots` is 0, and where the CUDA runtime cannot be
  // opened: then ONNX Runtime copies inputs and outputs by itself, if the provider loads at all.
  std::unique_ptr<DeviceRunner> runner;
  Status unopened;            // why it could not
  bool needs_runner = false;  // what the options ask for does not go without
};

// Writes into the providers' options what the runner needs of the session. kInvalidInput for options
// that contradict each other.
Status PlaceOnGpu(int slots, SessionOptions* options, GpuPlacement* out);

}  // namespace tercel
