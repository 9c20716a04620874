#include "gpu/nvml.h"

#include <dlfcn.h>

#include "base/symbols.h"

namespace tercel {

namespace {

using NvmlDevice = void*;

struct NvmlMemory {
  unsigned long long total, free, used;
};

struct NvmlUtilization {
  unsigned gpu, memory;  // percent
};

// X(name, function, arguments). Each returns 0 for success.
// clang-format off
#define TERCEL_NVML_CALLS(X) \
  X(init, nvmlInit_v2, ()) \
  X(handle, nvmlDeviceGetHandleByPciBusId_v2, (const char* bus, NvmlDevice* device)) \
  X(name, nvmlDeviceGetName, (NvmlDevice device, char* text, unsigned length)) \
  X(driver, nvmlSystemGetDriverVersion, (char* text, unsigned length)) \
  X(memory, nvmlDeviceGetMemoryInfo, (NvmlDevice device, NvmlMemory* memory)) \
  X(utilization, nvmlDeviceGetUtilizationRates, (NvmlDevice device, NvmlUtilization* rates)) \
  X(power, nvmlDeviceGetPowerUsage, (NvmlDevice device, unsigned* milliwatts)) \
  X(temperature, nvmlDeviceGetTemperature, (NvmlDevice device, int sensor, unsigned* celsius))
// clang-format on

struct Nvml {
  Status opened;
#define TERCEL_DECLARE(name, function, arguments) int(*name) arguments = nullptr;
  TERCEL_NVML_CALLS(TERCEL_DECLARE)
#undef TERCEL_DECLARE
  const char* (*error_string)(int error) = nullptr;
};

Nvml Open() {
  Nvml nvml;
  void* handle = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* reason = dlerror();
    nvml.opened = Status::Model(reason ? reason : "libnvidia-ml.so.1 cannot be opened");
    return nvml;
  }
  Symbols symbols(handle);
#define TERCEL_FIND(name, function, arguments) symbols.Find(&nvml.name, #function);
  TERCEL_NVML_CALLS(TERCEL_FIND)
#undef TERCEL_FIND
  symbols.Find(&nvml.error_string, "nvmlErrorString");
  if (symbols.missing()) {
    nvml.opened = Status::Model(std::string("libnvidia-ml.so.1 has no ") + symbols.missing());
  } else if (int error = nvml.init()) {
    nvml.opened = Status::Model(std::string("NVML does not start: ") + nvml.error_string(error));
  }
  return nvml;
}

}  // namespace

Status ReadGpu(const std::string& pci_bus_id, GpuReading* out) {
  static const auto* nvml = new Nvml(Open());
  if (!nvml->opened.ok()) return nvml->opened;
  NvmlDevice device = nullptr;
  if (int error = nvml->handle(pci_bus_id.c_str(), &device)) {
    return Status::Run("NVML does not know the GPU at " + pci_bus_id + ": " +
                       nvml->error_string(error));
  }
  char text[128] = {};
  if (nvml->name(device, text, sizeof text) == 0) out->name = text;
  if (nvml->driver(text, sizeof text) == 0) out->driver = text;
  NvmlMemory memory{};
  if (nvml->memory(device, &memory) == 0) {
    out->total_bytes = memory.total;
    out->used_bytes = memory.used;
  }
  NvmlUtilization rates{};
  if (nvml->utilization(device, &rates) == 0) {
    out->utilization = rates.gpu / 100.0;
    out->memory_utilization = rates.memory / 100.0;
  }
  unsigned milliwatts = 0, celsius = 0;
  if (nvml->power(device, &milliwatts) == 0) out->watts = milliwatts / 1000.0;
  if (nvml->temperature(device, 0, &celsius) == 0) out->celsius = celsius;
  return {};
}

}  // namespace tercel
