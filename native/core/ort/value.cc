#include "ort/value.h"

#include <cstring>

namespace tercel {

Status MakeTensor(const OrtMemoryInfo* memory, DType dtype, const int64_t* dims, size_t rank,
                  void* data, size_t bytes, OrtValue** out) {
  return ToStatus(
      ort.CreateTensorWithDataAsOrtValue(memory, data, bytes, dims, rank, static_cast<int>(dtype), out),
      Code::kInvalidInput);
}

Status MakeStringTensor(const std::vector<std::string>& strings, const int64_t* dims, size_t rank,
                        OrtValue** out) {
  OrtValue* raw = nullptr;
  Status status = ToStatus(ort.CreateTensorAsOrtValue(DefaultOrtAllocator(), dims, rank,
                                                      static_cast<int>(DType::kString), &raw),
                           Code::kInvalidInput);
  OrtPtr<OrtValue> value(raw);
  for (size_t i = 0; status.ok() && i < strings.size(); ++i) {
    char* buffer = nullptr;
    status = ToStatus(ort.GetResizedStringTensorElementBuffer(raw, i, strings[i].size(), &buffer),
                      Code::kInvalidInput);
    if (status.ok()) std::memcpy(buffer, strings[i].data(), strings[i].size());
  }
  if (status.ok()) *out = value.release();
  return status;
}

Status ReadTensorShape(const OrtValue* value, DType* dtype, int64_t* dims, size_t* rank) {
  int type = 0;
  if (ort.GetTensorElementTypeAndShapeDataReference) {
    const int64_t* data = nullptr;
    Status s =
        ToStatus(ort.GetTensorElementTypeAndShapeDataReference(value, &type, &data, rank), Code::kRun);
    if (!s.ok()) return s;
    if (*rank > kMaxRank) return Status::Run("a tensor has more than 32 dimensions");
    for (size_t i = 0; i < *rank; ++i) dims[i] = data[i];
  } else {
    OrtTensorTypeAndShapeInfo* raw = nullptr;
    if (Status s = ToStatus(ort.GetTensorTypeAndShape(value, &raw), Code::kRun); !s.ok()) return s;
    OrtPtr<OrtTensorTypeAndShapeInfo> info(raw);
    if (Status s = ToStatus(ort.GetTensorElementType(raw, &type), Code::kRun); !s.ok()) return s;
    if (Status s = ToStatus(ort.GetDimensionsCount(raw, rank), Code::kRun); !s.ok()) return s;
    if (*rank > kMaxRank) return Status::Run("a tensor has more than 32 dimensions");
    if (Status s = ToStatus(ort.GetDimensions(raw, dims, *rank), Code::kRun); !s.ok()) return s;
  }
  *dtype = static_cast<DType>(type);
  return {};
}

Status ReadStrings(const OrtValue* value, size_t count, std::vector<std::string>* out) {
  out->clear();
  if (count == 0) return {};
  size_t bytes = 0;
  if (Status s = ToStatus(ort.GetStringTensorDataLength(value, &bytes), Code::kRun); !s.ok()) return s;
  std::string text(bytes, '\0');
  std::vector<size_t> offsets(count);
  Status s = ToStatus(ort.GetStringTensorContent(value, text.data(), bytes, offsets.data(), count),
                      Code::kRun);
  if (!s.ok()) return s;
  for (size_t i = 0; i < count; ++i) {
    const size_t end = i + 1 < count ? offsets[i + 1] : bytes;
    out->push_back(text.substr(offsets[i], end - offsets[i]));
  }
  return {};
}

}  // namespace tercel
