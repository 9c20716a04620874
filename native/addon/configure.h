// Reads a model's policy from the object that src/engine/policy.ts writes.
#pragma once

#include <napi.h>

#include "scheduler.h"

namespace tercel::addon {

SchedulerOptions ReadSchedulerOptions(const Napi::Object& object);

}  // namespace tercel::addon
