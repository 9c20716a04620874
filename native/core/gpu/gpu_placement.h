// Before a session is made: where its options say "cuda" or "tensorrt", the GPU is opened and the
// session is told to compute on a stream of ours.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gpu/device_runner.h"
#include "model.h"

namespace tercel {

struct GpuPlacement {
  // Null where no such provider is named, where `gpu.slots` is 0, and where the CUDA runtime cannot be
  // opened: then ONNX Runtime copies inputs and outputs by itself, if the provider loads at all.
  std::unique_ptr<DeviceRunner> runner;
  Status unopened;            // why it could not
  bool needs_runner = false;  // what the options ask for does not go without
};

// Writes into the providers' options what the runner needs of the session. kInvalidInput for options
// that contradict each other.
Status PlaceOnGpu(ModelOptions* options, GpuPlacement* out);

}  // namespace tercel
