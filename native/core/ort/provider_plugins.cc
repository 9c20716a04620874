#include "ort/provider_plugins.h"

#include <mutex>
#include <set>

namespace tercel {

namespace {

std::mutex register_mutex;
std::set<std::string> registered;  // protected by register_mutex; paths

Status TooOld() {
  return Status::Model("plugin providers need ONNX Runtime 1.23 or newer, this is " +
                       OrtLibraryVersion());
}

std::vector<std::pair<std::string, std::string>> Read(const OrtKeyValuePairs* pairs) {
  std::vector<std::pair<std::string, std::string>> out;
  if (!pairs) return out;
  const char* const* keys = nullptr;
  const char* const* values = nullptr;
  size_t count = 0;
  ort.GetKeyValuePairs(pairs, &keys, &values, &count);
  for (size_t i = 0; i < count; ++i) out.emplace_back(keys[i], values[i]);
  return out;
}

}  // namespace

Status RegisterProviderLibrary(OrtEnv* env, const std::string& path) {
  // The calls are there from 1.22 on; what a plugin is settled with the next.
  if (!ort.SessionGetMemoryInfoForInputs) return TooOld();
  std::lock_guard<std::mutex> lock(register_mutex);
  if (registered.count(path)) return {};
  // Its name among the registered ones is the file's: there is one of each.
  Status status =
      ToStatus(ort.RegisterExecutionProviderLibrary(env, path.c_str(), path.c_str()), Code::kModel);
  if (!status.ok()) {
    return Status::Model("provider library \"" + path + "\" cannot be registered: " + status.message());
  }
  registered.insert(path);
  return {};
}

Status ProviderDevices(OrtEnv* env, const std::string& library, std::vector<ProviderDevice>* out) {
  out->clear();
  if (!ort.SessionGetMemoryInfoForInputs) return TooOld();
  // The list is the environment's, and another registration moves it.
  std::lock_guard<std::mutex> lock(register_mutex);
  const OrtEpDevice* const* devices = nullptr;
  size_t count = 0;
  Status status = ToStatus(ort.GetEpDevices(env, &devices, &count), Code::kModel);
  for (size_t i = 0; status.ok() && i < count; ++i) {
    ProviderDevice device;
    device.handle = devices[i];
    device.provider = ort.EpDeviceEpName(devices[i]);
    device.vendor = ort.EpDeviceEpVendor(devices[i]);
    device.metadata = Read(ort.EpDeviceEpMetadata(devices[i]));
    device.options = Read(ort.EpDeviceEpOptions(devices[i]));
    if (const OrtHardwareDevice* hardware = ort.EpDeviceDevice(devices[i])) {
      device.type = static_cast<ProviderDevice::Type>(ort.HardwareDeviceType(hardware));
      const char* vendor = ort.HardwareDeviceVendor(hardware);
      device.hardware_vendor = vendor ? vendor : "";
      device.vendor_id = ort.HardwareDeviceVendorId(hardware);
      device.device_id = ort.HardwareDeviceDeviceId(hardware);
    }
    bool is_wanted = library.empty();
    for (const auto& [key, value] : device.metadata) {
      is_wanted |= key == "library_path" && value == library;
    }
    if (is_wanted) out->push_back(std::move(device));
  }
  return status;
}

}  // namespace tercel
