// Functions for src/measure/: loads on servers, and the bare library to compare with.
#pragma once

#include <napi.h>

#include "env.h"

namespace tercel::addon {

// False with a pending exception.
bool AddMeasureFunctions(napi_env env, napi_value exports, AddonEnv* self);

}  // namespace tercel::addon
