// Request: one call's inputs and outputs, read out of meta and the call's arguments.
#pragma once

#include <vector>

#include "model.h"
#include "values.h"

namespace tercel::addon {

// Reused between calls, so that a run allocates nothing.
struct Request {
  uint32_t flags = 0;
  std::vector<Argument> inputs;
  struct Output {
    uint32_t index = 0;
    bool given = false;
    Argument argument;          // when given; else filled in where the shape is known before the run
    napi_value made = nullptr;  // the typed array made for it
    bool predicted = false;
    bool in_scratch = false;
  };
  std::vector<Output> outputs;
};

// Reads a request and checks all of it against the model: after this, every argument's memory is as
// large as its shape says, and no input or output is there twice.
Status ReadRequest(napi_env env, const Meta& meta, const Model& model, napi_value* args,
                   size_t arg_count, Request* out);

}  // namespace tercel::addon
