// Functions for src/measure/profile: where memory is, and what the machine can do at best.
#pragma once

#include <napi.h>

#include "env.h"

namespace tercel::addon {

// False with a pending exception.
bool AddProfileFunctions(napi_env env, napi_value exports, AddonEnv* self);

}  // namespace tercel::addon
