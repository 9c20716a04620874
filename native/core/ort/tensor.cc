#include "ort/tensor.h"

namespace tercel {

namespace {

struct DTypeRow {
  DType dtype;
  const char* name;
  const char* oip;
  size_t bytes;
};

constexpr DTypeRow kDTypes[] = {
    {DType::kFloat32, "float32", "FP32", 4}, {DType::kUint8, "uint8", "UINT8", 1},
    {DType::kInt8, "int8", "INT8", 1},       {DType::kUint16, "uint16", "UINT16", 2},
    {DType::kInt16, "int16", "INT16", 2},    {DType::kInt32, "int32", "INT32", 4},
    {DType::kInt64, "int64", "INT64", 8},    {DType::kString, "string", "BYTES", 0},
    {DType::kBool, "bool", "BOOL", 1},       {DType::kFloat16, "float16", "FP16", 2},
    {DType::kFloat64, "float64", "FP64", 8}, {DType::kUint32, "uint32", "UINT32", 4},
    {DType::kUint64, "uint64", "UINT64", 8}, {DType::kBFloat16, "bfloat16", "BF16", 2},
};

const DTypeRow* FindRow(DType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dtype == dtype) return &row;
  }
  return nullptr;
}

// JavaScript counts exactly up to 2^53.
constexpr uint64_t kMaxCount = uint64_t{1} << 53;

}  // namespace

std::string DTypeName(DType dtype) {
  const DTypeRow* row = FindRow(dtype);
  return row ? row->name : "onnx type " + std::to_string(static_cast<int>(dtype));
}

const char* OipDatatype(DType dtype) {
  const DTypeRow* row = FindRow(dtype);
  return row ? row->oip : "";
}

size_t DTypeBytes(DType dtype) {
  const DTypeRow* row = FindRow(dtype);
  return row ? row->bytes : 0;
}

bool CountElements(const int64_t* dims, size_t rank, size_t* out) {
  uint64_t count = 1;
  bool zero = false;
  for (size_t i = 0; i < rank; ++i) {
    if (dims[i] < 0) return false;
    if (dims[i] == 0) {
      zero = true;
      continue;
    }
    if (static_cast<uint64_t>(dims[i]) > kMaxCount / count) return false;
    count *= static_cast<uint64_t>(dims[i]);
  }
  *out = zero ? 0 : count;
  return true;
}

bool CountBytes(DType dtype, const int64_t* dims, size_t rank, size_t* out) {
  size_t count = 0;
  if (!CountElements(dims, rank, &count)) return false;
  const size_t bytes = DTypeBytes(dtype);
  if (bytes != 0 && count > kMaxCount / bytes) return false;
  *out = count * bytes;
  return true;
}

std::string ShapeText(const int64_t* dims, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; ++i) {
    if (i) text += ',';
    text += std::to_string(dims[i]);
  }
  return text + "]";
}

std::string ValueType::Text() const {
  switch (kind) {
    case OnnxKind::kTensor: {
      std::string text = DTypeName(dtype);
      if (!has_shape) return text;
      text += '[';
      for (size_t i = 0; i < dims.size(); ++i) {
        if (i) text += ',';
        if (dims[i] >= 0) {
          text += std::to_string(dims[i]);
        } else {
          text += symbols[i].empty() ? "?" : symbols[i];
        }
      }
      return text + "]";
    }
    case OnnxKind::kSequence:
      return "sequence(" + (element ? element->Text() : "?") + ")";
    case OnnxKind::kOptional:
      return "optional(" + (element ? element->Text() : "?") + ")";
    case OnnxKind::kMap:
      return "map(" + DTypeName(key) + ", " + (element ? element->Text() : "?") + ")";
    default:
      return "onnx kind " + std::to_string(static_cast<int>(kind));
  }
}

ShapePlan::ShapePlan(const ValueInfo& output, const std::vector<ValueInfo>& inputs) {
  const ValueType& type = output.type;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].name == output.name) input_ = static_cast<int>(i);
  }
  if (input_ >= 0) return;
  if (type.kind != OnnxKind::kTensor || !type.has_shape || type.dims.size() > kMaxRank) return;
  for (size_t i = 0; i < type.dims.size(); ++i) {
    Step step{type.dims[i], 0, 0};
    bool found = step.fixed >= 0;
    for (uint32_t in = 0; !found && !type.symbols[i].empty() && in < inputs.size(); ++in) {
      const ValueType& input = inputs[in].type;
      for (uint32_t axis = 0; !found && axis < input.symbols.size(); ++axis) {
        found = input.symbols[axis] == type.symbols[i];
        if (found) step = {-1, in, axis};
      }
    }
    if (!found) return;
    steps_.push_back(step);
  }
  known_ = true;
}

Status CheckTensor(const char* role, const ValueInfo& info, DType dtype, const int64_t* dims,
                   size_t rank) {
  const ValueType* type = &info.type;
  if (type->kind == OnnxKind::kOptional && type->element) type = type->element.get();
  bool matches = type->kind == OnnxKind::kTensor && type->dtype == dtype;
  if (matches && type->has_shape) {
    matches = type->dims.size() == rank;
    for (size_t i = 0; matches && i < rank; ++i) {
      matches = type->dims[i] < 0 || type->dims[i] == dims[i];
    }
  }
  if (matches) return {};
  return Status::InvalidInput(std::string(role) + " \"" + info.name + "\": expected " +
                              info.type.Text() + ", got " + DTypeName(dtype) + ShapeText(dims, rank));
}

}  // namespace tercel
