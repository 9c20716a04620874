// Execution providers that come as libraries of their own and are registered with the environment
// ("plugin providers", ONNX Runtime 1.23 and newer), and the devices that they offer.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "ort/ort_library.h"

namespace tercel {

// A device as one provider offers it.
struct ProviderDevice {
  std::string provider;  // the provider's name
  std::string vendor;    // of the provider
  enum class Type : int { kCpu = 0, kGpu = 1, kNpu = 2 } type = Type::kCpu;
  std::string hardware_vendor;
  uint32_t vendor_id = 0;  // PCI's
  uint32_t device_id = 0;  // the vendor's number for the product
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<std::pair<std::string, std::string>> options;  // the provider's defaults
  const OrtEpDevice* handle = nullptr;                       // the environment's
};

// Registers the library at `path`, which must be absolute, once for the process: it is never let go, as
// ONNX Runtime does not look whether sessions still use it. kModel saying what is wrong with it.
// Thread-safe.
Status RegisterProviderLibrary(OrtEnv* env, const std::string& path);

// What the environment's providers offer: those that were registered, and the CPU's. With `library`,
// only those of that file.
Status ProviderDevices(OrtEnv* env, const std::string& library, std::vector<ProviderDevice>* out);

}  // namespace tercel
