// Turns ModelOptions into ONNX Runtime session options, and providers into appended providers.
#pragma once

#include <string>
#include <vector>

#include "model.h"

namespace tercel {

// Whether `name` is that of a provider whose short name in small letters is `which`: "CUDA" and
// "CUDAExecutionProvider" are "cuda".
bool IsProvider(const std::string& name, const std::string& which);

// Whether one of these providers computes on a GPU of CUDA's.
bool UsesGpu(const std::vector<std::string>& providers);

// `warnings` gets a line for each provider passed over because of `fallback`; `providers` the names of
// those that the session will use, in order.
Status MakeSessionOptions(OrtEnv* env, const ModelOptions& options, OrtPtr<OrtSessionOptions>* out,
                          std::vector<std::string>* providers, std::vector<std::string>* warnings);

}  // namespace tercel
