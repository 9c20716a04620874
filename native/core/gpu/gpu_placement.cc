#include "gpu/gpu_placement.h"

#include <algorithm>
#include <cstdlib>

namespace tercel {

namespace {

const std::string* Find(const ProviderOptions& provider, const std::string& key) {
  for (const auto& [name, value] : provider.options) {
    if (name == key) return &value;
  }
  return nullptr;
}

bool IsOn(const std::string* value) {
  return value && (*value == "1" || *value == "true" || *value == "True");
}

}  // namespace

Status PlaceOnGpu(int slots, SessionOptions* options, GpuPlacement* out) {
  std::string device_id;
  DeviceRunnerOptions runner_options;
  runner_options.slots = slots + 1;  // one for who runs on a thread of its own
  runner_options.on_stream = true;
  bool any = false;
  for (const ProviderOptions& provider : options->providers) {
    if (!UsesGpu({provider.name})) continue;
    const std::string* id = Find(provider, "device_id");
    // A plugin offers the GPUs as CUDA counts them.
    const std::string own = id ? *id : std::to_string(provider.device);
    if (any && own != device_id) {
      return Status::InvalidInput("providers of one model on two GPUs: device_id " + device_id +
                                  " and " + own);
    }
    device_id = own;
    any = true;
    // Whose stream it is knows what is on it.
    if (Find(provider, "user_compute_stream")) runner_options.on_stream = false;
    if (IsOn(Find(provider, "trt_cuda_graph_enable"))) {
      return Status::InvalidInput(
          "trt_cuda_graph_enable: TensorRT's provider replays its one graph whatever the shapes and "
          "addresses of a run are, so a server's results would be wrong; CUDA's provider has graphs by "
          "batch size (enable_cuda_graph)");
    }
    runner_options.graphs |= IsOn(Find(provider, "enable_cuda_graph"));
  }
  if (!any || slots <= 0) {
    if (runner_options.graphs) {
      return Status::InvalidInput(
          "enable_cuda_graph needs slots of our own (gpu.slots above 0): a "
          "graph reads and writes where it did when it was captured");
    }
    return {};
  }
  if (runner_options.graphs && !runner_options.on_stream) {
    return Status::InvalidInput("enable_cuda_graph and user_compute_stream exclude each other here");
  }
  char* end = nullptr;
  const long id = std::strtol(device_id.c_str(), &end, 10);
  if (device_id.empty() || *end != 0 || id < 0 || id > 0xffff) {
    return Status::InvalidInput("device_id: expected a whole number, got \"" + device_id + "\"");
  }
  Device* device = nullptr;
  out->needs_runner = runner_options.graphs;
  out->unopened = Device::Get(static_cast<int>(id), &device);
  if (out->unopened.ok()) out->unopened = DeviceRunner::Create(device, runner_options, &out->runner);
  if (!out->unopened.ok() || !runner_options.on_stream) return {};
  const std::string stream = std::to_string(reinterpret_cast<uintptr_t>(out->runner->stream()));
  for (ProviderOptions& provider : options->providers) {
    if (!UsesGpu({provider.name})) continue;
    // Both, and in one call: the CUDA provider reads the second only where the first is there. As a
    // plugin it knows the second only.
    const bool is_plugin = !provider.library.empty() || IsProvider(provider.name, "cudaplugin");
    if (!is_plugin) provider.options.emplace_back("has_user_compute_stream", "1");
    provider.options.emplace_back("user_compute_stream", stream);
  }
  return {};
}

}  // namespace tercel
