// Reads a model's options and policy from the objects that src/engine/ writes.
#pragma once

#include <napi.h>

#include "model.h"

namespace tercel::addon {

SchedulerOptions ReadSchedulerOptions(const Napi::Object& object);
// All of what src/catalog/loader.ts writes.
ModelOptions ReadModelOptions(const Napi::Object& object);

}  // namespace tercel::addon
