// The options of a session (threads, memory, providers), and ONNX Runtime's own made of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ort/ort_library.h"

namespace tercel {

using StringPairs = std::vector<std::pair<std::string, std::string>>;

struct ProviderOptions {
  std::string name;  // "cpu", "cuda", "tensorrt", or a name that the library or a plugin knows
  StringPairs options;
  // Of a plugin: its library (an absolute path; empty where it is registered already), and which of the
  // devices that it offers under the name.
  std::string library;
  size_t device = 0;
};

// Options that ONNX Runtime knows; see ModelOptions for the others.
struct SessionOptions {
  int intra_op_threads = 1;
  int inter_op_threads = 1;  // used when parallel
  bool parallel = false;     // execution mode
  bool spinning = false;     // of ORT's own intra-op workers between runs
  int graph_level = 99;      // 0, 1, 2, 3, 99
  bool deterministic = false;
  bool memory_pattern = true;
  // Where the session's CPU memory comes from.
  enum class Memory { kTercel, kOrtArena, kMalloc } memory = Memory::kTercel;
  std::string affinity;  // session.intra_op_thread_affinities
  std::vector<std::pair<std::string, int64_t>> free_dimensions;
  StringPairs config;  // any session config entry; wins over what the options above set
  std::vector<ProviderOptions> providers;
  bool fallback = false;  // a provider that cannot be loaded is a warning
  std::string optimized_path;
  std::string profile_prefix;
  std::vector<std::string> custom_op_libraries;
  int log_level = 4;
  // A device copies from the session's CPU tensors, and does not wait: see MakeSessionOptions.
  bool is_copied_from = false;
};

// Names of the execution providers that the open library was built with.
Status AvailableProviders(std::vector<std::string>* out);

// Whether `name` is that of a provider whose short name in small letters is `which`: "CUDA" and
// "CUDAExecutionProvider" are "cuda".
bool IsProvider(const std::string& name, const std::string& which);

// Whether one of these providers computes on a GPU of CUDA's.
bool UsesGpu(const std::vector<std::string>& providers);

// `warnings` gets a line for each provider passed over because of `fallback`; `providers` the names of
// those that the session will use, in order.
Status MakeSessionOptions(OrtEnv* env, const SessionOptions& options, OrtPtr<OrtSessionOptions>* out,
                          std::vector<std::string>* providers, std::vector<std::string>* warnings);

}  // namespace tercel
