// NVML, opened at run time: what the driver says of a GPU that the CUDA runtime does not.
//
// Signatures: NVIDIA's NVML API reference; the calls here are those that it keeps from release to
// release.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace tercel {

struct GpuReading {
  std::string name;    // "NVIDIA H100 80GB HBM3"
  std::string driver;  // "580.82.07"
  uint64_t total_bytes = 0;
  uint64_t used_bytes = 0;  // by everybody
  // Parts of the last sample period; below 0 where the GPU does not say.
  double utilization = -1;         // in which a kernel ran
  double memory_utilization = -1;  // in which memory was read or written
  double watts = -1;
  double celsius = -1;
};

// Reads one GPU; `pci_bus_id` as the CUDA runtime gives it. kModel where NVML cannot be opened (it
// comes with the driver), kRun where it does not know the GPU. Some tens of microseconds. Thread-safe.
Status ReadGpu(const std::string& pci_bus_id, GpuReading* out);

}  // namespace tercel
