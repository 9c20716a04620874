#include "gpu/cuda_runtime.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

#include "base/symbols.h"

namespace tercel {

namespace {

std::mutex open_mutex;
std::atomic<const CudaRuntime*> the_runtime{nullptr};

}  // namespace

const CudaRuntime* TheCudaRuntime() { return the_runtime.load(std::memory_order_acquire); }

namespace {

// Opens one library and asks it; why it is of no use, or nothing.
std::string Try(const std::string& path, CudaRuntime* out) {
  out->path = path;
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char* reason = dlerror();
    return reason ? reason : path + " cannot be opened";
  }
  Symbols symbols(handle);
#define TERCEL_FIND(name, function, arguments) symbols.Find(&out->name, #function);
  TERCEL_CUDA_CALLS(TERCEL_FIND)
#undef TERCEL_FIND
  symbols.Find(&out->error_string, "cudaGetErrorString");
  std::string why;
  if (symbols.missing()) {
    why = std::string("has no ") + symbols.missing();
  } else if (int error = out->runtime_version(&out->version)) {
    why = std::string("does not say its version: ") + out->error_string(error);
  } else if (int error = out->device_count(&out->devices)) {
    why = std::string("finds no GPU: ") + out->error_string(error);
  } else if (out->devices == 0) {
    why = "finds no GPU";
  }
  if (why.empty()) {
    (void)out->driver_version(&out->driver);
    return why;
  }
  dlclose(handle);
  return path + " " + why;
}

}  // namespace

Status OpenCudaRuntime(const std::string& library, const CudaRuntime** out) {
  std::lock_guard<std::mutex> lock(open_mutex);
  if (const CudaRuntime* runtime = TheCudaRuntime()) {
    *out = runtime;
    return {};
  }
  std::vector<std::string> candidates = {library};
  // The newer one may be too new for the driver.
  if (library.empty()) candidates = {"libcudart.so.13", "libcudart.so.12"};
  std::string reasons;
  for (const std::string& path : candidates) {
    CudaRuntime found;
    const std::string why = Try(path, &found);
    if (why.empty()) {
      // It lives as long as the process, as the memory that it pinned.
      const auto* runtime = new CudaRuntime(std::move(found));
      the_runtime.store(runtime, std::memory_order_release);
      *out = runtime;
      return {};
    }
    reasons += (reasons.empty() ? "" : "; ") + why;
  }
  return Status::Model("cannot use the CUDA runtime: " + reasons);
}

}  // namespace tercel
