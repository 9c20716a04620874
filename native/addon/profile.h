// Functions for src/measure/profile: where memory is, and what the machine can do at best.
#pragma once

#include <napi.h>

#include "env.h"

namespace tercel::addon {

// The environment ends: its log, if it has one, ends with it.
void StopAllocationLogOf(AddonEnv* env);

// False with a pending exception.
bool AddProfileFunctions(napi_env env, napi_value exports, AddonEnv* self);

}  // namespace tercel::addon
