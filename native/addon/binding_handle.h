// BindingHandle: a Binding and the JS functions over it.
#pragma once

#include "binding.h"
#include "env.h"
#include "model_handle.h"

namespace tercel::addon {

// JS thread only.
class BindingHandle : public RefCounted<BindingHandle> {
 public:
  // `inputs` and `outputs` are arrays of shapes (arrays of numbers) or undefined, in the model's order.
  // The JS object with the binding's functions, or null with a pending exception.
  static napi_value Create(Ref<ModelHandle> model, napi_value inputs, napi_value outputs);

  // Ends a run on a lane.
  void EndRun();
  // Takes no more runs; a run under way is cancelled and keeps the memory until it is over.
  void CloseNow();

 private:
  friend class RefCounted<BindingHandle>;
  explicit BindingHandle(Ref<ModelHandle> model) : model_(std::move(model)) {}
  ~BindingHandle();

  static napi_value RunSync(napi_env env, napi_callback_info info);
  static napi_value Run(napi_env env, napi_callback_info info);
  static napi_value SetStrings(napi_env env, napi_callback_info info);
  static napi_value GetStrings(napi_env env, napi_callback_info info);
  static napi_value Close(napi_env env, napi_callback_info info);

  // Closed, or running on a lane.
  Status Unusable() const;
  napi_value RunHere();

  const Ref<ModelHandle> model_;
  Ref<Binding> binding_;  // null when closed
  bool running_ = false;
  uint32_t slot_ = 0;  // while running
};

}  // namespace tercel::addon
