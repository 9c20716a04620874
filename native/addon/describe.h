// Metadata and statistics as JS objects. Nothing here is on the path of a tensor.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include "model.h"
#include "ort/tensor.h"

namespace tercel::addon {

// {name, dtype, shape}
napi_value DescribeTensor(napi_env env, const std::string& name, DType dtype,
                          const std::vector<int64_t>& dims);
// {inputs, outputs, metadata, providers, warnings}
napi_value DescribeModel(napi_env env, const Model& model);
napi_value DescribeModelStats(napi_env env, Model& model);
// {library, arena, leases, copies, models}
napi_value DescribeRuntime(napi_env env);

}  // namespace tercel::addon
