// JS functions that carry a native object. A function is bound to its object for life, so a call needs
// no `this` and no unwrapping, and a function that was taken off its object still works.
#pragma once

#include <napi.h>

#include "base/ref.h"

namespace tercel::addon {

// Adds `object.name`, a function whose callback data is `self`. The function holds one reference.
template <typename T>
bool AddFunction(napi_env env, napi_value object, const char* name, napi_callback callback, T* self) {
  napi_value function = nullptr;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, self, &function) != napi_ok) {
    return false;
  }
  self->AddRef();
  auto drop = [](napi_env, void* data, void*) { static_cast<T*>(data)->DropRef(); };
  if (napi_add_finalizer(env, function, self, drop, nullptr, nullptr) != napi_ok) {
    self->DropRef();
    return false;
  }
  return napi_set_named_property(env, object, name, function) == napi_ok;
}

// Reads up to N arguments; those not given are undefined.
template <typename T, size_t N>
T* ReadCall(napi_env env, napi_callback_info info, napi_value (&args)[N], size_t* count = nullptr) {
  size_t argc = N;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &argc, args, nullptr, &data) != napi_ok) return nullptr;
  if (count) *count = argc;
  return static_cast<T*>(data);
}

inline uint32_t ReadUint32(napi_env env, napi_value value) {
  uint32_t number = 0;
  napi_get_value_uint32(env, value, &number);
  return number;
}

}  // namespace tercel::addon
