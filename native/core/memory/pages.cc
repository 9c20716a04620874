#include "memory/pages.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "gpu/cuda_runtime.h"

namespace tercel {

namespace {
// For the contexts of all devices, not only the first one's (cudaHostRegisterPortable).
constexpr unsigned kForAllDevices = 1;
}  // namespace

bool PinPages(void* data, size_t bytes) {
  // ONNX Runtime allocates while it captures a CUDA graph, and so do others.
  const RelaxedCapture relaxed;
  if (TheCudaRuntime()->host_register(data, bytes, kForAllDevices) == 0) return true;
  // Else whoever looks for errors of this thread's next kernels finds this one.
  (void)TheCudaRuntime()->get_last_error();
  return false;
}

void UnpinPages(void* data) {
  const RelaxedCapture relaxed;
  (void)TheCudaRuntime()->host_unregister(data);
}

void* MapPages(size_t bytes, size_t alignment, const PageOptions& options) {
  // Map once with room to align, then give the margins back.
  const size_t reach = bytes + alignment;
  void* raw = mmap(nullptr, reach, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  const uintptr_t start = reinterpret_cast<uintptr_t>(raw);
  const uintptr_t aligned = (start + alignment - 1) & ~(static_cast<uintptr_t>(alignment) - 1);
  if (aligned > start) munmap(raw, aligned - start);
  const uintptr_t end = start + reach;
  if (end > aligned + bytes) munmap(reinterpret_cast<void*>(aligned + bytes), end - aligned - bytes);
  void* data = reinterpret_cast<void*>(aligned);
#ifdef MADV_HUGEPAGE
  if (options.huge) madvise(data, bytes, MADV_HUGEPAGE);
#endif
  if (options.lock && mlock(data, bytes) != 0) {
    munmap(data, bytes);
    return nullptr;
  }
  if (options.pin && !PinPages(data, bytes)) {
    munmap(data, bytes);
    return nullptr;
  }
  return data;
}

void UnmapPages(void* data, size_t bytes, const PageOptions& options) {
  // Nobody copies any more: what a GPU may use is held by a lease.
  if (options.pin) UnpinPages(data);
  munmap(data, bytes);
}

bool HugePagesAvailable() {
  bool available = false;
  if (FILE* file = std::fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r")) {
    char text[64] = {};
    const size_t read = std::fread(text, 1, sizeof text - 1, file);
    std::fclose(file);
    available = read > 0 && std::strstr(text, "[never]") == nullptr;
  }
  return available;
}

}  // namespace tercel
