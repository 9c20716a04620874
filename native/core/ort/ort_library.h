// Finds and opens libonnxruntime, checks its version, and owns what it hands out.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "ort/ort_abi.h"

namespace tercel {

// Opens the library at `path` (never unloaded) and fills the table of calls. One library serves the
// whole process: a second Open with the same file succeeds, with another one it fails. Thread-safe.
// A file that is missing, not an ONNX Runtime, too old or broken gives kModel with one sentence.
Status OpenOrtLibrary(const std::string& path);

// The calls. REQUIRES: OpenOrtLibrary succeeded.
extern OrtCalls ort;

// Where the open library came from, and what it calls its version. Empty before the first Open.
const std::string& OrtLibraryPath();
const std::string& OrtLibraryVersion();

// Takes ownership of `status` and turns it into ours. Null is success.
Status ToStatus(OrtStatus* status, Code code);
Status ToStatus(OrtStatus* status, Code code, const char* context);
// The same for what a run returned: whether its inputs were to blame is for ORT to say.
Status RunStatus(OrtStatus* status);

struct OrtDeleter {
  void operator()(OrtSession* p) const { ort.ReleaseSession(p); }
  void operator()(OrtSessionOptions* p) const { ort.ReleaseSessionOptions(p); }
  void operator()(OrtRunOptions* p) const { ort.ReleaseRunOptions(p); }
  void operator()(OrtValue* p) const { ort.ReleaseValue(p); }
  void operator()(OrtMemoryInfo* p) const { ort.ReleaseMemoryInfo(p); }
  void operator()(OrtAllocator* p) const { ort.ReleaseAllocator(p); }
  void operator()(OrtIoBinding* p) const { ort.ReleaseIoBinding(p); }
  void operator()(OrtTypeInfo* p) const { ort.ReleaseTypeInfo(p); }
  void operator()(OrtTensorTypeAndShapeInfo* p) const { ort.ReleaseTensorTypeAndShapeInfo(p); }
  void operator()(OrtModelMetadata* p) const { ort.ReleaseModelMetadata(p); }
  void operator()(OrtCUDAProviderOptionsV2* p) const { ort.ReleaseCudaProviderOptions(p); }
  void operator()(OrtTensorRTProviderOptionsV2* p) const { ort.ReleaseTensorRtProviderOptions(p); }
};
template <typename T>
using OrtPtr = std::unique_ptr<T, OrtDeleter>;

// Reads a string that ORT allocated with its default allocator, and frees it.
std::string TakeOrtString(char* text);
OrtAllocator* DefaultOrtAllocator();

}  // namespace tercel
