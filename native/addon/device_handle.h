// DeviceHandle: a piece of a GPU's memory and the JS functions over it.
#pragma once

#include "env.h"
#include "gpu/device.h"

namespace tercel::addon {

// JS thread only.
class DeviceHandle : public RefCounted<DeviceHandle> {
 public:
  // {device, bytes, lease, readSync, writeSync, read, write}, or null with a pending exception.
  static napi_value Create(Ref<AddonEnv> addon, Ref<DeviceLease> lease, size_t bytes);
  // What `lease` of such an object stands for; null for anything else.
  static Ref<DeviceLease> LeaseOf(napi_env env, napi_value external);

 private:
  friend class RefCounted<DeviceHandle>;
  DeviceHandle(Ref<AddonEnv> addon, Ref<DeviceLease> lease, size_t bytes)
      : addon_(std::move(addon)), lease_(std::move(lease)), bytes_(bytes) {}
  ~DeviceHandle() = default;

  static napi_value ReadSync(napi_env env, napi_callback_info info);
  static napi_value WriteSync(napi_env env, napi_callback_info info);
  static napi_value Read(napi_env env, napi_callback_info info);
  static napi_value Write(napi_env env, napi_callback_info info);

  const Ref<AddonEnv> addon_;
  const Ref<DeviceLease> lease_;
  const size_t bytes_;
};

// What an engine of TensorRT is made for: {name, capability, driver, tensorRt}, or null with a pending
// exception where there is no such GPU.
napi_value DescribeGpu(AddonEnv* addon, int id);

// devices(): what the CUDA runtime and the driver say of the GPUs in use, and what Tercel did there.
napi_value DescribeDevices(napi_env env);

}  // namespace tercel::addon
