// Graph: what a loaded model file says of itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ort/ort_library.h"
#include "ort/session_options.h"
#include "ort/tensor.h"

namespace tercel {

struct Graph {
  std::vector<ValueInfo> inputs;
  std::vector<ValueInfo> outputs;
  std::vector<ShapePlan> output_plans;  // in the order of the outputs
  std::string producer;
  std::string name;
  std::string description;
  int64_t version = 0;
  StringPairs custom_metadata;
};

Status ReadGraph(OrtSession* session, Graph* out);

}  // namespace tercel
