// JS values <-> tensors.
//
// Shapes cross the boundary in one Float64Array, "meta", which JS writes before a call and native code
// writes before it returns: reading ten numbers there costs less than one property read through
// Node-API. JS (src/runtime/marshal.ts) is the other side of this layout.
//
//   request   [0] inputs  [1] outputs  [2] flags  [3] priority  [4] timeout ms  [5] slot
//     from kMetaBody, per input:   index, dtype, rank, dims...
//                     with kJsonText added to the dtype, then begin and end: its data is a Uint8Array
//                     of a request's body with the numbers as JSON there
//                     per output:  index, given (0 or 1), then if given: dtype, rank, dims...
//     arguments: the data of each input, then of each given output;
//     with kPacked in the flags, one array of them
//   response  [6] microseconds of a run that happened inline; after true, 1 where JS should poll
//     from kMetaBody, per output that was not given: dtype (0 null, -1 a nested value), whether its
//     data is in the scratch, rank, dims...
//     result: an array of the new data of each output, or with one output its data;
//     true when the run was submitted to a lane
//   scratch   from kMetaScratch, 64 bytes for each of the first 16 outputs: where small results travel.
//     An ArrayBuffer costs 300 ns and its share of garbage collection; a typed array of up to 64 bytes
//     that JS copies out of the scratch 50.
#pragma once

#include <napi.h>

#include <vector>

#include "env.h"
#include "ort/tensor.h"
#include "sched/job.h"

namespace tercel::addon {

inline constexpr size_t kMetaScratch = 8;
inline constexpr size_t kScratchOutputs = 16;
inline constexpr size_t kScratchBytes = 64;
inline constexpr size_t kMetaBody = kMetaScratch + kScratchOutputs * kScratchBytes / sizeof(double);
enum MetaField : size_t {
  kMetaInputs = 0,
  kMetaOutputs = 1,
  kMetaFlags = 2,
  kMetaPriority = 3,
  kMetaTimeoutMs = 4,
  kMetaSlot = 5,
  kMetaRunUs = 6,
};
enum RequestFlags : uint32_t {
  kPacked = 1,
  kMayRunInline = 2,
  kConcurrent = 4,
  kShareResults = 8,
  kRawBytes = 16,
  kHold = 32
};
inline constexpr int kJsonText = 256;
inline constexpr int kSequenceValue = -1;
inline constexpr int kNestedValue = -1;

// Reads meta in order; every read past the end gives 0.
class MetaReader {
 public:
  explicit MetaReader(const Meta& meta) : meta_(meta) {}
  double Next() { return at_ < meta_.size ? meta_.data[at_++] : 0; }
  int NextInt() { return static_cast<int>(Next()); }

 private:
  const Meta& meta_;
  size_t at_ = kMetaBody;
};

class MetaWriter {
 public:
  explicit MetaWriter(const Meta& meta) : meta_(meta) {}
  // Where the data of the output at this position may travel; null when there is no room.
  void* Scratch(size_t position, size_t bytes) const {
    if (position >= kScratchOutputs || bytes > kScratchBytes) return nullptr;
    return meta_.data + kMetaScratch + position * (kScratchBytes / sizeof(double));
  }
  void PutShape(DType dtype, bool in_scratch, const int64_t* dims, size_t rank) {
    Put(static_cast<double>(dtype));
    Put(in_scratch);
    Put(static_cast<double>(rank));
    for (size_t i = 0; i < rank; ++i) Put(static_cast<double>(dims[i]));
  }
  void Put(double value) {
    if (at_ < meta_.size) meta_.data[at_++] = value;
  }

 private:
  const Meta& meta_;
  size_t at_ = kMetaBody;
};

// One tensor, string tensor or sequence that JS handed over.
struct Argument {
  uint32_t index = 0;
  int dtype = 0;  // or kSequenceValue
  size_t rank = 0;
  int64_t dims[kMaxRank];
  napi_value js = nullptr;
  // Numbers only.
  void* data = nullptr;  // null while it is text
  size_t bytes = 0;
  // Numbers that are JSON still: a span of a body.
  const char* text = nullptr;
  size_t begin = 0;
  size_t end = 0;

  DType type() const { return static_cast<DType>(dtype); }
  bool aligned() const {
    return reinterpret_cast<uintptr_t>(data) % (DTypeBytes(type()) ? DTypeBytes(type()) : 1) == 0;
  }
  bool is_numbers() const { return dtype > 0 && type() != DType::kString; }
};

// Whether an array of the type may hold a tensor's numbers: float16 travels as its bits.
bool MayHold(napi_typedarray_type type, DType dtype);

// Reads dtype, rank and dims.
Status ReadShape(MetaReader* meta, Argument* out);
// Checks it against the declared type; for numbers finds the memory and checks its kind and length.
// `raw`: numbers of any type may come as a Uint8Array, at any address.
Status ReadTensor(napi_env env, const char* role, const ValueInfo& info, napi_value js, bool raw,
                  Argument* argument);

// Makes the value of strings or of a sequence (its tensors are copied into `runtime`'s arena leases).
Status MakeOwnedValue(napi_env env, Runtime* runtime, const ValueInfo& info, const Argument& argument,
                      std::vector<Ref<Lease>>* leases, OrtValue** out);

// Numbers that a run left somewhere.
struct Numbers {
  DType dtype = DType::kUndefined;
  size_t rank = 0;
  int64_t dims[kMaxRank];
  const void* data = nullptr;
  size_t bytes = 0;
};
// What keeps the memory of a result that JS shares instead of having a copy.
struct Holder {
  Ref<Lease> lease;
  Ref<SharedOutputs> outputs;
};
// Smaller results are copied: a buffer over foreign memory costs 1 us and a finalizer.
inline constexpr size_t kShareFromBytes = 16384;

// Makes the JS data of numbers at `position` of the request, writing their shape to meta; *out stays
// null where they went to the scratch. JS shares large ones when there is a holder.
bool NumbersToJs(napi_env env, Runtime* runtime, const Numbers& numbers, const Holder& holder,
                 MetaWriter* meta, size_t position, napi_value* out);
// Dtype, shape and address of a tensor of numbers.
Status ReadNumbers(const OrtValue* value, Numbers* out);

// Makes the JS data of the output at `position` of the request, writing its shape to meta; *out stays
// null where the data went to the scratch. False with a pending exception, or with *status set.
bool OutputToJs(napi_env env, Runtime* runtime, const ValueType& declared, const OrtValue* value,
                MetaWriter* meta, size_t position, napi_value* out, Status* status);

// An ArrayBuffer for a tensor of numbers, and its typed array.
napi_value MakeTypedArray(napi_env env, DType dtype, size_t elements, void** data);

// Whether other threads can see the memory of the typed array.
bool IsShared(napi_env env, napi_value typed_array);

// Copies a tensor into the given typed array after comparing shape and type.
Status CopyToGiven(napi_env env, Runtime* runtime, const ValueInfo& info, const OrtValue* value,
                   napi_value target);

Status ReadStringArray(napi_env env, napi_value array, std::vector<std::string>* out);
napi_value MakeStringArray(napi_env env, const std::vector<std::string>& strings);

// Node 20 makes no larger buffer over native memory, and does not take back what it refuses.
inline constexpr size_t kMaxBufferBytes = size_t{4} << 30;

// A JS buffer over the lease, which it keeps. Falls back to null where external buffers are refused.
// REQUIRES: bytes <= kMaxBufferBytes.
napi_value LeaseToArrayBuffer(napi_env env, Runtime* runtime, const Ref<Lease>& lease, size_t bytes);

}  // namespace tercel::addon
