#include "ort/graph.h"

#include <memory>
#include <utility>

namespace tercel {

namespace {

Status ReadType(const OrtTypeInfo* info, ValueType* out);

Status ReadTensorType(const OrtTypeInfo* info, ValueType* out) {
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  if (Status s = ToStatus(ort.CastTypeInfoToTensorInfo(info, &tensor), Code::kModel); !s.ok()) {
    return s;
  }
  if (!tensor) return {};
  int type = 0;
  if (Status s = ToStatus(ort.GetTensorElementType(tensor, &type), Code::kModel); !s.ok()) return s;
  out->dtype = static_cast<DType>(type);
  size_t rank = 0;
  if (Status s = ToStatus(ort.GetDimensionsCount(tensor, &rank), Code::kModel); !s.ok()) return s;
  out->dims.resize(rank);
  std::vector<const char*> symbols(rank, nullptr);
  if (Status s = ToStatus(ort.GetDimensions(tensor, out->dims.data(), rank), Code::kModel); !s.ok()) {
    return s;
  }
  if (Status s = ToStatus(ort.GetSymbolicDimensions(tensor, symbols.data(), rank), Code::kModel);
      !s.ok()) {
    return s;
  }
  for (const char* symbol : symbols) out->symbols.emplace_back(symbol ? symbol : "");
  // ONNX Runtime reports a missing shape as rank 0; a declared scalar looks the same, and a tensor of
  // any rank is then let through to the session, which knows better.
  out->has_shape = rank > 0;
  return {};
}

Status ReadElement(OrtTypeInfo* raw, ValueType* out) {
  OrtPtr<OrtTypeInfo> owned(raw);
  out->element = std::make_unique<ValueType>();
  return ReadType(raw, out->element.get());
}

Status ReadType(const OrtTypeInfo* info, ValueType* out) {
  int kind = 0;
  if (Status s = ToStatus(ort.GetOnnxTypeFromTypeInfo(info, &kind), Code::kModel); !s.ok()) return s;
  out->kind = static_cast<OnnxKind>(kind);
  OrtTypeInfo* element = nullptr;
  switch (out->kind) {
    case OnnxKind::kTensor:
      return ReadTensorType(info, out);
    case OnnxKind::kSequence: {
      const OrtSequenceTypeInfo* sequence = nullptr;
      Status s = ToStatus(ort.CastTypeInfoToSequenceTypeInfo(info, &sequence), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetSequenceElementType(sequence, &element), Code::kModel);
      return s.ok() ? ReadElement(element, out) : s;
    }
    case OnnxKind::kOptional: {
      const OrtOptionalTypeInfo* optional = nullptr;
      Status s = ToStatus(ort.CastTypeInfoToOptionalTypeInfo(info, &optional), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetOptionalContainedTypeInfo(optional, &element), Code::kModel);
      return s.ok() ? ReadElement(element, out) : s;
    }
    case OnnxKind::kMap: {
      const OrtMapTypeInfo* map = nullptr;
      int key = 0;
      Status s = ToStatus(ort.CastTypeInfoToMapTypeInfo(info, &map), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetMapKeyType(map, &key), Code::kModel);
      if (s.ok()) s = ToStatus(ort.GetMapValueType(map, &element), Code::kModel);
      out->key = static_cast<DType>(key);
      return s.ok() ? ReadElement(element, out) : s;
    }
    default:
      return {};
  }
}

using CountCall = OrtStatus* (*)(const OrtSession*, size_t*);
using NameCall = OrtStatus* (*)(const OrtSession*, size_t, OrtAllocator*, char**);
using TypeCall = OrtStatus* (*)(const OrtSession*, size_t, OrtTypeInfo**);

Status ReadValues(OrtSession* session, CountCall count_call, NameCall name_call, TypeCall type_call,
                  std::vector<ValueInfo>* out) {
  size_t count = 0;
  if (Status s = ToStatus(count_call(session, &count), Code::kModel); !s.ok()) return s;
  out->resize(count);
  for (size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    if (Status s = ToStatus(name_call(session, i, DefaultOrtAllocator(), &name), Code::kModel);
        !s.ok()) {
      return s;
    }
    (*out)[i].name = TakeOrtString(name);
    OrtTypeInfo* info = nullptr;
    if (Status s = ToStatus(type_call(session, i, &info), Code::kModel); !s.ok()) return s;
    OrtPtr<OrtTypeInfo> owned(info);
    if (Status s = ReadType(info, &(*out)[i].type); !s.ok()) return s;
  }
  return {};
}

}  // namespace

Status ReadGraph(OrtSession* session, Graph* out) {
  Status status = ReadValues(session, ort.SessionGetInputCount, ort.SessionGetInputName,
                             ort.SessionGetInputTypeInfo, &out->inputs);
  if (!status.ok()) return status;
  status = ReadValues(session, ort.SessionGetOutputCount, ort.SessionGetOutputName,
                      ort.SessionGetOutputTypeInfo, &out->outputs);
  if (!status.ok()) return status;

  for (const ValueInfo& output : out->outputs) out->output_plans.emplace_back(output, out->inputs);

  OrtModelMetadata* raw = nullptr;
  status = ToStatus(ort.SessionGetModelMetadata(session, &raw), Code::kModel);
  if (!status.ok()) return status;
  OrtPtr<OrtModelMetadata> metadata(raw);
  OrtAllocator* allocator = DefaultOrtAllocator();
  auto text = [&](OrtStatus* failure, char* value, std::string* into) {
    *into = TakeOrtString(value);
    return ToStatus(failure, Code::kModel);
  };
  char* value = nullptr;
  OrtStatus* call = ort.ModelMetadataGetProducerName(raw, allocator, &value);
  if (Status s = text(call, value, &out->producer); !s.ok()) return s;
  value = nullptr;
  call = ort.ModelMetadataGetGraphName(raw, allocator, &value);
  if (Status s = text(call, value, &out->name); !s.ok()) return s;
  value = nullptr;
  call = ort.ModelMetadataGetDescription(raw, allocator, &value);
  if (Status s = text(call, value, &out->description); !s.ok()) return s;
  status = ToStatus(ort.ModelMetadataGetVersion(raw, &out->version), Code::kModel);
  if (!status.ok()) return status;

  char** keys = nullptr;
  int64_t count = 0;
  status =
      ToStatus(ort.ModelMetadataGetCustomMetadataMapKeys(raw, allocator, &keys, &count), Code::kModel);
  if (!status.ok()) return status;
  for (int64_t i = 0; i < count; ++i) {
    const std::string key = TakeOrtString(keys[i]);
    value = nullptr;
    call = ort.ModelMetadataLookupCustomMetadataMap(raw, allocator, key.c_str(), &value);
    std::string entry;
    if (Status s = text(call, value, &entry); s.ok()) out->custom_metadata.emplace_back(key, entry);
  }
  if (keys) TakeOrtString(reinterpret_cast<char*>(keys));
  return {};
}

}  // namespace tercel
