#include "ort/session_options.h"

#include <algorithm>
#include <cctype>

#include "ort/provider_plugins.h"

namespace tercel {

namespace {

constexpr const char* kUseEnvAllocators = "session.use_env_allocators";

struct CStrings {
  std::vector<const char*> keys;
  std::vector<const char*> values;
  explicit CStrings(const StringPairs& pairs) {
    for (const auto& [key, value] : pairs) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
  }
};

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

bool IsProvider(const std::string& name, const std::string& which) {
  const std::string lower = Lower(name);
  return lower == which || lower == which + "executionprovider";
}

namespace {

Status AppendCuda(OrtSessionOptions* session, const ProviderOptions& provider) {
  OrtCUDAProviderOptionsV2* raw = nullptr;
  if (Status s = ToStatus(ort.CreateCudaProviderOptions(&raw), Code::kModel); !s.ok()) return s;
  OrtPtr<OrtCUDAProviderOptionsV2> options(raw);
  const CStrings pairs(provider.options);
  if (!pairs.keys.empty()) {
    Status s = ToStatus(
        ort.UpdateCudaProviderOptions(raw, pairs.keys.data(), pairs.values.data(), pairs.keys.size()),
        Code::kModel);
    if (!s.ok()) return s;
  }
  return ToStatus(ort.AppendExecutionProviderCuda(session, raw), Code::kModel);
}

Status AppendTensorRt(OrtSessionOptions* session, const ProviderOptions& provider) {
  OrtTensorRTProviderOptionsV2* raw = nullptr;
  if (Status s = ToStatus(ort.CreateTensorRtProviderOptions(&raw), Code::kModel); !s.ok()) return s;
  OrtPtr<OrtTensorRTProviderOptionsV2> options(raw);
  const CStrings pairs(provider.options);
  if (!pairs.keys.empty()) {
    Status s = ToStatus(ort.UpdateTensorRtProviderOptions(raw, pairs.keys.data(), pairs.values.data(),
                                                          pairs.keys.size()),
                        Code::kModel);
    if (!s.ok()) return s;
  }
  return ToStatus(ort.AppendExecutionProviderTensorRt(session, raw), Code::kModel);
}

// Finds "cuda", "CUDA" or "CUDAExecutionProvider" among the library's names.
const std::string* FindProvider(const std::vector<std::string>& available, const std::string& name) {
  for (const std::string& candidate : available) {
    if (IsProvider(candidate, Lower(name))) return &candidate;
  }
  return nullptr;
}

// Appends what a plugin offers under the provider's name. *found: whether one does.
Status AppendPlugin(OrtSessionOptions* session, OrtEnv* env, const ProviderOptions& provider,
                    bool* found) {
  *found = false;
  std::vector<ProviderDevice> devices, named;
  if (!provider.library.empty()) {
    if (Status s = RegisterProviderLibrary(env, provider.library); !s.ok()) return s;
  }
  // A library that knows no plugins has none.
  if (!ProviderDevices(env, provider.library, &devices).ok()) return {};
  std::vector<std::string> names;
  for (const ProviderDevice& device : devices) names.push_back(device.provider);
  const std::string* name = FindProvider(names, provider.name);
  if (!name) {
    if (provider.library.empty()) return {};
    std::string offered;
    for (const std::string& other : names) offered += (offered.empty() ? "" : ", ") + other;
    return Status::Model("\"" + provider.library + "\" offers " +
                         (offered.empty() ? "no device here" : "devices of " + offered));
  }
  *found = true;
  for (ProviderDevice& device : devices) {
    if (device.provider == *name) named.push_back(std::move(device));
  }
  if (provider.device >= named.size()) {
    return Status::Model("it offers " + std::to_string(named.size()) +
                         " devices, counted from 0: there is no " + std::to_string(provider.device));
  }
  const CStrings pairs(provider.options);
  const OrtEpDevice* const chosen[] = {named[provider.device].handle};
  return ToStatus(ort.AppendExecutionProviderV2(session, env, chosen, 1, pairs.keys.data(),
                                                pairs.values.data(), pairs.keys.size()),
                  Code::kModel);
}

Status AppendProvider(OrtSessionOptions* session, OrtEnv* env,
                      const std::vector<std::string>& available, const ProviderOptions& provider) {
  const std::string* full = FindProvider(available, provider.name);
  bool is_plugin = false;
  Status status;
  // A plugin that was named by its file goes before one of the library's of the same name.
  if (!full || !provider.library.empty()) status = AppendPlugin(session, env, provider, &is_plugin);
  if (!status.ok() || is_plugin) {
    // It has said it.
  } else if (!full) {
    std::string known;
    for (const std::string& name : available) known += (known.empty() ? "" : ", ") + name;
    status = Status::Model("this ONNX Runtime library was built without it; it knows " + known);
  } else if (*full == "CUDAExecutionProvider") {
    status = AppendCuda(session, provider);
  } else if (*full == "TensorrtExecutionProvider") {
    status = AppendTensorRt(session, provider);
  } else {
    const CStrings pairs(provider.options);
    auto append = [&](const std::string& name) {
      return ToStatus(ort.AppendExecutionProvider(session, name.c_str(), pairs.keys.data(),
                                                  pairs.values.data(), pairs.keys.size()),
                      Code::kModel);
    };
    status = append(*full);
    // Older libraries know short names only, which are not all the long ones' beginnings.
    if (status.message().find("Unknown provider name") != std::string::npos) {
      status = append(full->substr(0, full->find("ExecutionProvider")));
    }
  }
  if (status.ok()) return status;
  return Status::Model("provider \"" + provider.name + "\" cannot be loaded: " + status.message() +
                       "; `tercel doctor` says what is missing");
}

}  // namespace

bool UsesGpu(const std::vector<std::string>& providers) {
  // CUDA's provider as a plugin has a name of its own in some of its builds.
  return std::any_of(providers.begin(), providers.end(), [](const std::string& name) {
    return IsProvider(name, "cuda") || IsProvider(name, "cudaplugin") || IsProvider(name, "tensorrt");
  });
}

Status AvailableProviders(std::vector<std::string>* out) {
  char** names = nullptr;
  int count = 0;
  if (Status s = ToStatus(ort.GetAvailableProviders(&names, &count), Code::kModel); !s.ok()) return s;
  out->assign(names, names + count);
  return ToStatus(ort.ReleaseAvailableProviders(names, count), Code::kModel);
}

Status MakeSessionOptions(OrtEnv* env, const SessionOptions& options, OrtPtr<OrtSessionOptions>* out,
                          std::vector<std::string>* providers, std::vector<std::string>* warnings) {
  OrtSessionOptions* raw = nullptr;
  if (Status s = ToStatus(ort.CreateSessionOptions(&raw), Code::kModel); !s.ok()) return s;
  out->reset(raw);
  Status failed;
  auto set = [&](OrtStatus* status, const std::string& what) {
    Status s = ToStatus(status, Code::kModel, what.c_str());
    if (failed.ok()) failed = std::move(s);
  };
  auto config = [&](const char* key, const std::string& value) {
    set(ort.AddSessionConfigEntry(raw, key, value.c_str()), std::string("config entry ") + key);
  };

  set(ort.SetIntraOpNumThreads(raw, options.intra_op_threads), "intraOpThreads");
  set(ort.SetInterOpNumThreads(raw, options.inter_op_threads), "interOpThreads");
  set(ort.SetSessionExecutionMode(raw, options.parallel ? 1 : 0), "executionMode");
  set(ort.SetSessionGraphOptimizationLevel(raw, options.graph_level), "graphLevel");
  set(ort.SetSessionLogSeverityLevel(raw, options.log_level), "logLevel");
  set(options.memory_pattern ? ort.EnableMemPattern(raw) : ort.DisableMemPattern(raw), "memoryPattern");
  if (options.deterministic) set(ort.SetDeterministicCompute(raw, true), "deterministic");
  config("session.intra_op.allow_spinning", options.spinning ? "1" : "0");
  config("session.inter_op.allow_spinning", options.spinning ? "1" : "0");
  if (!options.affinity.empty()) config("session.intra_op_thread_affinities", options.affinity);
  for (const auto& [name, value] : options.free_dimensions) {
    set(ort.AddFreeDimensionOverrideByName(raw, name.c_str(), value), "freeDimensions." + name);
  }
  for (const auto& [key, value] : options.config) config(key.c_str(), value);
  if (!options.optimized_path.empty()) {
    set(ort.SetOptimizedModelFilePath(raw, options.optimized_path.c_str()), "optimizedModelPath");
  }
  if (!options.profile_prefix.empty()) {
    set(ort.EnableProfiling(raw, options.profile_prefix.c_str()), "profilePrefix");
  }
  for (const std::string& library : options.custom_op_libraries) {
    set(ort.RegisterCustomOpsLibrary(raw, library.c_str()), "custom operators \"" + library + "\"");
  }
  if (!failed.ok()) return failed;

  std::vector<std::string> available;
  if (Status s = AvailableProviders(&available); !s.ok()) return s;
  for (const ProviderOptions& provider : options.providers) {
    // The CPU provider is always there, last; naming it ends the list.
    if (IsProvider(provider.name, "cpu")) break;
    Status status = AppendProvider(raw, env, available, provider);
    if (status.ok()) {
      providers->push_back(provider.name);
    } else if (options.fallback) {
      warnings->push_back(status.message());
    } else {
      return status;
    }
  }
  providers->push_back("cpu");

  SessionOptions::Memory memory = options.memory;
  // ONNX Runtime copies from its CPU tensors to a GPU without waiting, and lets them go: from pageable
  // memory CUDA has read them by then, but our arena is pinned.
  const bool is_copied_from = UsesGpu(*providers) || options.is_copied_from;
  if (is_copied_from && memory == SessionOptions::Memory::kTercel)
    memory = SessionOptions::Memory::kOrtArena;
  const bool has_arena = memory == SessionOptions::Memory::kOrtArena;
  set(has_arena ? ort.EnableCpuMemArena(raw) : ort.DisableCpuMemArena(raw), "memory");
  const bool is_given = std::any_of(options.config.begin(), options.config.end(),
                                    [](const auto& entry) { return entry.first == kUseEnvAllocators; });
  if (memory == SessionOptions::Memory::kTercel && !is_given) config(kUseEnvAllocators, "1");
  return failed;
}

}  // namespace tercel
