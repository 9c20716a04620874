// The functions of json_tensor.h for JavaScript.
#pragma once

#include <napi.h>

#include "env.h"

namespace tercel::addon {

// Adds carveJson, parseJson, jsonBound and printJson. False when the engine refuses.
bool AddJsonFunctions(napi_env env, napi_value exports, AddonEnv* self);

}  // namespace tercel::addon
