// The CUDA runtime, opened at run time: nothing of CUDA is needed to build, and nothing changes where
// it is not there.
//
// Signatures: NVIDIA's CUDA Runtime API reference, 12 and 13; these did not change between them.
#pragma once

#include <cstddef>
#include <string>

#include "status.h"

namespace tercel {

struct CudaRuntime {
  std::string path;  // as it was opened
  int version = 0;   // 1000 * major + 10 * minor
  int devices = 0;
  // Each returns 0 for success.
  int (*host_register)(void* data, size_t bytes, unsigned flags) = nullptr;
  int (*host_unregister)(void* data) = nullptr;
  int (*get_last_error)() = nullptr;  // of this thread, which it forgets
  const char* (*error_string)(int error) = nullptr;
};

// Opens it once for the process: `library`, or where that is empty libcudart.so.13 or .12, by the
// loader's search. Model when it cannot be opened, lacks a function, or finds no GPU.
[[nodiscard]] Status OpenCudaRuntime(const std::string& library, const CudaRuntime** out);

// Null before the first success.
const CudaRuntime* TheCudaRuntime();

}  // namespace tercel
