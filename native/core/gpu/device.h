// Device: one GPU as Tercel uses it: the memory that it hands out there, copies, and who runs next.
//
// Memory comes from the CUDA runtime in pieces that are kept and handed out again, as cudaMalloc costs
// tens of microseconds and cudaFree waits for everything that runs on the GPU.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "base/compute_budget.h"
#include "base/ref.h"
#include "base/status.h"
#include "gpu/cuda_runtime.h"
#include "ort/ort_library.h"

namespace tercel {

class Device;

// A counted piece of a GPU's memory, aligned to 256 bytes. It goes back to the device with the last
// reference; whoever has work under way on it holds one.
class DeviceLease : public RefCounted<DeviceLease> {
 public:
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device* device() const { return device_; }

 private:
  friend class RefCounted<DeviceLease>;
  friend class Device;
  DeviceLease(Device* device, uint8_t* data, size_t bytes, size_t size)
      : device_(device), data_(data), bytes_(bytes), size_(size) {}
  ~DeviceLease();

  Device* const device_;
  uint8_t* const data_;
  const size_t bytes_;  // asked for
  const size_t size_;   // of the piece
};

struct DeviceStats {
  int id = 0;
  uint64_t reserved_bytes = 0;  // taken from the CUDA runtime
  uint64_t leased_bytes = 0;    // of them handed out
  uint64_t leases = 0;
  uint64_t allocations = 0;  // calls of cudaMalloc
  uint64_t runs = 0;
  uint64_t graph_runs = 0;  // of them replays of a CUDA graph, or runs that captured one
  uint64_t bytes_in = 0;    // copied to the device
  uint64_t bytes_out = 0;   // and back
  uint64_t copies_in = 0;
  uint64_t copies_out = 0;
  int64_t copy_in_ns = 0;  // by the device's clock
  int64_t copy_out_ns = 0;
};

// Lives as long as the process. Thread-safe.
class Device {
 public:
  // The GPU with this number, as the CUDA runtime counts them. kModel where the runtime cannot be
  // opened (as OpenCudaRuntime says) or has no such device. REQUIRES: the ONNX Runtime library is open.
  static Status Get(int id, Device** out);
  // Those that were asked for.
  static std::vector<Device*> Open();

  int id() const { return id_; }
  const CudaRuntime* cuda() const { return cuda_; }
  // "8.0"; and "0000:01:00.0", by which other libraries know it.
  const std::string& capability() const { return capability_; }
  const std::string& pci_bus_id() const { return pci_bus_id_; }
  // Describes its memory to ONNX Runtime.
  const OrtMemoryInfo* memory() const { return memory_.get(); }
  // Runs on it at once, over all models.
  ComputeBudget* budget() { return &budget_; }

  // At least `bytes` (0 counts as 1), filled with anything. kOverload when the device has no more.
  Status Allocate(size_t bytes, Ref<DeviceLease>* out);
  // Whether memory of one of its leases begins here.
  bool HasLeaseAt(const void* data);
  // Gives back what is kept and not handed out; the number of bytes.
  size_t Trim();
  // Of the whole device, whoever uses it.
  Status MemoryInfo(size_t* free, size_t* total);

  // Fills with zeros, and waits for the end.
  Status Clear(void* data, size_t bytes);
  // Copies and waits for the end, on a stream that is the caller's while it lasts.
  Status CopyIn(void* to, const void* from, size_t bytes);
  Status CopyOut(void* to, const void* from, size_t bytes);

  DeviceStats Stats();

  // What a run did.
  void CountRun(bool with_graph) {
    runs_.fetch_add(1, std::memory_order_relaxed);
    if (with_graph) graph_runs_.fetch_add(1, std::memory_order_relaxed);
  }
  void CountIn(size_t copies, size_t bytes, int64_t ns) {
    copies_in_.fetch_add(copies, std::memory_order_relaxed);
    bytes_in_.fetch_add(bytes, std::memory_order_relaxed);
    copy_in_ns_.fetch_add(ns, std::memory_order_relaxed);
  }
  void CountOut(size_t copies, size_t bytes, int64_t ns) {
    copies_out_.fetch_add(copies, std::memory_order_relaxed);
    bytes_out_.fetch_add(bytes, std::memory_order_relaxed);
    copy_out_ns_.fetch_add(ns, std::memory_order_relaxed);
  }

 private:
  friend class DeviceLease;
  Device(int id, const CudaRuntime* cuda);
  Status Start();
  Status Copy(void* to, const void* from, size_t bytes, int kind);
  void Return(DeviceLease* lease);
  size_t FreeKept();  // REQUIRES: inside the gate

  const int id_;
  const CudaRuntime* const cuda_;
  OrtPtr<OrtMemoryInfo> memory_;
  std::string capability_;
  std::string pci_bus_id_;
  ComputeBudget budget_;

  std::mutex mutex_;
  // Protected by mutex_.
  std::map<size_t, std::vector<uint8_t*>> kept_;  // by size
  std::vector<CudaStream> streams_;               // for copies that somebody waits for
  uint64_t reserved_bytes_ = 0;
  uint64_t leased_bytes_ = 0;
  uint64_t kept_bytes_ = 0;
  std::set<const uint8_t*> leases_;
  uint64_t allocations_ = 0;

  std::atomic<uint64_t> runs_{0};
  std::atomic<uint64_t> graph_runs_{0};
  std::atomic<uint64_t> bytes_in_{0};
  std::atomic<uint64_t> bytes_out_{0};
  std::atomic<uint64_t> copies_in_{0};
  std::atomic<uint64_t> copies_out_{0};
  std::atomic<int64_t> copy_in_ns_{0};
  std::atomic<int64_t> copy_out_ns_{0};
};

// ONNX Runtime captures CUDA graphs in the global mode: while it does, memory that any thread of the
// process takes from CUDA spoils the graph. Whoever captures is alone with the GPUs; whoever loads,
// runs or allocates is there with others. Not to be entered twice by one thread.
class CaptureGate {
 public:
  static CaptureGate& Get();

  // Waits for who captures, and for who is about to. `is_long`: it may take minutes.
  void Enter(bool is_long = false);
  void Leave(bool is_long = false);
  // False when others do not leave in time; at once where one is inside for long.
  bool TryEnterAlone(int64_t wait_ns);
  void LeaveAlone();

 private:
  std::mutex mutex_;
  // Protected by mutex_.
  std::condition_variable changed_;
  int inside_ = 0;
  int long_inside_ = 0;  // of them
  int waiting_ = 0;      // to be alone
  bool alone_ = false;
};

// Inside the gate, with others, as long as it lives.
class NoCapture {
 public:
  enum Duration { kShort, kLong };
  explicit NoCapture(Duration duration = kShort) : is_long_(duration == kLong) {
    CaptureGate::Get().Enter(is_long_);
  }
  ~NoCapture() { CaptureGate::Get().Leave(is_long_); }
  NoCapture(const NoCapture&) = delete;
  NoCapture& operator=(const NoCapture&) = delete;

 private:
  const bool is_long_;
};

// What a call of the CUDA runtime returned, with what was tried: "copy to the GPU: out of memory".
Status CudaStatus(const CudaRuntime* cuda, int error, Code code, const char* what);

}  // namespace tercel
