// Where slabs come from: anonymous memory of the system, with huge pages, locked, or pinned for GPUs on
// request.
#pragma once

#include <cstddef>

namespace tercel {

struct PageOptions {
  bool huge = true;   // ask for transparent huge pages; ignored where the system has none
  bool lock = false;  // keep resident (mlock)
  bool pin = false;   // and known to the CUDA runtime, so that GPUs copy from and to it by themselves
};

// Maps `bytes` of zeroed memory aligned to `alignment`, a power of two. Null when the system refuses,
// or when `lock` is asked for and the limit on locked memory (ulimit -l) does not allow it, or the CUDA
// runtime does not pin it.
// REQUIRES: bytes is a multiple of the system's pages; to pin, OpenCudaRuntime succeeded.
void* MapPages(size_t bytes, size_t alignment, const PageOptions& options);
void UnmapPages(void* data, size_t bytes, const PageOptions& options);

// The same for memory that is there. False when the CUDA runtime does not pin it.
// REQUIRES: OpenCudaRuntime succeeded.
bool PinPages(void* data, size_t bytes);
void UnpinPages(void* data);

// Whether the system hands out huge pages on request.
bool HugePagesAvailable();

}  // namespace tercel
