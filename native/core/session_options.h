// Turns ModelOptions into ONNX Runtime session options, and providers into appended providers.
#pragma once

#include <string>
#include <vector>

#include "model.h"

namespace tercel {

// `warnings` gets a line for each provider passed over because of `fallback`; `providers` the names of
// those that the session will use, in order.
Status MakeSessionOptions(OrtEnv* env, const ModelOptions& options, OrtPtr<OrtSessionOptions>* out,
                          std::vector<std::string>* providers, std::vector<std::string>* warnings);

}  // namespace tercel
