#include "gpu/device.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"

namespace tercel {

namespace {

// Two models of two slots each keep a GPU busy; more at once only take turns. Which of them is next is
// then a matter of their weights.
constexpr int kRunsAtOnce = 4;
// Four sizes to a doubling, as in the arena: what is kept fits what comes next.
constexpr size_t kLeastPiece = 512;
// More is given back at once: ONNX Runtime's arenas and other processes want it too.
constexpr size_t kMostKeptBytes = size_t{256} << 20;

size_t PieceSize(size_t bytes) {
  if (bytes <= kLeastPiece) return kLeastPiece;
  size_t step = kLeastPiece;
  while (step * 2 < bytes) step *= 2;
  step = std::max<size_t>(256, step / 4);
  return (bytes + step - 1) / step * step;
}

std::mutex devices_mutex;
// Protected by devices_mutex; never destroyed: leases may outlive everything else.
std::vector<Device*>& Devices() {
  static auto* devices = new std::vector<Device*>;
  return *devices;
}

}  // namespace

CaptureGate& CaptureGate::Get() {
  static auto* gate = new CaptureGate;
  return *gate;
}

void CaptureGate::Enter(bool is_long) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return !alone_ && waiting_ == 0; });
  ++inside_;
  if (!is_long) return;
  ++long_inside_;
  changed_.notify_all();
}

void CaptureGate::Leave(bool is_long) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (is_long) --long_inside_;
  if (--inside_ == 0 && waiting_ > 0) changed_.notify_all();
}

bool CaptureGate::TryEnterAlone(int64_t wait_ns) {
  std::unique_lock<std::mutex> lock(mutex_);
  ++waiting_;
  const bool decided = changed_.wait_for(lock, std::chrono::nanoseconds(wait_ns), [this] {
    return long_inside_ > 0 || (!alone_ && inside_ == 0);
  });
  --waiting_;
  const bool entered = decided && long_inside_ == 0;
  if (entered) alone_ = true;
  if (!entered) changed_.notify_all();
  return entered;
}

void CaptureGate::LeaveAlone() {
  std::lock_guard<std::mutex> lock(mutex_);
  alone_ = false;
  changed_.notify_all();
}

Status CudaStatus(const CudaRuntime* cuda, int error, Code code, const char* what) {
  if (error == 0) return {};
  (void)cuda->get_last_error();
  return {code, std::string(what) + ": " + cuda->error_string(error)};
}

DeviceLease::~DeviceLease() { device_->Return(this); }

Device::Device(int id, const CudaRuntime* cuda) : id_(id), cuda_(cuda), budget_(kRunsAtOnce) {}

Status Device::Start() {
  OrtMemoryInfo* memory = nullptr;
  Status status = ToStatus(
      ort.CreateMemoryInfo("Cuda", kOrtDeviceAllocator, id_, kOrtMemDefault, &memory), Code::kModel);
  memory_.reset(memory);
  auto call = [&](int error, const char* what) {
    if (status.ok()) status = CudaStatus(cuda_, error, Code::kModel, what);
  };
  int major = 0, minor = 0;
  char bus[32] = {};
  call(cuda_->set_device(id_), "cannot use the GPU");
  call(cuda_->device_attribute(&major, kCudaCapabilityMajor, id_), "cannot ask the GPU what it is");
  call(cuda_->device_attribute(&minor, kCudaCapabilityMinor, id_), "cannot ask the GPU what it is");
  call(cuda_->pci_bus_id(bus, sizeof bus, id_), "cannot ask the GPU where it is");
  capability_ = std::to_string(major) + "." + std::to_string(minor);
  pci_bus_id_ = bus;
  return status;
}

Status Device::Get(int id, Device** out) {
  std::lock_guard<std::mutex> lock(devices_mutex);
  for (Device* device : Devices()) {
    if (device->id() != id) continue;
    *out = device;
    return {};
  }
  const CudaRuntime* cuda = nullptr;
  if (Status status = OpenCudaRuntime("", &cuda); !status.ok()) return status;
  if (id < 0 || id >= cuda->devices) {
    return Status::Model("there is no GPU " + std::to_string(id) + ": the CUDA runtime finds " +
                         std::to_string(cuda->devices) + ", counted from 0");
  }
  std::unique_ptr<Device> device(new Device(id, cuda));
  if (Status status = device->Start(); !status.ok()) return status;
  *out = device.release();
  Devices().push_back(*out);
  return {};
}

std::vector<Device*> Device::Open() {
  std::lock_guard<std::mutex> lock(devices_mutex);
  return Devices();
}

Status Device::Allocate(size_t bytes, Ref<DeviceLease>* out) {
  const size_t size = PieceSize(bytes);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    auto kept = kept_.find(size);
    if (kept != kept_.end() && !kept->second.empty()) {
      *out = Ref<DeviceLease>(new DeviceLease(this, kept->second.back(), bytes, size));
      kept->second.pop_back();
      leased_bytes_ += size;
      kept_bytes_ -= size;
      leases_.insert((*out)->data());
      return {};
    }
  }
  const NoCapture no_capture;
  void* data = nullptr;
  // The thread may have another GPU, or none yet.
  int error = cuda_->set_device(id_);
  if (error == 0) error = cuda_->malloc(&data, size);
  if (error != 0) {
    (void)cuda_->get_last_error();
    // What is kept in other sizes may be what is missing.
    if (FreeKept() > 0) error = cuda_->malloc(&data, size);
  }
  if (error != 0) {
    Status status = CudaStatus(cuda_, error, Code::kOverload, "no memory on the GPU");
    return {status.code(), status.message() + " (GPU " + std::to_string(id_) + ", " +
                               std::to_string(size) + " bytes)"};
  }
  std::lock_guard<std::mutex> lock(mutex_);
  ++allocations_;
  leases_.insert(static_cast<uint8_t*>(data));
  reserved_bytes_ += size;
  leased_bytes_ += size;
  *out = Ref<DeviceLease>(new DeviceLease(this, static_cast<uint8_t*>(data), bytes, size));
  return {};
}

void Device::Return(DeviceLease* lease) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    leased_bytes_ -= lease->size_;
    leases_.erase(lease->data_);
    if (kept_bytes_ + lease->size_ <= kMostKeptBytes) {
      kept_bytes_ += lease->size_;
      kept_[lease->size_].push_back(lease->data_);
      return;
    }
    reserved_bytes_ -= lease->size_;
  }
  // The thread may be inside the gate already.
  const RelaxedCapture relaxed;
  (void)cuda_->set_device(id_);
  (void)cuda_->free(lease->data_);
}

bool Device::HasLeaseAt(const void* data) {
  std::lock_guard<std::mutex> lock(mutex_);
  return leases_.count(static_cast<const uint8_t*>(data)) > 0;
}

size_t Device::Trim() {
  const NoCapture no_capture;
  return FreeKept();
}

size_t Device::FreeKept() {
  std::map<size_t, std::vector<uint8_t*>> unused;
  size_t bytes = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    unused.swap(kept_);
    for (const auto& [size, pieces] : unused) bytes += size * pieces.size();
    reserved_bytes_ -= bytes;
    kept_bytes_ = 0;
  }
  if (bytes == 0) return 0;
  (void)cuda_->set_device(id_);
  for (const auto& [size, pieces] : unused) {
    for (uint8_t* data : pieces) (void)cuda_->free(data);
  }
  return bytes;
}

Status Device::MemoryInfo(size_t* free, size_t* total) {
  const NoCapture no_capture;
  Status status = CudaStatus(cuda_, cuda_->set_device(id_), Code::kRun, "cannot use the GPU");
  if (!status.ok()) return status;
  return CudaStatus(cuda_, cuda_->memory_info(free, total), Code::kRun,
                    "cannot ask for the GPU's memory");
}

Status Device::Clear(void* data, size_t bytes) {
  const char* const what = "cannot clear memory of the GPU";
  Status status = CudaStatus(cuda_, cuda_->set_device(id_), Code::kRun, "cannot use the GPU");
  const NoCapture no_capture;
  if (status.ok()) status = CudaStatus(cuda_, cuda_->memset(data, 0, bytes), Code::kRun, what);
  // On the default stream, for which no other waits.
  if (status.ok()) status = CudaStatus(cuda_, cuda_->stream_synchronize(nullptr), Code::kRun, what);
  return status;
}

Status Device::Copy(void* to, const void* from, size_t bytes, int kind) {
  Status status = CudaStatus(cuda_, cuda_->set_device(id_), Code::kRun, "cannot use the GPU");
  if (!status.ok()) return status;
  const NoCapture no_capture;
  CudaStream stream = nullptr;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!streams_.empty()) {
      stream = streams_.back();
      streams_.pop_back();
    }
  }
  const char* const what = kind == kCudaCopyToDevice ? "copy to the GPU" : "copy from the GPU";
  if (!stream) {
    status = CudaStatus(cuda_, cuda_->stream_create(&stream, kCudaStreamNonBlocking), Code::kRun, what);
    if (!status.ok()) return status;
  }
  const int64_t start = NowNs();
  status = CudaStatus(cuda_, cuda_->copy(to, from, bytes, kind, stream), Code::kRun, what);
  // Also after an error: nothing may be under way when the memory is let go.
  Status ended = CudaStatus(cuda_, cuda_->stream_synchronize(stream), Code::kRun, what);
  const int64_t ns = NowNs() - start;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    streams_.push_back(stream);
  }
  if (!status.ok()) return status;
  if (kind == kCudaCopyToDevice) CountIn(1, bytes, ns);
  if (kind == kCudaCopyToHost) CountOut(1, bytes, ns);
  return ended;
}

Status Device::CopyIn(void* to, const void* from, size_t bytes) {
  return Copy(to, from, bytes, kCudaCopyToDevice);
}

Status Device::CopyOut(void* to, const void* from, size_t bytes) {
  return Copy(to, from, bytes, kCudaCopyToHost);
}

DeviceStats Device::Stats() {
  DeviceStats stats;
  stats.id = id_;
  stats.runs = runs_.load(std::memory_order_relaxed);
  stats.graph_runs = graph_runs_.load(std::memory_order_relaxed);
  stats.bytes_in = bytes_in_.load(std::memory_order_relaxed);
  stats.bytes_out = bytes_out_.load(std::memory_order_relaxed);
  stats.copies_in = copies_in_.load(std::memory_order_relaxed);
  stats.copies_out = copies_out_.load(std::memory_order_relaxed);
  stats.copy_in_ns = copy_in_ns_.load(std::memory_order_relaxed);
  stats.copy_out_ns = copy_out_ns_.load(std::memory_order_relaxed);
  std::lock_guard<std::mutex> lock(mutex_);
  stats.reserved_bytes = reserved_bytes_;
  stats.leased_bytes = leased_bytes_;
  stats.leases = leases_.size();
  stats.allocations = allocations_;
  return stats;
}

}  // namespace tercel
