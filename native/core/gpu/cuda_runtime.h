// The CUDA runtime, opened at run time: nothing of CUDA is needed to build, and nothing changes where
// it is not there.
//
// Signatures: NVIDIA's CUDA Runtime API reference, 12 and 13; these did not change between them.
#pragma once

#include <cstddef>
#include <string>

#include "base/status.h"

namespace tercel {

using CudaStream = void*;
using CudaEvent = void*;

// X(name, function, arguments). Each returns 0 for success.
// clang-format off
#define TERCEL_CUDA_CALLS(X) \
  X(host_register, cudaHostRegister, (void* data, size_t bytes, unsigned flags)) \
  X(host_unregister, cudaHostUnregister, (void* data)) \
  X(get_last_error, cudaGetLastError, ()) /* of this thread, which it forgets */ \
  X(runtime_version, cudaRuntimeGetVersion, (int* version)) \
  X(driver_version, cudaDriverGetVersion, (int* version)) \
  X(device_count, cudaGetDeviceCount, (int* count)) \
  X(set_device, cudaSetDevice, (int device)) /* this thread's */ \
  X(device_attribute, cudaDeviceGetAttribute, (int* value, int attribute, int device)) \
  X(pci_bus_id, cudaDeviceGetPCIBusId, (char* text, int length, int device)) \
  X(memory_info, cudaMemGetInfo, (size_t* free, size_t* total)) /* of this thread's device */ \
  X(malloc, cudaMalloc, (void** data, size_t bytes)) \
  X(free, cudaFree, (void* data)) /* waits for the whole device */ \
  X(memset, cudaMemset, (void* data, int value, size_t bytes)) \
  X(copy, cudaMemcpyAsync, (void* to, const void* from, size_t bytes, int kind, CudaStream stream)) \
  X(stream_create, cudaStreamCreateWithFlags, (CudaStream* stream, unsigned flags)) \
  X(stream_destroy, cudaStreamDestroy, (CudaStream stream)) \
  X(stream_synchronize, cudaStreamSynchronize, (CudaStream stream)) \
  X(stream_wait_event, cudaStreamWaitEvent, (CudaStream stream, CudaEvent event, unsigned flags)) \
  X(event_create, cudaEventCreateWithFlags, (CudaEvent* event, unsigned flags)) \
  X(event_destroy, cudaEventDestroy, (CudaEvent event)) \
  X(event_record, cudaEventRecord, (CudaEvent event, CudaStream stream)) \
  X(event_query, cudaEventQuery, (CudaEvent event)) \
  X(event_synchronize, cudaEventSynchronize, (CudaEvent event)) \
  X(event_elapsed, cudaEventElapsedTime, (float* ms, CudaEvent start, CudaEvent end)) \
  X(exchange_capture_mode, cudaThreadExchangeStreamCaptureMode, (int* mode)) /* this thread's */
// clang-format on

// Enum values of the runtime's.
inline constexpr int kCudaCopyToDevice = 1;
inline constexpr int kCudaCopyToHost = 2;
inline constexpr unsigned kCudaStreamNonBlocking = 1;  // no order with the default stream
inline constexpr unsigned kCudaEventBlockingSync = 1;  // who waits sleeps
inline constexpr int kCudaNotReady = 600;
inline constexpr int kCudaCaptureRelaxed = 2;    // this thread's calls spoil nobody's graph
inline constexpr int kCudaCapabilityMajor = 75;  // attributes of a device
inline constexpr int kCudaCapabilityMinor = 76;

struct CudaRuntime {
  std::string path;  // as it was opened
  int version = 0;   // 1000 * major + 10 * minor
  int driver = 0;    // the newest CUDA that the driver knows, likewise
  int devices = 0;
#define TERCEL_DECLARE(name, function, arguments) int(*name) arguments = nullptr;
  TERCEL_CUDA_CALLS(TERCEL_DECLARE)
#undef TERCEL_DECLARE
  const char* (*error_string)(int error) = nullptr;
};

// Opens it once for the process: `library`, or where that is empty libcudart.so.13 or .12, by the
// loader's search. Model when it cannot be opened, lacks a function, or finds no GPU.
[[nodiscard]] Status OpenCudaRuntime(const std::string& library, const CudaRuntime** out);

// Null before the first success.
const CudaRuntime* TheCudaRuntime();

// While it lives, what this thread asks of the CUDA runtime spoils nobody's graph.
// REQUIRES: OpenCudaRuntime succeeded.
class RelaxedCapture {
 public:
  RelaxedCapture() { (void)TheCudaRuntime()->exchange_capture_mode(&mode_); }
  ~RelaxedCapture() { (void)TheCudaRuntime()->exchange_capture_mode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int mode_ = kCudaCaptureRelaxed;
};

}  // namespace tercel
